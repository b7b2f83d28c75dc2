"""The schema of a version that is yet to come, as far as one that is in use may meet it: everything has more columns than it knows."""

EXPAND_EVERY_TABLE = """
    DO $$
    DECLARE
        t record;
    BEGIN
        FOR t IN SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('orchestrator', 'registration') LOOP
            EXECUTE format('ALTER TABLE %I.%I ADD COLUMN of_the_next_version text', t.schemaname, t.tablename);
        END LOOP;
    END $$
"""
"""What the first step of an upgrade may do (docs/operations.md, Upgrade). Raises an error when it was done already."""

"""The schema of a future version, as a running older version may meet it: every table has additional columns."""

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

-- The record's values in the audit (docs/decisions/0035-the-audit-is-append-only.md). They are null in rows of earlier versions.
ALTER TABLE registration.audit ADD COLUMN activity_type text, ADD COLUMN activity_date date, ADD COLUMN duration_minutes integer,
    ADD COLUMN item_id uuid, ADD COLUMN attempt integer;

-- Rows are added and never changed or removed. The product's roles have no right to do so, and a trigger stops the owner as well.
REVOKE UPDATE, DELETE ON registration.audit FROM bulkreg_worker;
CREATE FUNCTION registration.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on %.% is refused: its rows are never changed or removed', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON registration.audit
    FOR EACH STATEMENT EXECUTE FUNCTION registration.refuse_change();

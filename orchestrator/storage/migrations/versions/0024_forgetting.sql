-- Forgetting a person (docs/decisions/0045-forgetting.md). A row is a request, and the record of who made it. The sweeper works on it, a transaction at a
-- time. `mentor_id` and `name` are what it searches for; they are null once it is done. `place` is where it continues.
CREATE TABLE registration.forgetting (
    forgetting_id   uuid        NOT NULL PRIMARY KEY,
    organization_id text        NOT NULL,
    mentor_id       text,
    name            text,
    pseudonym       text,
    requested_by    text        NOT NULL,
    channel         text        NOT NULL,
    requested_at    timestamptz NOT NULL,
    place           jsonb,
    changed_rows    bigint      NOT NULL DEFAULT 0,
    done_at         timestamptz,
    CONSTRAINT forgetting_is_done CHECK ((done_at IS NULL) = (mentor_id IS NOT NULL) AND (done_at IS NULL OR name IS NULL))
);
CREATE UNIQUE INDEX forgetting_open ON registration.forgetting (organization_id, mentor_id) WHERE done_at IS NULL;

-- Hashes of the ids and names of forgotten people, under the key BULKREG_FORGETTING_KEY, which is not in the database. `is_id`: the hash is of the id as it
-- is written; otherwise of an id or a name in small letters, for the search in texts, and `length` is how many characters to compare.
CREATE TABLE registration.forgotten_word (
    organization_id text        NOT NULL,
    hash            bytea       NOT NULL,
    is_id           boolean     NOT NULL,
    length          integer     NOT NULL,
    pseudonym       text        NOT NULL,
    key_check       bytea       NOT NULL,
    PRIMARY KEY (organization_id, hash, is_id)
);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['forgetting', 'forgotten_word'] LOOP
        EXECUTE format('ALTER TABLE registration.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE registration.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY worker ON registration.%I TO bulkreg_worker USING (true) WITH CHECK (true)', name);
        EXECUTE format('CREATE POLICY owner ON registration.%I TO CURRENT_USER USING (true) WITH CHECK (true)', name);
        EXECUTE format('CREATE POLICY api ON registration.%I TO bulkreg_api USING (organization_id = ANY (orchestrator.visible_organizations()))'
                       ' WITH CHECK (organization_id = ANY (orchestrator.visible_organizations()))', name);
    END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE ON registration.forgetting TO bulkreg_worker;
GRANT SELECT, INSERT ON registration.forgetting TO bulkreg_api;
GRANT SELECT, INSERT, DELETE ON registration.forgotten_word TO bulkreg_worker;

-- The append-only tables stay so, but for the functions below, by which a person is forgotten. They run with their owner's rights, and write nothing but
-- the pseudonym of a forgotten person in place of an id, and a reason in which that was done.
CREATE OR REPLACE FUNCTION registration.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND current_setting('registration.forgets', true) = TG_TABLE_NAME THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% on %.% is refused: its rows are never changed or removed', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE FUNCTION registration.begin_forgetting(given_organization text, given_pseudonym text, table_name text) RETURNS void
    LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM registration.forgotten_word w WHERE (w.organization_id, w.pseudonym) = (given_organization, given_pseudonym)) THEN
        RAISE EXCEPTION 'nobody was forgotten under this pseudonym' USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM set_config('registration.forgets', table_name, true);
END
$$;

CREATE FUNCTION registration.forget_in_audit(organization text, person text, given_pseudonym text, id bigint, new_reason text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
BEGIN
    PERFORM registration.begin_forgetting(organization, given_pseudonym, 'audit');
    UPDATE registration.audit u
    SET registered_by = CASE WHEN u.registered_by = person THEN given_pseudonym ELSE u.registered_by END,
        attributed_to = CASE WHEN u.attributed_to = person THEN given_pseudonym ELSE u.attributed_to END,
        submitted_by = CASE WHEN u.submitted_by = person THEN given_pseudonym ELSE u.submitted_by END,
        reason = new_reason
    WHERE u.audit_id = id AND u.organization_id = organization;
    PERFORM set_config('registration.forgets', '', true);
END
$$;

CREATE FUNCTION registration.forget_in_period_change(organization text, person text, given_pseudonym text, change integer, new_reason text)
    RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
BEGIN
    PERFORM registration.begin_forgetting(organization, given_pseudonym, 'period_change');
    UPDATE registration.period_change p
    SET changed_by = CASE WHEN p.changed_by = person THEN given_pseudonym ELSE p.changed_by END, reason = new_reason
    WHERE p.organization_id = organization AND p.number = change;
    PERFORM set_config('registration.forgets', '', true);
END
$$;

CREATE FUNCTION registration.forget_in_notes_erasure(organization text, person text, given_pseudonym text, batch uuid, place integer, number integer)
    RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
BEGIN
    PERFORM registration.begin_forgetting(organization, given_pseudonym, 'notes_erasure');
    UPDATE registration.notes_erasure e SET erased_by = given_pseudonym
    WHERE (e.batch_id, e.position, e.attempt, e.organization_id, e.erased_by) = (batch, place, number, organization, person);
    PERFORM set_config('registration.forgets', '', true);
END
$$;

REVOKE ALL ON FUNCTION registration.begin_forgetting(text, text, text), registration.forget_in_audit(text, text, text, bigint, text),
    registration.forget_in_period_change(text, text, text, integer, text),
    registration.forget_in_notes_erasure(text, text, text, uuid, integer, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION registration.forget_in_audit(text, text, text, bigint, text),
    registration.forget_in_period_change(text, text, text, integer, text),
    registration.forget_in_notes_erasure(text, text, text, uuid, integer, integer) TO bulkreg_worker;

-- Hashes of every word that a pseudonym has replaced, for a replay (docs/decisions/0045-forgetting.md). `forgotten_word` has those of the people who
-- are forgotten now, and of a name that two of them have only one. These stay when somebody is readmitted. The columns are those of `forgotten_word`.
CREATE TABLE registration.replaced_word (
    organization_id text        NOT NULL,
    hash            bytea       NOT NULL,
    is_id           boolean     NOT NULL,
    length          integer     NOT NULL,
    pseudonym       text        NOT NULL,
    key_check       bytea       NOT NULL,
    PRIMARY KEY (organization_id, hash, is_id, pseudonym)
);
ALTER TABLE registration.replaced_word ENABLE ROW LEVEL SECURITY;
ALTER TABLE registration.replaced_word FORCE ROW LEVEL SECURITY;
CREATE POLICY worker ON registration.replaced_word TO bulkreg_worker USING (true) WITH CHECK (true);
CREATE POLICY owner ON registration.replaced_word TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY api ON registration.replaced_word TO bulkreg_api USING (organization_id = ANY (orchestrator.visible_organizations()))
    WITH CHECK (organization_id = ANY (orchestrator.visible_organizations()));
GRANT SELECT, INSERT ON registration.replaced_word TO bulkreg_worker;

-- A few rows for each forgotten person. What a sweeper of the version before adds later is only in `forgotten_word`; readers take both.
INSERT INTO registration.replaced_word SELECT organization_id, hash, is_id, length, pseudonym, key_check FROM registration.forgotten_word;

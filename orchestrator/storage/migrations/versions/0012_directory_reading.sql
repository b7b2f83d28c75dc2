-- How long an activity of the type usually takes, and the minutes below which a preview warns. Null: unknown, no warning.
ALTER TABLE registration.activity_type ADD COLUMN default_minutes integer, ADD COLUMN minimum_minutes integer;

-- The names of chapters. A chapter exists as soon as a mentor or a scope names it, with or without a row here.
CREATE TABLE registration.chapter (
    organization_id text NOT NULL,
    chapter_id      text NOT NULL,
    name            text NOT NULL,
    PRIMARY KEY (organization_id, chapter_id)
);

ALTER TABLE registration.chapter ENABLE ROW LEVEL SECURITY;
ALTER TABLE registration.chapter FORCE ROW LEVEL SECURITY;
CREATE POLICY worker ON registration.chapter TO bulkreg_worker USING (true) WITH CHECK (true);
CREATE POLICY owner ON registration.chapter TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY api ON registration.chapter TO bulkreg_api USING (organization_id = ANY (orchestrator.visible_organizations()))
    WITH CHECK (organization_id = ANY (orchestrator.visible_organizations()));
GRANT SELECT, INSERT, UPDATE, DELETE ON registration.chapter TO bulkreg_worker;
GRANT SELECT ON registration.chapter TO bulkreg_api;

-- Text as people search for it: in lower case, without accents, and with Norwegian and Sami letters as others type them (bjorn finds Bjørn). Marks
-- are removed before the case is changed, because a server without a locale only changes the case of ASCII letters.
CREATE FUNCTION registration.folded(given text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN lower(replace(replace(translate(regexp_replace(normalize(given, NFD), '[\u0300-\u036f]', '', 'g'),
                                           'ØøĐđŁłŊŋŦŧ', 'OoDdLlNnTt'), 'Æ', 'ae'), 'æ', 'ae'));

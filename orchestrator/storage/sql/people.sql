-- Statements on the words of forgotten people (docs/decisions/0045-forgetting.md). Each table has a few rows for each forgotten person.

-- name: words
-- The words of everybody who is forgotten now. Reads the whole table.
SELECT organization_id, hash, is_id, length, pseudonym, key_check, CAST(NULL AS timestamptz) AS before FROM registration.forgotten_word;

-- name: replaced_words
-- The words that were ever replaced, with each time before which they were, and without a time if the person is still forgotten. Reads the
-- whole tables.
WITH words AS (
    SELECT organization_id, hash, is_id, length, pseudonym, key_check FROM registration.replaced_word
    UNION
    -- A sweeper of the version before stores words only here.
    SELECT organization_id, hash, is_id, length, pseudonym, key_check FROM registration.forgotten_word
)
SELECT w.*, f.done_at AS before FROM words w JOIN registration.forgetting f USING (organization_id, pseudonym) WHERE f.done_at IS NOT NULL
UNION ALL
SELECT w.*, NULL FROM words w
WHERE EXISTS (SELECT FROM registration.forgotten_word i WHERE i.is_id AND (i.organization_id, i.pseudonym) = (w.organization_id, w.pseudonym))
ORDER BY before, pseudonym;

-- name: remember
-- parameters: organization_id text, hashes bytea[], are_ids boolean[], lengths integer[], pseudonym text, key_check bytea
-- Stores the words of a person. Of a name that two people have, `forgotten_word` has one row, and `replaced_word` one for each. By the primary keys.
WITH given AS (
    SELECT CAST(:organization_id AS text) AS organization_id, n.hash, n.is_id, n.length, CAST(:pseudonym AS text) AS pseudonym,
           CAST(:key_check AS bytea) AS key_check
    FROM unnest(CAST(:hashes AS bytea[]), CAST(:are_ids AS boolean[]), CAST(:lengths AS integer[])) AS n (hash, is_id, length)
), replaced AS (
    INSERT INTO registration.replaced_word (organization_id, hash, is_id, length, pseudonym, key_check) SELECT * FROM given ON CONFLICT DO NOTHING
)
INSERT INTO registration.forgotten_word (organization_id, hash, is_id, length, pseudonym, key_check) SELECT * FROM given ON CONFLICT DO NOTHING;

-- name: readmit
-- parameters: organizations text[], hashes bytea[]
-- Removes all words of the people with these ids, so that an import accepts them again. A replay needs the words: `replaced_word` has them
-- already, unless the version before has stored them. By the primary keys, and the whole table for the other words.
WITH readmitted AS (
    DELETE FROM registration.forgotten_word w
    USING unnest(CAST(:organizations AS text[]), CAST(:hashes AS bytea[])) AS n (organization_id, hash)
    JOIN registration.forgotten_word i USING (organization_id, hash)
    WHERE i.is_id AND (w.organization_id, w.pseudonym) = (i.organization_id, i.pseudonym)
    RETURNING w.organization_id, w.hash, w.is_id, w.length, w.pseudonym, w.key_check
)
INSERT INTO registration.replaced_word (organization_id, hash, is_id, length, pseudonym, key_check) SELECT * FROM readmitted ON CONFLICT DO NOTHING;

-- name: import_lock
-- Lets one transaction at a time change the directory or who is forgotten. Two imports would each prune the people that only the other has. An advisory
-- lock until the end of the transaction. It is always the transaction's first lock, so it can't cause a deadlock.
SELECT pg_advisory_xact_lock(0x64697265, 1);

-- Statements on the words of forgotten people (docs/decisions/0045-forgetting.md). The table has a few rows for each forgotten person.

-- name: words
-- Everything that was forgotten. Reads the whole table.
SELECT organization_id, hash, is_id, length, pseudonym, key_check FROM registration.forgotten_word;

-- name: remember
-- parameters: organization_id text, hashes bytea[], are_ids boolean[], lengths integer[], pseudonym text, key_check bytea
-- Stores the words of a person. By the primary key.
INSERT INTO registration.forgotten_word (organization_id, hash, is_id, length, pseudonym, key_check)
SELECT :organization_id, n.hash, n.is_id, n.length, :pseudonym, :key_check
FROM unnest(CAST(:hashes AS bytea[]), CAST(:are_ids AS boolean[]), CAST(:lengths AS integer[])) AS n (hash, is_id, length)
ON CONFLICT DO NOTHING;

-- name: readmit
-- parameters: organizations text[], hashes bytea[]
-- Removes all words of the people with these ids, so that an import accepts them again. By the primary key, and the whole table for the other words.
DELETE FROM registration.forgotten_word w
USING unnest(CAST(:organizations AS text[]), CAST(:hashes AS bytea[])) AS n (organization_id, hash)
JOIN registration.forgotten_word i USING (organization_id, hash)
WHERE i.is_id AND (w.organization_id, w.pseudonym) = (i.organization_id, i.pseudonym);

-- name: import_lock
-- Lets one transaction at a time change the directory or who is forgotten. Two imports would each prune the people that only the other has. An advisory
-- lock until the end of the transaction. It is always the transaction's first lock, so it can't cause a deadlock.
SELECT pg_advisory_xact_lock(0x64697265, 1);

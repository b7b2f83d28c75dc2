-- The statement on the words of a person who is being forgotten. The others are composed in person_rewriting.py.

-- name: folded
-- parameters: words text[]
-- The words as texts are searched for them.
SELECT array_agg(DISTINCT registration.folded(word)) FROM unnest(CAST(:words AS text[])) AS w (word);

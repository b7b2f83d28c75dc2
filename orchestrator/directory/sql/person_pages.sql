-- The statement on the keys of the tables that are searched for a person. The others are composed in person_pages.py.

-- name: key_columns
-- parameters: table_name text
-- The columns of a table's primary key, in order, with their types. From the catalog.
SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_index i
JOIN LATERAL unnest(CAST(i.indkey AS int2[])) WITH ORDINALITY AS k (attnum, place) ON true
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = to_regclass(:table_name) AND i.indisprimary ORDER BY k.place;

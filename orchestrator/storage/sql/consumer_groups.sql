-- The statements on `consumer_group`.

-- name: generation
-- parameters: role text
-- The generation of the role's group, if it was ever renewed. By the primary key.
SELECT generation FROM orchestrator.consumer_group WHERE role = :role;

-- name: note_generation
-- parameters: role text, generation integer
-- Stores the generation. It never decreases, because two operators may renew the group at the same time. By the primary key.
INSERT INTO orchestrator.consumer_group AS g (role, generation, renewed_at) VALUES (:role, :generation, clock_timestamp())
ON CONFLICT (role) DO UPDATE SET generation = excluded.generation, renewed_at = excluded.renewed_at
WHERE g.generation < excluded.generation;

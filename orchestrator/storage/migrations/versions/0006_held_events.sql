-- A row that can't be published now is held: it moves to slot -1 - slot, so that it costs those that read the slot nothing.
ALTER TABLE orchestrator.outbox
    ADD COLUMN held_for text,           -- the place that it waits for (topic, or topic/partition), or 'refused'
    ADD COLUMN held_why text,           -- what Kafka said
    ADD COLUMN held_at  timestamptz;    -- since when
CREATE INDEX outbox_held_for ON orchestrator.outbox (held_for, slot, outbox_id) WHERE held_for IS NOT NULL;
-- What a row must not overtake.
CREATE INDEX outbox_held_stream ON orchestrator.outbox (topic, key, outbox_id) WHERE slot < 0;

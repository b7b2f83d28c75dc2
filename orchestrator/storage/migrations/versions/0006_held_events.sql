-- A row that can't be published now is held. It moves to slot -1 - slot, so that it costs the readers of the slot nothing.
ALTER TABLE orchestrator.outbox
    ADD COLUMN held_for text,           -- the place that it waits for (topic, or topic/partition), or 'refused'
    ADD COLUMN held_why text,           -- Kafka's error
    ADD COLUMN held_at  timestamptz;    -- since when
CREATE INDEX outbox_held_for ON orchestrator.outbox (held_for, slot, outbox_id) WHERE held_for IS NOT NULL;
-- Finds the held rows of a stream, which no row may overtake.
CREATE INDEX outbox_held_stream ON orchestrator.outbox (topic, key, outbox_id) WHERE slot < 0;

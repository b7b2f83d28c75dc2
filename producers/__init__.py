"""Everything that writes to Kafka: topics, the producer, the outbox relay."""

"""To Kafka: topics, the producer, the outbox relay."""

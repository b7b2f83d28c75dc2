"""From Kafka: the loop, and one handler per role."""

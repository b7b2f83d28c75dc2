"""Everything that consumes from Kafka: the loop, and one handler for each role."""

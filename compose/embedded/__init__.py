"""Real Kafka and PostgreSQL from packages, and the supervisor that runs the whole product on one machine."""

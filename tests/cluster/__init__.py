"""The product on three brokers and a PostgreSQL with a synchronous standby."""

"""The registration service: the port, and the in-process one on the same PostgreSQL."""

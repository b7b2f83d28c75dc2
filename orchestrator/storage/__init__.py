"""Persistence: connections, one module of statements for each family of tables, and migrations."""

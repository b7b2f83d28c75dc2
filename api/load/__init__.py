"""Serving many callers with few connections: admission, shared commits, shared waiting, and the database pool."""

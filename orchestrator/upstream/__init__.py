"""Batches that arrive as events of other services: they are read, collected part by part, validated, and created or rejected."""

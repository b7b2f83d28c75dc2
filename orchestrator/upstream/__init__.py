"""Batches that come as events of other services: read, collected part by part, checked and created, or rejected."""

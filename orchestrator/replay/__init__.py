"""Rebuilds batches from the topics: reads them into shadow tables, and merges a rebuilt batch into the live tables."""

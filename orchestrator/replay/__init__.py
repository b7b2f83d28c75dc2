"""Rebuilding batches from the topics: shadow tables to read them into, and the merge of a rebuilt batch into the live tables."""

"""The HTTP API for submitting batches and following them."""

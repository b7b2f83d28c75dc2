"""The domain: what a batch is, and what can be done with it. It reaches the database only through the port in `repository.py`."""

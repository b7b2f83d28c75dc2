"""The domain: what a batch is, and the operations on it. It reaches the database only through the port in `repository.py`."""

"""Measures the product beside what its database can do at most, in the same run on the same servers (docs/performance.md)."""

"""Measures the product and the most that its database can do, in the same run on the same servers (docs/performance.md)."""

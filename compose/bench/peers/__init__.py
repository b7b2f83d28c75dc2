"""Other libraries that do an item's work durably, on the same PostgreSQL, for comparison (docs/performance.md).

Their packages are in an environment of their own (`make peers`), because their dependencies are not the product's. So the modules that run
there, `work` and the three `*_peer`, import nothing of the product.
"""

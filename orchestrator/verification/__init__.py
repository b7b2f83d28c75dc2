"""Checks the invariants (specification, 8) on a live database."""

"""Checks the invariants (docs/invariants.md) on a live database."""

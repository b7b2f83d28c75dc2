"""Puts the parts together to run."""

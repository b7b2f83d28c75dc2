"""Calls the API: finds it, authenticates, and repeats what may be repeated."""

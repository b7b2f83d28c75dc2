"""Talking to the API: where it is, who asks, and what is repeated."""

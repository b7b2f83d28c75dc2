"""Decides items: the rules, the port to a registration service with its two adapters, the preview, and the events about items."""

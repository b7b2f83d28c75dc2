"""Reads topics outside any consumer group: for a replay, and for the dead letters."""

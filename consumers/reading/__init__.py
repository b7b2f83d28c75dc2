"""Reads topics outside any consumer group: for a replay, the dead letters, published checkpoints, and what a restored database has forgotten."""

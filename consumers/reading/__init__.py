"""Reading topics outside of any consumer group: for a replay, and for the dead letters."""

"""What runs by the clock and consumes nothing: the sweeper, which drives on what got lost, and the purger."""

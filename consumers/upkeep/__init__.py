"""Work that runs by the clock and consumes no topic: the sweeper, which drives stuck items forward, and the purger."""

"""Upkeep, which consumes no topic: the sweeper, which drives stuck items forward, the purger, and the consumer groups for an operator."""

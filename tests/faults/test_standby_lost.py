"""A synchronous standby that is gone: commits wait for ever, and everybody is told within the deadline."""

"""The numbers of TCP ports."""

LAST_PORT = 65_535
"""The greatest. 0 stands for any that is free."""

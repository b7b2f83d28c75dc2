"""The numbers of TCP ports."""

LAST_PORT = 65_535
"""The highest port. Port 0 stands for any free one."""

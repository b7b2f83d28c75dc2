"""Servers that a test ends and starts again."""

from compose.embedded.infrastructure import Infrastructure


def kill(servers: Infrastructure, name: str) -> None:
    """Ends one server with SIGKILL, as a crash would."""
    servers.children[name].kill()


def restart(servers: Infrastructure, name: str) -> None:
    """Starts a server again that has ended, at the same address, and waits until it accepts clients."""
    servers.children[name].start()
    servers.wait_ready(name)

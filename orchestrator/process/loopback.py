"""Which addresses are this machine itself. Nobody on the network can read that traffic, and no proxy can forward it."""

import ipaddress


def is_this_machine(host: str) -> bool:
    """Whether the host of a URL is loopback. The address of a network interface of this machine is not."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    # A client that connects to the unspecified address (0.0.0.0) reaches this machine.
    return (mapped or address).is_loopback or address.is_unspecified

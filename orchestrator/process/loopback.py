"""Which addresses are this machine itself: nothing on the way there can read along, and no proxy leads there."""

import ipaddress


def is_this_machine(host: str) -> bool:
    """Whether the host of a URL is loopback. An address of one of this machine's network cards is not."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    # A client that asks for the unspecified address (0.0.0.0) gets this machine.
    return (mapped or address).is_loopback or address.is_unspecified

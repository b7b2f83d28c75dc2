"""Which addresses events may be sent to: a receiver is somewhere on the internet, unless a setting allows its network.

An organization's administrator chooses a webhook's URL, so without this check he could have the notifier reach servers of the deployment.
"""

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from orchestrator.process.loopback import is_this_machine

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Addresses of IPv6 that contain one of IPv4, which a gateway or the kernel connects to: mapped, translated (NAT64), 6to4, Teredo.
_CONTAIN_IPV4 = [
    ipaddress.ip_network(each) for each in ("::ffff:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
]


class ReceiverAddresses:
    """Decides about addresses. `allowed` are networks that are allowed although they are not public."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = tuple(allowed)

    def allows(self, text: str) -> bool:
        """Whether a connection to this numeric address may be made."""
        address = ipaddress.ip_address(text)
        return self.is_allowed_network(text) or (
            address.is_global
            and not address.is_multicast
            and not (isinstance(address, ipaddress.IPv6Address) and address.is_site_local)
            and not any(address in network for network in _CONTAIN_IPV4 if network.version == address.version)
        )

    def is_allowed_network(self, text: str) -> bool:
        """Whether the setting allows the address. Only there events may travel without TLS."""
        address = ipaddress.ip_address(text)
        return any(address in network for network in self._allowed if network.version == address.version)

    def mistake_in(self, url: str) -> str | None:
        """What is wrong with a webhook's URL, or None. A name is not resolved: its addresses are checked at each connection."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            return "is not a URL"
        schemes = ("https", "http") if self._allowed else ("https",)
        if parts.scheme not in schemes or not host:
            return f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)} and name a host"
        if parts.username is not None or parts.password is not None or parts.fragment:
            return "must have no user name, no password and no fragment"
        try:
            is_allowed = self.allows(host)
        except ValueError:
            is_allowed = bool(self._allowed) or not is_this_machine(host)
        return None if is_allowed else "names an address that is not on the internet; the deployment allows only those"

"""The URL of a database: one host, or several of which one accepts changes."""

import re
from collections.abc import Sequence

from sqlalchemy import URL, make_url

from orchestrator.process.ports import LAST_PORT

# The hosts of a URL in the form of libpq and psql: postgresql://user:password@first:5432,second:5432/database
_SEVERAL = re.compile(r"^(?P<start>[^:/?#]+://(?:[^@/?#]*@)?)(?P<hosts>[^@/?#]*,[^@/?#]*)(?P<rest>(?:[/?#].*)?)$", re.DOTALL)

_BRACKETS = re.compile(r"^\[(?P<host>[^\]]*)\](?::(?P<port>.*))?$")


def database_url(text: str) -> URL:
    """Reads a URL. Several hosts may be given as libpq takes them, or as SQLAlchemy does (`?host=first:5432&host=second:5432`).

    Raises ArgumentError or ValueError for any other text, and if one of several hosts is an IPv6 address without brackets.
    """
    several = _SEVERAL.match(text)
    if several is None:
        return make_url(text).set(drivername="postgresql+psycopg2")
    url = make_url(several["start"] + several["rest"]).set(drivername="postgresql+psycopg2")
    addresses = several["hosts"].split(",")
    if any(address.count(":") > 1 and not address.startswith("[") for address in addresses):
        raise ValueError("an IPv6 address is not in brackets")
    hosts, ports = zip(*map(_host_and_port, addresses), strict=True)
    return url.update_query_dict({"host": ",".join(hosts)} | ({"port": ",".join(ports)} if any(ports) else {}))


def check_addresses(url: URL) -> None:
    """Raises ValueError or ArgumentError if the driver could not read the hosts and the ports of the URL, or no server can be there."""
    _, arguments = url.get_dialect()().create_connect_args(url)
    given = [_host_and_port(address)[1] for address in _listed(url, "host")] + list(_listed(url, "port"))
    for port in given if url.port is None else [*given, str(url.port)]:
        if port and not 0 < int(port) <= LAST_PORT:
            raise ValueError("a port is out of range")
    # The name of an abstract socket begins with @, and a socket's folder can have one. In any other host an @ means that the password has an @
    # which is not encoded.
    if any("@" in host[1:] and not host.startswith("/") for host in str(arguments.get("host", "")).split(",")):
        raise ValueError("a host contains an @")


def shown_url(url: URL) -> str:
    """Returns the URL for a message: without passwords, also those among the parameters."""
    secret = [name for name in url.query if "password" in name or "secret" in name]
    return url.difference_update_query(secret).render_as_string(hide_password=True)


def hosts_of(url: URL) -> Sequence[str]:
    """Returns the hosts of a URL, without their ports. A URL without a host names a socket on this machine."""
    if url.host:
        return [url.host]
    return [_host_and_port(host)[0] for host in _listed(url, "host") if host]


def _listed(url: URL, parameter: str) -> Sequence[str]:
    given = url.query.get(parameter, ())
    return given.split(",") if isinstance(given, str) else given


def _host_and_port(address: str) -> tuple[str, str]:
    """The parts of `host:port`; the port is empty if there is none. An IPv6 address with a port is in brackets, which are left out."""
    bracketed = _BRACKETS.match(address)
    if bracketed is not None:
        return bracketed["host"], bracketed["port"] or ""
    if address.count(":") > 1:
        return address, ""
    host, _, port = address.partition(":")
    return host, port

"""Which of our HTTP requests go through a proxy, and the errors for an address, a proxy or a certificate setting that can't be used."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from orchestrator.process.loopback import is_this_machine
from orchestrator.process.refused_start import RefusedStartError

# The variables that HTTP clients read, in upper and in lower case.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_VARIABLES = (*_PROXIES, "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")

# User name and password of a URL. The last @ ends them, because people forget to encode the characters of a password.
_CREDENTIALS = re.compile(r"^(\w[\w+.-]*://)?.*@", re.DOTALL)


class UnusableWayError(RefusedStartError):
    """The environment's proxies or certificates can't be used for a request. The message names the variables."""


def check_address(url: str) -> None:
    """Raises ValueError if no client can call this URL. Clients notice it only when they connect, each with another error.

    The error quotes nothing of the URL, which may contain a password.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # its message quotes what is taken for the port, which may be a piece of a password
        raise ValueError(
            "its host or its port is not valid; in a user name or a password, each character that is no letter and no digit must be"
            " percent-encoded"
        ) from None
    if port == 0:
        raise ValueError("its port is 0")
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError("its host is no name: a part of it is empty or has more than 63 characters") from None


def without_credentials(url: str) -> str:
    """Returns the URL for a message: without its user name and its password."""
    return _CREDENTIALS.sub(r"\1***@", url, count=1)


def heeds_environment(url: str) -> bool:
    """Whether a client for this URL uses the environment's proxies and certificates. A client for this machine itself never does."""
    return not is_this_machine(urlsplit(url).hostname or "")


@contextmanager
def usable_way(url: str) -> Iterator[None]:
    """Checks the proxy for this URL, and turns any error of a client's constructor in the block into UnusableWayError."""
    try:
        if heeds_environment(url):
            _check_proxy(_proxy_for(url))
        yield
    except Exception as error:  # the constructor raises ImportError, ValueError, OSError and its own, each for another variable
        names = [name for known in _VARIABLES for name in (known, known.lower()) if os.environ.get(name)]
        raise UnusableWayError(
            f"{urlsplit(url).hostname} can't be reached with the values of {' and '.join(names) or 'the environment'}: a proxy must be"
            " http://host:port or https://host:port, NO_PROXY a list of names separated by commas, SSL_CERT_FILE a file of certificates;"
            f" correct or unset them ({type(error).__name__})"
        ) from None  # the error may quote a password of the proxy


def _proxy_for(url: str) -> str:
    """Returns the proxy that the environment names for this URL. Empty: none."""
    parts, proxies = urlsplit(url), getproxies()
    exempt = [name.strip() for name in proxies.get("no", "").split(",")]
    host = parts.hostname or ""
    if "*" in exempt or proxy_bypass(host if parts.port is None else f"{host}:{parts.port}"):
        return ""
    return proxies.get(parts.scheme) or proxies.get("all", "")


def _check_proxy(proxy: str) -> None:
    """Raises ValueError for a proxy that no client can call. `host:port` means http. User name and password may be any text."""
    address = proxy.strip().partition("://")[2] or proxy.strip()
    place = re.split("[/?#]", address, maxsplit=1)[0].rpartition("@")[2]
    check_address(f"http://{place}")

"""Which of our HTTP requests go through a proxy, and the errors for an address, a proxy or a certificate setting that can't be used."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from orchestrator.process.loopback import is_this_machine
from orchestrator.process.refused_start import RefusedStartError

# The variables that HTTP clients read, in upper and in lower case.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_VARIABLES = (*_PROXIES, "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


class UnusableWayError(RefusedStartError):
    """The environment's proxies or certificates can't be used for a request. The message names the variables."""


def check_address(url: str) -> None:
    """Raises ValueError if no client can call this URL. Clients notice it only when they connect, each with another error."""
    parts = urlsplit(url)
    if parts.port == 0:  # any other port out of range raises an error here
        raise ValueError("its port is 0")
    try:
        (parts.hostname or "").encode("idna")
    except UnicodeError as error:
        raise ValueError("its host is no name: a part of it is empty or has more than 63 characters") from error


def heeds_environment(url: str) -> bool:
    """Whether a client for this URL uses the environment's proxies and certificates. A client for this machine itself never does."""
    return not is_this_machine(urlsplit(url).hostname or "")


@contextmanager
def usable_way(url: str) -> Iterator[None]:
    """Checks the environment's proxies, and turns any error of a client's constructor in the block into UnusableWayError."""
    try:
        if heeds_environment(url):
            for name in _PROXIES:
                _check_proxy(os.environ.get(name, ""))
                _check_proxy(os.environ.get(name.lower(), ""))
        yield
    except Exception as error:  # the constructor raises ImportError, ValueError, OSError and its own, each for another variable
        names = [name for known in _VARIABLES for name in (known, known.lower()) if os.environ.get(name)]
        raise UnusableWayError(
            f"{urlsplit(url).hostname} can't be reached with the values of {' and '.join(names) or 'the environment'}: a proxy must be"
            " http://host:port or https://host:port, NO_PROXY a list of names separated by commas, SSL_CERT_FILE a file of certificates;"
            " correct or unset them"
        ) from error


def _check_proxy(proxy: str) -> None:
    """Raises ValueError for a proxy that no client can call. `host:port` means http."""
    check_address(proxy if "://" in proxy else f"http://{proxy}")

"""Which requests of ours go through a proxy, and what is said where the environment names one that can't be used."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from orchestrator.process.loopback import is_this_machine
from orchestrator.process.settings import RefusedStartError

# What HTTP clients read, in capitals and in small letters.
_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


class UnusableWayError(RefusedStartError):
    """No request can be sent as the environment says. The message names its variables."""


def heeds_environment(url: str) -> bool:
    """Whether a client for this URL goes by the environment's proxies and certificates: never to this machine itself."""
    return not is_this_machine(urlsplit(url).hostname or "")


@contextmanager
def usable_way(url: str) -> Iterator[None]:
    """Turns what a client's constructor raises in the block into UnusableWayError."""
    try:
        yield
    except Exception as error:  # it raises ImportError, ValueError, OSError and its own, each for another variable
        names = [name for known in _VARIABLES for name in (known, known.lower()) if os.environ.get(name)]
        raise UnusableWayError(
            f"{urlsplit(url).hostname} can't be reached as {' and '.join(names) or 'the environment'} say: a proxy is http://host:port or"
            " https://host:port, NO_PROXY is a list of names with commas, SSL_CERT_FILE is a file of certificates; correct or unset them"
        ) from error

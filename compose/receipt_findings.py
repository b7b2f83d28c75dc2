"""Checks the logs of receipts: whether they agree with what was published, whether they keep up, and whether anything is signed."""

from collections.abc import Iterator

from sqlalchemy import Connection

from compose.findings import Finding, State
from orchestrator.storage.receipt_appending import behind_s
from orchestrator.storage.receipt_checkpoints import PublishedState, known_keys, read_receipt_figures, unsettled_checkpoints

_SUBJECT = "receipts"
# Longer than a notary needs after a start.
_BEHIND_S = 60.0


def receipt_findings(connection: Connection) -> Iterator[Finding]:
    """Yields the present findings about the logs. Needs the worker's or the owner's rights."""
    wrong = [*_halted(connection), *_late(connection)]
    yield from wrong
    if not wrong:
        yield Finding(_SUBJECT, State.OK, f"{read_receipt_figures(connection).leaves:,} records are in the logs")


def _halted(connection: Connection) -> Iterator[Finding]:
    for published, state in unsettled_checkpoints(connection):
        log = f"log {published.log} of {published.organization_id!a}"
        restart = f"bulkreg receipts restart-log --org {published.organization_id} --reason …"
        if state is PublishedState.AHEAD:
            detail = f"{log} has fewer records than its published checkpoint ({published.size:,}): the database was restored"
            fix = f"recover the database further, if that is possible; otherwise run: {restart}"
        else:
            detail = f"{log} differs from its published checkpoint of {published.size:,} records, and is not signed"
            fix = f"run: {restart}"
        yield Finding(_SUBJECT, State.UNSAFE, detail, fix)


def _late(connection: Connection) -> Iterator[Finding]:
    late_s = behind_s(connection)
    if late_s > _BEHIND_S:
        detail = f"a record has waited for its log for {late_s:.0f} s"
        yield Finding(_SUBJECT, State.ADVICE, detail, "start a notary (bulkreg run notary); its log says what keeps it")
    elif read_receipt_figures(connection).leaves and not known_keys(connection):
        detail = "nothing is signed, so there are no receipts"
        yield Finding(_SUBJECT, State.ADVICE, detail, "run: bulkreg keys create, and give the notary the key")

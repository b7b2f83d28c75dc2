"""The endpoints that prove records: a batch's receipt, and the checkpoints, proofs and keys of the log (docs/receipts.md)."""

from typing import Any

from api.endpoints.calls import Call, Reply
from api.http.problems import ProblemError, retry_after
from orchestrator.batches.access import visible
from orchestrator.batches.model import BatchView
from orchestrator.batches.repository import ActivityRepository
from orchestrator.batches.states import TERMINAL_BATCH_STATUSES
from orchestrator.receipts.encoding import encoded
from orchestrator.storage.receipt_reading import StoredCheckpoint
from orchestrator.storage.receipts import Consistency, ReceiptReader
from schemas.api.base import Request
from schemas.api.reading import RefusedRequestError
from schemas.api.receipts import ConsistencyQuery
from schemas.mistakes import Mistake

# The notary takes about a second.
_RETRY_AFTER_S = 2
_NO_STORE = {"Cache-Control": "no-store"}


def get_receipt(call: Call) -> Reply:
    """`GET /{batch_id}/receipt`: the evidence that the batch's records were registered, as a file."""
    actor, batch_id = call.actor(), call.batch_id()
    call.read_query(Request)  # it has none

    def work(repository: ActivityRepository, reader: ReceiptReader) -> bytes:
        batch = visible(repository, actor, batch_id)
        _refuse_without_records(call, batch)
        found = reader.receipt(batch.organization_id, batch_id, registered=batch.counts.completed, revoked=batch.revoked)
        if found is None:
            raise _not_ready(reader, "No checkpoint covers the batch's records yet.")
        return found

    receipt = call.service.database.read_receipts(actor.organization_id, work)
    name = f'attachment; filename="receipt-{batch_id}.json"'
    return Reply(200, receipt, {**_NO_STORE, "Content-Disposition": name})


def get_checkpoint(call: Call) -> Reply:
    """`GET /receipts/checkpoint`: the size and the root of the organization's log, signed."""
    organization_id = call.actor().organization_id
    checkpoint = call.service.database.read_receipts(organization_id, lambda _, reader: _signed(reader, organization_id))
    return Reply(200, {"checkpoint": checkpoint.note}, _NO_STORE)


def get_consistency(call: Call) -> Reply:
    """`GET /receipts/consistency`: a proof that the log of one size is the beginning of the log of a later size."""
    organization_id, query = call.actor().organization_id, call.read_query(ConsistencyQuery)

    def work(_: ActivityRepository, reader: ReceiptReader) -> tuple[int, Consistency]:
        checkpoint = _signed(reader, organization_id)
        second = checkpoint.size if query.size_to is None else query.size_to
        if second > checkpoint.size:
            raise RefusedRequestError([Mistake("/query/to", "too_large", f"the newest checkpoint has {checkpoint.size} leaves")])
        if query.size_from > second:
            raise RefusedRequestError([Mistake("/query/from", "too_large", "must not be larger than the later size")])
        return second, reader.consistency(organization_id, checkpoint, query.size_from, second)

    second, found = call.service.database.read_receipts(organization_id, work)
    body = {
        "origin": found.origin,
        "from": query.size_from,
        "to": second,
        "from_root": encoded(found.first_root),
        "to_root": encoded(found.second_root),
        "proof": [encoded(each) for each in found.proof],
    }
    return Reply(200, body, _NO_STORE)


def get_keys(call: Call) -> Reply:
    """`GET /receipts/keys`: the public keys that sign checkpoints, or did."""
    organization_id = call.actor().organization_id
    found = call.service.database.read_receipts(organization_id, lambda _, reader: reader.keys(organization_id))
    body: dict[str, Any] = {"keys": [{"key": key, "current": current} for key, current in found]}
    return Reply(200, body, _NO_STORE)


def _refuse_without_records(call: Call, batch: BatchView) -> None:
    """Raises ProblemError if the batch has no receipt, now or ever."""
    if call.service.settings.registration_url is not None:
        raise ProblemError(
            "receipts_unavailable",
            "An external registration service keeps the activities, so there are no receipts of them here.",
        )
    if batch.status not in TERMINAL_BATCH_STATUSES:
        raise ProblemError("batch_running", "A receipt is made when the batch has finished.")
    if not batch.counts.completed:
        raise ProblemError("nothing_registered", "No item of the batch was registered, so there is nothing to prove.")


def _signed(reader: ReceiptReader, organization_id: str) -> StoredCheckpoint:
    checkpoint = reader.checkpoint(organization_id)
    if checkpoint is None:
        raise _not_ready(reader, "No checkpoint of the organization's log is signed yet.")
    return checkpoint


def _not_ready(reader: ReceiptReader, detail: str) -> ProblemError:
    if not reader.has_keys():
        return ProblemError(
            "receipts_unsigned", "No receipts are signed here: the notary never had a key (BULKREG_RECEIPTS_SIGNING_KEY)."
        )
    more = "The notary signs one within seconds. Repeat the request after Retry-After."
    return ProblemError("receipt_not_ready", f"{detail} {more}", headers=retry_after(_RETRY_AFTER_S))

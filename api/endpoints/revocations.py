"""The endpoints that take back what was registered (docs/http.md)."""

from datetime import timedelta

from api.endpoints import presentation
from api.endpoints.calls import Call, Reply, key_of_our_own, replayed, seen_edits
from orchestrator.batches import revoke
from orchestrator.batches.model import RevocationRequest, Revoked, RevokedActivity
from orchestrator.batches.records import ActivityRecords
from orchestrator.batches.repository import ActivityRepository
from orchestrator.batches.revoke import RevocationPolicy
from schemas.api.reading import read
from schemas.api.revocations import ActivityRevocation, read_revocation


def revoke_batch(call: Call) -> Reply:
    """`POST /{batch_id}/revoke`: 200 with how many activities were revoked, and what is kept."""
    batch_id, actor, policy = call.batch_id(), call.actor(), _policy(call)
    body = read_revocation(call.json(), max_items=call.service.settings.max_items)
    request = RevocationRequest(body.reason, body.item_ids)
    if body.dry_run:
        foreseen = call.service.database.read_records(
            actor.organization_id,
            lambda repository, records: revoke.foresee_revocation(repository, records, actor, batch_id, request, policy),
        )
        return Reply(200, presentation.revoked(foreseen))
    idempotency = call.idempotency("revoke", batch_id, request.reason, request.item_ids) or key_of_our_own()

    def work(repository: ActivityRepository, records: ActivityRecords) -> Revoked:
        return revoke.revoke_batch(
            repository, records, actor, batch_id, request, policy, edit_versions=seen_edits(call), idempotency=idempotency
        )

    result = call.service.database.change_records(actor.organization_id, work)
    call.service.wake_relays()
    return Reply(200, presentation.revoked(result), replayed(result.replayed))


def revoke_activity(call: Call) -> Reply:
    """`POST /activities/{activity_id}/revoke`: 200 with the activity, which is revoked now."""
    activity_id, actor, policy = call.activity_id(), call.actor(), _policy(call)
    reason = read(ActivityRevocation, call.json()).reason
    idempotency = call.idempotency("revoke activity", activity_id, reason) or key_of_our_own()

    def work(repository: ActivityRepository, records: ActivityRecords) -> RevokedActivity:
        return revoke.revoke_activity(repository, records, actor, activity_id, reason, policy, idempotency=idempotency)

    result = call.service.database.change_records(actor.organization_id, work)
    call.service.wake_relays()
    return Reply(200, presentation.revoked_activity(result), replayed(result.replayed))


def _policy(call: Call) -> RevocationPolicy:
    return RevocationPolicy(timedelta(days=call.service.settings.revocation_window_days))

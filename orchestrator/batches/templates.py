"""The operations on templates: groups that a coordinator registers again and again.

Each runs in the caller's transaction, which may be run again after its commit's acknowledgement was lost. A key of the call's own shows that
it was executed before. Coordinators see their own templates, all others those of the organization. Auditors change none.
"""

from collections.abc import Set
from dataclasses import dataclass, replace
from uuid import UUID

from orchestrator.batches.access import may_change
from orchestrator.batches.errors import ConflictError, KeyReusedError, NotFoundError, PreconditionError
from orchestrator.batches.guards import matches_nothing
from orchestrator.batches.model import Actor, Idempotency, TemplatePage, TemplateValues, TemplateView
from orchestrator.batches.repository import ActivityRepository, KeyUse, TemplateStore
from orchestrator.batches.submit import may_register_as


@dataclass(frozen=True, slots=True)
class Saved:
    """The result of saving a template; `replayed` if the key was used for the same request before."""

    template: TemplateView
    replayed: bool = False


def list_templates(
    templates: TemplateStore, actor: Actor, *, coordinator_id: str | None, after: UUID | None, limit: int
) -> TemplatePage:
    """A page of the templates that the caller may see, oldest first."""
    own = actor.sees_only_coordinator
    if own is not None and coordinator_id not in (None, own):
        return TemplatePage((), None)
    found = templates.page(actor.organization_id, coordinator_id if own is None else own, after=after, limit=limit + 1)
    shown = found[:limit]
    return TemplatePage(shown, shown[-1].template_id if len(found) > limit else None)


def get_template(templates: TemplateStore, actor: Actor, template_id: UUID) -> TemplateView:
    """One template. Raises NotFoundError."""
    return _visible(actor, templates.find(template_id))


def create_template(
    repository: ActivityRepository, templates: TemplateStore, actor: Actor, new: TemplateView, idempotency: Idempotency
) -> Saved:
    """Stores a template, whose id is chosen before the transaction.

    Raises ForbiddenError, InvalidRequestError (the coordinator is not in the directory), KeyReusedError, ConflictError (the template of an
    earlier request with this key has been deleted).
    """
    may_change(actor)
    used = repository.use_keys([KeyUse(actor, idempotency, new.template_id)]).get(new.template_id)
    if used is not None:
        if used.request_hash != idempotency.request_hash:
            raise KeyReusedError
        try:
            return Saved(get_template(templates, actor, used.batch_id), replayed=used.batch_id != new.template_id)
        except NotFoundError:
            detail = (
                "This request was made before, and its template has been deleted. To save it again, use another Idempotency-Key."
            )
            raise ConflictError("template_deleted", detail) from None
    may_register_as(repository, actor, new.coordinator_id)
    saved = replace(new, changed_at=repository.clock())
    templates.add(saved)
    return Saved(saved)


def replace_template(
    repository: ActivityRepository,
    templates: TemplateStore,
    actor: Actor,
    template_id: UUID,
    values: TemplateValues,
    idempotency: Idempotency,
    versions: Set[int] | None = None,
) -> TemplateView:
    """Changes a template's values. Setting the same values again is not a change. `versions` are those that the client has seen; None: any.

    Raises NotFoundError, ForbiddenError, PreconditionError.
    """
    may_change(actor)
    template = _visible(actor, templates.lock(template_id))
    # The precondition is skipped: this very call may have set the values, with its acknowledgement lost (RFC 9110, 13.1.1).
    if _is_repeated(repository, actor, template_id, idempotency) or (template.values == values and not matches_nothing(versions)):
        return template
    _check_version(template, versions)
    changed = replace(template, values=values, version=template.version + 1, changed_at=repository.clock())
    templates.write(changed)
    return changed


def delete_template(
    repository: ActivityRepository,
    templates: TemplateStore,
    actor: Actor,
    template_id: UUID,
    idempotency: Idempotency,
    versions: Set[int] | None = None,
) -> None:
    """Removes a template permanently. Raises NotFoundError, ForbiddenError, PreconditionError."""
    may_change(actor)
    if _is_repeated(repository, actor, template_id, idempotency):
        return
    _check_version(_visible(actor, templates.lock(template_id)), versions)
    templates.remove(template_id)


def _visible(actor: Actor, template: TemplateView | None) -> TemplateView:
    """Raises NotFoundError unless the caller may see the template. Does not rely on row level security."""
    own = actor.sees_only_coordinator
    if template is None or template.organization_id != actor.organization_id or own not in (None, template.coordinator_id):
        raise NotFoundError("template")
    return template


def _is_repeated(repository: ActivityRepository, actor: Actor, template_id: UUID, idempotency: Idempotency) -> bool:
    """Whether this very call was already executed."""
    return template_id in repository.use_keys([KeyUse(actor, idempotency, template_id)])


def _check_version(template: TemplateView, allowed: Set[int] | None) -> None:
    if allowed is not None and template.version not in allowed:
        detail = "The template was changed since you read it. Read it again, then repeat the request with the new ETag."
        raise PreconditionError("template_changed", detail)

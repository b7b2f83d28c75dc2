"""The endpoints on templates (docs/http.md, Templates)."""

from datetime import UTC, datetime
from typing import Any

import orjson

from api.endpoints.calls import Call, Reply, key_of_our_own, replayed
from api.http import cursors
from api.http.etag import content_etag, edit_versions, none_matches, version_etag
from orchestrator.batches import templates
from orchestrator.batches.model import Actor, TemplateValues, TemplateView
from schemas.api.templates import NewTemplate, TemplateChange, TemplatesQuery, read_template
from schemas.ids import new_batch_id
from schemas.paths import API_ROOT

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def list_templates(call: Call) -> Reply:
    """`GET /templates`: a page of templates, oldest first."""
    query, actor = call.read_query(TemplatesQuery), call.actor()
    after = None if query.cursor is None else cursors.decode_uuid(query.cursor)
    page = call.service.database.read_templates(
        actor.organization_id,
        lambda store: templates.list_templates(store, actor, coordinator_id=query.coordinator_id, after=after, limit=query.limit),
    )
    next_cursor = None if page.next_after is None else cursors.encode_uuid(page.next_after)
    body = {"data": [_shown(template) for template in page.templates], "next_cursor": next_cursor}
    return _tagged(call, body, content_etag(orjson.dumps(body)))


def get(call: Call) -> Reply:
    """`GET /templates/{template_id}`: one template."""
    template_id, actor = call.template_id(), call.actor()
    found = call.service.database.read_templates(
        actor.organization_id, lambda store: templates.get_template(store, actor, template_id)
    )
    return _tagged(call, _shown(found), version_etag(found.version))


def create(call: Call) -> Reply:
    """`POST /templates`: 201 and the template."""
    actor, request = call.actor(), read_template(NewTemplate, call.json(), max_items=call.service.settings.max_items)
    new = _new(actor, request)
    idempotency = call.idempotency("template", new.coordinator_id, new.values) or key_of_our_own()
    saved = call.service.database.change_templates(
        actor.organization_id,
        lambda repository, store: templates.create_template(repository, store, actor, new, idempotency),
    )
    headers = {
        "Location": f"{API_ROOT}/templates/{saved.template.template_id}",
        "ETag": version_etag(saved.template.version),
        **replayed(saved.replayed),
    }
    return Reply(201, _shown(saved.template), headers)


def replace(call: Call) -> Reply:
    """`PUT /templates/{template_id}`: other values for a template."""
    template_id, actor = call.template_id(), call.actor()
    values = _values(read_template(TemplateChange, call.json(), max_items=call.service.settings.max_items))
    versions, key = edit_versions(call.tags("If-Match")), key_of_our_own()
    changed = call.service.database.change_templates(
        actor.organization_id,
        lambda repository, store: templates.replace_template(repository, store, actor, template_id, values, key, versions),
    )
    return Reply(200, _shown(changed), {"ETag": version_etag(changed.version)})


def delete(call: Call) -> Reply:
    """`DELETE /templates/{template_id}`: 204; the template no longer exists."""
    template_id, actor = call.template_id(), call.actor()
    versions, key = edit_versions(call.tags("If-Match")), key_of_our_own()
    call.service.database.change_templates(
        actor.organization_id,
        lambda repository, store: templates.delete_template(repository, store, actor, template_id, key, versions),
    )
    return Reply(204)


def _values(request: TemplateChange) -> TemplateValues:
    # A mentor who is named twice is stored once.
    mentor_ids = tuple(dict.fromkeys(request.mentor_ids))
    return TemplateValues(request.name, mentor_ids, request.activity_type, request.duration_minutes, request.weekday)


def _new(actor: Actor, request: NewTemplate) -> TemplateView:
    """A template without a coordinator_id is the caller's own."""
    coordinator_id = actor.subject if request.coordinator_id is None else request.coordinator_id
    return TemplateView(new_batch_id(), actor.organization_id, coordinator_id, _values(request), 1, _NEVER)


def _shown(template: TemplateView) -> dict[str, Any]:
    """The template as a `TemplateResponse`."""
    values = template.values
    return {
        "template_id": template.template_id,
        "coordinator_id": template.coordinator_id,
        "name": values.name,
        "mentor_ids": values.mentor_ids,
        "activity_type": values.activity_type,
        "duration_minutes": values.duration_minutes,
        "weekday": values.weekday,
        "version": template.version,
        "changed_at": template.changed_at,
    }


def _tagged(call: Call, body: Any, tag: str) -> Reply:
    headers = {"ETag": tag, "Cache-Control": "no-store"}
    return Reply(200, body, headers) if none_matches(call.tags("If-None-Match"), tag) else Reply(304, headers=headers)

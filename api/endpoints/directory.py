"""Reads of the directory (docs/http.md, The directory): pages by id, each with an ETag of its content."""

from typing import Any

import orjson

from api.endpoints.calls import Call, Reply
from api.http import cursors
from api.http.etag import content_etag, none_matches
from orchestrator.directory.reading import MentorFilter, Page, Place
from schemas.api.directory import ChaptersQuery, CoordinatorsQuery, DirectoryQuery, MentorsQuery


def mentors(call: Call) -> Reply:
    """`GET /directory/mentors`: the mentors in a coordinator's scope, by id."""
    query, actor = call.read_query(MentorsQuery), call.actor()
    wanted = MentorFilter(query.coordinator_id, query.chapter_id, query.q, query.active_on)
    place = _place(query)
    return _page(
        call, call.service.database.directory(actor.organization_id, lambda directory: directory.mentors(actor, wanted, place))
    )


def chapters(call: Call) -> Reply:
    """`GET /directory/chapters`: the chapters in a coordinator's scope, by id."""
    query, actor = call.read_query(ChaptersQuery), call.actor()
    place = _place(query)
    return _page(
        call,
        call.service.database.directory(
            actor.organization_id, lambda directory: directory.chapters(actor, query.coordinator_id, place)
        ),
    )


def activity_types(call: Call) -> Reply:
    """`GET /directory/activity-types`: the organization's activity types, by their code."""
    query, actor = call.read_query(DirectoryQuery), call.actor()
    place = _place(query)
    return _page(
        call, call.service.database.directory(actor.organization_id, lambda directory: directory.activity_types(actor, place))
    )


def coordinators(call: Call) -> Reply:
    """`GET /directory/coordinators`: the organization's coordinators, by id; not for coordinators."""
    query, actor = call.read_query(CoordinatorsQuery), call.actor()
    place = _place(query)
    return _page(
        call,
        call.service.database.directory(actor.organization_id, lambda directory: directory.coordinators(actor, query.q, place)),
    )


def _place(query: DirectoryQuery) -> Place:
    return Place(None if query.cursor is None else cursors.decode_id(query.cursor), query.limit)


def _page(call: Call, page: Page[Any]) -> Reply:
    next_cursor = None if page.next_after is None else cursors.encode_id(page.next_after)
    body = {"data": page.rows, "next_cursor": next_cursor}
    # Names of mentors are health data, so no cache may keep them. A client that still has a page revalidates it with its ETag.
    headers = {"ETag": content_etag(orjson.dumps(body)), "Cache-Control": "no-store"}
    if none_matches(call.tags("If-None-Match"), headers["ETag"]):
        return Reply(200, body, headers)
    return Reply(304, headers=headers)

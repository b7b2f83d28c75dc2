"""Reads the directory: an organization, its people, chapters and activity types, as the API shows them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Row, TextClause

from orchestrator.batches.errors import ForbiddenError, InvalidRequestError
from orchestrator.batches.model import Actor, ItemError, ItemValues, Role
from orchestrator.registration.rules import DEFAULT_TIME_ZONE
from orchestrator.storage import arrays
from orchestrator.storage.statements import read_statements
from schemas.mistakes import COORDINATOR_UNKNOWN

_SQL = read_statements("orchestrator/directory/sql/reading.sql")

_ORGANIZATION = _SQL["organization"].text().bindparams(time_zone=DEFAULT_TIME_ZONE)
_SCOPE = _SQL["scope"].text()
_MENTORS = _SQL["mentors"].text().bindparams(time_zone=DEFAULT_TIME_ZONE)
_CHAPTERS = _SQL["chapters"].text()
_ACTIVITY_TYPES = _SQL["activity_types"].text()
_COORDINATORS = _SQL["coordinators"].text()
_MINIMUM_MINUTES = _SQL["minimum_minutes"].text()
_MENTOR_NAMES = _SQL["mentor_names"].text()
_ACTIVITY_TYPE_NAMES = _SQL["activity_type_names"].text()
_REGISTRATIONS = _SQL["registrations"].text()


@dataclass(frozen=True, slots=True)
class OrganizationView:
    """An organization, its present date and its closed period. If the directory does not have it, `name` is its id."""

    organization_id: str
    name: str
    time_zone: str
    today: date
    closed_through: date | None


@dataclass(frozen=True, slots=True)
class MentorView:
    """A mentor. `active` applies to the requested date."""

    mentor_id: str
    name: str
    chapter_id: str
    active_from: date | None
    active_until: date | None
    active: bool


@dataclass(frozen=True, slots=True)
class ChapterView:
    """A chapter. Without a name, `name` is its id."""

    chapter_id: str
    name: str


@dataclass(frozen=True, slots=True)
class ActivityTypeView:
    """An activity type, with the usual and the minimum duration of its activities."""

    activity_type: str
    name: str
    default_minutes: int | None
    minimum_minutes: int | None


@dataclass(frozen=True, slots=True)
class CoordinatorView:
    """A coordinator; `role` is that of the directory (`orchestrator.directory.files`)."""

    coordinator_id: str
    name: str
    role: str


@dataclass(frozen=True, slots=True)
class RegistrationView:
    """Who registered an activity, and when. The name is None if the directory does not have the coordinator."""

    registered_by_name: str | None
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class Names:
    """Names by id, of activity types and of mentors in the caller's scope; and who registered activities of these mentors."""

    mentors: Mapping[str, str]
    activity_types: Mapping[str, str]
    registrations: Mapping[str, RegistrationView]


View = TypeVar("View")


@dataclass(frozen=True, slots=True)
class Page(Generic[View]):
    """One page of a listing by id. `next_after` is the id to continue from; None on the last page."""

    rows: Sequence[View]
    next_after: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """The start and the size of a page. `after` is the last id of the previous page."""

    after: str | None = None
    limit: int = 200


@dataclass(frozen=True, slots=True)
class MentorFilter:
    """Which mentors to list: those in the scope of `coordinator_id`, in a chapter, and with `q` in their name or id. `active_on` is the date for
    `MentorView.active`, by default today; it leaves nobody out."""

    coordinator_id: str | None = None
    chapter_id: str | None = None
    q: str | None = None
    active_on: date | None = None


class DirectoryReader:
    """The directory as the transaction of the connection sees it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def organization(self, organization_id: str, subject: str) -> tuple[OrganizationView, str | None]:
        """The organization, and the name of this coordinator in its directory, if it has one."""
        row = self._connection.execute(_ORGANIZATION, {"organization_id": organization_id, "subject": subject}).one()
        return OrganizationView(organization_id, row.name, row.time_zone, row.today, row.closed_through), row.name_of_caller

    def mentors(self, actor: Actor, wanted: MentorFilter, place: Place) -> Page[MentorView]:
        """A page of mentors. Raises ForbiddenError, InvalidRequestError."""
        parameters = {
            "scope": self._scope(actor, wanted.coordinator_id),
            "chapter_id": wanted.chapter_id,
            "q": wanted.q,
            "active_on": wanted.active_on,
        }
        return self._page(_MENTORS, MentorView, lambda mentor: mentor.mentor_id, actor, place, parameters)

    def chapters(self, actor: Actor, coordinator_id: str | None, place: Place) -> Page[ChapterView]:
        """A page of the chapters in a coordinator's scope, or of the organization. Raises ForbiddenError, InvalidRequestError."""
        parameters = {"scope": self._scope(actor, coordinator_id)}
        return self._page(_CHAPTERS, ChapterView, lambda chapter: chapter.chapter_id, actor, place, parameters)

    def activity_types(self, actor: Actor, place: Place) -> Page[ActivityTypeView]:
        """A page of the organization's activity types."""
        return self._page(_ACTIVITY_TYPES, ActivityTypeView, lambda kind: kind.activity_type, actor, place, {})

    def coordinators(self, actor: Actor, q: str | None, place: Place) -> Page[CoordinatorView]:
        """A page of the organization's coordinators. Raises ForbiddenError."""
        if actor.role is Role.COORDINATOR:
            raise ForbiddenError("role_may_not", "A coordinator can't list the organization's coordinators.")
        return self._page(_COORDINATORS, CoordinatorView, lambda coordinator: coordinator.coordinator_id, actor, place, {"q": q})

    def minimum_minutes(self, organization_id: str, activity_types: Iterable[str]) -> Mapping[str, int]:
        """The minimum durations of these types, for types that have one."""
        parameters = {"organization_id": organization_id, "types": arrays.texts(set(activity_types))}
        return {row.activity_type: row.minimum_minutes for row in self._connection.execute(_MINIMUM_MINUTES, parameters)}

    def names(self, actor: Actor, values: Iterable[ItemValues], errors: Iterable[ItemError | None]) -> "Names":
        """The names that the caller may read: of the mentors and types in these values, and of those who registered the activities in these
        errors."""
        scope = self._scope(actor, None)
        pairs = {(value.mentor_id, value.activity_type) for value in values}
        conflicting = {error.conflicting_activity_id for error in errors if error is not None} - {None}
        of_organization = {"organization_id": actor.organization_id}
        mentors = {"mentors": arrays.texts({mentor for mentor, _ in pairs}), "scope": scope, **of_organization}
        types = {"types": arrays.texts({kind for _, kind in pairs}), **of_organization}
        activities = {"activities": arrays.texts(conflicting), "scope": scope, **of_organization}
        return Names(
            {row.mentor_id: row.name for row in self._connection.execute(_MENTOR_NAMES, mentors)},
            {row.activity_type: row.name for row in self._connection.execute(_ACTIVITY_TYPE_NAMES, types)},
            {
                row.activity_id: RegistrationView(row.registered_by_name, row.registered_at)
                for row in (self._connection.execute(_REGISTRATIONS, activities) if conflicting else ())
            },
        )

    def _scope(self, actor: Actor, coordinator_id: str | None) -> Sequence[str] | None:
        """The chapters to read; None: the whole organization. Raises ForbiddenError if a coordinator names another coordinator."""
        own = actor.sees_only_coordinator
        if own is not None and coordinator_id not in (None, own):
            detail = "Coordinators can read only their own scope: leave out coordinator_id, or set it to the token's subject."
            raise ForbiddenError("not_your_scope", detail)
        whose = coordinator_id if own is None else own
        if whose is None:
            return None
        found = self._connection.execute(_SCOPE, {"organization_id": actor.organization_id, "coordinator_id": whose}).one()
        if own is None and not found.is_known:
            mistake = COORDINATOR_UNKNOWN._replace(pointer="/query/coordinator_id")
            raise InvalidRequestError([mistake], code=mistake.code)
        chapters: Sequence[str] | None = found.chapters
        return chapters

    def _page(
        self,
        statement: TextClause,
        view: Callable[..., View],
        id_of: Callable[[View], str],
        actor: Actor,
        place: Place,
        parameters: Mapping[str, Any],
    ) -> Page[View]:
        given = {
            **parameters,
            "organization_id": actor.organization_id,
            "after": place.after,
            # One more than shown, to see whether there is a next page.
            "most": place.limit + 1,
        }
        rows: Sequence[Row[Any]] = self._connection.execute(statement, given).all()
        shown = [view(**row._mapping) for row in rows[: place.limit]]
        return Page(shown, id_of(shown[-1]) if len(rows) > place.limit else None)

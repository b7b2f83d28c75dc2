"""The registration rules (docs/rules.md): their order, codes and messages, and the SQL that evaluates them for a set of items.

Registration and preview share this evaluation. Each rule's condition is SQL over the relations `c` (the candidate), `m` (its mentor), `k`
(its coordinator), `t` (its activity type), `g` (its organization) and `today` (the database's date in the organization's time zone). The
first condition that is true decides the item. `duplicate_activity` is not among the rules, because a unique index decides it.
"""

from dataclasses import dataclass

from orchestrator.batches.model import ItemError

MAX_REGISTRATION_NOTES_LENGTH = 2_000
MIN_DURATION_MINUTES, MAX_DURATION_MINUTES = 1, 1_440
DEFAULT_TIME_ZONE = "Europe/Oslo"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: the condition that breaks it, in SQL, and the error of an item that does."""

    condition: str
    error: ItemError


def _refusal(code: str, message: str, field: str | None = None) -> ItemError:
    return ItemError(code, message, retryable=False, field=field)


PERIOD_CLOSED = _refusal("period_closed", "The date is in a closed period; an administrator can reopen it", "activity_date")
"""The error of an item in a closed period. With an external registration service, too, this rule is the product's (docs/rules.md)."""

RULES: tuple[Rule, ...] = (
    Rule("m.mentor_id IS NULL", _refusal("mentor_not_found", "No such mentor in the organization", "mentor_id")),
    Rule(
        """k.role IS DISTINCT FROM 'admin' AND NOT EXISTS (
            SELECT FROM registration.coordinator_scope s
            WHERE (s.organization_id, s.coordinator_id, s.chapter_id) = (c.organization_id, c.coordinator_id, m.chapter_id))""",
        _refusal("out_of_scope", "The coordinator may not register for this mentor", "mentor_id"),
    ),
    Rule(
        "c.activity_date < m.active_from OR c.activity_date > m.active_until",
        _refusal("mentor_inactive", "The mentor was not active on this date", "activity_date"),
    ),
    Rule(
        "t.activity_type IS NULL",
        _refusal("activity_type_unknown", "The organization has no such activity type", "activity_type"),
    ),
    Rule("c.activity_date <= g.closed_through", PERIOD_CLOSED),
    Rule("c.activity_date > today.value", _refusal("invalid_item", "The date is in the future", "activity_date")),
    # A parameter, because it is a setting.
    Rule(
        "c.activity_date < make_date(CAST(:earliest_year AS integer), 1, 1)",
        _refusal("invalid_item", "The date is too long ago", "activity_date"),
    ),
    Rule(
        f"c.duration_minutes NOT BETWEEN {MIN_DURATION_MINUTES} AND {MAX_DURATION_MINUTES}",
        _refusal(
            "invalid_item", f"The duration must be {MIN_DURATION_MINUTES} to {MAX_DURATION_MINUTES} minutes", "duration_minutes"
        ),
    ),
    Rule(
        f"length(c.notes) > {MAX_REGISTRATION_NOTES_LENGTH}",
        _refusal("invalid_item", f"The notes are longer than {MAX_REGISTRATION_NOTES_LENGTH:,} characters", "notes"),
    ),
)

BROKEN_RULE_SQL = "CASE " + " ".join(f"WHEN {rule.condition} THEN {index}" for index, rule in enumerate(RULES)) + " END"
"""The index in RULES of the first broken rule; NULL when none is. The statement needs the parameter `earliest_year`."""

RULE_JOINS_SQL = f"""
    LEFT JOIN registration.mentor m ON m.organization_id = c.organization_id AND m.mentor_id = c.mentor_id
    LEFT JOIN registration.coordinator k ON k.organization_id = c.organization_id AND k.coordinator_id = c.coordinator_id
    LEFT JOIN registration.activity_type t ON t.organization_id = c.organization_id AND t.activity_type = c.activity_type
    LEFT JOIN registration.organization g ON g.organization_id = c.organization_id
    CROSS JOIN LATERAL (
        SELECT (statement_timestamp() AT TIME ZONE coalesce(g.time_zone, '{DEFAULT_TIME_ZONE}'))::date AS value
    ) today
"""
"""Joins the tables that the rules read to a relation `c(organization_id, coordinator_id, mentor_id, activity_type, activity_date, …)`."""


DUPLICATE_ACTIVITY = "duplicate_activity"


def duplicate_activity(conflicting_activity_id: str) -> ItemError:
    """The error of an item whose activity is already registered."""
    return ItemError(
        DUPLICATE_ACTIVITY,
        "Duplicate activity on this date",
        retryable=False,
        conflicting_activity_id=conflicting_activity_id,
    )


REGISTRATION_UNAVAILABLE = ItemError(
    "registration_unavailable", "The registration service did not respond in time; please retry", retryable=True
)
INTERNAL_ERROR = ItemError("internal_error", "Something went wrong on our side; please retry", retryable=True)

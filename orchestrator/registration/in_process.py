"""The default registration service. A few set-based statements check the rules and write activities and audit rows, in the caller's
transaction."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from orchestrator.batches.model import ItemError, ItemValues
from orchestrator.registration.port import Candidate, Decision, Prediction, RegistrationService
from orchestrator.registration.rules import BROKEN_RULE_SQL, RULE_JOINS_SQL, RULES, duplicate_activity
from orchestrator.storage import arrays
from orchestrator.storage.blame import TransientError
from orchestrator.storage.prepared import Prepared

_CANDIDATES = """
    SELECT n.ord, n.activity_id, i.batch_id, i.item_id, i.organization_id, b.coordinator_id, b.submitted_by, b.channel, i.mentor_id,
           i.activity_type, i.activity_date, i.duration_minutes, i.notes, i.override_duplicates, i.attempt
    FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:activity_ids AS uuid[]))
         WITH ORDINALITY AS n (batch_id, position, activity_id, ord)
    JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (n.batch_id, n.position)
    JOIN orchestrator.batch b ON b.batch_id = n.batch_id
"""

# Not a join with what was inserted: the planner expects two rows, and would compare each with each. `IS TRUE` keeps the comparison with all, a
# hash table, from becoming a join.
_AUDIT = """
    INSERT INTO registration.audit (organization_id, action, activity_id, registered_by, attributed_to, submitted_by, batch_id, channel, at,
                                    activity_type, activity_date, duration_minutes, item_id, attempt)
    SELECT organization_id, 'registered', activity_id, coordinator_id, mentor_id, submitted_by, batch_id, channel, CAST(:at AS timestamptz),
           activity_type, activity_date, duration_minutes, item_id, attempt
    FROM c WHERE (item_id IN (SELECT item_id FROM inserted)) IS TRUE
"""

# The unique indexes decide which transaction registers an activity. An insert waits for another transaction's uncommitted row with the same
# key, so all transactions insert in the order of that key and never deadlock. The losers get no row; a later statement, which sees what the
# winner committed, handles them. Returns a row with the number of inserted records, followed by the exceptions.
_REGISTER = Prepared(f"""
    WITH c AS MATERIALIZED ({_CANDIDATES}),
    judged AS MATERIALIZED (SELECT c.*, m.chapter_id, {BROKEN_RULE_SQL} AS broken FROM c {RULE_JOINS_SQL}),
    inserted AS (
        INSERT INTO registration.activity (activity_id, organization_id, attributed_to, registered_by, activity_type, activity_date,
                                           duration_minutes, notes, batch_id, item_id, overrides_duplicate, created_at, chapter_id)
        SELECT activity_id, organization_id, mentor_id, coordinator_id, activity_type, activity_date, duration_minutes, notes,
               batch_id, item_id, false, CAST(:at AS timestamptz), chapter_id
        FROM judged WHERE broken IS NULL
        ORDER BY organization_id, mentor_id, activity_type, activity_date, ord
        ON CONFLICT DO NOTHING
        RETURNING item_id
    ),
    audited AS ({_AUDIT})
    SELECT 0 AS ord, count(*) AS registered, NULL AS broken, NULL AS own_activity_id FROM inserted
    UNION ALL
    SELECT ord, NULL, broken,
           -- If the item is already registered and a rule has changed since, its own activity counts.
           CASE WHEN broken IS NOT NULL
                THEN (SELECT own.activity_id::text FROM registration.activity own WHERE own.item_id = judged.item_id) END
    FROM judged WHERE broken IS NOT NULL OR item_id NOT IN (SELECT item_id FROM inserted)
    ORDER BY ord
""")

_WHY_NOT = text(f"""
    WITH c AS MATERIALIZED ({_CANDIDATES})
    SELECT c.ord, c.override_duplicates, own.activity_id::text AS own_activity_id, rival.activity_id::text AS rival_activity_id
    FROM c
    LEFT JOIN registration.activity own ON own.item_id = c.item_id
    LEFT JOIN registration.activity rival
           ON (rival.organization_id, rival.attributed_to, rival.activity_type, rival.activity_date)
              = (c.organization_id, c.mentor_id, c.activity_type, c.activity_date)
          AND NOT rival.overrides_duplicate AND rival.revoked_at IS NULL
""")

# An activity is flagged only because it lost to a rival. A flag copied from the request would let a later plain submission in (docs/rules.md).
# The unflagged rival serves as the lock of its mentor, type and date. It is locked FOR SHARE until the commit, in the order of the key, so that
# a revocation of the rival sees the flagged activity (docs/decisions/0034-undo.md). Without a living rival there is no row, and the transaction
# is retried.
_REGISTER_FLAGGED = text(f"""
    WITH c AS MATERIALIZED ({_CANDIDATES}),
    shared AS MATERIALIZED (
        SELECT c.item_id FROM c
        JOIN registration.activity rival
             ON (rival.organization_id, rival.attributed_to, rival.activity_type, rival.activity_date)
                = (c.organization_id, c.mentor_id, c.activity_type, c.activity_date)
        WHERE NOT rival.overrides_duplicate AND rival.revoked_at IS NULL
        ORDER BY c.organization_id, c.mentor_id, c.activity_type, c.activity_date
        FOR SHARE OF rival
    ),
    inserted AS (
        INSERT INTO registration.activity (activity_id, organization_id, attributed_to, registered_by, activity_type, activity_date,
                                           duration_minutes, notes, batch_id, item_id, overrides_duplicate, created_at, chapter_id)
        SELECT activity_id, organization_id, mentor_id, coordinator_id, activity_type, activity_date, duration_minutes, notes,
               batch_id, item_id, true, :at,
               (SELECT m.chapter_id FROM registration.mentor m WHERE (m.organization_id, m.mentor_id) = (c.organization_id, c.mentor_id))
        FROM c WHERE item_id IN (SELECT item_id FROM shared) ORDER BY item_id
        ON CONFLICT DO NOTHING
        RETURNING item_id
    ),
    audited AS ({_AUDIT})
    SELECT ord FROM c WHERE (item_id IN (SELECT item_id FROM inserted)) IS TRUE
""")


_PREDICT = text(f"""
    WITH c AS MATERIALIZED (
        SELECT v.*, CAST(:organization_id AS text) AS organization_id, CAST(:coordinator_id AS text) AS coordinator_id
        FROM unnest(CAST(:mentors AS text[]), CAST(:types AS text[]), CAST(:dates AS date[]), CAST(:durations AS integer[]),
                    CAST(:notes AS text[]), CAST(:overrides AS boolean[]))
             WITH ORDINALITY AS v (mentor_id, activity_type, activity_date, duration_minutes, notes, override_duplicates, ord)
    )
    SELECT c.ord, {BROKEN_RULE_SQL} AS broken, rival.activity_id::text AS rival_activity_id
    FROM c {RULE_JOINS_SQL}
    LEFT JOIN registration.activity rival
           ON NOT c.override_duplicates
          AND (rival.organization_id, rival.attributed_to, rival.activity_type, rival.activity_date)
              = (c.organization_id, c.mentor_id, c.activity_type, c.activity_date)
          AND NOT rival.overrides_duplicate AND rival.revoked_at IS NULL
    ORDER BY c.ord
""")


# Each half has an index of its own: `activity_once` and `activity_flagged`.
_BESIDE = text("""
    WITH c AS MATERIALIZED (
        SELECT v.*, CAST(:organization_id AS text) AS organization_id
        FROM unnest(CAST(:mentors AS text[]), CAST(:types AS text[]), CAST(:dates AS date[]))
             WITH ORDINALITY AS v (mentor_id, activity_type, activity_date, ord)
    )
    SELECT c.ord, a.activity_id::text FROM c JOIN registration.activity a
        ON (a.organization_id, a.attributed_to, a.activity_type, a.activity_date)
           = (c.organization_id, c.mentor_id, c.activity_type, c.activity_date)
       AND NOT a.overrides_duplicate AND a.revoked_at IS NULL
    UNION ALL
    SELECT c.ord, a.activity_id::text FROM c JOIN registration.activity a
        ON (a.organization_id, a.attributed_to, a.activity_type, a.activity_date)
           = (c.organization_id, c.mentor_id, c.activity_type, c.activity_date)
       AND a.overrides_duplicate AND a.revoked_at IS NULL
    ORDER BY 1, 2
""")


class InProcessPrediction(Prediction):
    """Predicts what `InProcessRegistrationService` would decide in the transaction of the connection."""

    def __init__(self, connection: Connection, earliest_year: int) -> None:
        self._connection = connection
        self._earliest_year = earliest_year

    def predict(self, organization_id: str, coordinator_id: str, items: Sequence[ItemValues]) -> Sequence[ItemError | None]:
        """The error that each item would get now; None for success."""
        rows = self._connection.execute(
            _PREDICT,
            {
                "organization_id": organization_id,
                "coordinator_id": coordinator_id,
                "earliest_year": self._earliest_year,
                "mentors": arrays.texts([item.mentor_id for item in items]),
                "types": arrays.texts([item.activity_type for item in items]),
                "dates": arrays.plain([item.activity_date.isoformat() for item in items]),
                "durations": arrays.plain([item.duration_minutes for item in items]),
                "notes": arrays.long_texts([item.notes for item in items]),
                "overrides": arrays.plain([item.override_duplicates for item in items]),
            },
        )
        return [
            RULES[row.broken].error
            if row.broken is not None
            else duplicate_activity(row.rival_activity_id)
            if row.rival_activity_id is not None
            else None
            for row in rows
        ]

    def beside(self, organization_id: str, items: Sequence[ItemValues]) -> Sequence[Sequence[str]]:
        """The living activities with each item's mentor, type and date."""
        rows = self._connection.execute(
            _BESIDE,
            {
                "organization_id": organization_id,
                "mentors": arrays.texts([item.mentor_id for item in items]),
                "types": arrays.texts([item.activity_type for item in items]),
                "dates": arrays.plain([item.activity_date.isoformat() for item in items]),
            },
        )
        found: list[list[str]] = [[] for _ in items]
        for row in rows:
            found[row.ord - 1].append(row.activity_id)
        return found


class InProcessRegistrationService(RegistrationService):
    """Registers in the schema `registration` of the same database. Refuses dates before `earliest_year`."""

    def __init__(self, earliest_year: int) -> None:
        self._earliest_year = earliest_year

    def register(self, connection: Connection, candidates: Sequence[Candidate], at: datetime) -> Sequence[Decision]:
        """Decides every candidate, in order. Raises TransientError if the rival of a losing item vanished in between."""
        decisions: list[Decision | None] = [Decision(candidate.activity_id, None) for candidate in candidates]
        lost: list[int] = []
        (_, registered, _, _), *exceptions = _REGISTER.rows(
            connection, _arrays(candidates) | {"at": at, "earliest_year": self._earliest_year}
        )
        if registered + len(exceptions) != len(candidates):
            raise TransientError("an item vanished between two statements; it is tried again")
        for number, _, broken, own_activity_id in exceptions:
            index = number - 1
            if own_activity_id is not None:
                decisions[index] = Decision(own_activity_id, None)
            elif broken is not None:
                decisions[index] = Decision(None, RULES[broken].error)
            else:
                decisions[index] = None
                lost.append(index)
        if lost:
            self._decide_losers(connection, candidates, lost, decisions, at)
        return [_decided(decision) for decision in decisions]

    def _decide_losers(
        self,
        connection: Connection,
        candidates: Sequence[Candidate],
        lost: Sequence[int],
        decisions: list[Decision | None],
        at: datetime,
    ) -> None:
        overriding: list[int] = []
        for row in connection.execute(_WHY_NOT, _arrays(candidates[index] for index in lost)):
            index = lost[row.ord - 1]
            if row.own_activity_id is not None:
                decisions[index] = Decision(row.own_activity_id, None)
            elif row.rival_activity_id is None:
                continue  # the rival was revoked or rolled back since, so the next try succeeds
            elif row.override_duplicates:
                overriding.append(index)
            else:
                decisions[index] = Decision(None, duplicate_activity(row.rival_activity_id))
        if overriding:
            chosen = [candidates[index] for index in overriding]
            for row in connection.execute(_REGISTER_FLAGGED, _arrays(chosen) | {"at": at}):
                decisions[overriding[row.ord - 1]] = Decision(chosen[row.ord - 1].activity_id, None)


def _decided(decision: Decision | None) -> Decision:
    if decision is None:
        raise TransientError("a rival registration appeared and vanished; it is tried again")
    return decision


def _arrays(candidates: Iterable[Candidate]) -> dict[str, str]:
    listed = list(candidates)
    return {
        **arrays.items((candidate.batch_id, candidate.position) for candidate in listed),
        "activity_ids": arrays.plain([candidate.activity_id for candidate in listed]),
    }

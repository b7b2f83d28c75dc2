"""Every action that the product logs, and the one function that logs it (docs/operations.md, "Logs").

A log line names an action and has fields. A reader filters by them, so nothing that differs from line to line is in the action's name.
No field may hold notes, names, or values of rows: an error is logged by its type and place (`without_values` in `error_text.py`).
"""

import logging
from collections.abc import Mapping
from enum import Enum, unique
from typing import TypedDict
from uuid import UUID

_logger = logging.getLogger("bulkreg")


@unique
class Action(Enum):
    """What a line is about: its level, what it means, and what to do. In the log it has its name in small letters."""

    # A process and its roles.
    SERVING = logging.INFO, "The role serves HTTP on `port`."
    ROLE_FAILED = (
        logging.CRITICAL,
        "The role ended its process, which is started again. When it repeats, look at `error` and `at`.",
    )
    ROLE_STARTS_NOT_NOTED = logging.WARNING, "The database was away when the process began, so this start is not counted."
    SCHEDULER_CLASS_REFUSED = logging.WARNING, "The system does not let the process run as batch work. It works all the same."

    # Requests.
    REQUEST = (
        logging.INFO,
        "A request was served: `method`, `route`, `status`, `ms`, and the caller's `subject` and `subject_role`.",
    )
    REQUEST_UNREADABLE = logging.WARNING, "A request was refused before any handler saw it: it is no HTTP that we accept."
    REQUEST_FAILED = logging.ERROR, "A request met a bug and got a 500. `error` and `at` say where."
    DATABASE_REFUSED = (
        logging.ERROR,
        "The database refused a request's statement for a reason that may last, "
        "such as a missing right or a statement timeout. Run `bulkreg doctor`.",
    )
    STREAM_CUT = logging.WARNING, "An answer failed after its first bytes. The connection was cut, so the client knows."
    LISTENER_LOST = (
        logging.WARNING,
        "The API lost the connection on which it hears of changes. It connects again; until then it polls.",
    )
    WATCH_POLL_FAILED = logging.WARNING, "The API could not ask the database for changes of watched batches. It asks again."
    JWKS_REFRESH_FAILED = (
        logging.WARNING,
        "The keys of the token issuer could not be fetched. The API goes on with those that it has.",
    )
    RELAY_WAKE_FAILED = logging.WARNING, "The API could not tell the relays of new events. They look by themselves."

    # Records, as a consumer reads and handles them.
    DECODE_FAILED = logging.ERROR, "Decoding a record met a bug. The record goes to the dead-letter topic."
    DEAD_LETTERED = (
        logging.WARNING,
        "One record can't be handled and is on the dead-letter topic; all others were handled. "
        "`reason` says why; look with `bulkreg dead-letters`.",
    )
    RECORD_FAILED = (
        logging.ERROR,
        "Handling one record met a bug or a refusal of the database. Its item ends as `internal_error`.",
    )
    GIVE_UP_FAILED = (
        logging.ERROR,
        "A record's failure could not be written down either. The record goes to the dead-letter topic.",
    )
    RECORDS_POSTPONED = (
        logging.ERROR,
        "Records failed for a reason that is not known to be theirs, and wait behind others. "
        "`records` is how many, `waiting` how many in all, `outage` whether nothing gets through.",
    )
    RECORDS_LOST = (
        logging.ERROR,
        "Kafka's copy of the records from `offset` to before `next_offset` is damaged. "
        "Look at the broker's disk; who sent them has to send them again.",
    )
    DAMAGED_BATCH = logging.WARNING, "A command that reads topics passed over records at `offset` that Kafka's client can't read."
    MICRO_BATCH_RETRIED = (
        logging.WARNING,
        "The database was away or refused a transaction that may be repeated. It is tried again by itself.",
    )
    DRAIN_ABANDONED = logging.WARNING, "The role stopped before its last micro-batch was done. Kafka delivers it again."
    DRAIN_FAILED = logging.WARNING, "The last micro-batch failed while the role stopped. Kafka delivers it again."

    # Consumer groups.
    PARTITIONS_ASSIGNED = logging.INFO, "Kafka gave the role these `partitions` more."
    PARTITIONS_REVOKED = logging.INFO, "Kafka took these `partitions` from the role."
    TOPIC_REPLACED = logging.WARNING, "A topic was made anew: `partitions` of it are read from their beginning."
    TOPIC_IDS_UNKNOWN = logging.WARNING, "Kafka did not say whether topics were made anew. The committed offsets are believed."
    COMMIT_FAILED = (
        logging.WARNING,
        "Offsets were not committed. The next commit makes up for it; until then there may be redelivery.",
    )
    POLL_ERROR = logging.WARNING, "Kafka's client reported an error that it repairs by itself."

    # Events, as a role or the relay publishes them.
    EVENT_REFUSED = (
        logging.ERROR,
        "Kafka will never take this event as it is. Look at the topic's limits; `event_id`, or `batch` and `row`, say which event.",
    )
    EVENT_NOT_ACKNOWLEDGED = logging.WARNING, "A topic or partition did not take an event. It is sent again; all others go on."
    PLACE_IN_TROUBLE = (
        logging.WARNING,
        "A topic, partition or stream (`place`) takes no events. It is tried again; all others go on.",
    )
    PLACE_WORKS_AGAIN = logging.INFO, "A place that was in trouble takes events again."
    PRODUCER_REBUILT = (
        logging.ERROR,
        "Kafka's client could not tell any more what it had sent, and was replaced. Its events are sent again.",
    )
    RELAY_FAILED = logging.WARNING, "The relay could not reach the database or the broker. It goes on by itself."
    RELAY_SLOTS = logging.INFO, "The relay publishes these `slots` of the outbox now."
    SILENT_RELAYS_ENDED = (
        logging.WARNING,
        "The database `sessions` of relays that were silent for the lease were ended; others take their slots.",
    )
    TOPIC_CREATED = logging.INFO, "A topic was made, under the name `cluster_topic`."

    # The external registration service.
    SERVICE_AWAY = logging.WARNING, "The registration service does not respond. The role pauses until it does."
    SERVICE_BACK = logging.WARNING, "The registration service responds again. The role goes on."
    UNANSWERED = (
        logging.INFO,
        "A question to the registration service has no definite outcome. The item is asked for again; `reason` says why.",
    )

    # The sweeper.
    STEP_DONE = logging.INFO, "A step of the sweep found work. The fields say how much."
    SWEEP_FAILED = logging.WARNING, "A step of the sweep failed. The next sweep repeats it."
    BATCH_SET_ASIDE = logging.ERROR, "One batch makes a step of the sweep fail. It is left out of this sweep; all others go on."
    ITEM_GIVEN_UP = logging.ERROR, "An item had no outcome for too long, and ends as `internal_error`. It can be retried."

    def __init__(self, level: int, meaning: str) -> None:
        self.level = level
        self.meaning = meaning

    @property
    def label(self) -> str:
        """How the log names it."""
        return self.name.lower()


class RecordFields(TypedDict):
    """Which record a line is about. `batch` is None when the record could not be read."""

    batch: str | None
    topic: str
    partition: int
    offset: int


class Line:
    """One line: the JSON formatter writes its fields, any other formatter its text."""

    __slots__ = ("action", "fields")

    def __init__(self, action: Action, fields: Mapping[str, object]) -> None:
        self.action = action
        self.fields = fields

    def __str__(self) -> str:
        return f"{self.action.label}: {' '.join(f'{name}={_word(value)}' for name, value in self.fields.items())}"


def log_action(
    action: Action,
    *,
    role: str | None,
    batch: str | UUID | None = None,
    topic: str | None = None,
    partition: int | None = None,
    offset: int | None = None,
    **more: object,
) -> None:
    """Logs the action at its level, with the fields that are not None. `role` is None in a command, which has none."""
    if _logger.isEnabledFor(action.level):
        batch_id = None if batch is None else str(batch)
        fields = {"role": role, "batch": batch_id, "topic": topic, "partition": partition, "offset": offset, **more}
        _logger.log(action.level, Line(action, {name: value for name, value in fields.items() if value is not None}))


def _word(value: object) -> str:
    """The value as one word: with spaces or control characters, it is quoted."""
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)

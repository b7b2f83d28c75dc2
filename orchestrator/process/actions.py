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
    """What a log line is about: its level, what it means, and what to do. The log writes the name in lower case."""

    # A process and its roles.
    SERVING = logging.INFO, "The role serves HTTP on `port`."
    ROLE_FAILED = (
        logging.CRITICAL,
        "The role failed and ended its process, which is then restarted. If this repeats, look at `error` and `at`.",
    )
    STOP_ABANDONED = (
        logging.WARNING,
        "The process was asked to stop, and ended although `roles` still waited for something, such as a database that stands still. The next "
        "process repeats what they had begun.",
    )
    ROLE_STARTS_NOT_NOTED = logging.WARNING, "The database was unreachable when the process began, so this start is not counted."
    SCHEDULER_CLASS_REFUSED = (
        logging.WARNING,
        "The operating system refused the batch scheduling class. The process runs in the default class.",
    )

    # Requests.
    REQUEST = (
        logging.INFO,
        "A request was served: `method`, `route`, `status`, `ms`, and the caller's `subject` and `subject_role`.",
    )
    REQUEST_UNREADABLE = (
        logging.WARNING,
        "A request was refused before any handler saw it, because it is not HTTP that we accept.",
    )
    REQUEST_FAILED = logging.ERROR, "A request failed with a 500 because of a bug. `error` and `at` say where."
    DATABASE_REFUSED = (
        logging.ERROR,
        "The database refused a request's statement for a reason that may last, "
        "such as a missing right or a statement timeout. Run `bulkreg doctor`.",
    )
    STREAM_CUT = (
        logging.WARNING,
        "A response failed after its first bytes. The connection was aborted, so that the client notices.",
    )
    FILE_READER_FAILED = (
        logging.WARNING,
        "The process that reads an uploaded file ended with `exit_code`: the file needs too much memory, or it met a bug.",
    )
    LISTENER_LOST = (
        logging.WARNING,
        "The API lost the connection on which it is notified of changes. It reconnects; until then it polls.",
    )
    WATCH_POLL_FAILED = logging.WARNING, "The API could not poll the database for changes of watched batches. It tries again."
    JWKS_REFRESH_FAILED = (
        logging.WARNING,
        "The keys of the token issuer could not be fetched. The API continues with the keys that it has.",
    )
    CONSOLE_LOGIN = logging.INFO, "Somebody has logged in to the console."
    CONSOLE_LOGIN_REFUSED = (
        logging.WARNING,
        "An attempt to log in to the console ended without a session. `reason` is what the page says, `error` is more exact.",
    )
    CONSOLE_LOGOUT = logging.INFO, "Somebody has logged out of the console."
    RELAY_WAKE_FAILED = logging.WARNING, "The API could not notify the relays of new events. The relays find them when they poll."

    # Records, as a consumer reads and handles them.
    DECODE_FAILED = logging.ERROR, "A record could not be decoded because of a bug. The record goes to the dead-letter topic."
    DEAD_LETTERED = (
        logging.WARNING,
        "One record can't be handled and is on the dead-letter topic; all others were handled. "
        "`reason` says why; look with `bulkreg dead-letters`.",
    )
    RECORD_FAILED = (
        logging.ERROR,
        "Handling one record failed, because of a bug or because the database refused it. Its item ends as `internal_error`.",
    )
    GIVE_UP_FAILED = (
        logging.ERROR,
        "The failure of a record could not be stored either. The record goes to the dead-letter topic.",
    )
    RECORDS_POSTPONED = (
        logging.ERROR,
        "Records failed for a reason that may not be their own, and are retried behind others. "
        "`records` is how many, `waiting` how many in all, `outage` whether every record fails.",
    )
    RECORDS_LOST = (
        logging.ERROR,
        "Kafka's copy of the records from `offset` to before `next_offset` is damaged. "
        "Check the broker's disk; their sender has to send them again.",
    )
    DAMAGED_BATCH = logging.WARNING, "A command that reads topics skipped records at `offset` that Kafka's client can't read."
    MICRO_BATCH_RETRIED = (
        logging.WARNING,
        "The database was unreachable, or refused a transaction that may be repeated. The micro-batch is retried.",
    )
    DRAIN_ABANDONED = logging.WARNING, "The role stopped before its last micro-batch was complete. Kafka delivers it again."
    DRAIN_FAILED = logging.WARNING, "The last micro-batch failed while the role stopped. Kafka delivers it again."

    # Forgetting.
    PERSON_FORGOTTEN = logging.INFO, "A person was forgotten, as `request` asked: the tables name them no more."
    PERSON_UNKNOWN = logging.INFO, "Nobody has the id that `request` asked to forget. Nothing was changed."
    FORGETTING_FAILED = (
        logging.ERROR,
        "The work on `request`, which asks to forget a person, failed. The next sweep repeats it; other requests are worked on.",
    )

    # Consumer groups.
    PARTITIONS_ASSIGNED = logging.INFO, "Kafka assigned these further `partitions` to the role."
    PARTITIONS_REVOKED = logging.INFO, "Kafka revoked these `partitions` from the role."
    TOPIC_REPLACED = logging.WARNING, "A topic was recreated. The role reads these `partitions` of it from their beginning."
    CLIENT_RENEWED = (
        logging.WARNING,
        "The role replaced its Kafka client, which had `partitions`. `reason` is `topic_replaced` (the topic was recreated), `silent` "
        "(nothing came since the assignment: check that the partitions have leaders) or `group_renewed` (an operator renewed the group).",
    )
    GROUP_REFUSED = (
        logging.ERROR,
        "For a minute Kafka's coordinator has not served the role's consumer group. The role handles nothing. "
        "If the brokers are well, run `bulkreg groups renew ROLE`.",
    )
    GROUP_UNKNOWN = (
        logging.WARNING,
        "The database did not say whether the role's consumer group was renewed. The role stays in, or joins, the group that it knows.",
    )
    TOPIC_IDS_UNKNOWN = (
        logging.WARNING,
        "Kafka did not report whether topics were recreated. The role relies on the committed offsets.",
    )
    COMMIT_FAILED = (
        logging.WARNING,
        "Offsets were not committed. The next commit includes them; until then Kafka may redeliver records.",
    )
    POLL_ERROR = logging.WARNING, "Kafka's client reported an error from which it recovers by itself."

    # Events, as a role or the relay publishes them.
    EVENT_REFUSED = (
        logging.ERROR,
        "Kafka will never accept this event as it is. Check the topic's limits; `event_id`, or `batch` and `row`, say which event.",
    )
    EVENT_NOT_ACKNOWLEDGED = (
        logging.WARNING,
        "A topic or partition did not accept an event. The event is sent again; other events are not delayed.",
    )
    PLACE_IN_TROUBLE = (
        logging.WARNING,
        "A topic, partition or stream (`place`) accepts no events. They are sent again later; other events are not delayed.",
    )
    PLACE_WORKS_AGAIN = logging.INFO, "A place that was in trouble accepts events again."
    PRODUCER_REBUILT = (
        logging.ERROR,
        "Kafka's client no longer knew which events it had sent, or did not deliver an event within two minutes, and was replaced. "
        "Its events are sent again.",
    )
    RELAY_FAILED = logging.WARNING, "The relay could not reach the database or the broker. It retries."
    RELAY_SLOTS = logging.INFO, "The relay now publishes these `slots` of the outbox."
    SILENT_RELAYS_ENDED = (
        logging.WARNING,
        "Relays did not contact the database within the lease. Their `sessions` were ended, and other relays take their slots.",
    )
    TOPIC_CREATED = logging.INFO, "A topic was created, under the name `cluster_topic`."

    # The external registration service.
    SERVICE_AWAY = logging.WARNING, "The registration service does not respond. The role pauses until it does."
    SERVICE_BACK = logging.WARNING, "The registration service responds again. The role continues."
    UNANSWERED = (
        logging.INFO,
        "The registration service gave no definite response for an item. The item is requested again; `reason` says why.",
    )

    # Webhooks.
    DELIVERING_FAILED = (
        logging.WARNING,
        "The notifier could not reach the database. It retries; a result that is lost leads to a repetition.",
    )
    SOCKETS_EXHAUSTED = (
        logging.ERROR,
        "The notifier could not open a socket for a delivery, and repeats it in a minute. Raise the limit of open files, or run more notifiers.",
    )
    DELIVERY_GIVEN_UP = (
        logging.WARNING,
        "An event was not delivered to a webhook within three days, or the webhook was disabled. `problem` is the last attempt's.",
    )
    WEBHOOK_DISABLED = (
        logging.WARNING,
        "A webhook was disabled. `reason` is `gone` (the receiver responded 410) or `failing` (no attempt succeeded for a week).",
    )
    WEBHOOK_SECRET_UNREADABLE = (
        logging.ERROR,
        "A webhook's secret is encrypted under a key that BULKREG_WEBHOOK_KEYS lacks. Add the key again; nothing is sent until then.",
    )
    WEBHOOK_SECRETS_RENEWED = (
        logging.INFO,
        "The secrets of webhooks are encrypted under the first key now. The other keys can be removed from BULKREG_WEBHOOK_KEYS.",
    )

    # The sweeper.
    STEP_DONE = logging.INFO, "A step of the sweep found work. The fields say how much."
    SWEEP_FAILED = logging.WARNING, "A step of the sweep failed. The next sweep repeats it."
    BATCH_SET_ASIDE = logging.ERROR, "One batch makes a step of the sweep fail. The step skips this batch and handles all others."
    ITEM_GIVEN_UP = logging.ERROR, "An item had no outcome for too long and ends as `internal_error`. It can be retried."

    # The notary.
    NOTARY_FAILED = logging.WARNING, "The notary could not reach the database or the broker. It retries."
    RECEIPTS_UNSIGNED = (
        logging.WARNING,
        "BULKREG_RECEIPTS_SIGNING_KEY is not set. The notary keeps the logs and signs nothing, so there are no receipts.",
    )
    AUDIT_ROW_LEFT_OUT = (
        logging.ERROR,
        "Somebody has removed the `activity` of an audit row from before version 0011 of the tables, which had no values of its own, so no "
        "receipt can prove it. The logs go on without it. `bulkreg receipts audit` names it, too.",
    )
    CHECKPOINT_IGNORED = (
        logging.WARNING,
        "A record of the topic lifecycle (`partition`, `offset`) says that it is a checkpoint, but no known key has signed it for that log. It "
        "is not compared. Find out who wrote it; after a restore, it may be by a key that was made and replaced since the copy.",
    )
    RECEIPT_LOG_HALTED = (
        logging.ERROR,
        "The log of an organization contradicts a checkpoint that was published, and is not signed. `state` is `ahead` (the database was "
        "restored to an earlier point) or `forked`. Run `bulkreg doctor`.",
    )

    def __init__(self, level: int, meaning: str) -> None:
        self.level = level
        self.meaning = meaning

    @property
    def label(self) -> str:
        """The action's name in the log."""
        return self.name.lower()


class RecordFields(TypedDict):
    """The record that a line is about. `batch` is None when the record could not be read."""

    batch: str | None
    topic: str
    partition: int
    offset: int


class LogLine:
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
        line = LogLine(action, {name: value for name, value in fields.items() if value is not None})
        # Without `_logger.log`, which looks for the caller's file and line in the stack. The action says more.
        _logger.handle(_logger.makeRecord(_logger.name, action.level, "", 0, line, (), None))


def _word(value: object) -> str:
    """The value as one word. A text with spaces or control characters is quoted."""
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)

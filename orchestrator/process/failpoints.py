"""Named failpoints: the moments between two durable steps at which a test can end the process or raise an error.

The setting `failpoints` arms them. `name=crash@3` ends the process at the third pass as kill -9 would; `name=raise` raises at each pass,
`name=raise@2` at the second. Entries are separated by commas.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

EXIT_CODE = 137
"""The exit code that a shell reports for a process ended by kill -9."""


class Failpoint(StrEnum):
    """All failpoints. Each name says which role passes it, and after or before which step."""

    CONSUMER_BEFORE_HANDLE = "consumer.before_handle"
    REGISTRATION_AFTER_DISPATCH_COMMIT = "registration.after_dispatch_commit"
    REGISTRATION_AFTER_ANSWERS = "registration.after_answers"
    REGISTRATION_AFTER_ANSWERS_COMMIT = "registration.after_answers_commit"
    CONSUMER_AFTER_HANDLE_COMMIT = "consumer.after_handle_commit"
    CONSUMER_AFTER_PRODUCE = "consumer.after_produce"
    CONSUMER_AFTER_OFFSET_COMMIT = "consumer.after_offset_commit"
    NOTIFIER_AFTER_CLAIM = "notifier.after_claim"
    NOTIFIER_AFTER_SEND = "notifier.after_send"
    NOTIFIER_AFTER_END = "notifier.after_end"
    RELAY_BEFORE_PUBLISH = "relay.before_publish"
    RELAY_AFTER_PUBLISH = "relay.after_publish"
    RELAY_AFTER_DELETE = "relay.after_delete"
    NOTARY_BEFORE_COMMIT = "notary.before_commit"
    NOTARY_AFTER_COMMIT = "notary.after_commit"
    NOTARY_BEFORE_SIGNED_COMMIT = "notary.before_signed_commit"
    FORGETTING_AFTER_PAGE = "forgetting.after_page"


class InjectedError(Exception):
    """Raised by a failpoint that is armed with `raise`."""


@dataclass(frozen=True, slots=True)
class _Action:
    crash: bool
    at_pass: int | None


def failpoints(setting: str) -> Callable[[Failpoint], None]:
    """Returns the function that the code calls at each failpoint; it does nothing when the setting is empty.

    Raises ValueError for a malformed setting.
    """
    if not setting:
        return _nothing
    actions = dict(_parsed(entry) for entry in setting.split(","))
    return _Armed(actions).passed


def _nothing(_failpoint: Failpoint) -> None:
    pass


def _parsed(entry: str) -> tuple[Failpoint, _Action]:
    name, _, action = entry.strip().partition("=")
    verb, _, at_pass = action.partition("@")
    if verb not in ("crash", "raise"):
        message = f"{entry!r} is not a failpoint: write name=crash or name=raise, and @N after it to act only at the Nth pass"
        raise ValueError(message)
    return Failpoint(name), _Action(verb == "crash", int(at_pass) if at_pass else None)


class _Armed:
    def __init__(self, actions: Mapping[Failpoint, _Action]) -> None:
        self._actions = actions
        self._passes: Counter[Failpoint] = Counter()
        self._lock = threading.Lock()

    def passed(self, failpoint: Failpoint) -> None:
        action = self._actions.get(failpoint)
        if action is None:
            return
        with self._lock:
            self._passes[failpoint] += 1
            number = self._passes[failpoint]
        if action.at_pass not in (None, number):
            return
        if action.crash:
            os._exit(EXIT_CODE)
        raise InjectedError(f"{failpoint.value}, pass {number}")

"""How long an external registration service is asked, how many requests it gets at once, and when it is left alone.

The test provides the service and the clock. The dispatches are in the real database, and so is the decision which items may be asked for.
"""

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Self

import pytest

from consumers.external import adapter
from consumers.external.adapter import ExternalRegistration
from consumers.external.http_client import Unknown
from consumers.loop.handler import Record
from orchestrator.process import metrics
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.registration.external import Question, Registered, Settled
from orchestrator.storage.blame import TransientError
from orchestrator.storage.dispatch import dispatches
from schemas.envelope import Topic
from schemas.events import EventData
from tests.support.log_lines import logged
from tests.support.pipeline import Pipeline, mentors, record
from tests.support.shown import shown

ACTIVITY = "01990000-0000-7000-8000-000000000001"
NOBODY_THERE = Unknown("ConnectError", was_reached=False)
NO_ANSWER = Unknown("500")
AT_WORK = Unknown("processing", was_heard=True)
# With this factor the pauses are 1/8 s, 1/4 s and so on: numbers that add up exactly.
JITTER = 0.25


class Clock(threading.Event):
    """Ends each pause at once, and records its length. After `stops_after` pauses, the role is told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.pauses: list[float] = []
        self.stops_after: int | None = None
        self.was_away: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        assert len(self.pauses) < 50, "the role does not stop"
        self.was_away.append(shown(metrics.REGISTRATION_BREAKER_OPEN))
        self.pauses.append(timeout)
        self.now += timeout
        return len(self.pauses) == self.stops_after


class Service:
    """Returns each mentor's given responses in turn, then registers. Each request takes a second."""

    def __init__(self, clock: Clock) -> None:
        self.responses: dict[str, deque[Settled | Unknown]] = defaultdict(deque)
        self.is_back_after = 1
        self.asked: list[str] = []
        self.timeouts: list[float] = []
        self.probes: list[float] = []
        self.most_at_once = 0
        self._at_once = 0
        self._clock = clock

    def __call__(self, _settings: Settings) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Has nothing to close."""

    async def settle(self, question: Question, timeout_s: float) -> Settled | Unknown:
        mentor = question.registration.attributed_to
        self.asked.append(mentor)
        self.timeouts.append(timeout_s)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        for _ in range(20):
            await asyncio.sleep(0)
        self._at_once -= 1
        self._clock.now += 1
        responses = self.responses[mentor]
        return responses.popleft() if responses else Registered(ACTIVITY)

    async def is_there(self, timeout_s: float) -> bool:
        self.probes.append(timeout_s)
        return len(self.probes) >= self.is_back_after


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Service:
    service = Service(clock)
    monkeypatch.setattr(adapter, "RegistrationClient", service)
    monkeypatch.setattr(adapter, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return service


class Asking:
    """The role's preparation with its own settings, and the commands of one new batch."""

    def __init__(self, pipeline: Pipeline, settings: Settings, clock: Clock) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._clock = clock
        self._opened: list[ExternalRegistration] = []

    def __call__(self, count: int, **changes: int) -> Sequence[str]:
        """The dispatch state of each item after the commands of this many mentors were prepared."""
        records = self.commands(count)
        external = ExternalRegistration(
            self._settings.model_copy(update={"registration_url": "http://127.0.0.1:1", **changes}),
            self._pipeline.engine,
            jitter=lambda: JITTER,
        )
        self._opened.append(external)
        external.prepare(records, self._clock)
        [batch_id] = {str(each.data.batch_id) for each in records}  # type: ignore[attr-defined]
        with self._pipeline.engine.begin() as connection:
            found = dispatches(connection, [(batch_id, position) for position in range(count)])
        return [found[position].state.value if position in found else "never asked" for position in range(count)]

    def commands(self, count: int) -> list[Record[EventData]]:
        self._pipeline.submit(mentors(count))
        self._pipeline.relay()
        self._pipeline.handle(self._pipeline.splitter, self._pipeline.take(Topic.BATCHES))
        records = [record(event, offset) for offset, event in enumerate(self._pipeline.take(Topic.COMMANDS))]
        return sorted(records, key=lambda each: each.data.position)  # type: ignore[attr-defined]

    def close(self) -> None:
        for external in self._opened:
            external.close()


@pytest.fixture
def asking(pipeline: Pipeline, settings: Settings, clock: Clock, service: Service) -> Iterator[Asking]:
    asking = Asking(pipeline, settings, clock)
    yield asking
    asking.close()


# A request takes 1 s. The pauses are 1/8, 1/4, 1/2, 1 and 2 s, then always 25/8 s. So five tries take 8.875 s with their pauses.
PAUSES = [0.125, 0.25, 0.5, 1.0, 2.0, 3.125, 3.125]


@pytest.mark.parametrize(("deadline_ms", "tries"), [(5_874, 4), (5_875, 4), (5_876, 5), (8_875, 5), (8_876, 6), (17_125, 7)])
def test_an_items_patience_includes_its_requests_and_their_pauses(
    asking: Asking, service: Service, clock: Clock, deadline_ms: int, tries: int
) -> None:
    service.responses["mentor-1"].extend([NO_ANSWER] * 50)
    assert asking(1, registration_deadline_ms=deadline_ms) == ["asked"]
    assert len(service.asked) == tries
    assert clock.pauses == PAUSES[:tries]
    assert not service.probes, "one failing item must not open the breaker"


def test_no_request_may_take_longer_than_its_items_remaining_time(asking: Asking, service: Service) -> None:
    service.responses["mentor-1"].extend([NO_ANSWER] * 50)
    asking(1, registration_deadline_ms=8_875, registration_request_timeout_ms=4_000)
    assert service.timeouts == [4.0, 4.0, 4.0, 4.0, 3.0]


def test_each_item_has_its_own_patience_and_a_response_ends_its_tries(asking: Asking, service: Service, clock: Clock) -> None:
    service.responses["mentor-2"].extend([NO_ANSWER] * 50)
    service.responses["mentor-3"].extend([AT_WORK, AT_WORK])
    states = asking(3, registration_deadline_ms=5_875, registration_concurrency=1)
    assert states == ["registered", "asked", "registered"]
    assert [service.asked.count(f"mentor-{number}") for number in (1, 2, 3)] == [1, 4, 3]


def test_there_is_no_pause_after_the_last_response(asking: Asking, service: Service, clock: Clock) -> None:
    assert asking(2) == ["registered"] * 2
    assert clock.pauses == []
    service.responses["mentor-1"].append(NO_ANSWER)
    assert asking(2) == ["registered"] * 2
    assert clock.pauses == [0.125]


@pytest.mark.parametrize("concurrency", [1, 3, 16])
def test_the_number_of_simultaneous_requests_is_limited(asking: Asking, service: Service, concurrency: int) -> None:
    asking(8, registration_concurrency=concurrency)
    assert service.most_at_once == min(concurrency, 8)


# --- The breaker ----------------------------------------------------------------------------------------------------------------


def test_an_unavailable_service_is_probed_and_then_asked_for_the_rest(
    asking: Asking, service: Service, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Two items in a row get no response. The others are not sent meanwhile, and the wait uses up no item's patience."""
    for number in (1, 2):
        service.responses[f"mentor-{number}"].append(NO_ANSWER)
    service.is_back_after = 4
    states = asking(
        4,
        registration_concurrency=1,
        registration_breaker_failures=2,
        registration_breaker_max_pause_ms=600,
        registration_deadline_ms=2_200,
        registration_request_timeout_ms=1_500,
    )
    assert states == ["registered"] * 4
    assert service.asked == ["mentor-1", "mentor-2", "mentor-1", "mentor-2", "mentor-3", "mentor-4"]
    # From 0.4 s, doubled up to 0.6 s. The items' own pauses are not added.
    assert clock.pauses == pytest.approx([0.25, 0.375, 0.375, 0.375])
    assert service.probes == [1.5] * 4
    assert clock.was_away == [1.0] * 4
    assert shown(metrics.REGISTRATION_BREAKER_OPEN) == 0
    assert [len(logged(caplog, action)) for action in (Action.SERVICE_AWAY, Action.SERVICE_BACK)] == [1, 1]


def test_an_item_that_was_not_asked_has_all_its_patience_left(asking: Asking, service: Service) -> None:
    """The first item gets no response, so the breaker opens before the turn of the second."""
    service.responses["mentor-1"].append(NO_ANSWER)
    service.responses["mentor-2"].append(NO_ANSWER)
    # Two tries and the pauses after them, the second and the third one, take less than this. The first pause is not the second item's.
    states = asking(2, registration_concurrency=1, registration_breaker_failures=1, registration_deadline_ms=1_300)
    assert (service.asked.count("mentor-1"), service.asked.count("mentor-2"), states) == (2, 2, ["registered"] * 2)


def test_the_first_pause_is_never_longer_than_the_longest(asking: Asking, service: Service, clock: Clock) -> None:
    service.responses["mentor-1"].append(NO_ANSWER)
    asking(1, registration_breaker_failures=1, registration_breaker_max_pause_ms=200)
    assert clock.pauses == pytest.approx([0.125])


def test_a_service_is_left_alone_for_as_long_as_it_requests(asking: Asking, service: Service, clock: Clock) -> None:
    service.responses["mentor-1"].append(Unknown("429", wait_s=7.0))
    assert asking(3, registration_concurrency=1) == ["registered"] * 3
    assert clock.pauses == [7.0]
    assert service.asked == ["mentor-1", "mentor-1", "mentor-2", "mentor-3"]


@pytest.mark.parametrize("response", [AT_WORK, Registered(ACTIVITY)])
def test_a_service_that_works_or_responds_is_not_unavailable(
    asking: Asking, service: Service, response: Settled | Unknown
) -> None:
    service.responses["mentor-1"].append(NO_ANSWER)
    service.responses["mentor-2"].append(response)
    service.responses["mentor-3"].append(NO_ANSWER)
    asking(3, registration_concurrency=1, registration_breaker_failures=2)
    assert service.probes == []


@pytest.mark.parametrize(("response", "probes"), [(NOBODY_THERE, 1), (NO_ANSWER, 0)])
def test_each_failed_connection_counts_and_each_failing_item_counts_once(
    asking: Asking, service: Service, response: Unknown, probes: int
) -> None:
    service.responses["mentor-1"].extend([response] * 3)
    assert asking(1, registration_breaker_failures=3) == ["registered"]
    assert len(service.probes) == probes


def test_a_missing_response_is_logged(asking: Asking, service: Service, caplog: pytest.LogCaptureFixture) -> None:
    service.responses["mentor-2"].extend([NO_ANSWER, AT_WORK])
    with caplog.at_level("INFO", "bulkreg"):
        asking(2)
    [line] = logged(caplog, Action.UNANSWERED)
    assert (line["role"], line["position"], line["reason"]) == ("registration", 1, "500")
    assert str(line["key"]).endswith(":0")


@pytest.mark.parametrize("failures", [1, 5])
def test_a_role_that_is_told_to_stop_stops_in_any_pause(asking: Asking, service: Service, clock: Clock, failures: int) -> None:
    """A pause of an item, or of the breaker. An undecided item stays in doubt for the next process."""
    service.responses["mentor-1"].extend([NO_ANSWER] * 50)
    clock.stops_after = 1
    with pytest.raises(TransientError):
        asking(1, registration_breaker_failures=failures)
    assert service.asked == ["mentor-1"]

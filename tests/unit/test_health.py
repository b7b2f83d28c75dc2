"""What a role's health check reports about its loop."""

from compose.roles import _health_check
from orchestrator.process.health import Health, LoopHealth


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_row_53_loop_that_retries_the_same_work_gives_the_reason_when_it_is_late() -> None:
    health = LoopHealth(clock := Clock(), broker_contact=True)
    health.retrying = "OperationalError 55P03"
    clock.now = 29.0
    assert health.check(max_loop_age_s=30.0) == Health(True)
    clock.now = 31.0
    late = health.check(max_loop_age_s=30.0)
    assert late == Health(
        False, "the loop has not completed an iteration for 31 s; it is retrying the same work: OperationalError 55P03"
    )
    health.turned()
    assert health.check(max_loop_age_s=30.0) == Health(True)
    clock.now = 62.0
    assert health.check(max_loop_age_s=30.0) == Health(False, "the loop has not completed an iteration for 31 s")


def test_row_53_loop_that_turns_without_doing_its_work_is_not_ready() -> None:
    health = LoopHealth(Clock(), broker_contact=True, failing="the oldest event waits")
    assert health.check(max_loop_age_s=30.0) == Health(False, "the oldest event waits")
    health.broker_contact = False
    assert health.check(max_loop_age_s=30.0) == Health(False, "no broker responds")


def test_row_53_api_beside_a_role_in_trouble_accepts_batches_and_reports_the_role() -> None:
    health = LoopHealth(Clock(), broker_contact=True, failing="the oldest event waits")
    assert _health_check(health, None, 5, tells_only=True)() == Health(True, "the oldest event waits")
    health.broker_contact = False
    assert not _health_check(health, None, 5, tells_only=True)().ok


def test_row_53_role_that_started_too_often_is_not_ready_at_first() -> None:
    health = LoopHealth(clock := Clock(), broker_contact=True)
    assert _health_check(health, 5, 5, tells_only=False)() == Health(True)
    check = _health_check(health, 6, 5, tells_only=False)
    assert not check().ok
    clock.now = 600.0
    health.turned()
    assert check() == Health(True), "a supervisor that waits for readiness would never see it"

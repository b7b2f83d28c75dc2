import pytest

from orchestrator.process.failpoints import Failpoint, InjectedError, failpoints


def test_an_empty_setting_arms_no_failpoint() -> None:
    for failpoint in Failpoint:
        failpoints("")(failpoint)


def test_it_raises_only_at_the_given_pass() -> None:
    passed = failpoints("relay.after_publish=raise@2")
    passed(Failpoint.RELAY_AFTER_PUBLISH)
    passed(Failpoint.CONSUMER_AFTER_PRODUCE)
    with pytest.raises(InjectedError):
        passed(Failpoint.RELAY_AFTER_PUBLISH)
    passed(Failpoint.RELAY_AFTER_PUBLISH)


def test_without_a_number_it_raises_at_every_pass() -> None:
    passed = failpoints("relay.after_publish=raise")
    for _ in range(2):
        with pytest.raises(InjectedError):
            passed(Failpoint.RELAY_AFTER_PUBLISH)


@pytest.mark.parametrize(
    "setting", ["relay.after_publish", "relay.after_publish=explode", "nowhere=raise", "relay.after_publish=crash@x"]
)
def test_an_unknown_failpoint_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=r"failpoint|Failpoint|int"):
        failpoints(setting)

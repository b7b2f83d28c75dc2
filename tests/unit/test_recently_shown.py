"""When a long poll may rely on what its client was shown a moment ago."""

import pytest

from api.load.recent import HOLDS_FOR_S, RecentlyShown


class Shown:
    """The states, with a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.recent = RecentlyShown(clock=lambda: self.now)

    def show(self, key: str = "tag", *, batch: str = "batch", version: int = 3) -> None:
        self.recent.shown(key, batch, version, self.now)
        self.now += 0.01


@pytest.fixture
def shown() -> Shown:
    made = Shown()
    made.recent.hears()
    return made


def test_a_state_holds_until_its_batch_changes(shown: Shown) -> None:
    shown.show()
    shown.recent.changed(["another"])
    assert shown.recent.unchanged("tag", "batch") == 3
    shown.show()
    shown.recent.changed(["batch"])
    assert shown.recent.unchanged("tag", "batch") is None


def test_a_change_during_the_read_counts(shown: Shown) -> None:
    began = shown.now
    shown.recent.changed(["batch"])
    shown.recent.shown("tag", "batch", 3, began)
    assert shown.recent.unchanged("tag", "batch") is None


def test_a_change_before_the_read_does_not_count(shown: Shown) -> None:
    shown.recent.changed(["batch"])
    shown.now += 0.01
    shown.show()
    assert shown.recent.unchanged("tag", "batch") == 3


def test_nothing_holds_for_another_caller_or_tag(shown: Shown) -> None:
    shown.show()
    assert shown.recent.unchanged("another", "batch") is None


def test_of_two_batches_with_the_same_tag_each_has_its_own_state(shown: Shown) -> None:
    shown.show(batch="first")
    shown.show(batch="second")
    shown.recent.changed(["first"])
    assert shown.recent.unchanged("tag", "first") is None
    assert shown.recent.unchanged("tag", "second") == 3


def test_a_state_holds_for_a_short_time(shown: Shown) -> None:
    shown.show()
    shown.now += HOLDS_FOR_S
    assert shown.recent.unchanged("tag", "batch") is None


def test_nothing_holds_while_notifications_may_be_missed(shown: Shown) -> None:
    shown.show()
    shown.recent.hears_nothing()
    assert shown.recent.unchanged("tag", "batch") is None
    shown.show()
    assert shown.recent.unchanged("tag", "batch") is None
    before = shown.now
    shown.now += 1
    shown.recent.hears()
    shown.recent.shown("tag", "batch", 3, before)
    assert shown.recent.unchanged("tag", "batch") is None, "it was read before notifications were heard"


def test_what_no_longer_counts_is_forgotten(shown: Shown) -> None:
    for number in range(1_000):
        shown.show(f"tag {number}", batch=f"batch {number}")
        shown.recent.changed([f"batch {number}"])
        shown.now += 0.1
    assert len(shown.recent._states) < 60
    assert len(shown.recent._changed_at) < 60

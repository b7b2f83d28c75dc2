"""How long a partition may be silent before the client is replaced."""

import pytest

from consumers.loop.offsets import PartitionOffsets
from consumers.loop.silence import SILENT_AFTER_MAX_S, SILENT_AFTER_S, Silence
from schemas.envelope import Topic

FIRST, SECOND = (PartitionOffsets(Topic.COMMANDS, "commands", number) for number in range(2))


class Now:
    """A clock."""

    s = 0.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def silence(now: Now) -> Silence:
    return Silence(now)


def test_the_longest_silence_counts(silence: Silence, now: Now) -> None:
    silence.assigned(FIRST)
    now.s = 10.0
    silence.assigned(SECOND)
    now.s = SILENT_AFTER_S
    assert silence.is_too_long
    assert list(silence.partitions) == [FIRST, SECOND]
    silence.heard({FIRST})
    assert not silence.is_too_long
    now.s += 10.0
    assert silence.is_too_long
    silence.revoked({SECOND})
    assert not silence.is_too_long
    assert not silence


def test_the_patience_doubles_with_each_client_that_hears_nothing(silence: Silence, now: Now) -> None:
    patience_s = []
    for _ in range(7):
        silence.assigned(FIRST)
        began_s = now.s
        while not silence.is_too_long:
            now.s += SILENT_AFTER_S
        patience_s.append(now.s - began_s)
        silence.renewed()
        silence.revoked({FIRST})
    assert patience_s == [*(SILENT_AFTER_S * 2**renewals for renewals in range(5)), SILENT_AFTER_MAX_S, SILENT_AFTER_MAX_S]
    silence.assigned(FIRST)
    silence.heard({FIRST})
    silence.assigned(FIRST)
    now.s += SILENT_AFTER_S
    assert silence.is_too_long


def test_it_complains_when_a_new_client_hears_nothing_either(silence: Silence) -> None:
    silence.assigned(FIRST)
    silence.assigned(SECOND)
    assert silence.complaint is None
    silence.renewed()
    assert "commands/0, commands/1" in str(silence.complaint)
    silence.heard({FIRST})
    assert "commands/1" in str(silence.complaint)
    assert "commands/0" not in str(silence.complaint)
    silence.heard({SECOND})
    assert silence.complaint is None
    silence.assigned(FIRST)
    assert silence.complaint is None


def test_a_revoked_partition_is_not_complained_of(silence: Silence) -> None:
    silence.assigned(FIRST)
    silence.renewed()
    silence.revoked({FIRST})
    assert silence.complaint is None

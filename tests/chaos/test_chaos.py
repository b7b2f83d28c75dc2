"""The whole product under load while everything is killed, stopped, cut off and filled up: nothing is lost, doubled or stuck."""

import secrets
from pathlib import Path

import pytest

from tests.chaos.report import page, summary
from tests.chaos.run import Plan, Result, run

# Lost records are found sooner than in production, so that half a minute of chaos is drained in seconds.
IMPATIENT = {"BULKREG_SWEEP_INTERVAL_MS": "1000", "BULKREG_SWEEP_STUCK_AFTER_MS": "4000"}


@pytest.fixture(autouse=True)
def _own_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses its own servers, whatever the other tests use, because these tests kill servers."""
    for name in ("BULKREG_DATABASE_URL", "BULKREG_KAFKA_BOOTSTRAP_SERVERS"):
        monkeypatch.delenv(name, raising=False)


def check(result: Result, tmp_path: Path, *, least_batches: int, least_faults: int) -> None:
    """Checks that the verdict is green, and that there was enough work and harm."""
    (tmp_path / "chaos.html").write_text(page(result), encoding="utf-8")
    print(summary(result))
    assert result.is_green, summary(result)
    assert result.verdict.judged["batches"] >= least_batches, summary(result)
    assert result.verdict.judged["changes of the period"] >= 2, summary(result)
    for what in ("erasures", "deliveries", "leaves of logs", "receipts"):
        assert result.verdict.judged[what] >= 1, summary(result)
    assert len(result.faults) >= least_faults, summary(result)


def test_half_a_minute_of_chaos(tmp_path: Path) -> None:
    plan = Plan(seed=secrets.token_hex(4), clients=4, chaos_s=30.0, calm_s=1.0, drained_within_s=300.0, environment=IMPATIENT)
    check(run(plan, tmp_path, print), tmp_path, least_batches=30, least_faults=8)


@pytest.mark.full
@pytest.mark.timeout(1_500)
def test_ten_minutes_of_chaos(tmp_path: Path) -> None:
    plan = Plan(seed=secrets.token_hex(4), chaos_s=600.0, spared_s=300.0, drained_within_s=300.0)
    result = run(plan, tmp_path, print)
    check(result, tmp_path, least_batches=1_000, least_faults=15)
    assert result.verdict.judged["people forgotten"] >= 1, summary(result)

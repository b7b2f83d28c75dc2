"""`bulkreg replay`: where it begins to read, and how it reports what it found (tests/integration/replay/test_command.py runs it)."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner

from cli.commands import replay
from cli.main import app
from consumers.reading.replay_source import RecordPlace
from orchestrator.replay.promote import Promoted
from orchestrator.replay.rebuild import Comparison
from orchestrator.replay.shadow_tables import Difference
from schemas.envelope import Topic

ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))


def difference(batch_id: UUID, field: str = "label", item_id: str | None = None) -> Difference:
    return Difference(str(batch_id), item_id, field, None, "x")


def comparison(
    *differences: Difference, in_motion: Sequence[UUID] = (), not_covered: Sequence[UUID] = (), more: int = 0
) -> Comparison:
    fields = [each.field for each in differences]
    by_field = {field: fields.count(field) for field in fields}
    if more:
        by_field[fields[0]] += more
    batches = list(dict.fromkeys(UUID(each.batch_id) for each in differences))
    return Comparison(3, 1_007, by_field, differences, batches, in_motion, not_covered)


NOTHING = comparison()


class Replay:
    """A replay with a given result. Records where it was to begin."""

    def __init__(self) -> None:
        self.before = NOTHING
        self.after: Comparison | None = None
        self.promoted: dict[UUID, Promoted] = {}
        self.begun: list[tuple[Any, ...]] = []

    def __call__(self, _settings: object, _output: object, batch_id: UUID | None, start: object, *, promote: bool) -> Any:
        self.begun.append((batch_id, start, promote))
        return replay._Done(12_345, 6, self.before, self.after if promote else None, self.promoted if promote else {})


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Replay:
    found = Replay()
    monkeypatch.setattr(replay, "_replay", found)
    return found


def bulkreg(*arguments: str) -> tuple[int, str]:
    environment = {
        "BULKREG_DATABASE_URL": "postgresql://nobody@127.0.0.1/none",
        "BULKREG_TOPIC_PREFIX": "test",
        "BULKREG_HOME": None,
    }
    ran = CliRunner().invoke(app, ["replay", *arguments], env=environment)
    return ran.exit_code, ran.stdout


def document(*arguments: str) -> tuple[int, Any]:
    code, stdout = bulkreg(*arguments, "--json")
    return code, json.loads(stdout)


@pytest.mark.parametrize(
    ("given", "start"),
    [
        ([], None),
        (["--from", "2026-03-26T10:00"], datetime(2026, 3, 26, 10, tzinfo=UTC)),
        (["--from", "2026-03-26"], datetime(2026, 3, 26, tzinfo=UTC)),
        (["--from", "2026-03-26T10:00+02:00"], datetime(2026, 3, 26, 10, tzinfo=timezone(timedelta(hours=2)))),
        (["--from", "commands-bulk/2@17"], RecordPlace(Topic.COMMANDS_BULK, 2, 17)),
        (["--from", f"{Topic.RESULTS.on_cluster('test')}/0@3"], RecordPlace(Topic.RESULTS, 0, 3)),
    ],
)
def test_it_begins_at_the_given_place(found: Replay, given: list[str], start: object) -> None:
    assert bulkreg(*given)[0] == 0
    assert found.begun == [(None, start, False)]


@pytest.mark.parametrize(
    "start", ["commands/2@17x", "x/commands/2@17", "commands/2", "17", "prefix.commands.v1/2@17", "2026-13-01"]
)
def test_a_beginning_that_is_neither_a_time_nor_a_record_is_refused(found: Replay, start: str) -> None:
    assert bulkreg("--from", start)[0] == 2
    assert found.begun == []


def test_a_named_batch_is_replayed_alone(found: Replay) -> None:
    bulkreg("--batch", str(ONE), "--promote")
    assert found.begun == [(ONE, None, True)]


def test_a_remaining_difference_is_a_failure(found: Replay) -> None:
    assert document()[0] == 0
    found.before = comparison(difference(ONE))
    assert document()[0] == 1
    for after, code in ((NOTHING, 0), (comparison(difference(TWO)), 1)):
        found.after = after
        assert document("--promote")[0] == code


def test_the_document_has_what_was_promoted_and_what_remains(found: Replay) -> None:
    of_item = difference(TWO, "error", "item-1")
    found.before = comparison(
        difference(ONE),
        difference(ONE, "status"),
        of_item,
        difference(TWO, "error", "item-2"),
        in_motion=[THREE],
        not_covered=[TWO],
    )
    code, before = document()
    assert [each["promoted"] for each in before["differences"]] == [False] * 4
    assert (code, before["remaining"], before["promotion"]) == (1, {"label": 1, "status": 1, "error": 2}, {})
    found.after = comparison(of_item)
    found.promoted = {ONE: Promoted.MERGED, TWO: Promoted.MOVED}
    code, after = document("--promote")
    assert [each["promoted"] for each in after["differences"]] == [True, True, False, True]
    assert (after["counts"], after["remaining"]) == ({"label": 1, "status": 1, "error": 2}, {"error": 1})
    assert after["promotion"] == {str(ONE): "merged", str(TWO): "changed since it was read: replay again"}
    assert (after["in_motion"], after["not_covered"]) == ([str(THREE)], [str(TWO)])
    assert after["read"] == {"records": 12_345, "unreadable": 6, "batches": 3, "items": 1_007}
    assert after["differences"][2] == {
        "batch_id": str(TWO),
        "item_id": "item-1",
        "field": "error",
        "live": None,
        "rebuilt": "x",
        "promoted": False,
    }


def test_people_see_what_was_read_and_that_nothing_differs(found: Replay) -> None:
    assert bulkreg()[1].splitlines() == [
        "12,345 records read (6 unreadable): 3 batches with 1,007 items.",
        "The tables are what the topics say.",
    ]
    found.before = comparison(in_motion=[ONE, TWO], not_covered=[THREE])
    assert bulkreg()[1].splitlines()[1:] == [
        "2 batches are in motion and were not compared; replay again to see them at rest.",
        "1 batches are not covered: what was read does not tell how they began.",
        "No differences in the compared batches.",
    ]


@pytest.mark.parametrize(("count", "unlisted", "more"), [(20, 0, None), (21, 0, "and 1 more"), (20, 1_500, "and 1,500 more")])
def test_people_see_twenty_differences_and_how_many_more_there_are(
    found: Replay, count: int, unlisted: int, more: str | None
) -> None:
    found.before = comparison(*[difference(ONE, item_id=f"item-{number}") for number in range(count)], more=unlisted)
    lines = bulkreg()[1].splitlines()
    assert sum("item-" in line for line in lines) == 20
    assert [line for line in lines if line.startswith("and ")] == ([more] if more else [])
    assert [line.split()[-2:] for line in lines if "item-0" in line] == [["nothing", "x"]]
    assert lines[-1] == f"Differences: {count + unlisted:,} label."


def test_people_see_what_was_promoted(found: Replay) -> None:
    found.before = comparison(difference(ONE), difference(TWO))
    found.after = comparison(difference(TWO))
    found.promoted = {ONE: Promoted.MERGED, TWO: Promoted.NOT_BORNE_OUT, THREE: Promoted.MERGED}
    assert bulkreg("--promote")[1].splitlines()[-2:] == [
        "Promotion: 2 merged, 1 not confirmed by the database.",
        "Differences: 2 label. Left: 1 label.",
    ]
    found.after = NOTHING
    assert bulkreg("--promote")[1].splitlines()[-1] == "Differences: 2 label. Left: none."

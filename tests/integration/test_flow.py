"""Real handlers and real SQL, from submission to folded status."""

import json
from datetime import date
from pathlib import Path

from orchestrator.batches.model import Actor, ItemValues, NewBatch, NewItem, Role
from orchestrator.batches.operations import submit_bulk_registration
from schemas.ids import new_batch_id
from tests.support.pipeline import Pipeline, load_directory, mentors

DATA = Path(__file__).parents[1] / "data"


def test_one_batch_becomes_one_activity_each(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(3))
    assert pipeline.status(batch_id).batch.status == "processing"
    pipeline.drain()
    view = pipeline.status(batch_id)
    assert view.batch.status == "completed"
    assert [item.status for item in view.items] == ["success"] * 3
    assert len({item.activity_id for item in view.items}) == 3


def test_small_data_set_gives_exactly_the_expected_outcomes(pipeline: Pipeline) -> None:
    load_directory(pipeline.engine, DATA / "small" / "directory")
    expected = [json.loads(line) for line in (DATA / "small" / "expected.ndjson").read_text().splitlines()]
    submissions = [json.loads(line) for line in (DATA / "small" / "submissions.ndjson").read_text().splitlines()]
    for submission, wanted in zip(submissions, expected, strict=True):
        override = submission.get("override_duplicates", False)
        items = [
            NewItem(
                ItemValues(
                    item["mentor_id"],
                    item["activity_type"],
                    date.fromisoformat(item["activity_date"]),
                    item["duration_minutes"],
                    item.get("notes"),
                    override,
                )
            )
            for item in (submission.get("items") or [submission["activity"] | {"mentor_id": m} for m in submission["mentor_ids"]])
        ]
        actor = Actor(submission["organization_id"], "upstream", Role.SERVICE)
        batch = NewBatch(new_batch_id(), submission["coordinator_id"], submission.get("label"), override, items, "1" * 32)
        pipeline.call(submit_bulk_registration, actor, batch)
        pipeline.drain()
        view = pipeline.status(batch.batch_id, actor=actor)
        outcomes = ["success" if item.error is None else item.error.code for item in view.items]
        assert outcomes == wanted["items"], f"line {wanted['line']}"
        counts = view.batch.counts
        assert (view.batch.status, counts.completed, counts.failed) == (wanted["status"], wanted["completed"], wanted["failed"])

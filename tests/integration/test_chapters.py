"""Activities from before the chapter column get their mentor's chapter, in chunks."""

import pytest
from sqlalchemy import Engine, text

from orchestrator.storage import chapters
from tests.support.pipeline import Pipeline, mentors


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_every_activity_gets_its_chapter_with_any_chunk_size(
    pipeline: Pipeline, engine: Engine, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(chapters, "_CHUNK", 2)
    pipeline.submit(mentors(5))
    pipeline.drain()
    with engine.begin() as connection:
        connection.execute(text("UPDATE registration.activity SET chapter_id = 'of-then' WHERE attributed_to = 'mentor-5'"))
        connection.execute(
            text(
                "UPDATE registration.activity SET chapter_id = NULL WHERE activity_id IN"
                " (SELECT activity_id FROM registration.activity WHERE chapter_id = 'chapter-1' ORDER BY activity_id LIMIT :count)"
            ),
            {"count": count},
        )
        # The chapter of a mentor who is no longer in the directory is unknown.
        connection.execute(text("DELETE FROM registration.mentor WHERE mentor_id = 'mentor-1'"))
        unknown = connection.execute(
            text("SELECT count(*) FROM registration.activity WHERE attributed_to = 'mentor-1' AND chapter_id IS NULL")
        ).scalar_one()
        # Mentors of another organization may have the same ids.
        connection.execute(
            text(
                "INSERT INTO registration.mentor (organization_id, mentor_id, name, chapter_id)"
                " SELECT 'org-neighbour', 'mentor-' || number, 'x', 'elsewhere' FROM generate_series(1, 5) AS number"
            )
        )
    chapters.fill_chapters(engine)
    with engine.begin() as connection:
        rows = connection.execute(text("SELECT chapter_id, count(*) FROM registration.activity GROUP BY 1")).all()
    assert dict(tuple(row) for row in rows) == {
        key: value for key, value in {"chapter-1": 4 - unknown, "of-then": 1, None: unknown}.items() if value
    }

"""Activities from before the chapter column get their mentor's chapter, in chunks."""

import threading

import pytest
from sqlalchemy import Engine, event, text

from orchestrator.storage import chapters
from tests.support.pipeline import Pipeline, mentors
from tests.support.plans import rows_read, without_indexes
from tests.support.waiting import eventually

WAITS = text("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')")


def is_waited(engine: Engine) -> bool:
    """Whether a session waits for a lock. Looks in a transaction of its own, which sees the sessions as they are at its first look."""
    with engine.begin() as connection:
        return bool(connection.execute(WAITS).scalar_one())


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


def test_chunks_follow_the_ids_and_no_activity_is_looked_at_twice(
    pipeline: Pipeline, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the rows lie. Activities whose mentor is unknown stay without a chapter, and those with one are left out."""
    monkeypatch.setattr(chapters, "_CHUNK", 2)
    pipeline.submit(mentors(9))
    pipeline.drain()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM registration.mentor WHERE mentor_id <= 'mentor-5'"))
        # A changed row lies behind all others.
        for mentor in (5, 1, 4, 2, 3):
            connection.execute(
                text("UPDATE registration.activity SET chapter_id = NULL WHERE attributed_to = :mentor"),
                {"mentor": f"mentor-{mentor}"},
            )
    event.listen(engine, "begin", without_indexes)
    with rows_read(engine, "WITH chunk AS") as chunks:
        chapters.fill_chapters(engine)
    event.remove(engine, "begin", without_indexes)
    assert len(chunks) == 4, "two, two, one, and none"


def test_a_chapter_that_an_activity_gets_meanwhile_stays(pipeline: Pipeline, engine: Engine) -> None:
    pipeline.submit(mentors(1))
    pipeline.drain()
    set_to = text("UPDATE registration.activity SET chapter_id = :chapter")
    with engine.begin() as connection:
        connection.execute(set_to, {"chapter": None})
    filling = threading.Thread(target=chapters.fill_chapters, args=(engine,))
    with engine.begin() as connection:
        connection.execute(set_to, {"chapter": "of-then"})
        filling.start()
        eventually(lambda: is_waited(engine))
    filling.join()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT chapter_id FROM registration.activity")).scalar_one() == "of-then"

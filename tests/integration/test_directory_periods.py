"""What `directory import` does to closed periods (docs/files.md)."""

from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from orchestrator.directory.periods import ClosedPeriod
from orchestrator.files.mistakes import BadFileError
from tests.support.directory_files import FILES, Import, importer


def closed(engine: Engine) -> dict[str, str | None]:
    """The last closed day of each organization."""
    statement = text("SELECT organization_id, closed_through::text FROM registration.organization")
    with engine.connect() as connection:
        return {row.organization_id: row.closed_through for row in connection.execute(statement)}


@pytest.fixture
def put(engine: Engine, tmp_path: Path) -> Import:
    return importer(engine, tmp_path)


def periods(**last_days: object) -> dict[str, str]:
    """`organizations.csv` with these last closed days."""
    listed = "".join(f"{organization},,,{day}\n" for organization, day in last_days.items())
    return {"organizations": f"organization_id,name,time_zone,closed_through\n{listed}"}


def test_an_import_closes_periods_and_only_moves_them_forward(put: Import, engine: Engine) -> None:
    report = put(FILES | periods(a="2025-12-31", b=""))
    assert closed(engine) == {"a": "2025-12-31", "b": None}
    assert (report.closed_periods, report.periods_closed_longer) == ([ClosedPeriod("a", date(2025, 12, 31))], [])
    again = put(periods(a="31.12.2025"))
    assert (again.closed_periods, again.periods_closed_longer) == ([], [])
    earlier = put(periods(a="2024-12-31", b="2024-12-31"))
    assert closed(engine) == {"a": "2025-12-31", "b": "2024-12-31"}
    assert earlier.closed_periods == [ClosedPeriod("b", date(2024, 12, 31))]
    assert earlier.periods_closed_longer == [ClosedPeriod("a", date(2025, 12, 31))]
    put({"organizations": "organization_id,name\na,Alpha\n"})
    put(periods(a=""))
    assert closed(engine) == {"a": "2025-12-31", "b": "2024-12-31"}


def test_what_an_import_closes_is_in_the_history_and_is_told(put: Import, engine: Engine) -> None:
    put(periods(a="2024-12-31"))
    put(periods(a="2025-12-31"))
    with engine.connect() as connection:
        history = connection.execute(
            text(
                "SELECT number, closed_through::text, previously::text, changed_by, channel FROM registration.period_change ORDER BY 1"
            )
        ).all()
        told = connection.execute(
            text("SELECT topic, key, convert_from(value, 'UTF8') FROM orchestrator.outbox ORDER BY outbox_id")
        ).all()
    assert list(map(tuple, history)) == [
        (1, "2024-12-31", None, "import", "import"),
        (2, "2025-12-31", "2024-12-31", "import", "import"),
    ]
    assert [(topic, key) for topic, key, _ in told] == [("lifecycle", "a")] * 2
    assert ['"closed_through":"2025-12-31"' in value for _, _, value in told] == [False, True]


def test_a_period_that_is_not_over_where_the_organization_is_can_not_be_closed(put: Import, engine: Engine) -> None:
    """Yesterday in the east is today or later in the west: 25 hours lie between them."""
    zones = "organization_id,name,time_zone,closed_through\na,A,Pacific/Kiritimati,{0}\nb,B,Pacific/Pago_Pago,{0}\n"
    with engine.connect() as connection:
        yesterday = connection.execute(text("SELECT (now() AT TIME ZONE 'Pacific/Kiritimati')::date - 1")).scalar_one()
    with pytest.raises(BadFileError) as refused:
        put({"organizations": zones.format(yesterday)})
    expected = f'organizations.csv, line 3, column closed_through: "{yesterday}" is after yesterday, so the period is not over'
    assert list(map(str, refused.value.mistakes)) == [expected]
    assert closed(engine) == {}
    put({"organizations": zones.format("2025-12-31")})
    assert closed(engine) == {"a": "2025-12-31", "b": "2025-12-31"}

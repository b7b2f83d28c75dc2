"""The data sets in `tests/data`: works out the expected outcomes without the product, and makes new sets.

`python -m tests.support.data_sets expect FOLDER` writes `expected.ndjson` of a folder again; `… make FOLDER --seed 7` makes a small set.
The rules are written here a second time on purpose, so that a mistake in `orchestrator` is not also in the expected outcomes.
"""

import argparse
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any

Row = Mapping[str, str]

EARLIEST = date(1990, 1, 1)
# Any day that is neither before the last valid activity of the sets, nor after the first of the future ones, in 2099.
TODAY = date(2026, 12, 31)
TYPES = ("peer_session", "hospital_visit", "training")


class Directory:
    """One organization per key, as `directory import` reads it into an empty database."""

    def __init__(self, folder: Path) -> None:
        self._mentors = {(row["organization_id"], row["mentor_id"]): row for row in _rows(folder / "mentors.csv")}
        self._roles = {(row["organization_id"], row["coordinator_id"]): row["role"] for row in _rows(folder / "coordinators.csv")}
        self._scopes = {(r["organization_id"], r["coordinator_id"], r["chapter_id"]) for r in _rows(folder / "scopes.csv")}
        self._types = {(row["organization_id"], row["activity_type"]) for row in _rows(folder / "activity_types.csv")}

    def broken_rule(self, organization: str, coordinator: str, item: Mapping[str, Any]) -> str | None:
        """Returns the code of the first rule that the item breaks (docs/rules.md), without the one about duplicates."""
        mentor = self._mentors.get((organization, item["mentor_id"]))
        if mentor is None:
            return "mentor_not_found"
        is_admin = self._roles[organization, coordinator] == "admin"
        if not is_admin and (organization, coordinator, mentor["chapter_id"]) not in self._scopes:
            return "out_of_scope"
        day: str = item["activity_date"]
        if day < mentor["active_from"] or day > (mentor["active_until"] or "9999"):
            return "mentor_inactive"
        if (organization, item["activity_type"]) not in self._types:
            return "activity_type_unknown"
        is_sound = EARLIEST <= date.fromisoformat(day) <= TODAY and 1 <= item["duration_minutes"] <= 1_440
        return None if is_sound and len(item.get("notes") or "") <= 2_000 else "invalid_item"


def expected(folder: Path) -> Iterator[dict[str, Any]]:
    """Yields the outcome of each submission to an empty database, when each batch has ended before the next is sent."""
    directory = Directory(folder / "directory")
    registered: set[tuple[str, str, str, str]] = set()
    for number, line in enumerate((folder / "submissions.ndjson").read_text(encoding="utf-8").splitlines(), start=1):
        submission = json.loads(line)
        organization = submission["organization_id"]
        items = []
        for item in submission["items"]:
            code = directory.broken_rule(organization, submission["coordinator_id"], item)
            key = (organization, item["mentor_id"], item["activity_type"], item["activity_date"])
            if code is None and key in registered and not submission["override_duplicates"]:
                code = "duplicate_activity"
            if code is None:
                registered.add(key)
            items.append(code or "success")
        completed = items.count("success")
        status = "completed" if completed == len(items) else "partial" if completed else "failed"
        counts = {"total_items": len(items), "completed": completed, "failed": len(items) - completed}
        yield {"line": number, **counts, "status": status, "items": items}


def make(folder: Path, seed: int) -> None:
    """Writes a set in which every rule is sometimes broken: the directory, the submissions, the expected outcomes. A seed makes one set."""
    random = Random(seed)
    mentors = [_mentor(random, number) for number in range(60)]
    coordinators = [
        _row(organization_id="org-01", coordinator_id=f"coord-{c}", name=f"Coordinator {c}", role="coordinator") for c in range(3)
    ]
    scopes = [_row(organization_id="org-01", coordinator_id=f"coord-{c}", chapter_id=f"chapter-{c}") for c in range(3)]
    types = [_row(organization_id="org-01", activity_type=each, name=each) for each in TYPES]
    tables = {"mentors": mentors, "coordinators": coordinators, "scopes": scopes, "activity_types": types}
    (folder / "directory").mkdir(parents=True)
    for name, rows in tables.items():
        with (folder / "directory" / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    _write(folder / "submissions.ndjson", [_submission(random, mentors) for _ in range(20)])
    _write(folder / "expected.ndjson", expected(folder))


def _mentor(random: Random, number: int) -> Row:
    until = "2026-02-05" if random.random() < 0.1 else ""
    chapter = f"chapter-{number % 3}"
    return _row(
        organization_id="org-01",
        mentor_id=f"mentor-{number}",
        name=f"Mentor {number}",
        chapter_id=chapter,
        active_from="2020-01-01",
        active_until=until,
    )


def _submission(random: Random, mentors: Sequence[Row]) -> dict[str, Any]:
    coordinator = random.randrange(3)
    own = [mentor["mentor_id"] for mentor in mentors if mentor["chapter_id"] == f"chapter-{coordinator}"]
    day = date(2026, 2, 1) + timedelta(days=random.randrange(10))
    return {
        "organization_id": "org-01",
        "coordinator_id": f"coord-{coordinator}",
        "label": f"Training {day:%d.%m}",
        "override_duplicates": random.random() < 0.05,
        "items": [_item(random, mentor_id, day) for mentor_id in random.sample(own, 12)],
    }


def _item(random: Random, mentor_id: str, day: date) -> dict[str, Any]:
    """Returns an item. Most are valid; one in ten breaks a rule."""
    item: dict[str, Any] = {
        "mentor_id": mentor_id,
        "activity_type": random.choice(TYPES[:2]),
        "activity_date": day.isoformat(),
        "duration_minutes": random.choice((30, 45, 60, 90)),
    }
    mistakes: list[dict[str, Any]] = [
        {"mentor_id": f"nobody-{mentor_id}"},
        {"mentor_id": f"mentor-{random.randrange(60)}", "activity_type": TYPES[2]},
        {"activity_type": "unheard_of"},
        {"activity_date": "2099-01-01"},
        {"duration_minutes": 1_441},
        {"notes": "x" * 2_001},
    ]
    return item | (random.choice(mistakes) if random.random() < 0.1 else {})


def _row(**cells: str) -> Row:
    return cells


def _rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, lines: Sequence[Mapping[str, Any]] | Iterator[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def main() -> None:
    """Runs one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("expect", "make"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if asked.command == "make":
        make(asked.folder, asked.seed)
    else:
        _write(asked.folder / "expected.ndjson", expected(asked.folder))


if __name__ == "__main__":
    main()

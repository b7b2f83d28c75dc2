"""The `.sql` files of the product without the migrations, which run once, in their order."""

from pathlib import Path

ROOT = Path(__file__).parents[2]

FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in ("api", "consumers", "orchestrator")
    for path in (ROOT / package).rglob("*.sql")
    if "migrations" not in path.parts
)

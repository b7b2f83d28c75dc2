"""The import contracts of pyproject.toml hold (docs/architecture.md), and each of them detects an import that breaks it."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "cli", "compose", "consumers", "orchestrator", "producers", "schemas")
LINT = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"]

WRONG = [
    ("dependencies point one way", "orchestrator/files/wrong.py", "import api"),
    ("no Kafka and no HTTP in the domain", "orchestrator/files/wrong.py", "import confluent_kafka"),
    ("no import leads back to where it came from", "schemas/strict_json.py", "from schemas import events"),
    ("rooms of orchestrator", "orchestrator/batches/states.py", "from orchestrator.process import settings"),
    ("rooms of orchestrator", "orchestrator/storage/locks.py", "from orchestrator.registration import rules"),
    ("rooms of orchestrator", "orchestrator/wrong.py", ""),
    ("the domain reaches the database through its ports", "orchestrator/batches/operations.py", "import sqlalchemy"),
    ("the domain reaches the database through its ports", "orchestrator/upstream/intake.py", "import psycopg2"),
    ("rooms of consumers", "consumers/loop/lanes.py", "from consumers import splitter"),
    ("rooms of consumers", "consumers/upkeep/purger.py", "from consumers.reading import topic_reader"),
    ("rooms of api", "api/http/etag.py", "from api.access import identity"),
    ("rooms of api", "api/console/sessions.py", "from api.endpoints import batches"),
    (
        "the console reaches batches through the public API",
        "api/console/routes.py",
        "from orchestrator.batches import operations",
    ),
    ("rooms of cli", "cli/terminal/output.py", "from cli.servers import running"),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(LINT, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_the_contracts_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


def test_each_contract_has_a_wrong_import_below() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    assert {contract["name"] for contract in contracts} == {contract for contract, *_ in WRONG}


@pytest.mark.parametrize(("contract", "path", "statement"), WRONG, ids=[path for _, path, _ in WRONG])
def test_a_contract_detects_a_wrong_import(contract: str, path: str, statement: str, tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=lambda folder, names: {n for n in names if not _is_source(folder, n)}
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / path).open("a") as module:
        module.write(f"\n{statement}\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert f"{contract} BROKEN" in done.stdout


def _is_source(folder: str, name: str) -> bool:
    return name.endswith(".py") or (name != "__pycache__" and (Path(folder) / name).is_dir())

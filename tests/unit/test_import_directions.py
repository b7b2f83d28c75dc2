"""Dependencies point one way, and the domain knows neither Kafka nor HTTP (docs/architecture.md)."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINT = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(LINT, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_imports_point_one_way() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


def test_the_check_sees_a_wrong_import(tmp_path: Path) -> None:
    for package in ("api", "cli", "compose", "consumers", "orchestrator", "producers", "schemas"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    assert lint(tmp_path).returncode == 0
    (tmp_path / "orchestrator" / "wrong.py").write_text("import confluent_kafka\n")
    assert lint(tmp_path).returncode == 1
    (tmp_path / "orchestrator" / "wrong.py").write_text("import api\n")
    assert lint(tmp_path).returncode == 1

"""`make sbom`: the bill of materials has what the lock file of a deployment has, with the same hashes."""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.full, pytest.mark.production]


def test_the_bill_of_materials_equals_the_lock(tmp_path: Path) -> None:
    bill = tmp_path / "sbom.json"
    subprocess.run(["make", "--silent", "sbom", f"SBOM={bill}"], cwd=ROOT, check=True)
    document = json.loads(bill.read_text())
    assert (document["bomFormat"], document["metadata"]["component"]["name"]) == ("CycloneDX", "bulk-registration-orchestrator")
    listed = {
        (component["name"], component["version"]): {
            hash_["content"] for reference in component["externalReferences"] for hash_ in reference.get("hashes", ())
        }
        for component in document["components"]
    }
    locked = {
        (name, version): set(re.findall(r"--hash=sha256:([0-9a-f]{64})", hashes))
        for name, version, hashes in re.findall(
            r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)[^\n]*\n((?:    --hash=\S+[^\n]*\n)+)",
            (ROOT / "locks" / "runtime.lock").read_text(),
            re.MULTILINE,
        )
    }
    assert len(locked) > 40
    assert listed == locked

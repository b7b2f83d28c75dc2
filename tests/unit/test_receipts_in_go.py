"""Roots, proofs and signatures agree with another language's implementation: Go's golang.org/x/mod/sumdb."""

import base64
import json
import os
import random
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from orchestrator.receipts.checkpoint import Checkpoint, SignedCheckpoint, sign
from orchestrator.receipts.encoding import encoded
from orchestrator.receipts.keys import SigningKey
from orchestrator.receipts.leaf import leaf_bytes
from orchestrator.receipts.merkle import consistency_proof, inclusion_proof
from tests.support.merkle_log import MerkleLog, example_leaf

PROGRAM = Path(__file__).parents[1] / "support" / "receipts_go"
SIZE = 300
KEY = SigningKey.generate("records.example.org")
LEAVES = [leaf_bytes(example_leaf(number)) for number in range(SIZE)]
LOG = MerkleLog(LEAVES)


@cache
def program(folder: Path) -> Path:
    """The built program. Skips the test where there is no Go, or no way to get its module."""
    go = shutil.which("go", path=f"{os.environ['PATH']}:/usr/local/go/bin")
    if go is None:
        pytest.skip("no Go here: the independent check of receipts is left out")
    built = folder / "receipts"
    done = subprocess.run([go, "build", "-o", built, "."], cwd=PROGRAM, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode and "golang.org/x/mod" in done.stderr:
        pytest.skip("Go's module is not to be had here: the independent check of receipts is left out")
    assert done.returncode == 0, done.stderr
    return built


def proof(first: int, second: int, hashes: list[bytes]) -> dict[str, Any]:
    return {"First": first, "Second": second, "Hashes": [encoded(each) for each in hashes]}


def run(built: Path, request: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([built], input=json.dumps(request), capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return program(tmp_path_factory.mktemp("go"))


@pytest.fixture
def request_to_go() -> dict[str, Any]:
    pairs = [tuple(sorted(random.Random(seed).sample(range(1, SIZE + 1), 2))) for seed in range(500)] + [(1, 1), (SIZE, SIZE)]
    checkpoint = Checkpoint("records.example.org/nordlys", SIZE, LOG.root())
    return {
        "Leaves": [base64.b64encode(leaf).decode() for leaf in LEAVES],
        "Roots": [encoded(LOG.root(size)) for size in range(1, SIZE + 1)],
        "Inclusion": [proof(first - 1, second, inclusion_proof(first - 1, second, LOG.node)) for first, second in pairs],
        "Consistency": [proof(first, second, consistency_proof(first, second, LOG.node)) for first, second in pairs],
        "VKey": str(KEY.verifier),
        "Note": sign(checkpoint, KEY),
        "SKey": KEY.secret_text(),
    }


def test_go_computes_the_same_and_accepts_ours(built: Path, request_to_go: dict[str, Any]) -> None:
    done = run(built, request_to_go)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    for name in ("Roots", "Inclusion", "Consistency"):
        assert result[name] == request_to_go[name], name
    assert result["Note"] == request_to_go["Note"]
    signed = SignedCheckpoint.parse(result["Note"])
    assert str(signed.checkpoint) == result["Text"]
    assert signed.signers([KEY.verifier]) == (KEY.verifier,)


@pytest.mark.parametrize("name", ["Inclusion", "Consistency", "Note"])
def test_go_refuses_what_was_changed(built: Path, request_to_go: dict[str, Any], name: str) -> None:
    if name == "Note":
        request_to_go["Note"] = request_to_go["Note"].replace("/nordlys", "/sorlys")
    else:
        request_to_go[name][7]["Hashes"][0] = encoded(bytes(32))
    assert run(built, request_to_go).returncode == 1

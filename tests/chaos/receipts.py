"""Receipts and their logs at the end: `bulkreg receipts audit` finds no difference, and receipts of some batches hold and are complete."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

from tests.chaos.cluster import Cluster
from tests.chaos.judge import Finding, Rule
from tests.support.pipeline import ORGANIZATION
from tests.support.prepared import prepared_bulkreg
from tests.support.product import COMMAND_WITHIN_S

CHECKED = 3

FORKED = frozenset({"two_heads", "log_cut_off"})
"""What the audit says of a log that a restored database could not continue: the topic has checkpoints that it does not have."""

_CHOSEN = """
    SELECT batch_id::text FROM (
        SELECT batch_id, row_number() OVER (PARTITION BY revoked > 0 ORDER BY md5(batch_id::text || %(seed)s)) AS number
        FROM orchestrator.batch WHERE organization_id = %(organization)s AND completed > 0 AND deleted_at IS NULL
    ) AS shuffled ORDER BY number LIMIT %(most)s
"""
_HAPPENED = "SELECT action, activity_id::text FROM registration.audit WHERE batch_id = %s"


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt of a batch. `verified` is what `bulkreg receipts verify --json` says of it, and `happened` what the audit table has: what
    was done, and with which activity."""

    batch_id: str
    verified: Mapping[str, Any]
    happened: Set[tuple[str, str]]


def replace_forked_log(cluster: Cluster) -> int | None:
    """Does what docs/runbooks.md says when a restored database can't continue the published log. Returns the number of the log that was
    replaced. None if the log agrees with what was published."""
    arguments = ("receipts", "restart-log", "--org", ORGANIZATION, "--reason", "an older copy was restored", "--json")
    answer = json.loads(cluster.product.bulkreg(*arguments, code=None) or "{}")
    return answer["log"] - 1 if "log" in answer else None


def audit_logs(cluster: Cluster, *, within_s: float) -> Mapping[str, Any]:
    """What `bulkreg receipts audit` says."""
    answer: dict[str, Any] = json.loads(cluster.product.bulkreg("receipts", "audit", "--json", code=None, within_s=within_s))
    return answer


def log_findings(answer: Mapping[str, Any], *, audits: int, replaced: int | None) -> Iterator[Finding]:
    """What is wrong with the logs, of which there must be a leaf for each of the audit rows. The log that was `replaced` has forked."""
    if "findings" not in answer:
        yield Finding(Rule.LOGS, "the whole", f"could not be audited: {answer}")
        return
    if answer["leaves"] < audits:
        yield Finding(Rule.LOGS, "the whole", f"{answer['leaves']} leaves of {audits} audit rows")
    for each in answer["findings"]:
        if each["log"] != replaced or each["kind"] not in FORKED:
            yield Finding(Rule.LOGS, f"log {each['log']} of {each['organization_id']}", f"{each['kind']}: {each['detail']}")


def read_receipts(cluster: Cluster, seed: str, folder: Path) -> Sequence[Receipt]:
    """Receipts of some finished batches, with and without revocations, each checked by a process that has nothing but the file and the
    published keys."""
    with psycopg2.connect(cluster.postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute(_CHOSEN, {"seed": seed, "organization": ORGANIZATION, "most": CHECKED})
        chosen = [batch_id for (batch_id,) in cursor.fetchall()]
        happened = {}
        for batch_id in chosen:
            cursor.execute(_HAPPENED, (batch_id,))
            happened[batch_id] = set(cursor.fetchall())
    connection.close()
    keys = published_keys(cluster)
    with cluster.product.client(ORGANIZATION) as client:
        files = {batch_id: client.get(f"/{batch_id}/receipt").content for batch_id in chosen}
    return [
        Receipt(batch_id, verified(content, keys, folder / "receipt.json"), happened[batch_id])
        for batch_id, content in files.items()
    ]


def published_keys(cluster: Cluster) -> Sequence[str]:
    """The public keys that sign receipts, or did."""
    return [each["key"] for each in json.loads(cluster.product.bulkreg("keys", "list", "--json"))["keys"]]


def receipt_findings(receipts: Sequence[Receipt]) -> Iterator[Finding]:
    """Receipts that do not hold, or do not show exactly what happened."""
    for each in receipts:
        shown = {(record["change"], record["activity_id"]) for record in each.verified.get("records", ())}
        if not each.verified.get("holds"):
            yield Finding(Rule.RECEIPT, f"batch {each.batch_id}", f"does not hold: {each.verified}")
        elif shown != each.happened:
            yield Finding(Rule.RECEIPT, f"batch {each.batch_id}", f"differs from the audit in {shown ^ each.happened}")


def verified(content: bytes, keys: Sequence[str], file: Path) -> Mapping[str, Any]:
    """What `bulkreg receipts verify --json` says of a receipt in a file of its own."""
    file.write_bytes(content)
    command = [*prepared_bulkreg(), "receipts", "verify", str(file), "--json", *(part for key in keys for part in ("--key", key))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_WITHIN_S, check=False)
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        return {"response": content[:300], "error": done.stderr[-300:]}
    return document

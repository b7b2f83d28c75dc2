"""Commands as processes on a running product, what they print, and what tests submit and write beside them."""

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from confluent_kafka import Producer

from tests.support.prepared import prepared_bulkreg
from tests.support.product import COMMAND_WITHIN_S, Product
from tests.support.waiting import PATIENCE_S, eventually

Ran = subprocess.CompletedProcess[str]


def bulkreg(*arguments: object, home: Path | None = None, environment: Mapping[str, str] | None = None, given: str = "") -> Ran:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BULKREG_")}
    home_option = () if home is None else ("--home", str(home))
    return subprocess.run(
        [*prepared_bulkreg(), *map(str, arguments), *home_option],
        env={**inherited, **(environment or {})},
        input=given,
        capture_output=True,
        text=True,
        timeout=COMMAND_WITHIN_S,
        check=False,
    )


def document(ran: Ran) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


def activity(mentor: str, day: str, **others: object) -> dict[str, object]:
    return {"mentor_id": mentor, "activity_type": "workshop", "activity_date": day, "duration_minutes": 60, **others}


def submission(*items: Mapping[str, object]) -> str:
    """An activity that coord-101 of org-01 may register."""
    return json.dumps({"organization_id": "org-01", "coordinator_id": "coord-101", "items": items})


def states(batch: Mapping[str, Any]) -> tuple[str, int, int]:
    return (batch["status"], batch["completed"], batch["failed"])


@contextmanager
def stopped(product: Product, role: str) -> Iterator[None]:
    """Stops this role's process inside the block."""
    [pid] = product.stack["pids"][role]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def batch_called(product: Product, label: str) -> str | None:
    data = document(bulkreg("list", "--label", label, "--json", home=product.home))["data"]
    return data[0]["batch_id"] if data else None


SECRET = "a note about somebody's health"


def upstream(product: Product, batch_id: UUID, value: bytes) -> None:
    """Sends an event as an upstream service would: a batch under its own id, or something invalid."""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(uuid4()),
        "ce_source": "/services/attendance",
        "ce_type": "no.bulk-registration.BatchSubmitted.v1",
        "ce_time": "2026-03-26T10:00:00Z",
        "content-type": "application/json",
        "x-remark": SECRET,
    }
    producer = Producer({"bootstrap.servers": product.stack["kafka"], "acks": "all", "log_level": 0})
    sent: list[tuple[str, str | bytes | None]] = list(headers.items())
    producer.produce("bulk-registration.batches.v1", value, str(batch_id).encode(), headers=sent)
    assert producer.flush(PATIENCE_S) == 0


def upstream_batch(batch_id: UUID, coordinator: str, day: str, label: str) -> bytes:
    registered = {"position": 0, **activity("mentor-101", day, notes=SECRET)}
    body = {"batch_id": str(batch_id), "organization_id": "org-01", "coordinator_id": coordinator, "label": label}
    return json.dumps(body | {"items": [registered]}).encode()


def dead_letters(product: Product, *options: str) -> list[dict[str, Any]]:
    ran = bulkreg("dead-letters", "list", "--json", *options, home=product.home)
    assert SECRET not in ran.stdout
    shown = document(ran)
    letters: list[dict[str, Any]] = shown["dead_letters"]
    assert shown["by_reason"] == Counter(letter["reason"] for letter in letters)
    return letters


def put_aside(product: Product, *reasons: str) -> list[dict[str, Any]]:
    """Waits until the dead letters that wait have exactly these reasons, and returns them."""

    def found() -> list[dict[str, Any]] | None:
        waiting = dead_letters(product)
        return waiting if Counter(each["reason"] for each in waiting) == Counter(reasons) else None

    return eventually(found, what=f"dead letters for {reasons}") or []


def finished(product: Product, batch_id: UUID) -> dict[str, Any]:
    """The batch, after it is completed."""

    def found() -> dict[str, Any] | None:
        batch: dict[str, Any] = client.get(f"/{batch_id}").json()
        return batch if batch.get("status") == "completed" else None

    with product.client("org-01") as client:
        return eventually(found) or {}

"""`bulkreg` as its users run it: each command is a process, on a running product. Most of them find their modules loaded (`prepared.py`)."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import psycopg2
import pytest

from orchestrator.registration.rules import DEFAULT_TIME_ZONE
from tests.support.commands import (
    SECRET,
    activity,
    batch_called,
    bulkreg,
    dead_letters,
    document,
    finished,
    put_aside,
    states,
    stopped,
    submission,
    upstream,
    upstream_batch,
)
from tests.support.prepared import BULKREG
from tests.support.product import Product, running_product
from tests.support.waiting import PATIENCE_S, eventually

SMALL = Path(__file__).parents[1] / "data" / "small"
SPREADSHEETS = SMALL / "spreadsheets"
AS_COORDINATOR = ("--org", "org-01", "--coordinator", "coord-101")


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A product with the small directory. The tests share it, and each test registers activities of its own."""
    with running_product(tmp_path_factory.mktemp("product") / "home") as product:
        assert product.stack["admin_token"] is None
        product.bulkreg("directory", "import", str(SMALL / "directory"))
        yield product


def submitting(product: Product, given: str, *options: str) -> subprocess.Popen[str]:
    """Begins to submit this from standard input, in a process that the test ends."""
    process = subprocess.Popen(
        [*BULKREG, "submit", "-", *options, "--home", str(product.home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(given)
    process.stdin.close()
    return process


def test_one_list_in_four_formats_is_one_batch(product: Product) -> None:
    ran = [
        bulkreg("submit", SPREADSHEETS / name, *AS_COORDINATOR, "--json", home=product.home)
        for name in ("plain.csv", "excel-norwegian.csv", "bom-tabs.tsv", "workbook.xlsx")
    ]
    answers = [document(each) for each in ran]
    assert [each.returncode for each in ran] == [1] * 4
    assert len({answer["batch_id"] for answer in answers}) == 1
    assert [answer["replayed"] for answer in answers] == [False, True, True, True]
    assert states(answers[0]) == ("partial", 11, 1)
    failed = [item for item in answers[0]["items"] if item["status"] == "failed"]
    assert [(item["mentor_id"], item["error"]["code"], item["client_reference"]) for item in failed] == [
        ("mentor-112", "mentor_inactive", "row 6")
    ]
    for_people = bulkreg("submit", SPREADSHEETS / "plain.csv", *AS_COORDINATOR, home=product.home)
    assert "partial: 11 success, 1 failed of 12" in for_people.stdout
    assert "6  mentor-112  mentor_inactive" in for_people.stdout
    assert "already submitted" in for_people.stderr


def test_a_file_with_mistakes_is_refused_with_all_places_and_nothing_is_submitted(product: Product) -> None:
    def total() -> int:
        return int(document(bulkreg("list", "--org", "org-01", "--json", home=product.home))["pagination"]["total"])

    before = total()
    ran = bulkreg("submit", SPREADSHEETS / "three-mistakes.csv", *AS_COORDINATOR, home=product.home)
    assert ran.returncode == 2
    for place in (
        'row 4, column activity_date: "14/04/26"',
        'row 6, column duration_minutes: "an hour"',
        "row 9, column mentor_id",
    ):
        assert f"three-mistakes.csv, {place}" in ran.stderr
    assert total() == before


def test_the_servers_mistakes_are_reported_by_row(product: Product, tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("mentor,type,date,minutes\nmentor-101,workshop,2026-01-05,60\n")
    ran = bulkreg("submit", table, "--org", "org-01", "--coordinator", "nobody", home=product.home)
    assert (ran.returncode, "/coordinator_id: " in ran.stderr) == (2, True)


def test_submitting_twice_has_one_effect_unless_a_new_batch_is_requested(product: Product) -> None:
    def submit(*options: str) -> dict[str, Any]:
        given = submission(activity("mentor-101", "2026-02-01"))
        return document(bulkreg("submit", "-", "--json", *options, home=product.home, given=given))

    first = submit()
    assert states(first) == ("completed", 1, 0)
    assert (submit()["batch_id"], submit()["replayed"]) == (first["batch_id"], True)
    for options in (["--again"], ["--label", "x"], ["--idempotency-key", "mine"]):
        other = submit(*options)
        assert (other["batch_id"] != first["batch_id"], other["errors_by_code"]) == (True, {"duplicate_activity": 1})
    assert submit("--idempotency-key", "mine")["replayed"]
    assert bulkreg("submit", "-", "--again", "--idempotency-key", "x", home=product.home).returncode == 2


def test_a_batch_from_submission_to_correction_to_deletion(product: Product, tmp_path: Path) -> None:
    given = submission(activity("mentor-101", "2026-02-02", notes="a private note"), activity("mentor-112", "2026-04-20"))
    batch = document(bulkreg("submit", "-", "--json", "--label", "Whole life", home=product.home, given=given))
    batch_id = batch["batch_id"]
    assert states(batch) == ("partial", 1, 1)

    listed = document(bulkreg("list", "--label", "whole", "--status", "partial", "--json", home=product.home))
    assert [each["batch_id"] for each in listed["data"]] == [batch_id]
    # `status` shows the present state. `status --watch` waits for the end, and its exit code tells the outcome.
    shown, watched = (bulkreg("status", batch_id, *option, home=product.home) for option in ([], ["--watch"]))
    assert (shown.returncode, watched.returncode) == (0, 1)
    assert "partial: 1 success, 1 failed of 2" in shown.stdout
    assert "mentor-112  mentor_inactive" in shown.stdout

    csv = tmp_path / "results.csv"
    assert bulkreg("results", batch_id, "--format", "csv", "--save", csv, home=product.home).returncode == 0
    assert [line.split(",")[3:8:4] for line in csv.read_text().splitlines()[1:]] == [
        ['"mentor-101"', '"success"'],
        ['"mentor-112"', '"failed"'],
    ]
    assert "private" not in csv.read_text()
    with_notes = bulkreg("results", batch_id, "--format", "ndjson", "--notes", home=product.home).stdout
    assert "a private note" in with_notes
    [failed] = document(bulkreg("results", batch_id, "--status", "failed", "--json", home=product.home))["items"]

    corrections = tmp_path / "corrections.csv"
    corrections.write_text(f"Item ID;Mentor\n{failed['item_id']};mentor-102\n")
    asked = bulkreg("retry", batch_id, "--correct", corrections, home=product.home)
    assert asked.returncode == 2
    assert "row 2: mentor_id mentor-112 → mentor-102" in asked.stderr
    retried = bulkreg("retry", batch_id, "--correct", corrections, "--yes", "--watch", home=product.home)
    assert (retried.returncode, "completed: 2 success of 2" in retried.stdout) == (0, True), retried.stderr
    nothing = bulkreg("retry", batch_id, "--item", failed["item_id"], "--json", home=product.home)
    assert (nothing.returncode, document(nothing)["retried"]) == (0, 0)
    # The export is older than the correction, so retrying with it would undo the correction.
    stale = bulkreg("retry", batch_id, "--correct", csv, "--yes", home=product.home)
    assert (stale.returncode, "export the results again" in stale.stderr) == (2, True)

    assert bulkreg("cancel", batch_id, home=product.home).returncode == 2
    assert bulkreg("delete", batch_id, home=product.home).returncode == 0
    assert bulkreg("status", batch_id, home=product.home).returncode == 2


def test_activities_are_revoked_and_submitted_again(product: Product) -> None:
    given = submission(*(activity(f"mentor-{number}", "2026-02-17") for number in range(101, 104)))
    batch = document(bulkreg("submit", "-", "--json", home=product.home, given=given))
    assert states(batch) == ("completed", 3, 0)
    batch_id = batch["batch_id"]
    foreseen = bulkreg("revoke", batch_id, "--reason", "Wrong date", "--dry-run", home=product.home)
    assert (foreseen.returncode, "3 activities would be revoked" in foreseen.stdout) == (0, True), foreseen.stderr
    one = bulkreg(
        "revoke", batch_id, "--reason", "Wrong date", "--items", batch["items"][0]["item_id"], "--json", home=product.home
    )
    assert (one.returncode, document(one)["revoked"], document(one)["total_revoked"]) == (0, 1, 1)
    activity_id = batch["items"][0]["activity_id"]
    shown = bulkreg("activities", "show", activity_id, "--org", "org-01", home=product.home)
    assert (shown.returncode, "Wrong date" in shown.stdout) == (0, True), shown.stderr
    listed = bulkreg("activities", "list", "--org", "org-01", "--revoked", "--json", home=product.home)
    assert [activity["activity_id"] for activity in document(listed)["data"]] == [activity_id]
    sums = bulkreg("activities", "summary", "--org", "org-01", "--by", "coordinator", "--by", "month", home=product.home)
    assert (sums.returncode, "coordinator_id" in sums.stdout) == (0, True), sums.stderr
    exported = bulkreg("activities", "export", "--org", "org-01", "--revoked", home=product.home)
    assert (exported.stdout.count(activity_id), exported.stdout.count("\n")) == (1, 2)
    rest = bulkreg("revoke", batch_id, "--reason", "Wrong date", home=product.home)
    assert "2 activities are revoked, 1 were revoked before" in rest.stdout
    single = (
        "activities",
        "revoke",
        batch["items"][0]["activity_id"],
        "--org",
        batch["organization_id"],
        "--reason",
        "Wrong mentor",
    )
    assert "was revoked before" in bulkreg(*single, home=product.home).stdout
    again = bulkreg("submit", "-", home=product.home, given=given)
    assert "3 of its 3 activities were revoked since" in again.stderr
    assert "--again" in again.stderr
    anew = document(bulkreg("submit", "-", "--again", "--json", home=product.home, given=given))
    assert (states(anew), anew["batch_id"] != batch_id) == (("completed", 3, 0), True)
    assert bulkreg("delete", anew["batch_id"], "--yes", home=product.home).returncode == 0
    single = (
        "activities",
        "revoke",
        anew["items"][0]["activity_id"],
        "--org",
        anew["organization_id"],
        "--reason",
        "Wrong mentor",
    )
    assert bulkreg(*single, home=product.home).stdout == f"Activity {anew['items'][0]['activity_id']} is revoked\n"
    assert document(bulkreg(*single, "--json", home=product.home))["already_revoked"] == 1


def test_a_running_batch_is_cancelled_for_good(product: Product) -> None:
    given = submission(*(activity(f"mentor-{number}", "2026-02-03") for number in range(101, 106)))
    with stopped(product, "registration"):
        submit = submitting(product, given, "--json", "--label", "To cancel")
        batch_id = eventually(lambda: batch_called(product, "To cancel"))
        cancelled = document(bulkreg("cancel", batch_id, "--reason", "Wrong week", "--json", home=product.home))
        assert (states(cancelled), cancelled["cancelled"]) == (("cancelled", 0, 0), 5)
        # The command that waits for the batch ends with it.
        assert submit.wait(timeout=PATIENCE_S) == 1
    assert submit.stdout is not None
    submit.stdout.close()
    again = document(bulkreg("status", batch_id, "--json", home=product.home))
    assert (states(again), again["cancellation_reason"]) == (("cancelled", 0, 0), "Wrong week")


def test_a_preview_and_its_plan(product: Product, tmp_path: Path) -> None:
    items = [activity("mentor-101", "2026-04-21"), activity("mentor-112", "2026-04-21")]
    file = tmp_path / "one.json"
    file.write_text(submission(*items))
    preview = bulkreg("submit", file, "--preview", "--json", home=product.home)
    assert (preview.returncode, document(preview)["counts"]) == (1, {"success": 1, "failed": 1})
    plan = tmp_path / "plan.json"
    plan.write_text(preview.stdout)
    planned = bulkreg("submit", file, "--plan", f"@{plan}", "--json", home=product.home)
    assert states(document(planned)) == ("partial", 1, 1), planned.stderr
    # The plan no longer holds, because the activity exists now.
    held = bulkreg("submit", file, "--plan", f"@{plan}", "--again", home=product.home)
    assert (held.returncode, "/items/0: planned success, now duplicate_activity" in held.stderr) == (2, True), held.stderr


def test_many_batches_at_once(product: Product, tmp_path: Path) -> None:
    file = tmp_path / "many.ndjson"
    lines = [submission(activity(f"mentor-{101 + n % 10}", f"2026-03-{1 + n // 10:02}")) for n in range(30)]
    bad = json.dumps({"organization_id": "org-01", "coordinator_id": "nobody", "items": [activity("mentor-101", "2026-03-09")]})
    file.write_text("\n".join([*lines, bad]))
    ran = bulkreg("submit", file, "--concurrency", "6", "--json", home=product.home)
    answer = document(ran)
    assert [each["line"] for each in answer["batches"]] == list(range(1, 31))
    assert (answer["completed"], answer["total_items"]) == (30, 30)
    # A refused submission does not keep the others from being submitted, and is reported at the end.
    assert [(each["line"], each["code"]) for each in answer["refused"]] == [(31, "coordinator_unknown")]
    assert ran.returncode == 2


def test_ctrl_c_reports_progress_and_the_same_command_continues(product: Product, tmp_path: Path) -> None:
    file = tmp_path / "two.ndjson"
    file.write_text("\n".join(submission(activity(f"mentor-{n}", "2026-02-05")) for n in (101, 102)))
    with stopped(product, "registration"):
        submit = subprocess.Popen(
            [*BULKREG, "submit", file, "--label", "Two", "--watch", "--home", str(product.home)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert submit.stdout is not None
        # The client knows of its first batch when it prints it, which is later than when the server has it.
        assert "processing" in submit.stdout.readline()
        submit.send_signal(signal.SIGINT)
        _, told = submit.communicate(timeout=PATIENCE_S)
    assert submit.returncode == 130
    assert "1 of 2 submissions were sent, 0 of them are finished." in told
    ran = bulkreg("submit", file, "--label", "Two", "--json", home=product.home)
    assert [(each["replayed"], each["status"]) for each in document(ran)["batches"]] == [
        (True, "completed"),
        (False, "completed"),
    ]


def test_an_api_that_was_killed_is_waited_for(product: Product) -> None:
    given = submission(activity("mentor-101", "2026-02-06"))
    with stopped(product, "registration"):
        submit = submitting(product, given, "--label", "Patient")
        assert eventually(lambda: batch_called(product, "Patient"))
        os.kill(product.stack["pids"]["api"][0], signal.SIGKILL)
    assert submit.wait(timeout=PATIENCE_S) == 0
    assert submit.stdout is not None
    assert "completed: 1 success of 1" in submit.stdout.read()
    submit.stdout.close()


def test_a_terminal_shows_a_bar_and_a_pipe_does_not(product: Product) -> None:
    def submit(day: str, stderr: int) -> subprocess.Popen[bytes]:
        # Without --json, for people. They are told after two seconds without news.
        process = subprocess.Popen(
            [*BULKREG, "submit", "-", "--home", str(product.home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        )
        assert process.stdin is not None
        process.stdin.write(submission(activity("mentor-101", day), activity("mentor-102", day)).encode())
        process.stdin.close()
        return process

    terminal, far_end = pty.openpty()
    seen = b""
    with stopped(product, "registration"):
        watched, piped = submit("2026-02-07", far_end), submit("2026-02-08", subprocess.PIPE)
        os.close(far_end)
        began = time.monotonic()
        while b"2 pending" not in seen and time.monotonic() - began < 20:
            seen += os.read(terminal, 4096)
        assert time.monotonic() - began >= 2.0
    assert piped.stderr is not None
    assert (b"2 pending" in seen, piped.stderr.read()) == (True, b"")
    piped.stderr.close()
    assert (watched.wait(timeout=PATIENCE_S), piped.wait(timeout=PATIENCE_S)) == (0, 0)
    os.close(terminal)


def test_watch_prints_each_change_without_a_terminal(product: Product) -> None:
    ran = bulkreg("submit", "-", "--watch", home=product.home, given=submission(activity("mentor-101", "2026-02-09")))
    lines = [line.split("  ")[1] for line in ran.stdout.splitlines()[:-1]]
    assert (lines[0], lines[-1]) == ("processing: 1 pending of 1", "completed: 1 success of 1")


def test_a_remote_product_needs_an_address_and_a_token(product: Product) -> None:
    made = bulkreg("token", "--org", "org-01", "--sub", "coord-101", "--role", "coordinator", home=product.home).stdout.strip()
    elsewhere = {"BULKREG_URL": product.stack["api"], "BULKREG_TOKEN": made}
    body = json.dumps({"items": [activity("mentor-101", "2026-02-10")]})
    batch = document(bulkreg("submit", "-", "--json", environment=elsewhere, given=body))
    assert (batch["coordinator_id"], batch["organization_id"], batch["status"]) == ("coord-101", "org-01", "completed")
    assert bulkreg("status", batch["batch_id"], environment=elsewhere).returncode == 0
    # Another coordinator's name, another organization, no token: each is refused with a message.
    for options, told in (
        (["--coordinator", "coord-102"], "Coordinators can submit only in their own name"),
        (["--org", "org-02"], "The token is not valid for the organization"),
    ):
        ran = bulkreg("submit", "-", *options, environment=elsewhere, given=body)
        assert (ran.returncode, told in ran.stderr) == (2, True), ran.stderr
    ran = bulkreg("list", "--url", product.stack["api"])
    assert (ran.returncode, "--token" in ran.stderr) == (2, True)
    service = bulkreg("token", "--org", "org-01", "org-02", "--sub", "up", "--role", "service", home=product.home).stdout.strip()
    ran = bulkreg("list", "--url", product.stack["api"], "--token", service)
    assert (ran.returncode, "--org" in ran.stderr) == (2, True)
    assert bulkreg("list", "--url", product.stack["api"], "--token", service, "--org", "org-02").returncode == 0


def test_a_home_is_found_by_option_and_environment_and_a_missing_one_is_reported(product: Product, tmp_path: Path) -> None:
    at_home = {"BULKREG_HOME": str(product.home)}
    assert bulkreg("list", environment=at_home).returncode == 0
    for command in (
        ["list"],
        ["submit", SPREADSHEETS / "plain.csv"],
        ["directory", "import", SMALL / "directory"],
        ["db", "upgrade"],
    ):
        ran = bulkreg(*command, home=tmp_path)
        assert (ran.returncode, "bulkreg up" in ran.stderr) == (3, True), ran.stderr
    assert bulkreg("list", "--url", "http://127.0.0.1:1").returncode == 3


def test_a_directory_is_imported_completely_or_not_at_all(product: Product, tmp_path: Path) -> None:
    # The first import created the token that names the first organization.
    assert product.stack["admin_token"] is not None
    (tmp_path / "activity_types.csv").write_text("organization_id,activity_type,name\norg-01,cooking,Matlaging\norg-01,,x\n")
    ran = bulkreg("directory", "import", tmp_path, home=product.home)
    assert (ran.returncode, "activity_types.csv, line 3, column activity_type" in ran.stderr) == (2, True)
    (tmp_path / "activity_types.csv").write_text("organization_id,activity_type,name\norg-01,cooking,Matlaging\n")
    for added in (1, 0):
        answer = document(bulkreg("directory", "import", tmp_path, "--json", home=product.home))
        assert answer["changes"] == {"activity_types.csv": {"given": 1, "added": added, "changed": 0, "withdrawn": 0}}


def test_absent_people_are_reported_and_closed_on_request(product: Product, tmp_path: Path) -> None:
    rows = (SMALL / "directory" / "mentors.csv").read_text().splitlines(keepends=True)
    gone = next(row for row in rows if row.startswith("org-02,") and row.rstrip("\n").endswith(","))
    mentor = gone.split(",")[1]
    (tmp_path / "mentors.csv").write_text("".join(row for row in rows if row != gone))
    told = bulkreg("directory", "import", tmp_path, home=product.home).stdout
    assert f"1 mentors are not in the file (still active; --prune closes them):\n  org-02 {mentor}\n" in told
    closed = document(bulkreg("directory", "import", tmp_path, "--prune", "--json", home=product.home))
    assert closed["absent_mentors"] == [{"organization_id": "org-02", "id": mentor}]
    # Today in the organization's time zone. In the last hours of a day, the machine's date may be yesterday there.
    today = datetime.now(ZoneInfo(DEFAULT_TIME_ZONE)).date().isoformat()
    body = json.dumps({"organization_id": "org-02", "coordinator_id": "admin-1", "items": [activity(mentor, today)]})
    batch = document(bulkreg("submit", "-", "--json", home=product.home, given=body))
    assert batch["errors_by_code"] == {"mentor_inactive": 1}


def test_an_unreadable_event_is_listed_shown_and_redriven(product: Product, tmp_path: Path) -> None:
    assert "There are no dead letters." in bulkreg("dead-letters", "list", home=product.home).stdout
    early, broken, later = uuid4(), uuid4(), uuid4()
    upstream(product, early, upstream_batch(early, "coord-late", "2026-02-11", "first"))
    upstream(product, early, upstream_batch(early, "coord-late", "2026-02-11", "second"))
    upstream(product, broken, f"{{{SECRET}".encode())
    letters = put_aside(product, "coordinator_unknown", "coordinator_unknown", "not_json")
    assert {letter["topic"] for letter in letters} == {"bulk-registration.batches.v1"}
    [unreadable] = [letter["id"] for letter in letters if letter["reason"] == "not_json"]
    for_people = bulkreg("dead-letters", "show", unreadable, home=product.home).stdout
    assert (f"({len(SECRET) + 1} bytes that are not JSON)" in for_people, SECRET in for_people) == (True, False)
    first = next(letter["id"] for letter in letters if letter["id"] != unreadable)
    ran = bulkreg("dead-letters", "show", first, "--json", home=product.home)
    shown = document(ran)
    assert SECRET not in ran.stdout
    assert (shown["value"]["label"], shown["value"]["items"][0]["notes"]) == ("first", "(hidden)")
    assert shown["headers"]["ce_source"] == "/services/attendance"

    # The directory is corrected. The first of them becomes a batch, the second contradicts it, and the third is still unreadable.
    (tmp_path / "coordinators.csv").write_text("organization_id,coordinator_id,name,role\norg-01,coord-late,Late,admin\n")
    assert bulkreg("directory", "import", tmp_path, home=product.home).returncode == 0
    assert bulkreg("dead-letters", "redrive", first, home=product.home).returncode == 0
    assert finished(product, early)["label"] == "first"
    redriven = document(bulkreg("dead-letters", "redrive", "all", "--json", home=product.home))["redriven"]
    assert sorted(redriven) == sorted(letter["id"] for letter in letters if letter["id"] != first)
    again = put_aside(product, "batch_differs", "not_json")
    assert {letter["id"] for letter in again}.isdisjoint(letter["id"] for letter in letters)

    # They came back once. They stay until somebody redrives them, and events that are handled later bring back no more.
    upstream(product, later, upstream_batch(later, "coord-late", "2026-02-12", "later"))
    assert finished(product, later)["label"] == "later"
    assert dead_letters(product) == again
    everything = dead_letters(product, "--all")
    assert [letter["redriven_at"] is not None for letter in everything] == [True] * 3 + [False] * 2
    ran = bulkreg("dead-letters", "redrive", first, home=product.home)
    assert (ran.returncode, "No dead letter with this id is waiting" in ran.stderr) == (2, True)


def test_migrations_and_topics_can_be_repeated(product: Product) -> None:
    assert document(bulkreg("db", "upgrade", "--json", home=product.home))["schema_version"] > ""
    topics = document(bulkreg("topics", "create", "--json", home=product.home))["topics"]
    assert [(each["created"], each["differences"]) for each in topics] == [(False, [])] * 6


def test_verify_reports_a_breach_in_its_exit_code(product: Product) -> None:
    given = submission(activity("mentor-101", "2026-02-13"))
    batch_id = document(bulkreg("submit", "-", "--json", home=product.home, given=given))["batch_id"]

    def register(minutes: int) -> None:
        connection = psycopg2.connect(product.stack["postgres"])
        with connection, connection.cursor() as cursor:
            cursor.execute("UPDATE registration.activity SET duration_minutes = %s WHERE batch_id = %s", (minutes, batch_id))
            assert cursor.rowcount == 1
        connection.close()

    register(61)
    try:
        ran = bulkreg("verify", "--json", home=product.home)
    finally:
        register(60)
    # The activity is compared with its item and with the audit.
    assert (ran.returncode, [(each["invariant"], each["batch_id"]) for each in document(ran)["breaches"]]) == (
        1,
        [(1, batch_id)] * 2,
    )
    ran = bulkreg("verify", "--json", home=product.home)
    assert (ran.returncode, document(ran)["breaches"]) == (0, [])


def test_a_deployment_without_a_home_is_described_by_the_environment(product: Product, tmp_path: Path) -> None:
    named = {"BULKREG_DATABASE_URL": product.stack["postgres"], "BULKREG_KAFKA_BOOTSTRAP_SERVERS": product.stack["kafka"]}
    assert bulkreg("db", "upgrade", environment=named).returncode == 0
    assert bulkreg("topics", "create", environment=named).returncode == 0
    away = bulkreg("db", "upgrade", environment={"BULKREG_DATABASE_URL": "postgresql://x:secret@127.0.0.1:1/x"})
    assert (away.returncode, "does not respond" in away.stderr, "secret" in away.stderr) == (3, True, False), away.stderr
    wrong = bulkreg("db", "upgrade", environment={**named, "BULKREG_TOPIC_PARTITIONS": "many"})
    assert (wrong.returncode, "BULKREG_TOPIC_PARTITIONS" in wrong.stderr) == (2, True), wrong.stderr
    readable = bulkreg("up", home=tmp_path, environment={**named, "BULKREG_KAFKA_BOOTSTRAP_SERVERS": "kafka.example:9092"})
    assert (readable.returncode, "BULKREG_KAFKA_ALLOW_PLAINTEXT" in readable.stderr) == (2, True), readable.stderr


def test_python_m_cli_is_the_program() -> None:
    ran = subprocess.run([sys.executable, "-m", "cli", "--help"], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert "directory" in ran.stdout

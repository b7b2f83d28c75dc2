"""Receipts over HTTP: what a batch's receipt has, when there is one, and what else the log tells (docs/receipts.md)."""

from collections.abc import Iterator

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from orchestrator.batches.model import RetryRequest, Role
from orchestrator.batches.operations import retry_failed_items
from orchestrator.process.settings import Settings
from orchestrator.receipts.checkpoint import SignedCheckpoint
from orchestrator.receipts.encoding import decoded
from orchestrator.receipts.keys import SigningKey
from orchestrator.receipts.receipt import check_receipt
from orchestrator.storage.receipt_appending import forget_person
from orchestrator.storage.receipt_checkpoints import add_key
from schemas.ids import derived_ids
from schemas.paths import API_PATH, RECEIPTS_PATH
from tests.support.api_server import KEY as TOKEN_KEY
from tests.support.api_server import ApiServer, running_api
from tests.support.merkle_log import verify_consistency
from tests.support.pipeline import ADMIN, COORDINATOR, ORGANIZATION, Pipeline, item, mentors
from tests.support.receipts import KEY, ORIGIN, append, append_and_sign
from tests.support.revoking import revoke

FORMER = sorted(str(SigningKey(ORIGIN, secret * 32).verifier) for secret in (b"\x08", b"\x09", b"\x0a"))


@pytest.fixture
def auditor(api: ApiServer) -> Iterator[httpx.Client]:
    with api.client(Role.AUDITOR, sub="auditor") as client:
        yield client


def test_a_receipt_holds_and_names_each_record(pipeline: Pipeline, auditor: httpx.Client) -> None:
    earlier = pipeline.submit(mentors(30))
    batch_id = pipeline.submit([*mentors(20, first=40), item("mentor-none")])
    pipeline.drain()
    ids = derived_ids(str(batch_id))
    revoke(pipeline, batch_id, item_ids=[ids.item_id(3)], actor=ADMIN)
    append_and_sign(pipeline.engine)
    response = auditor.get(f"{API_PATH}/{batch_id}/receipt")
    assert response.status_code == 200
    assert response.headers["Content-Disposition"] == f'attachment; filename="receipt-{batch_id}.json"'
    checked = check_receipt(response.content, [KEY.verifier])
    assert checked.faults == ()
    assert checked.receipt is not None
    assert checked.checkpoint is not None
    assert (checked.checkpoint.origin, checked.checkpoint.size) == (f"{ORIGIN}/{ORGANIZATION}", 51)
    found = [(each.leaf.change, each.item_id, each.people.mentor and each.people.mentor.id) for each in checked.receipt.items]
    registered = [("registered", ids.item_id_text(position), f"mentor-{40 + position}") for position in range(20)]
    assert sorted(found) == sorted([*registered, ("revoked", ids.item_id_text(3), "mentor-43")])
    assert {each.people.by and each.people.by.id for each in checked.receipt.items} == {COORDINATOR, "boss"}
    other = check_receipt(auditor.get(f"{API_PATH}/{earlier}/receipt").content, [KEY.verifier])
    assert other.receipt is not None
    assert (other.holds, len(other.receipt.items)) == (True, 30)


def test_no_cache_keeps_what_is_proved(pipeline: Pipeline, auditor: httpx.Client) -> None:
    batch_id = pipeline.submit(mentors(1))
    pipeline.drain()
    append_and_sign(pipeline.engine)
    for path in (
        f"{API_PATH}/{batch_id}/receipt",
        *(f"{RECEIPTS_PATH}/{of}" for of in ("checkpoint", "keys", "consistency?from=1")),
    ):
        answer = auditor.get(path)
        assert (path, answer.status_code, answer.headers.get("Cache-Control")) == (path, 200, "no-store")


def test_a_receipt_waits_for_the_batch_and_its_checkpoint(pipeline: Pipeline, auditor: httpx.Client) -> None:
    batch_id = pipeline.submit(mentors(2))
    nothing = pipeline.submit([item("mentor-none")])
    url = f"{API_PATH}/{batch_id}/receipt"

    def code(response: httpx.Response) -> tuple[int, str]:
        return response.status_code, response.json()["code"]

    assert code(auditor.get(url)) == (409, "batch_running")
    pipeline.drain()
    assert code(auditor.get(f"{API_PATH}/{nothing}/receipt")) == (409, "nothing_registered")
    # Without a key of the notary there is nothing to wait for.
    consistency = f"{RECEIPTS_PATH}/consistency?from=1"
    for path in (url, f"{RECEIPTS_PATH}/checkpoint", consistency):
        assert code(auditor.get(path)) == (501, "receipts_unsigned")
    with pipeline.engine.begin() as connection:
        add_key(connection, str(KEY.verifier))
    unsigned = auditor.get(url)
    assert code(unsigned) == (409, "receipt_not_ready")
    assert unsigned.headers["Retry-After"] == "2"
    assert code(auditor.get(f"{RECEIPTS_PATH}/checkpoint")) == (409, "receipt_not_ready")
    append_and_sign(pipeline.engine)
    assert auditor.get(url).status_code == 200
    # A revocation is not in the checkpoint yet.
    revoke(pipeline, batch_id)
    assert code(auditor.get(url)) == (409, "receipt_not_ready")
    append(pipeline.engine)
    assert code(auditor.get(url)) == (409, "receipt_not_ready")
    append_and_sign(pipeline.engine)
    assert len(auditor.get(url).json()["items"]) == 4


def test_a_receipt_waits_for_an_item_that_was_registered_later(pipeline: Pipeline, engine: Engine, auditor: httpx.Client) -> None:
    batch_id = pipeline.submit([*mentors(1), item("mentor-new")])
    pipeline.drain()
    append_and_sign(engine)
    url = f"{API_PATH}/{batch_id}/receipt"
    assert len(auditor.get(url).json()["items"]) == 1
    with engine.begin() as connection:
        added = "INSERT INTO registration.mentor VALUES (:org, 'mentor-new', 'New', 'chapter-1')"
        connection.execute(text(added), {"org": ORGANIZATION})
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.drain()
    late = auditor.get(url)
    assert (late.status_code, late.json()["code"]) == (409, "receipt_not_ready")
    append_and_sign(engine)
    assert len(auditor.get(url).json()["items"]) == 2


def test_a_forgotten_person_is_left_out_of_a_new_receipt(pipeline: Pipeline, engine: Engine, auditor: httpx.Client) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    append_and_sign(engine)
    url = f"{API_PATH}/{batch_id}/receipt"
    before = auditor.get(url).content
    with engine.begin() as connection:
        forget_person(connection, ORGANIZATION, "mentor-1")
    after = auditor.get(url)
    assert check_receipt(before).holds
    assert check_receipt(after.content).holds
    assert sorted(str(item["people"].get("mentor", {}).get("id")) for item in after.json()["items"]) == ["None", "mentor-2"]
    # A person who got the forgotten one's new id has another salt, and is not named by mistake.
    with engine.begin() as connection:
        insert = "INSERT INTO orchestrator.receipt_salt VALUES (:o, 'mentor-1', decode(repeat('ab', 32), 'hex'))"
        connection.execute(text(insert), {"o": ORGANIZATION})
    assert auditor.get(url).content == after.content


def test_two_checkpoints_are_proved_to_be_of_one_log(pipeline: Pipeline, auditor: httpx.Client) -> None:
    roots = []
    for first, count in ((1, 3), (4, 10)):
        pipeline.submit(mentors(count, first=first))
        pipeline.drain()
        append_and_sign(pipeline.engine)
        note = auditor.get(f"{RECEIPTS_PATH}/checkpoint").json()["checkpoint"]
        signed = SignedCheckpoint.parse(note)
        assert signed.signers([KEY.verifier]) == (KEY.verifier,)
        roots.append(signed.checkpoint)
    found = auditor.get(f"{RECEIPTS_PATH}/consistency", params={"from": 3}).json()
    assert (found["origin"], found["from"], found["to"]) == (roots[0].origin, 3, 13)
    assert (decoded(found["from_root"]), decoded(found["to_root"])) == (roots[0].root, roots[1].root)
    verify_consistency(3, roots[0].root, 13, roots[1].root, [decoded(each) for each in found["proof"]])
    for query, place in (({"from": 3, "to": 14}, "/query/to"), ({"from": 5, "to": 4}, "/query/from"), ({}, "/query/from")):
        refused = auditor.get(f"{RECEIPTS_PATH}/consistency", params=query)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, place)


def test_former_keys_stay_listed_after_the_present_one(pipeline: Pipeline, engine: Engine, auditor: httpx.Client) -> None:
    assert auditor.get(f"{RECEIPTS_PATH}/keys").json() == {"keys": []}
    with engine.begin() as connection:
        # Their successor was signed with by a machine whose clock is behind.
        insert = "INSERT INTO orchestrator.receipt_key VALUES (:key, now() + interval '1 hour')"
        for key in reversed(FORMER):
            connection.execute(text(insert), {"key": key})
    pipeline.submit(mentors(1))
    pipeline.drain()
    append_and_sign(engine)
    listed = [{"key": str(KEY.verifier), "current": True}, *({"key": key, "current": False} for key in FORMER)]
    assert auditor.get(f"{RECEIPTS_PATH}/keys").json() == {"keys": listed}


def test_an_external_service_keeps_the_evidence(settings: Settings, pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(1))
    pipeline.drain()
    external = settings.model_copy(update={"registration_url": "https://service.test", "jwt_hs256_key": SecretStr(TOKEN_KEY)})
    with running_api(external) as api, api.client(Role.AUDITOR, sub="auditor") as client:
        refused = client.get(f"{API_PATH}/{batch_id}/receipt")
    assert (refused.status_code, refused.json()["code"]) == (501, "receipts_unavailable")

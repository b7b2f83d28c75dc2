"""`GET /me`: the caller, their organization, and what they can do."""

from datetime import date, datetime
from zoneinfo import ZoneInfo

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from api.access.identity import ORGANIZATION_HEADER
from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings
from schemas.api.me import MeResponse
from schemas.paths import API_ROOT
from tests.support.api_server import KEY, ApiServer, running_api
from tests.support.pipeline import COORDINATOR, ORGANIZATION
from tests.support.time_zone import local_time
from tests.support.waiting import PATIENCE_S

ME = f"{API_ROOT}/me"


def me(client: httpx.Client, **headers: str) -> MeResponse:
    answer = client.get(ME, headers=headers)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store"), answer.text
    return MeResponse.model_validate_json(answer.content, extra="forbid")


def test_a_coordinator_of_the_directory(api: ApiServer, coordinator: httpx.Client) -> None:
    found = me(coordinator)
    assert (found.subject, found.name, found.role) == (COORDINATOR, "Coordinator", "coordinator")
    organization = found.organization
    assert (organization.organization_id, organization.name, organization.time_zone) == (ORGANIZATION, "Standard", "Europe/Oslo")
    settings = api.settings
    assert found.limits.model_dump() == {
        "max_items": settings.max_items,
        "max_batch_bytes": settings.max_batch_bytes,
        "max_file_bytes": 10 * 1024 * 1024,
        "max_notes_length": 2_000,
        "max_duration_minutes": 1_440,
        "earliest_date": date(1990, 1, 1),
    }
    assert (found.features.preview, found.features.revoke) == (True, True)


def test_the_session_ends_when_the_token_expires(coordinator: httpx.Client, api: ApiServer) -> None:
    before = datetime.now(ZoneInfo("UTC"))
    ends_at = me(coordinator).session_ends_at
    assert ends_at is not None
    # The token is valid for 600 s, and the clocks may differ by the leeway.
    assert 0 < (ends_at - before).total_seconds() <= 600 + api.settings.jwt_leeway_s


def test_the_time_zone_of_the_process_changes_no_moment(coordinator: httpx.Client) -> None:
    before = me(coordinator).session_ends_at
    with local_time("America/St_Johns"):
        after = me(coordinator).session_ends_at
    assert after == before


def test_a_caller_and_an_organization_that_are_not_in_the_directory(api: ApiServer) -> None:
    with api.client(Role.AUDITOR, sub="nobody", orgs=("org-new",)) as client:
        found = me(client)
    assert (found.name, found.role) == (None, "auditor")
    assert (found.organization.name, found.organization.time_zone) == ("org-new", "Europe/Oslo")


def test_the_name_comes_from_the_callers_organization(api: ApiServer, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO registration.coordinator VALUES ('org-2', 'coord-9', 'Theirs', 'coordinator')"))
    with api.client(sub="coord-9") as client:
        assert me(client).name is None


# UTC+14 and UTC-11 have different dates at every moment.
@pytest.mark.parametrize("time_zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_today_is_the_date_in_the_organizations_time_zone(coordinator: httpx.Client, engine: Engine, time_zone: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE registration.organization SET time_zone = :zone"), {"zone": time_zone})
    before = datetime.now(ZoneInfo(time_zone)).date()
    assert before <= me(coordinator).organization.today <= datetime.now(ZoneInfo(time_zone)).date()


def test_a_service_names_the_organization(api: ApiServer) -> None:
    with api.client(Role.SERVICE, sub="attendance", orgs=(ORGANIZATION, "org-2")) as client:
        assert client.get(ME).json()["code"] == "organization_required"
        assert me(client, **{ORGANIZATION_HEADER: "org-2"}).organization.organization_id == "org-2"
        assert client.get(ME, headers={ORGANIZATION_HEADER: "org-3"}).json()["code"] == "not_your_organization"


def test_limits_that_an_external_service_decides_are_null(settings: Settings) -> None:
    external = settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY), "registration_url": "http://127.0.0.1:1"})
    with running_api(external) as server, server.client() as client:
        found = me(client)
    assert (found.features.preview, found.features.revoke) == (False, False)
    assert (found.limits.earliest_date, found.limits.max_duration_minutes) == (None, None)
    assert found.limits.max_notes_length == 10_000


def test_an_external_service_may_be_able_to_revoke(settings: Settings) -> None:
    external = {"registration_url": "http://127.0.0.1:1", "registration_revokes": True}
    with (
        running_api(settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY), **external})) as server,
        server.client() as client,
    ):
        found = me(client)
    assert (found.features.preview, found.features.revoke) == (False, True)


def test_without_authentication_the_session_never_ends(settings: Settings) -> None:
    with (
        running_api(settings) as server,
        httpx.Client(base_url=server.url, headers={ORGANIZATION_HEADER: ORGANIZATION}, timeout=PATIENCE_S) as client,
    ):
        found = me(client)
    assert (found.role, found.session_ends_at) == ("service", None)

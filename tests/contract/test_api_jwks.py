"""The API with an identity provider's keys: each kind of key, and a key that is replaced while the API runs."""

from functools import partial

import httpx
import pytest

from api.access import jwks
from orchestrator.process.settings import Settings
from schemas.paths import API_PATH
from tests.support.api_server import running_api
from tests.support.identity_provider import PRIVATE, public, running_provider, signed
from tests.support.waiting import PATIENCE_S


def test_tokens_of_an_identity_provider_are_accepted_while_its_keys_change(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "_MIN_REFRESH_INTERVAL_S", 0.0)
    token = partial(signed, issuer=settings.jwt_issuer, audience=settings.jwt_audience)
    with (
        running_provider() as provider,
        running_api(settings.model_copy(update={"jwt_jwks_url": f"{provider.url}/keys"})) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client,
    ):

        def answered(token: str) -> tuple[int, str | None]:
            answer = client.get(API_PATH, headers={"Authorization": f"Bearer {token}"})
            return answer.status_code, answer.json().get("code")

        assert [answered(token(algorithm)) for algorithm in PRIVATE] == [(200, None)] * 3
        assert answered(token("RS256", audience="another")) == (401, "bad_token")
        provider.keys = [public("ES256", "next")]
        assert answered(token("ES256", kid="next")) == (200, None)
        assert answered(token("ES256", org="org-2")) == (401, "bad_token")
        provider.body = b'{"error": "busy"}'
        assert answered(token("EdDSA", kid="unknown")) == (401, "bad_token")
        assert answered(token("ES256", kid="next", org="org-2")) == (200, None)

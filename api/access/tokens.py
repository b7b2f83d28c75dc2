"""Development tokens: made with the shared key of the settings, for `bulkreg up` and `bulkreg token`."""

import time
from collections.abc import Sequence

import jwt

from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings


def make_development_token(settings: Settings, *, sub: str, role: Role, orgs: Sequence[str], ttl_s: int) -> str:
    """A signed token. A service token carries `orgs` (`["*"]`: every organization), the others exactly one organization.

    Raises ValueError if there is no shared key, or if the organizations don't fit the role.
    """
    if settings.jwt_hs256_key is None:
        raise ValueError("there is no development key: set BULKREG_JWT_HS256_KEY")
    now = int(time.time())
    claims: dict[str, object] = {
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
        "iat": now,
        "nbf": now,
        "exp": now + ttl_s,
        "sub": sub,
        "role": role.value,
    }
    if role is Role.SERVICE:
        if not orgs:
            raise ValueError("a service token needs at least one organization")
        claims["orgs"] = list(orgs)
    else:
        if len(orgs) != 1:
            raise ValueError(f"a token for the role {role} needs exactly one organization")
        claims["org"] = orgs[0]
    return jwt.encode(claims, settings.jwt_hs256_key.get_secret_value(), algorithm="HS256")

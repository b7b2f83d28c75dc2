"""Tickets for event streams: a browser's EventSource can't send a token, and a token must not appear in a URL (docs/http.md).

A ticket opens the stream of one batch and is valid for a minute. It is signed and not stored, so every process of the API accepts it.
"""

import hmac
import secrets
import time
from dataclasses import dataclass
from uuid import UUID

import jwt

from api.access.identity import Identity
from api.http.problems import bad_token
from orchestrator.batches.model import Actor, Role
from orchestrator.process.settings import Settings

VALID_FOR_S = 60

_ALGORITHM = "HS256"


def ticket_key(settings: Settings) -> bytes:
    """The signing key. It is the same in all processes of a deployment that share a secret; otherwise tickets work in one process only."""
    return hmac.digest(settings.api_secret or secrets.token_bytes(32), b"bulkreg event stream tickets", "sha256")


@dataclass(frozen=True, slots=True)
class Tickets:
    """Makes and reads tickets with a key that signs nothing else."""

    key: bytes

    def issue(self, actor: Actor, batch_id: UUID, *, stream_ends_at: float) -> tuple[str, int]:
        """A ticket for the stream of this batch, and until when it can be used (seconds since 1970)."""
        expires_at = int(time.time()) + VALID_FOR_S
        claims = {
            "aud": _audience(batch_id),
            "exp": expires_at,
            "sub": actor.subject,
            "role": actor.role.value,
            "org": actor.organization_id,
            "until": stream_ends_at,
        }
        return jwt.encode(claims, self.key, algorithm=_ALGORITHM), expires_at

    def identity(self, ticket: str, batch_id: str) -> Identity:
        """Whose ticket it is. Raises ProblemError `bad_token`."""
        if not ticket.isascii():
            raise bad_token("it contains characters that are not allowed in a ticket")
        try:
            claims = jwt.decode(
                ticket,
                self.key,
                algorithms=[_ALGORITHM],
                audience=_audience(batch_id.lower()),  # so a ticket without one is refused, too
                options={"require": ["exp", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise bad_token(type(error).__name__) from error
        return Identity(claims["sub"], Role(claims["role"]), (claims["org"],), expires_at=claims["until"])


def _audience(batch_id: UUID | str) -> str:
    return f"events:{batch_id}"

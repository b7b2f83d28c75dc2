"""One attempt to log in: the secret that the browser keeps while it is at the identity provider, and the values derived from it."""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

_SECRET_BYTES = 32
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Attempt:
    """The secret of an attempt. `state`, `nonce` and the PKCE verifier are derived from it, so the server stores nothing."""

    secret: str

    @classmethod
    def begin(cls) -> "Attempt":
        """Draws the secret of a new attempt."""
        return cls(secrets.token_urlsafe(_SECRET_BYTES))

    @classmethod
    def of_cookie(cls, value: str | None) -> "Attempt | None":
        """Returns the attempt that the browser's cookie names, or None if it names none."""
        return cls(value) if value is not None and _SECRET.fullmatch(value) else None

    @property
    def state(self) -> str:
        """Ties the provider's redirect to this browser (RFC 6749, 10.12)."""
        return self._derived("state")

    @property
    def nonce(self) -> str:
        """Ties the ID token to this attempt (OpenID Connect Core, 3.1.2.1)."""
        return self._derived("nonce")

    @property
    def code_verifier(self) -> str:
        """Ties the code to this attempt (RFC 7636, 4.1)."""
        return self._derived("code verifier")

    @property
    def code_challenge(self) -> str:
        """The hash of the verifier that the provider receives first, by the method S256 (RFC 7636, 4.2)."""
        return _text(hashlib.sha256(self.code_verifier.encode()).digest())

    def has_state(self, state: str | None) -> bool:
        """Whether a redirect belongs to this attempt."""
        return state is not None and hmac.compare_digest(self.state.encode(), state.encode(errors="replace"))

    def _derived(self, purpose: str) -> str:
        return _text(hmac.digest(self.secret.encode(), purpose.encode(), "sha256"))


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

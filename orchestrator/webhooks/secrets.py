"""The secrets that sign deliveries: how they are made, and how they are encrypted at rest."""

import base64
import secrets
from collections.abc import Sequence
from datetime import timedelta

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

PREFIX = "whsec_"
"""The beginning of a secret as Standard Webhooks writes it."""

PREVIOUS_VALID_FOR = timedelta(hours=24)
"""How long the previous secret signs, too, after a rotation."""

_SECRET_BYTES = 32


class UnreadableSecretError(Exception):
    """A stored secret was encrypted under a key that is not among those of the settings."""


class Sealer:
    """Encrypts secrets under the first of its keys, and decrypts those of all of them."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Each key is 32 bytes in URL-safe base64. There must be at least one."""
        self._newest = Fernet(keys[0])
        self._all = MultiFernet([Fernet(key) for key in keys])

    def seal(self, secret: str) -> bytes:
        """Returns the secret encrypted."""
        return self._newest.encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        """Returns the secret. Raises UnreadableSecretError."""
        try:
            return self._all.decrypt(sealed).decode()
        except InvalidToken as error:
            raise UnreadableSecretError("a webhook's secret is encrypted under a key that BULKREG_WEBHOOK_KEYS lacks") from error

    def renewed(self, sealed: bytes) -> bytes | None:
        """Returns the secret encrypted under the first key, or None if it already is. Raises UnreadableSecretError."""
        try:
            self._newest.decrypt(sealed)
        except InvalidToken:
            return self.seal(self.open(sealed))
        return None


def new_secret() -> str:
    """Returns a random secret."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()

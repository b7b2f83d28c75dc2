"""Keys for the secrets of webhooks, for tests only."""

import base64

from pydantic import SecretStr

FIRST_KEY, SECOND_KEY = (base64.urlsafe_b64encode(letter * 32).decode() for letter in (b"1", b"2"))
WEBHOOK_KEYS = SecretStr(FIRST_KEY)

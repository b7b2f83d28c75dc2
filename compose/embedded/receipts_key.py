"""The key with which a home signs the checkpoints of receipts. It is derived from a secret of the home, so it is the same at each start."""

import hashlib

from compose.embedded.home import Home
from orchestrator.receipts.keys import SigningKey

RECEIPTS_ORIGIN = "bulkreg.localhost"


def receipts_key(home: Home) -> SigningKey:
    """Returns the home's key."""
    return SigningKey(RECEIPTS_ORIGIN, hashlib.sha256(home.secret("receipts-key").encode()).digest())

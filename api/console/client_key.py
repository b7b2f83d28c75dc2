"""The private key by which the console proves to the provider that it is its client (`private_key_jwt`: RFC 7523, OpenID Connect Core, 9)."""

import secrets
import time
from dataclasses import dataclass
from typing import Self

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from orchestrator.process.refused_start import RefusedStartError

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

_LEAST_RSA_BITS = 2_048

# The request follows at once. The time bridges a difference between the two clocks.
_VALID_FOR_S = 60

Key = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A key, the algorithm that fits it, and the name by which the provider finds its public half."""

    key: Key
    algorithm: str
    key_id: str | None

    @classmethod
    def read(cls, pem: str, key_id: str | None) -> Self:
        """Raises RefusedStartError, which does not quote the key, if the PEM is not a private key that can be used."""
        try:
            key = load_pem_private_key(pem.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise RefusedStartError(
                "BULKREG_OIDC_CLIENT_KEY is not a private key without a password, in PEM: it begins with -----BEGIN PRIVATE KEY-----"
            ) from error
        if isinstance(key, RSAPrivateKey) and key.key_size >= _LEAST_RSA_BITS:
            return cls(key, "RS256", key_id)
        if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
            return cls(key, "ES256", key_id)
        if isinstance(key, Ed25519PrivateKey):
            return cls(key, "EdDSA", key_id)
        raise RefusedStartError(
            f"BULKREG_OIDC_CLIENT_KEY must be an RSA key of at least {_LEAST_RSA_BITS} bits, a P-256 key or an Ed25519 key"
        )

    def assertion(self, client_id: str, token_endpoint: str) -> str:
        """Returns a statement that this is the client, for one request to this address."""
        now = int(time.time())
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": token_endpoint,
            "jti": secrets.token_urlsafe(32),
            "iat": now,
            "exp": now + _VALID_FOR_S,
        }
        headers = None if self.key_id is None else {"kid": self.key_id}
        return jwt.encode(claims, self.key, algorithm=self.algorithm, headers=headers)

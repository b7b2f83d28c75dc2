"""An identity provider: a key set over HTTP, and tokens that its keys sign."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

PRIVATE: Mapping[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def public(algorithm: str, key_id: str, **more: Any) -> dict[str, Any]:
    """Returns the public half of a key, as a key set contains it."""
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(PRIVATE[algorithm].public_key(), as_dict=True)
    return {**made, "kid": key_id, "use": "sig", **more}


class Provider:
    """An identity provider: its key set, whether it responds, and which requests it got."""

    def __init__(self) -> None:
        self.keys = [public(algorithm, algorithm) for algorithm in PRIVATE]
        self.status = 200
        self.body: bytes | None = None
        """The response instead of the key set."""
        self.location: str | None = None
        """The target of a redirect."""
        self.asked: list[str] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                body = json.dumps({"keys": provider.keys}).encode() if provider.body is None else provider.body
                self.send_response(provider.status)
                if provider.location is not None:
                    self.send_header("Location", provider.location)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def running_provider() -> Iterator[Provider]:
    """Yields a provider that responds while the block runs."""
    provider = Provider()
    # Checks often whether to stop, because many tests stop one.
    thread = Thread(target=provider.server.serve_forever, args=(0.005,))
    thread.start()
    try:
        yield provider
    finally:
        provider.server.shutdown()
        thread.join()
        provider.server.server_close()


def signed(
    algorithm: str, key: Any = None, *, issuer: str, audience: str, kid: str | None = "", org: str = "org-1", **headers: Any
) -> str:
    """Returns a coordinator's token. The provider's key of this algorithm signs it, unless a key is given; it names that key's id (None: no
    id)."""
    now = int(time.time())
    claims = {"iss": issuer, "aud": audience, "nbf": now, "exp": now + 60, "sub": "coord-1", "role": "coordinator", "org": org}
    signer = PRIVATE[algorithm] if key is None else key
    return jwt.encode(
        claims, signer, algorithm=algorithm, headers={**({} if kid is None else {"kid": kid or algorithm}), **headers}
    )

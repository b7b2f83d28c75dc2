"""Ed25519 keys as C2SP signed notes write them: each has a name, and an id that binds name and key together."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from orchestrator.receipts.encoding import decoded, encoded

_ED25519 = b"\x01"
_KEY_SIZE = 32
_ID = re.compile(r"[0-9a-f]{8}")
_PRIVATE = "PRIVATE+KEY+"


class BadKeyError(ValueError):
    """A text is not a key. The message says why and does not quote it."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key and its name."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        if not is_key_name(self.name):
            raise BadKeyError("the name of a key has no blanks and no plus signs, and is not empty")

    @property
    def key_id(self) -> bytes:
        """Four bytes that a signature names its key by."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    @property
    def fingerprint(self) -> str:
        """A short text for people to compare: the first half of the SHA-256 of the public key, in groups of four digits."""
        digits = hashlib.sha256(self.public).hexdigest()[:32]
        return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encoded(_ED25519 + self.public)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key that `str` wrote. Raises BadKeyError."""
        name, public = _parsed(text)
        key = cls(name, public)
        if str(key) != text:
            raise BadKeyError("the key's id does not belong to its name and its bytes")
        return key

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        """Returns whether the signature of the message is this key's."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and its name. Its text is a secret, so it has no `str`."""

    name: str
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not is_key_name(self.name):
            raise BadKeyError("the name of a key has no blanks and no plus signs, and is not empty")

    @classmethod
    def generate(cls, name: str) -> Self:
        """A new key. Raises BadKeyError for a name that a key can't have."""
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def verifier(self) -> VerifierKey:
        """The public key."""
        return VerifierKey(self.name, self._private.public_key().public_bytes_raw())

    def secret_text(self) -> str:
        """The text to keep secret."""
        return f"{_PRIVATE}{self.name}+{self.verifier.key_id.hex()}+{encoded(_ED25519 + self.seed)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key that `secret_text` wrote. Raises BadKeyError."""
        if not text.startswith(_PRIVATE):
            raise BadKeyError(f"a private key begins with {_PRIVATE}")
        name, seed = _parsed(text.removeprefix(_PRIVATE))
        key = cls(name, seed)
        if key.secret_text() != text:
            raise BadKeyError("the key's id does not belong to its name and its bytes")
        return key

    def sign(self, message: bytes) -> bytes:
        """The signature of a message."""
        return self._private.sign(message)

    @property
    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)


def is_key_name(text: str) -> bool:
    """Returns whether a key can have this name."""
    return bool(text) and "+" not in text and not any(character.isspace() for character in text)


def _parsed(text: str) -> tuple[str, bytes]:
    """The name and the bytes of a key."""
    parts = text.split("+", 2)
    if len(parts) != 3 or not _ID.fullmatch(parts[1]):
        raise BadKeyError("a key is written as name+id+base64, and its id has eight digits")
    try:
        typed = decoded(parts[2])
    except ValueError as error:
        raise BadKeyError(f"the bytes of the key are {error}") from None
    if typed[:1] != _ED25519 or len(typed) != 1 + _KEY_SIZE:
        raise BadKeyError("only Ed25519 keys of 32 bytes are known")
    return parts[0], typed[1:]

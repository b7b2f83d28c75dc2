"""Keys, checkpoints and their signatures."""

import pytest

from orchestrator.receipts.checkpoint import (
    BadCheckpointError,
    Checkpoint,
    SignedCheckpoint,
    UnknownKeyError,
    WrongSignatureError,
    is_origin_of,
    origin,
    sign,
)
from orchestrator.receipts.encoding import encoded
from orchestrator.receipts.keys import BadKeyError, SigningKey, VerifierKey
from orchestrator.receipts.merkle import leaf_hash

KEY = SigningKey("records.example.org", bytes(range(32)))
OTHER = SigningKey("records.example.org", bytes(32))
CHECKPOINT = Checkpoint("records.example.org/nordlys", 42, leaf_hash(b"root"))
NOTE = sign(CHECKPOINT, KEY)

# A key that Go's package for signed notes has in its documentation.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"


def test_a_published_key_is_read_and_written_unchanged() -> None:
    key = VerifierKey.parse(GO_KEY)
    assert (key.name, key.key_id.hex()) == ("PeterNeumann", "c74f20a3")
    assert str(key) == GO_KEY


def test_a_private_key_is_read_and_written_unchanged_and_is_not_shown() -> None:
    key = SigningKey.generate("records.example.org")
    assert SigningKey.parse(key.secret_text()) == key
    assert key.secret_text() not in (repr(key), str(key))
    assert repr(key.seed) not in repr(key)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "written as name"),
        ("name", "written as name"),
        (GO_KEY + "=", "not base64 in its only form"),
        (GO_KEY.replace("c74f20a3", "c74f20a4"), "id does not belong"),
        (GO_KEY.replace("c74f20a3", "C74F20A3"), "its id has eight digits"),
        (GO_KEY.replace("PeterNeumann", "PeterNeuman"), "id does not belong"),
        (GO_KEY.replace("PeterNeumann", "Peter Neumann"), "no blanks"),
        (GO_KEY.replace("ARpc", "Ahpc"), "only Ed25519 keys of 32 bytes"),
        (f"PeterNeumann+c74f20a3+{encoded(bytes([1, *range(31)]))}", "only Ed25519 keys of 32 bytes"),
        (GO_KEY.removesuffix("0TW"), "not base64$"),
        ("+" + GO_KEY, "written as name"),
    ],
)
def test_a_changed_key_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(BadKeyError, match=says):
        VerifierKey.parse(text)
    with pytest.raises(BadKeyError, match=says):
        SigningKey.parse("PRIVATE+KEY+" + text)


def test_a_published_key_in_place_of_the_private_one_is_refused_with_the_reason() -> None:
    with pytest.raises(BadKeyError, match=r"a private key begins with PRIVATE\+KEY\+"):
        SigningKey.parse(str(KEY.verifier))


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u00a0b"])
def test_a_key_has_a_name_without_blanks_and_plus_signs(name: str) -> None:
    with pytest.raises(BadKeyError):
        SigningKey.generate(name)


def test_a_signed_checkpoint_has_the_form_of_a_note() -> None:
    text, _, signature = NOTE.partition("\n\n")
    assert text.split("\n")[:2] == ["records.example.org/nordlys", "42"]
    assert signature.startswith("— records.example.org ")
    assert signature.endswith("\n")


def test_a_signed_checkpoint_is_read_and_its_signer_known() -> None:
    signed = SignedCheckpoint.parse(NOTE)
    assert signed.checkpoint == CHECKPOINT
    assert signed.signers([OTHER.verifier, KEY.verifier]) == (KEY.verifier,)


def test_during_a_rotation_both_keys_sign() -> None:
    signed = SignedCheckpoint.parse(sign(CHECKPOINT, KEY, OTHER))
    assert signed.signers([OTHER.verifier, KEY.verifier]) == (KEY.verifier, OTHER.verifier)
    with pytest.raises(UnknownKeyError):
        signed.signers([KEY.verifier])


def test_a_signature_of_an_unknown_key_is_refused() -> None:
    with pytest.raises(UnknownKeyError, match=KEY.verifier.key_id.hex()):
        SignedCheckpoint.parse(NOTE).signers([OTHER.verifier])


@pytest.mark.parametrize(("old", "new"), [("\n42\n", "\n43\n"), ("/nordlys", "/sorlys")])
def test_a_changed_checkpoint_is_refused(old: str, new: str) -> None:
    with pytest.raises(WrongSignatureError):
        SignedCheckpoint.parse(NOTE.replace(old, new)).signers([KEY.verifier])


@pytest.mark.parametrize(
    "note",
    [
        "",
        str(CHECKPOINT),
        NOTE.removesuffix("\n"),
        NOTE + "\n",
        NOTE.replace("\n42\n", "\n042\n"),
        NOTE.replace("\n42\n", "\n-1\n"),
        NOTE.replace("\n42\n", "\n42\nmore\n"),
        NOTE.replace("— ", "- "),
        NOTE.replace("records.example.org/nordlys", ""),
        NOTE.replace("=\n\n", "\n\n"),
        NOTE[:-10] + "\n",
    ],
)
def test_what_is_not_a_checkpoint_is_refused(note: str) -> None:
    with pytest.raises(BadCheckpointError):
        SignedCheckpoint.parse(note)


def test_an_origin_names_one_organization_whatever_its_id() -> None:
    assert origin("records.example.org", "nordlys") == "records.example.org/nordlys"
    assert origin("records.example.org", "nordlys", 3) == "records.example.org/nordlys#3"
    ids = ["nordlys", "nord lys", "nord/lys", "lys", "nordlys#2", "nordlys%232", "nord\nlys", "ørlys"]
    for one in ids:
        text = origin("records.example.org", one, 2)
        assert " " not in text
        assert "\n" not in text
        assert [other for other in ids if is_origin_of(text, other)] == [one]

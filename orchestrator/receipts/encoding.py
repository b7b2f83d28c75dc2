"""Base64 with exactly one text for each value, so that no character of a receipt can be changed without effect."""

import base64
import binascii


def encoded(data: bytes) -> str:
    """The data in base64."""
    return base64.b64encode(data).decode()


def decoded(text: str) -> bytes:
    """The data of a text in base64. Raises ValueError if `encoded` would have written another text."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    if encoded(data) != text:
        raise ValueError("not base64 in its only form")
    return data

"""One spelling for names that look the same. Ids and types are compared character by character, but people can't see every character.

Decision 26 has the reasons. Ids get their canonical spelling where they enter the product (`schemas.fields.Id`, the files, the directory), so
that all other code compares plain texts.
"""

import unicodedata

# Format characters and others that Unicode calls default ignorable, which are invisible. The Arabic number signs are format characters, too,
# but visible, so they stay.
_INVISIBLE_RANGES = (
    (0xAD, 0xAD),  # soft hyphen
    (0x34F, 0x34F),
    (0x61C, 0x61C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),  # zero width space and joiners, left-to-right and right-to-left mark
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFEFF, 0xFEFF),  # byte order mark
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
# Blanks of every width except the plain space. None of them breaks a line.
_BLANKS = "\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u2800\u3000"

_UNSEEN: dict[int, str | None] = {
    **{code: None for first, last in _INVISIBLE_RANGES for code in range(first, last + 1)},
    **dict.fromkeys(map(ord, _BLANKS), " "),
}

SQL_INVISIBLE = "".join(chr(code) for first, last in _INVISIBLE_RANGES if last < 0xE0000 for code in range(first, last + 1))
"""The characters that `canonical` removes, for PostgreSQL's `translate`; without the thousands of tag characters, which no keyboard has."""

SQL_BLANKS = _BLANKS


def visible(text: str) -> str:
    """The text without invisible characters, and with plain blanks."""
    return text if text.isascii() else text.translate(_UNSEEN)


def canonical(text: str) -> str:
    """The one spelling of an id or a type: visible characters, plain blanks, composed letters (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text.translate(_UNSEEN))

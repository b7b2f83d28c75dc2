"""Finds letters that a program has read in a wrong encoding: `kÃ¥re`, `k†re` or `Bj¿rn` in place of kåre and Bjørn.

A text in Mac Roman, in a code page of DOS or in another one of Windows can be read as Windows-1252, and nothing fails. But most Nordic letters
then become symbols, and a symbol within a word gives that away. So does UTF-8 that was read as something else.
"""

# ruff: noqa: RUF001, RUF003 - the symbols to find

import re
from collections.abc import Iterable

# Letters of UTF-8 that nobody writes in Windows-1252. There, a closing mark can follow a capital letter or an å: `BLÅ»`, `så”…`. A space that
# does not break can stand before another symbol: `på ½ time`. Š, Ž and ™ follow a capital letter: `BOŽÍŠ`. So do š and ž: `Íšek`, but
# Äš and Åž are also the Ě and the Ş of UTF-8. Two of them follow any letter: `áššedovdi`. The sign of a multiplication (\xd7) can precede
# a number.
_CLOSING = rb"\x84\x85\x8b\x91-\x97\x9b\xa0\xab\xad\xb4\xb7\xbb"
_AFTER_CAPITAL = rb"\x8a\x8e\x99"
_SMALL_CARON, _CARON = rb"\x9a\x9e", rb"\x8a\x8e\x9a\x9e"
UTF8_LETTER = re.compile(
    rb"\xc2[\xa0-\xbf]|\xc3[\x80-\xbf]"
    rb"|(?:[\xc4-\xc8](?![%b%b])|[\xc9-\xd6\xd8-\xdf](?![%b%b%b])|(?<![A-Z])[\xc4\xc5](?=[%b]))[\x80-\xbf](?![%b])"
    rb"|[\xe1-\xef](?![%b%b])[\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
    % (_CLOSING, _AFTER_CAPITAL, _CLOSING, _AFTER_CAPITAL, _SMALL_CARON, _AFTER_CAPITAL, _CARON, _CLOSING, _SMALL_CARON)
)

_LETTER = r"[^\W\d_]"
# Symbols in place of a letter, between two letters. Dashes, dots and apostrophes are not among them: people write `Oslo–Bergen` and `O’Brien`.
_BETWEEN = "†‡ƒ¿¾¼½¯¨¸¤¥¦§¬±¶ªº¹³£¢¡€µ°ˆ‰≈∆≥∏┐"
# A ® is the Æ of a Mac only between capital letters, as in `B®RUM`. `Friskliv®metoden` is a trade mark.
_CAPITAL_LETTERS = "A-ZÀ-ÖØ-Þ"
# Symbols in place of the first letter, as in `¯yvind` and `£ukasz`, or of the last, as in `Troms¿`. A † at the end is not
# among them: `Kari†` says that Kari has died.
_FIRST, _LAST = "¯®¾¸¨£", "¿¾¯¨¸¤¦"
# Capital letters in place of a small one, as in `HŒkon` and `kÂre`, and the last letter of `RenŽ`.
_CAPITAL_FOR_SMALL = "ŒŠŽŸÂÊÕ"
_SUSPECT = re.compile(
    rf"(?<={_LETTER})[{_BETWEEN}](?={_LETTER})|(?<=[{_CAPITAL_LETTERS}])®(?=[{_CAPITAL_LETTERS}])|(?<!\w)[{_FIRST}](?={_LETTER})|(?<={_LETTER})[{_LAST}](?!\w)|[√├┬┼]"
)
_SMALL_LETTERS = "a-zß-öø-ÿ"
_CAPITAL_WITHIN = re.compile(
    rf"(?<={_LETTER})[{_CAPITAL_FOR_SMALL}](?=[{_SMALL_LETTERS}])|(?<=[{_SMALL_LETTERS}])[{_CAPITAL_FOR_SMALL}](?!\w)"
)
# Quotes in place of a letter. They can also be quotes, and then another one begins a word. A ‘ is a letter in `Hawai‘i`, `O‘tkir` and
# `Mas‘ud`, beside vowels, and the æ of DOS in `j‘ger`.
_CONSONANTS = "bcdfghjklmnpqrstvwxz"
_QUOTE_WITHIN = re.compile(
    rf"(?<={_LETTER})[„”‹›](?={_LETTER})|(?<={_LETTER})›(?!\w)|(?<=[{_CONSONANTS}{_CONSONANTS.upper()}])‘(?=[{_CONSONANTS}])"
)
_OPENING = re.compile(r"(?<!\w)[„“”‹‘]\w")

# What texts in Windows-1252 often have. Other encodings of Windows have the same letters at these places, or none.
_USUAL = frozenset("æøåÆØÅäöüÄÖÜéÉ–—’…\xa0")


def misread_part(text: str) -> str | None:
    """The first characters of the text that probably were another letter; None if there are none."""
    if text.isascii():
        return None
    if match := UTF8_LETTER.search(text.encode("windows-1252", "replace")):
        return match[0].decode("windows-1252", "replace")
    found = (
        _SUSPECT.search(text) or _CAPITAL_WITHIN.search(text) or (None if _OPENING.search(text) else _QUOTE_WITHIN.search(text))
    )
    return None if found is None else found[0]


def unusual_letters(texts: Iterable[str]) -> list[str]:
    """The letters and symbols that lists in Windows-1252 seldom have. In another encoding of Windows, their bytes are other letters."""
    used = {character for text in texts if not text.isascii() for character in text}
    return sorted(character for character in used - _USUAL if not character.isascii())

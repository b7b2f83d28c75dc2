"""A list that was read in a wrong encoding is refused or mentioned: no id silently becomes another one."""

# ruff: noqa: RUF001 - symbols as people write them

import pytest

from orchestrator.directory import files as directory
from orchestrator.files.encodings import misread_part
from orchestrator.files.mistakes import BadFileError
from orchestrator.files.registrations import read_registrations
from orchestrator.files.tables import no_rows, read_table

HEADER = "mentor_id;activity_type;activity_date;duration_minutes;notes"
NAMES = ["Kåre", "Bjørn", "Nærø", "Næss", "Øyvind", "Tromsø", "Bodø", "Håkon", "Sørum", "Grünerløkka", "Jäger", "Müller"]


def said(raw: bytes) -> str:
    """All mistakes of a list, or its remarks."""
    try:
        return "; ".join(read_registrations("a.csv", raw).remarks)
    except BadFileError as refusal:
        return str(refusal)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("encoding", ["mac-roman", "cp850", "cp865"])
def test_an_id_in_an_encoding_of_the_mac_or_of_dos_is_a_mistake(name: str, encoding: str) -> None:
    assert "save" in said(f"{HEADER}\n{name};x;2026-01-01;60;\n".encode(encoding, "ignore"))


@pytest.mark.parametrize("name", ["Bjørn", "Øyvind", "Næss", "Tromsø", "Čiekčá"])
def test_an_id_in_the_baltic_encoding_is_not_read_without_a_word(name: str) -> None:
    assert "as CSV UTF-8" in said(f"{HEADER}\n{name};x;2026-01-01;60;\n".encode("windows-1257", "ignore"))


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("Łukasz", "cp1250"),
        ("Wąsik", "cp1250"),
        ("Dvořák", "cp1250"),
        ("Čapek", "cp1250"),
        ("Jankauskienė", "cp1257"),
        ("Иван", "cp1251"),
        ("Şahin", "cp1254"),
    ],
)
def test_an_id_in_another_encoding_of_windows_is_a_mistake_or_mentioned_with_its_letters(name: str, encoding: str) -> None:
    read = name.encode(encoding).decode("windows-1252")
    told = said(f"{HEADER}\n{name};x;2026-01-01;60;\n".encode(encoding))
    assert "as CSV UTF-8" in told
    assert any(letter in told for letter in read if not letter.isascii())


@pytest.mark.parametrize("wrong", ["windows-1252", "mac-roman", "cp850", "cp865"])
@pytest.mark.parametrize("name", NAMES)
def test_an_id_of_utf_8_that_was_read_in_another_encoding_is_a_mistake_also_in_utf_8(name: str, wrong: str) -> None:
    read = name.encode().decode(wrong)
    assert "column mentor_id" in said(f"{HEADER}\n{read};x;2026-01-01;60;\n".encode())
    text = f"organization_id,chapter_id,name\norg,{read},Nord\n"
    with pytest.raises(BadFileError, match=r"chapter_id.*wrong encoding"):
        read_table("chapters.csv", text.encode(), directory.FILES["chapters.csv"], no_rows)


# Names, chapters and types as people have them. The symbols in them are meant.
RIGHT = [
    *("Kåre", "Bjørn", "ÅSE", "ØYVIND", "ÆGIR", "Tromsø", "O’Brien", "D’ANGELO", "O´Brien", "O‘Brien", "L·leida", "Oslo–Bergen"),
    *(
        "Oslo•Bergen",
        "“Ung”gruppe",
        "”Ung”gruppe",
        "«Ung»gruppe",
        "„Ung”treff",
        "‹Ung›gruppe",
        "ŠKODA",
        "Škoda",
        "BOŽÍŠ",
        "Łukasz",
    ),
    *(
        "Jankauskienė",
        "René",
        "Hélène",
        "Peña",
        "Tõnu",
        "João",
        "CŒUR",
        "Œuvre",
        "cœur",
        "VÊTEMENT",
        "ESTAÇÕES",
        "75º",
        "m²",
        "dm³",
    ),
    *(
        "20°C",
        "Kari†",
        "Čiekčá",
        "đŋŧ",
        "Þór",
        "Çağlar",
        "İstanbul",
        "Иван",
        "Ελλάδα",
        "李小龙",
        "gruppeØst",
        "øvreÅsen",
        "Firma®",
    ),
    *("Aker™", "§12", "nr°", "N°5", "10µg", "så”…", "å²", "A×B", "50€", "Ung♥Oslo"),
]


@pytest.mark.parametrize("name", RIGHT)
def test_symbols_that_people_write_are_no_mistakes(name: str) -> None:
    assert misread_part(name) is None
    assert said(f"{HEADER}\n{name};x;2026-01-01;60;\n".encode()) == ""


def test_a_usual_list_of_windows_has_no_remark() -> None:
    assert said(f"{HEADER}\nKåre;møte;2026-01-01;60;på tur – «fint» …\nAndré;møte;2026-01-01;60;\n".encode("windows-1252")) == ""


def test_unusual_letters_of_windows_are_named_once() -> None:
    raw = f"{HEADER}\nÐoko;x;2026-01-01;60;ñ\nÑandú;þ;2026-01-01;60;\n".encode("windows-1252")
    [remark] = read_registrations("a.csv", raw).remarks
    assert "ids and names have Ð Ñ ú þ;" in remark
    assert read_registrations("a.csv", raw.decode("windows-1252").encode()).remarks == []


@pytest.mark.parametrize(("before", "is_mentioned"), [(195, True), (200, False)])
def test_only_the_beginning_of_notes_is_examined_so_long_notes_cost_little(before: int, is_mentioned: bool) -> None:
    told = said(f"{HEADER}\na;x;2026-01-01;60;{'å' * before}K†re\n".encode())
    assert ("symbols in place of letters" in told) is is_mentioned


def test_notes_in_a_wrong_encoding_are_read_with_a_remark_that_does_not_show_them() -> None:
    raw = f"{HEADER}\na;x;2026-01-01;60;tur på fjellet\nb;x;2026-01-01;60;10 m²\n".encode("mac-roman", "ignore")
    [remark] = read_registrations("a.csv", raw).remarks
    assert remark.startswith("a.csv: the notes seem to have symbols in place of letters")
    assert remark.endswith(": row 2")
    assert "fjellet" not in remark

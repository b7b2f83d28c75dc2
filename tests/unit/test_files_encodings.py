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

# Names and words as people write them in the north and elsewhere. In Windows-1252, š and ž are bytes that UTF-8 has within its letters.
WRITTEN = {
    "Norwegian": "Kåre Bjørn Ærlig Øyvind ÅSHILD Sæbø Håøya Tromsø Grünerløkka Lõvaas Renée SÆTHER ÆØÅ",
    "Sámi": "áššedovdi Ráššá bážžit Pâššâ ášži vuođđu Áššu Äšši ášši nuõrttsää´mm’ Čáhcesuolu Guovdageaidnu Máret Ánte Ŋŋ Ŧŧ Đđ ÁŠŠEDOVDI"
    " Kárášjohka Njávdám Deatnu Gáivuotna Muošŋá Šoršša Žižžá LÁŠŠE PÂŠŠÂ",
    "Icelandic": "Þórður Guðmundsdóttir Ævar Ásgeir Össur Ýr ÍÞRÓTTIR Sigríður Friðþjófur",
    "Finnish": "Äijälä Yrjö Väinö Tšekki Šakki Žukov Päiviö Öhman HÄMÄLÄINEN Ässä",
    "Polish": "Łukasz Wąsik Świętosław Żółć Źdźbło Ćwikła Ńuńu Zażółć GĘŚLĄ Jaźń ŁÓDŹ",
    "Czech": "Íšek Óžďany Dvořák Šárka Žižka Ěva Čeněk Ďáblice Ťapák Růžena Ústí BOŽÍŠ Příbram Úžice Ýžov Ášová Éžák",
    "Estonian": "Üžküla Õismäe Tõnu Ülemiste Žanna Šveits",
    "Turkish": "Şahin İbrahim Çağrı Yıldız Öğüt Ünal Iğdır ĞÜNEŞ Ağaoğlu",
    "Vietnamese": "Nguyễn Trần Lê Phạm Huỳnh Võ Đặng Bùi Đỗ Hồ Ngô Dương Lý Ân Âu Quỳnh Thảo Ý",
    "Uzbek": "Toshpo‘latov O‘tkir G‘ulom Gʻulom",
    "Hawaiian": "Hawai‘i Ka‘ahumanu",
    "Arabic": "Mas‘ud Sa‘id",
    "Irish": "O‘brien O’Brien Ó’Dálaigh Seán",
    "with signs": "Friskliv®metoden 20m²stue",
}


@pytest.mark.parametrize(
    ("language", "name"), [(language, name) for language, names in WRITTEN.items() for name in names.split()]
)
def test_names_as_people_write_them_are_read_in_utf_8_and_in_a_list_of_windows(language: str, name: str) -> None:
    assert said(f"{HEADER}\n{name};x;2026-01-01;60;{name}\n".encode()) == "", language
    # A Windows list can't hold all letters; of those that it holds, none is taken for UTF-8.
    windows = name.encode("windows-1252", "ignore")
    assert "mixes" not in said(f"{HEADER}\nkåre;x;2026-01-01;60;".encode("windows-1252") + windows + b"\n"), language


@pytest.mark.parametrize(
    "name", ["Ěva", "Świętosław", "Şahin", "Ğüneş", "Țepeș", "Ęć", "Čáhcesuolu", "Ŋŋ", "Иван", "Шишкин", "Ελένη"]
)
def test_a_name_in_utf_8_that_was_read_as_windows_1252_is_a_mistake(name: str) -> None:
    read = "".join(bytes([byte]).decode("windows-1252", "ignore") for byte in name.encode())
    assert "column mentor_id" in said(f"{HEADER}\n{read};x;2026-01-01;60;\n".encode())
    with pytest.raises(BadFileError, match="mixes UTF-8 and Windows-1252"):
        read_registrations("a.csv", f"{HEADER}\n".encode() + "kåre".encode("windows-1252") + f";{name};2026-01-01;60;\n".encode())


def test_the_mac_letter_that_is_a_registered_sign_is_a_mistake_between_capitals() -> None:
    assert "wrong encoding" in said(f"{HEADER}\nB®RUM;x;2026-01-01;60;\n".encode())


@pytest.mark.parametrize("name", ["Br‘kke", "j‘ger", "b‘rum", "L‘rdal", "N‘ss"])
def test_the_letter_of_dos_that_is_a_quote_is_a_mistake_between_consonants(name: str) -> None:
    assert "wrong encoding" in said(f"{HEADER}\n{name};x;2026-01-01;60;\n".encode())


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

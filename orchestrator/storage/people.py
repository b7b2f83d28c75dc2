"""People who were forgotten: how an import and a replay recognize them without knowing who they were (docs/decisions/0045-forgetting.md)."""

import hashlib
import hmac
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from unicodedata import combining, normalize

from sqlalchemy import Connection, TextClause

from orchestrator.process.settings import Settings
from orchestrator.storage.quantities import Quantities
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/storage/sql/people.sql")

_WORDS = _SQL["words"].text()
_REPLACED_WORDS = _SQL["replaced_words"].text()
_REMEMBER = _SQL["remember"].text()
_IMPORT_LOCK = _SQL["import_lock"].text()
_READMIT = _SQL["readmit"].text()


_NEVER = datetime.max.replace(tzinfo=UTC)

_IDS = frozenset({"mentor_id", "coordinator_id", "revoked_by"})
"""The fields of JSON that have a person's id."""

_OF_NOBODY = frozenset(
    {
        *("organization_id", "batch_id", "item_id", "activity_id", "conflicting_activity_id", "webhook_id"),
        *("activity_type", "activity_date", "timestamp", "completed_at", "revoked_at"),
        *("type", "status", "code", "field", "pointer"),
    }
)
"""The fields of JSON that name no person. An id like 2026 also stands in dates, and in ids of other things."""


def spellings(mentor_id: str, name: str | None) -> list[str]:
    """What a person is searched for in texts: the id and the name as they are, composed and decomposed, because other programs write é as one
    character or as two. A name of one word is not searched for: it may be an everyday word."""
    words = [mentor_id, *([name] if name is not None and " " in name.strip() else [])]
    return list(dict.fromkeys(each for word in words for each in (word, normalize("NFC", word), normalize("NFD", word))))


class ForgettingKeyError(Exception):
    """People were forgotten, and they can't be recognized without the key. Set BULKREG_FORGETTING_KEY to the key that was used."""

    def __init__(self) -> None:
        super().__init__("people were forgotten under another key; set BULKREG_FORGETTING_KEY to it, or they would come back")


@dataclass(frozen=True, slots=True)
class Word:
    """The hash of an id, or of an id or name as it is searched for in texts."""

    hash: bytes
    is_id: bool
    length: int


class WordHash(ABC):
    """How the words of people are compared."""

    @abstractmethod
    def id_hash(self, organization_id: str, mentor_id: str) -> bytes:
        """The hash of an id as it is written."""

    @abstractmethod
    def text_hash(self, organization_id: str, text: str) -> bytes:
        """The hash of a piece of text, without regard to case."""

    def words(self, organization_id: str, mentor_id: str, name: str | None) -> list[Word]:
        """What a person is recognized by."""
        return [
            Word(self.id_hash(organization_id, mentor_id), True, len(mentor_id)),
            *(Word(self.text_hash(organization_id, text), False, len(text)) for text in spellings(mentor_id, name)),
        ]


class PlainWords(WordHash):
    """The words themselves, for a person who is being forgotten: a hash for each word of each text would take most of the time. They are not
    stored."""

    def id_hash(self, organization_id: str, mentor_id: str) -> bytes:
        """The id."""
        return mentor_id.encode()

    def text_hash(self, organization_id: str, text: str) -> bytes:
        """The text in small letters."""
        return text.lower().encode()


class ForgettingKey(WordHash):
    """The key of the hashes. It is not in the database, so a copy of the database does not show who was forgotten."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self.check = self._hash("check")
        """Shows whether hashes were made with this key."""
        # The same mentors occur again and again in a replay.
        self._cached_id_hash = lru_cache(maxsize=100_000)(self._id_hash)

    @classmethod
    def of(cls, settings: Settings) -> "ForgettingKey | None":
        """Returns the key of the settings; None if there is none."""
        return None if settings.forgetting_key is None else cls(settings.forgetting_key.get_secret_value())

    def id_hash(self, organization_id: str, mentor_id: str) -> bytes:
        """The hash under the key."""
        return self._cached_id_hash(organization_id, mentor_id)

    def _id_hash(self, organization_id: str, mentor_id: str) -> bytes:
        return self._hash("id", organization_id, mentor_id)

    def text_hash(self, organization_id: str, text: str) -> bytes:
        """The hash under the key."""
        return self._hash("text", organization_id, text.lower())

    def _hash(self, *parts: str) -> bytes:
        return hmac.digest(self._secret, "\0".join(parts).encode(), hashlib.sha256)


@dataclass(frozen=True, slots=True)
class Replacement:
    """The pseudonym that replaces a word, in what was written before a time. Without a time: in everything."""

    organization_id: str
    word: Word
    pseudonym: str
    before: datetime | None = None


_Pseudonyms = Sequence[tuple[datetime | None, str]]
"""The pseudonyms that replace a word, each with the time before which it does, the earliest first."""


@dataclass(slots=True)
class _Organization:
    ids: dict[bytes, list[tuple[datetime | None, str]]] = field(default_factory=lambda: defaultdict(list))
    texts: dict[int, dict[bytes, list[tuple[datetime | None, str]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )


class ForgottenPeople:
    """Everybody who was forgotten, by the hashes of their words."""

    def __init__(self, key: WordHash | None, words: Iterable[Replacement] = ()) -> None:
        """`words` need a key. Several may replace the same word: the one with the earliest time does, and of several without a time, the
        first."""
        self._key = key
        self._time: datetime | None = None
        self._organizations: dict[str, _Organization] = defaultdict(_Organization)
        for each in sorted(words, key=lambda each: (each.before is None, each.before or _NEVER)):
            organization = self._organizations[each.organization_id]
            pseudonyms = organization.ids if each.word.is_id else organization.texts[each.word.length]
            pseudonyms[each.word.hash].append((each.before, each.pseudonym))

    def __bool__(self) -> bool:
        return bool(self._organizations)

    def at(self, time: datetime) -> "ForgottenPeople":
        """The same people, for what was written at this time. (Otherwise it is about what is written now.)"""
        then = copy(self)
        then._time = time
        return then

    def pseudonym(self, organization_id: str, person: str) -> str | None:
        """The pseudonym of a forgotten person; None for anybody else."""
        organization = self._organizations.get(organization_id)
        if organization is None or self._key is None:
            return None
        return self._chosen(organization.ids.get(self._key.id_hash(organization_id, person), ()))

    def id(self, organization_id: str, person: str) -> str:
        """The id, or the pseudonym of a forgotten person."""
        return self.pseudonym(organization_id, person) or person

    def text(self, organization_id: str, text: str) -> str:
        """The text with pseudonyms in place of the ids and names of forgotten people, wherever these stand as words.

        An id that is a number is left where it is part of a quantity, a date or another id.
        """
        organization = self._organizations.get(organization_id)
        if organization is None or self._key is None:
            return text
        ends = [place for place in range(len(text) + 1) if _is_boundary(text, place)]
        boundaries = set(ends)
        quantities = Quantities(text)
        written: list[str] = []
        done = 0
        for start in ends:
            if start < done:
                continue
            # The longest first: a name may contain an id.
            for length in sorted(organization.texts, reverse=True):
                end = start + length
                if end not in boundaries:
                    continue
                pseudonym = self._chosen(
                    organization.texts[length].get(self._key.text_hash(organization_id, text[start:end]), ())
                )
                if pseudonym is not None and not quantities.have(start, end):
                    written += [text[done:start], pseudonym]
                    done = end
                    break
        return "".join([*written, text[done:]])

    def value(self, organization_id: str, value: Any) -> Any:
        """A JSON value in which this was done to every text. Ids are compared as a whole: another person's may contain this one's."""
        if isinstance(value, str):
            return self.text(organization_id, value)
        if isinstance(value, list):
            return [self.value(organization_id, each) for each in value]
        if isinstance(value, Mapping):
            return {name: self._field(organization_id, name, each) for name, each in value.items()}
        return value

    def _field(self, organization_id: str, name: str, value: Any) -> Any:
        if name in _OF_NOBODY:
            return value
        is_id = name in _IDS and isinstance(value, str)
        return self.id(organization_id, value) if is_id else self.value(organization_id, value)

    def _chosen(self, pseudonyms: _Pseudonyms) -> str | None:
        for before, pseudonym in pseudonyms:
            if before is None or (self._time is not None and self._time < before):
                return pseudonym
        return None


def _is_boundary(text: str, place: int) -> bool:
    """Whether a word may begin or end here: not between two letters or digits, nor before an accent of its own."""
    if place in (0, len(text)):
        return True
    return not (_is_of_word(text[place - 1]) and _is_of_word(text[place]))


def _is_of_word(character: str) -> bool:
    return character.isalnum() or combining(character) != 0


def read_forgotten(connection: Connection, key: ForgettingKey | None, *, first: Iterable[Replacement] = ()) -> ForgottenPeople:
    """Everybody who is forgotten now, not those who were readmitted. The words of `first` come before equal words of others. Raises
    ForgettingKeyError if there is somebody, and this is not the key."""
    return ForgottenPeople(key, [*first, *_read(connection, _WORDS, key)])


def read_replaced(connection: Connection, key: ForgettingKey | None) -> ForgottenPeople:
    """Everybody who was ever forgotten, for a replay: by `at`, a word of an event becomes what replaced it in the tables. Of somebody who was
    readmitted, words count in events from before the forgetting was done; of others, in all events. Raises ForgettingKeyError."""
    return ForgottenPeople(key, _read(connection, _REPLACED_WORDS, key))


def _read(connection: Connection, words: TextClause, key: ForgettingKey | None) -> Sequence[Replacement]:
    rows = connection.execute(words).all()
    if any(key is None or bytes(row.key_check) != key.check for row in rows):
        raise ForgettingKeyError
    return [
        Replacement(row.organization_id, Word(bytes(row.hash), row.is_id, row.length), row.pseudonym, row.before) for row in rows
    ]


def remember_forgotten(
    connection: Connection, key: ForgettingKey, organization_id: str, words: list[Word], pseudonym: str
) -> None:
    """Stores the hashes of a person's words."""
    values = {
        "organization_id": organization_id,
        "hashes": [word.hash for word in words],
        "are_ids": [word.is_id for word in words],
        "lengths": [word.length for word in words],
    }
    connection.execute(_REMEMBER, {**values, "pseudonym": pseudonym, "key_check": key.check})


def readmit(connection: Connection, key: ForgettingKey, people: Iterable[tuple[str, str]]) -> None:
    """Lets an import accept these people again, by organization and id. Their records of before keep the pseudonym, also in a replay."""
    listed = list(people)
    hashes = [key.id_hash(organization_id, person) for organization_id, person in listed]
    connection.execute(_READMIT, {"organizations": [organization_id for organization_id, _ in listed], "hashes": hashes})


def wait_for_imports(connection: Connection) -> None:
    """Waits for a running import, a page of a forgetting or a promotion, and keeps out others until the transaction ends. It has to be the
    transaction's first lock."""
    connection.execute(_IMPORT_LOCK)

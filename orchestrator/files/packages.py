"""Reads the parts of a workbook (.xlsx), which is a zip file of XML. Finds them by their relationships, and limits their size."""

import io
import posixpath
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol
from xml.parsers import expat

from orchestrator.files import kinds
from orchestrator.files.delimited import UnreadableFileError

# Limits on the unpacked contents. A list of 10,000 rows and ten columns has 6 MB and 300,000 elements; a small zip file can unpack to gigabytes.
MAX_XML_BYTES = 64 * 1024 * 1024
MAX_ELEMENTS = 700_000

_TOO_LARGE = "is too large for a list: clear the rows and columns that contain only formats, or save it as CSV UTF-8"
_DAMAGED = "is damaged or incomplete; copy or download it again, or save it again in a spreadsheet program"

_UNSUPPORTED = f"is compressed in a way that is not supported; {kinds.AS_WORKBOOK}"

# The standard of workbooks has these two ways of compression, and UTF-8 and UTF-16. The other encodings are those of careless programs.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCODINGS = ("utf-8", "utf-16", "us-ascii", "iso-8859-1", "windows-1252")

_ENCRYPTED = 0x1
_CHUNK_BYTES = 64 * 1024


class XmlReader(Protocol):
    """Receives the contents of a part. Names have no namespaces, because the strict form of the format differs only in those."""

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""

    def end(self, name: str) -> None:
        """An element ends."""

    def text(self, data: str) -> None:
        """A piece of text."""


class Package:
    """An open workbook."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        # Some programs write backslashes, or use upper case differently from the relationships.
        self._parts = {info.filename.replace("\\", "/").lstrip("/").lower(): info for info in archive.infolist()}
        self._bytes_left = MAX_XML_BYTES
        self._elements_left = MAX_ELEMENTS

    @property
    def names(self) -> list[str]:
        """The names of all parts, in lower case."""
        return list(self._parts)

    def __contains__(self, part: str) -> bool:
        return part.lower() in self._parts

    def relationships(self, part: str) -> dict[str, tuple[str, str]]:
        """The relationships of a part, or of the whole package (""), by id: the last word of the kind, and the other part."""
        folder, name = posixpath.split(part)
        found = _Relationships(folder)
        source = posixpath.join(folder, "_rels", f"{name}.rels")
        if source in self:
            self.read(source, found)
        return found.targets

    def read(self, part: str, reader: XmlReader) -> None:
        """Passes the contents of a part to the reader. Raises UnreadableFileError."""
        info, parser = self._readable(part), self._parser(reader)
        try:
            with self._archive.open(info) as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    self._bytes_left -= len(chunk)
                    if self._bytes_left < 0:
                        raise UnreadableFileError(_TOO_LARGE)
                    parser.Parse(chunk, False)
                parser.Parse(b"", True)
        except UnreadableFileError:  # of this block or of the parser
            raise
        except (zipfile.BadZipFile, zlib.error, EOFError, expat.ExpatError, OSError) as error:
            raise UnreadableFileError(_DAMAGED) from error
        # zipfile has no error of its own for a version or a protection that it can't read, nor expat for an encoding.
        except (NotImplementedError, RuntimeError, ValueError) as error:
            raise UnreadableFileError(_UNSUPPORTED) from error

    def _readable(self, part: str) -> zipfile.ZipInfo:
        """The place of a part in the zip file. Raises UnreadableFileError if it is missing, or can't be read or is too large by what its
        entry says."""
        info = self._parts.get(part.lower())
        if info is None:
            raise UnreadableFileError(_DAMAGED)
        if info.flag_bits & _ENCRYPTED:
            raise UnreadableFileError("is protected by a password; open it, remove the password, and save it again")
        if info.compress_type not in _COMPRESSIONS:
            raise UnreadableFileError(_UNSUPPORTED)
        if info.file_size > self._bytes_left:
            raise UnreadableFileError(_TOO_LARGE)
        return info

    def _parser(self, reader: XmlReader) -> expat.XMLParserType:
        """A parser that passes what it finds to the reader, and raises UnreadableFileError at what no workbook has."""

        def start(name: str, attributes: dict[str, str]) -> None:
            self._elements_left -= 1
            if self._elements_left < 0:
                raise UnreadableFileError(_TOO_LARGE)
            reader.start(local(name) if ":" in name else name, attributes)

        def end(name: str) -> None:
            reader.end(local(name) if ":" in name else name)

        def refuse(*_: object) -> None:
            # No program writes a document type, and its entities can expand a line to gigabytes.
            raise UnreadableFileError(f"was not written by a spreadsheet program; {kinds.AS_WORKBOOK}")

        def check_encoding(_version: str, encoding: str | None, _standalone: int) -> None:
            if encoding is not None and encoding.lower() not in _ENCODINGS:
                raise UnreadableFileError(f"has the text encoding {encoding}, which is not supported; {kinds.AS_WORKBOOK}")

        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, reader.text
        parser.StartDoctypeDeclHandler, parser.XmlDeclHandler = refuse, check_encoding
        return parser


@contextmanager
def opened(raw: bytes) -> Iterator[Package]:
    """The workbook in these bytes. Raises UnreadableFileError, which says what the bytes are instead."""
    refusal = kinds.not_a_workbook(raw)
    if refusal is not None:
        raise UnreadableFileError(refusal)
    try:
        archive = zipfile.ZipFile(io.BytesIO(raw))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError) as error:
        raise UnreadableFileError(_DAMAGED) from error
    with archive:
        yield Package(archive)


def workbook_part(package: Package) -> str:
    """The part with the list of sheets. Raises UnreadableFileError, which says what the zip file contains instead."""
    found = [target for kind, target in package.relationships("").values() if kind == "officeDocument" and target in package]
    part = found[0] if found else "xl/workbook.xml"
    if part not in package or not part.lower().endswith(".xml") or part.lower().startswith(("word/", "ppt/")):
        raise UnreadableFileError(kinds.no_workbook_within(package.names))
    return part


def local(name: str) -> str:
    """The name of an element or an attribute without the prefix of its namespace."""
    return name.rpartition(":")[2]


class _Relationships:
    """Reads a part's list of relationships."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.targets: dict[str, tuple[str, str]] = {}

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name != "Relationship" or attributes.get("TargetMode") == "External":
            return
        target = attributes.get("Target", "").replace("\\", "/")
        part = target.lstrip("/") if target.startswith("/") else posixpath.normpath(posixpath.join(self._folder, target))
        self.targets[attributes.get("Id", "")] = attributes.get("Type", "").rpartition("/")[2], part

    def end(self, name: str) -> None:
        """Does nothing."""

    def text(self, data: str) -> None:
        """Does nothing."""

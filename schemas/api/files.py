"""The contents of a file that was read."""

from datetime import date
from typing import Annotated

from pydantic import Field

from schemas.api.base import Response


class FileItemResponse(Response):
    """The readable values of one row. A missing value was not in the file, or is among the mistakes."""

    row: Annotated[int, Field(description="As a spreadsheet program shows it; the header is usually row 1.")]
    client_reference: str
    mentor_id: str | None = None
    mentor_name: Annotated[str | None, Field(description="Instead of `mentor_id`, if the cell has a name.")] = None
    activity_type: str | None = None
    activity_date: date | None = None
    duration_minutes: int | None = None
    notes: str | None = None


class FileMistakeResponse(Response):
    """One mistake in a file."""

    row: Annotated[int | None, Field(description="Null for a mistake of the whole file.")]
    column: Annotated[str | None, Field(description="The title in the file's header.")]
    field: Annotated[str | None, Field(description="The field of an item, or `mentor_name`, that the column is for.")]
    code: str
    detail: Annotated[str, Field(description="A message that completes `the cell …` or `the file …`.")]
    value: Annotated[
        str | None, Field(description="The content of the cell, never notes; for `too_many_items` how many rows there are.")
    ]


class FileRemarkResponse(Response):
    """Something that was not read, or that was read and should be checked. It may all be right."""

    code: str
    detail: Annotated[str, Field(description="A sentence for people.")]
    rows: Annotated[tuple[int, ...], Field(description="The first ten rows that it is about.")]
    names: Annotated[tuple[str, ...], Field(description="The first ten columns, sheets or letters that it is about.")]
    count: Annotated[int, Field(description="How many rows, columns, sheets or letters it is about.")]


class ReadFileResponse(Response):
    """The contents of a file. Nothing was stored."""

    items: tuple[FileItemResponse, ...]
    mistakes: tuple[FileMistakeResponse, ...]
    ignored_columns: Annotated[tuple[str, ...], Field(description="Columns with unknown names.")]
    remarks: tuple[FileRemarkResponse, ...]

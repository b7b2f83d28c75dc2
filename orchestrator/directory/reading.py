"""Reads the directory: an organization and its people, as the API shows them."""

from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection

from orchestrator.registration.rules import DEFAULT_TIME_ZONE
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/directory/sql/reading.sql")

_ORGANIZATION = _SQL["organization"].text().bindparams(time_zone=DEFAULT_TIME_ZONE)


@dataclass(frozen=True, slots=True)
class OrganizationView:
    """An organization, and its date now. One that the directory does not have is called by its id."""

    organization_id: str
    name: str
    time_zone: str
    today: date


class DirectoryReader:
    """The directory as the transaction of the connection sees it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def organization(self, organization_id: str, subject: str) -> tuple[OrganizationView, str | None]:
        """The organization, and the name of this coordinator in its directory, if it has one."""
        row = self._connection.execute(_ORGANIZATION, {"organization_id": organization_id, "subject": subject}).one()
        return OrganizationView(organization_id, row.name, row.time_zone, row.today), row.name_of_caller

"""Combines the verified token with the organization that a request names into the `Actor` of the operations."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from api.http.problems import ProblemError
from orchestrator.batches.model import Actor, Role
from schemas.mistakes import Mistake
from schemas.spelling import canonical

ANY_ORGANIZATION = "*"
"""In a service token's `orgs` (development): all organizations."""

ORGANIZATION_HEADER = "X-Organization-Id"

# No control characters: the setting for row level security separates organizations with one (`storage.database`). No unpaired
# surrogates: they stand for header bytes that are not UTF-8.
ORGANIZATION_ID_PATTERN = r"^[^\x00-\x1f\x7f]{1,100}$"
_ORGANIZATION_ID = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,100}")


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller as the token names it. Only a service has several organizations, or ANY_ORGANIZATION."""

    subject: str
    role: Role
    organizations: Sequence[str]
    expires_at: float
    """Seconds since 1970: streams of this caller end then."""

    def actor(self, *, header: str | None, in_body: str | None = None) -> Actor:
        """Returns the caller in the one organization that the request is about (docs/http.md, An address and a token).

        Raises ProblemError: `organization_differs`, `organization_required`, `not_your_organization`.
        """
        header = None if header is None else canonical(header)
        if header is not None and in_body is not None and header != in_body:
            detail = f"The header {ORGANIZATION_HEADER} and organization_id name different organizations; send one of them."
            raise ProblemError("organization_differs", detail, [Mistake("/organization_id", "organization_differs", detail)])
        named = in_body if in_body is not None else header
        if named is None:
            if len(self.organizations) != 1 or self.organizations[0] == ANY_ORGANIZATION:
                detail = f"The token is for several organizations: name one in the header {ORGANIZATION_HEADER} (or as organization_id)."
                mistake = Mistake("/organization_id", "organization_required", detail)
                raise ProblemError("organization_required", detail, [mistake])
            named = self.organizations[0]
        elif not self._covers(named):
            raise ProblemError("not_your_organization", "The token is not valid for the organization that the request names.")
        return Actor(named, self.subject, self.role)

    def _covers(self, organization_id: str) -> bool:
        if organization_id == ANY_ORGANIZATION or not _ORGANIZATION_ID.fullmatch(organization_id):
            return False
        is_any = self.role is Role.SERVICE and ANY_ORGANIZATION in self.organizations
        return is_any or organization_id in self.organizations

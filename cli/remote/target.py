"""An API: its address and its credentials."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """An API and how to authenticate there. `home` is its home, if it is on this machine."""

    url: str
    token: str | None
    first_organization_token: str | None = None
    postgres_url: str | None = None

    def headers(self, organization_id: str | None, *, is_named_in_body: bool = False) -> dict[str, str]:
        """Returns the headers that identify the caller and the organization.

        A home's own token is for every organization, so one has to be named. Without a name it is the home's first organization.
        """
        token = self.token
        if organization_id is None and not is_named_in_body and self.first_organization_token is not None:
            token = self.first_organization_token
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return headers if organization_id is None else headers | {"X-Organization-Id": organization_id}

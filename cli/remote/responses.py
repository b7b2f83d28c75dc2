"""A response as commands read it. If something is missing that the product's API always sends, another server has responded."""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import httpx

from cli.terminal.failures import UnreachableError
from orchestrator.process.outgoing import without_credentials


class _Object(dict[str, Any]):
    """A JSON object of a response. Reading a field that it lacks raises UnreachableError, because the address is then that of another
    server."""

    def __init__(self, response: httpx.Response, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self._response = response

    def __missing__(self, field: str) -> NoReturn:
        raise another_server(self._response, f"its response has no {field}")


class ApiResponse:
    """A response of the API."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status_code = response.status_code
        self.headers = response.headers
        self.content = response.content

    @property
    def tag(self) -> str:
        """The ETag. Raises UnreachableError if there is none."""
        tag: str | None = self.headers.get("ETag")
        if tag is None:
            raise another_server(self._response, "its response has no ETag")
        return tag

    def json(self) -> Mapping[str, Any]:
        """Returns the body, an object. Reading a field that it, or an object in it, lacks raises UnreachableError.

        Raises UnreachableError if the body is no JSON object.
        """
        try:
            document = json.loads(self.content, object_hook=lambda fields: _Object(self._response, fields))
        except ValueError:
            document = None
        if not isinstance(document, _Object):
            raise another_server(self._response, "its response is no JSON object")
        return document


def another_server(response: httpx.Response, because: str) -> UnreachableError:
    """Returns the failure for a response that is not of the product's API."""
    address = without_credentials(str(response.url))
    return UnreachableError(f"The server at {address} is not this product's API ({because}). Check the URL.")

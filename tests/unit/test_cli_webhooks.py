"""`bulkreg webhooks changes`: it reads as many pages as it has to."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner

from cli.commands import webhooks
from cli.main import app
from tests.unit.test_cli_client import server

KEPT = 5


def changes(limit: int) -> tuple[list[int], list[int]]:
    """The numbers of the changes that are shown, of five, and how many each request asked for."""
    asked: list[int] = []

    async def answer(request: web.Request) -> web.Response:
        first, most = int(request.query.get("cursor", "0")), int(request.query["limit"])
        asked.append(most)
        names = ("changed_at", "change", "because", "changed_by", "channel", "url", "webhook_id")
        page = [dict.fromkeys(names, "") | {"number": each} for each in range(first, min(first + most, KEPT))]
        return web.json_response({"data": page, "next_cursor": str(first + most) if first + most < KEPT else None})

    async def run() -> Any:
        async with server(answer) as url:
            command = ["webhooks", "changes", "--url", url, "--token", "t", "--org", "nordlys", "--limit", str(limit), "--json"]
            return await asyncio.to_thread(CliRunner().invoke, app, command)

    result = asyncio.run(run())
    assert result.exit_code == 0, result.output
    return [each["number"] for each in json.loads(result.stdout)["data"]], asked


def test_more_changes_than_a_page_has_are_read_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "_PAGE", 2)
    assert changes(3) == ([0, 1, 2], [2, 1])
    assert changes(9) == ([0, 1, 2, 3, 4], [2, 2, 2])
    assert changes(1) == ([0], [1])

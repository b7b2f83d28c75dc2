"""The log lines of a test, as fields."""

from collections.abc import Mapping

import orjson
import pytest

from orchestrator.process.actions import Action
from orchestrator.process.logs import JsonFormatter


def logged(caplog: pytest.LogCaptureFixture, action: Action) -> list[Mapping[str, object]]:
    """Returns the lines of this action, as the product writes them."""
    lines = [orjson.loads(JsonFormatter().format(record)) for record in caplog.records]
    return [line for line in lines if line.get("action") == action.label]

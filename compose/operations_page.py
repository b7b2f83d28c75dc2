"""Generates the tables of docs/operations.md from the code: settings, metrics and logged actions.

`python -m compose.operations_page` writes them into the page.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from orchestrator.process import metrics
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"

# How the table names the bounds of a number in JSON Schema.
_BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}


def settings_table() -> str:
    """Every setting: its variable, its default, its allowed values, and its reason."""
    schemas = Settings.model_json_schema()["properties"]
    rows = (
        [f"`BULKREG_{name.upper()}`", _default(field), _limits(schemas[name]), field.description or ""]
        for name, field in Settings.model_fields.items()
    )
    return _table(["variable", "default", "may be", "what it is"], rows)


def metrics_table() -> str:
    """Every metric, by the name under which it is served."""
    found = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
    rows = []
    for each in found:
        [described] = each.describe()
        name = f"{described.name}_total" if isinstance(each, Counter) else described.name
        rows.append([f"`{name}`", described.type, ", ".join(each._labelnames), described.documentation])
    return _table(["metric", "type", "labels", "what it counts"], rows)


def actions_table() -> str:
    """Every action that the log names."""
    rows = ([f"`{each.label}`", logging.getLevelName(each.level).lower(), each.meaning] for each in Action)
    return _table(["action", "level", "what it means"], rows)


def written(page: str) -> str:
    """Returns the page with the tables that the code has now."""
    tables = (("settings", settings_table()), ("metrics", metrics_table()), ("actions", actions_table()))
    for name, content in tables:
        begin, end = f"<!-- {name}: written by `make docs` -->", f"<!-- end of {name} -->"
        page = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{content}\n{end}", page, flags=re.DOTALL)  # noqa: B023
    return page


def _default(field: FieldInfo) -> str:
    default = field.default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if default is None or default == "":
        return ""
    return f"`{default if isinstance(default, str) else orjson.dumps(default).decode()}`"


def _limits(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " ".join(f"`{option}`" for option in schema["enum"])
    return ", ".join(f"{word} {schema[bound]:,}" for bound, word in _BOUNDS.items() if bound in schema)


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    # A bar within a cell would end the cell.
    lines = [headers, ["---"] * len(headers), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))

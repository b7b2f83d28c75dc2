"""`/docs`: the OpenAPI document as one page for people. It loads nothing, from here or from other hosts, and runs no script."""

from collections.abc import Iterator
from html import escape
from typing import Any

import orjson

Json = dict[str, Any]

HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'", "X-Content-Type-Options": "nosniff"}

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid #8884; border-radius: .4rem; }
details { margin: .5rem 0; border: 1px solid #8884; border-radius: .4rem; padding: .5rem .75rem; }
summary { cursor: pointer; } summary b { display: inline-block; min-width: 4.5em; }
table { border-collapse: collapse; width: 100%; }
td { text-align: left; vertical-align: top; padding: .25rem .5rem; border-bottom: 1px solid #8884; }
"""


def page(document: Json) -> bytes:
    """Returns the page."""
    info = document["info"]
    return "".join(
        [
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
            f"<title>{escape(info['title'])}</title><style>{_STYLE}</style>",
            f"<h1>{escape(info['title'])}</h1><p>{escape(info['description'])} For programs: <a href='/openapi.json'>openapi.json</a>.",
            "<h2>Operations</h2>",
            *(
                _operation(path, method, operation)
                for path, methods in document["paths"].items()
                for method, operation in methods.items()
            ),
            "<h2>Schemas</h2>",
            *(_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items())),
            "<h2>Examples</h2>",
            *(_example(name, example["value"]) for name, example in sorted(document["components"]["examples"].items())),
        ]
    ).encode()


def _operation(path: str, method: str, operation: Json) -> str:
    parts = [
        f"<details id='{escape(operation['operationId'])}'><summary><b>{method.upper()}</b> <code>{escape(path)}</code> "
        f"{escape(operation['summary'])}</summary>",
        *_parameters(operation.get("parameters", [])),
        *_body(operation.get("requestBody")),
        "<h4>Answers</h4><table>",
        *(_answer(status, answer) for status, answer in operation["responses"].items()),
        "</table></details>",
    ]
    return "".join(parts)


def _parameters(parameters: list[Json]) -> Iterator[str]:
    if not parameters:
        return
    yield "<h4>Parameters</h4><table>"
    for parameter in parameters:
        schema = {key: value for key, value in parameter["schema"].items() if key not in ("title", "description")}
        yield (
            f"<tr><td><code>{escape(parameter['name'])}</code> <small>{parameter['in']}</small><td>{_words(parameter.get('description', ''))}"
            f"<td><code>{escape(orjson.dumps(schema).decode())}</code>"
        )
    yield "</table>"


def _body(body: Json | None) -> Iterator[str]:
    if body is None:
        return
    yield "<h4>Body</h4><ul>"
    for content_type, content in body["content"].items():
        for schema in content["schema"].get("oneOf", [content["schema"]]):
            yield f"<li><code>{escape(content_type)}</code> {_link(schema)}"
        yield f"<li>{_shown(content)}"
    yield "</ul>"


def _answer(status: str, answer: Json) -> str:
    shapes = ", ".join(
        f"<code>{escape(kind)}</code> {_link(content.get('schema', {}))} {_shown(content)}"
        for kind, content in answer.get("content", {}).items()
    )
    return f"<tr><td><b>{status}</b><td>{_words(answer['description'])}<td>{shapes}"


def _link(schema: Json) -> str:
    """Returns a link to the schema's own entry, if it has one."""
    reference = schema.get("$ref") or next((part["$ref"] for part in schema.get("allOf", ()) if "$ref" in part), None)
    if reference is None:
        return ""
    name = escape(reference.rpartition("/")[2])
    return f"<a href='#{name}'>{name}</a>"


def _shown(content: Json) -> str:
    """Returns the content's example, or a reference to its examples."""
    if "example" in content:
        return f"<pre>{escape(content['example'])}</pre>"
    names = map(escape, content.get("examples", ()))
    return "<small>e.g. " + ", ".join(f"<a href='#example-{name}'>{name}</a>" for name in names) + "</small>"


def _example(name: str, value: Json) -> str:
    shown = escape(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
    return f"<details id='example-{escape(name)}'><summary><code>{escape(name)}</code></summary><pre>{shown}</pre></details>"


def _schema(name: str, schema: Json) -> str:
    shown = escape(orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode())
    about = _words(schema.get("description", ""))
    return f"<details id='{escape(name)}'><summary><code>{escape(name)}</code> {about}</summary><pre>{shown}</pre></details>"


def _words(text: str) -> str:
    """Returns HTML in which text between backticks is `code`."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))

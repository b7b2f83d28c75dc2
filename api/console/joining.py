"""Joins the console's modules into one script, so that a browser asks for one file instead of forty (docs/decisions/0051-one-script.md).

Each module becomes a function, without comments, that returns what the module exports. It stands behind the modules that it imports. The
modules keep to a few forms of import and export, each at the beginning of a line. `join` refuses every other form: it could mean something else
once it is joined.
"""

import re
from collections.abc import Mapping
from itertools import count
from typing import NamedTuple

_IMPORT_ALL = re.compile(r'import \* as (\w+) from "([^"]+)";')
_IMPORT = re.compile(r'import \{([^}]*)\} from "([^"]+)";')
_PASS_ON = re.compile(r'export \{([^}]*)\} from "([^"]+)";')
_EXPORT = re.compile(r"export ((?:const|let|class|function|async function) (\w+))")
_BEGIN = re.compile(r"^(?:import|export)\b[^\n]*", re.MULTILINE)
# Comments that have their lines to themselves: a quarter of what a browser would receive.
_COMMENT = re.compile(r"^[ \t]*(?://[^\n]*|/\*\*(?:(?!\*/).)*\*/)[ \t]*\n", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"(\w+)(?: as (\w+))?")


class JoinError(ValueError):
    """A module is written in a way that can't be joined. The message names the module and what to change."""


class _Joined(NamedTuple):
    """A module that stands in the script: its variable, and the names that it exports and may change later."""

    variable: str
    changing: frozenset[str]


class _Script:
    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = modules
        self._joined: dict[str, _Joined | None] = {}
        self._variables = (f"m{number}" for number in count())
        self.parts: list[str] = []

    def add(self, address: str, *, is_entry: bool = False) -> _Joined:
        """Adds a module behind those that it imports, unless it is there. Raises JoinError."""
        if address in self._joined:
            joined = self._joined[address]
            if joined is None:
                raise JoinError(f"{address} imports itself by way of others; move what both need into a module of its own")
            return joined
        self._joined[address] = None
        joined = self._add_ours(address, is_entry=is_entry) if address in self._modules else self._add_foreign(address)
        self._joined[address] = joined
        return joined

    def _add_foreign(self, address: str) -> _Joined:
        joined = _Joined(next(self._variables), frozenset())
        self.parts.append(f'import * as {joined.variable} from "{address}";\n')
        return joined

    def _add_ours(self, address: str, *, is_entry: bool) -> _Joined:
        exported: list[str] = []
        changing: set[str] = set()

        def replaced(found: re.Match[str]) -> str:
            return f"const {found[1]} = {self.add(found[2]).variable};"

        def unpacked(found: re.Match[str]) -> str:
            source = self.add(found[2])
            names = _NAME.findall(found[1])
            if changed := sorted({name for name, _ in names} & source.changing):
                raise JoinError(f"{address}: {changed[0]} of {found[2]} may change; import the module with `import * as`")
            return f"const {{ {', '.join(f'{name}: {own}' if own else name for name, own in names)} }} = {source.variable};"

        def passed_on(found: re.Match[str]) -> str:
            exported.extend(own or name for name, own in _NAME.findall(found[1]))
            return unpacked(found)

        def declared(found: re.Match[str]) -> str:
            if found[1].startswith("let "):
                changing.add(found[2])
            exported.append(found[2])
            return found[1]

        body = _COMMENT.sub("", self._modules[address])
        for form, replace in ((_IMPORT_ALL, replaced), (_IMPORT, unpacked), (_PASS_ON, passed_on), (_EXPORT, declared)):
            body = re.sub(rf"^{form.pattern}", replace, body, flags=re.MULTILINE)
        if other := _BEGIN.search(body):
            raise JoinError(f"{address}: `{other[0]}` can't be joined; use one of the forms in api/console/joining.py")
        if is_entry:
            # Not in a function: only a module itself may wait.
            self.parts.append(f"// {address}\n{{\n{body}}}\n")
            return _Joined("", frozenset())
        returned = ", ".join(f"get {name}() {{ return {name}; }}" if name in changing else name for name in exported)
        variable = next(self._variables)
        self.parts.append(f"// {address}\nconst {variable} = (() => {{\n{body}return {{ {returned} }};\n}})();\n")
        return _Joined(variable, frozenset(changing))


def join(modules: Mapping[str, str], entry: str) -> str:
    """Returns a script that does what the module `entry` does. `modules` has texts by address; an import of any other address stays one.

    Raises JoinError for a form of import or export that it does not know, and for modules that import each other.
    """
    script = _Script(modules)
    script.add(entry, is_entry=True)
    return "".join(script.parts)

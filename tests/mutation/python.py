"""Mistakes in a Python module, found in its syntax tree, and in the SQL among its strings."""

import ast
import io
import itertools
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence

from tests.mutation import sql
from tests.mutation.mutant import Kind, Mutant

Placed = ast.expr | ast.stmt | ast.keyword
Members = Mapping[str, Sequence[str]]
"""The members of each enumeration of the product."""

_COMPARED = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">"}
_EXTREMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
_UNITS = {
    "microseconds": "milliseconds",
    "milliseconds": "seconds",
    "seconds": "minutes",
    "minutes": "seconds",
    "hours": "days",
    "days": "hours",
}
_QUOTES = re.compile(r"[A-Za-z]*(\"\"\"|'''|\"|')")
_SCALES = (1000, 1_000_000, 60, 3600, 1024, 24)


class Source:
    """A module's text, and the position of each node in its bytes."""

    def __init__(self, path: str, content: bytes) -> None:
        self.path = path
        self.content = content
        self.tree = ast.parse(content)
        self.lines = content.splitlines(keepends=True)
        self._starts = [0]
        for line in self.lines:
            self._starts.append(self._starts[-1] + len(line))

    def start(self, node: Placed) -> int:
        """The offset of a node's first byte."""
        return self._starts[node.lineno - 1] + node.col_offset

    def end(self, node: Placed) -> int:
        """The offset behind a node's last byte."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def offset(self, line: int, characters: int) -> int:
        """The offset of a position that counts characters, as tokens do."""
        return self._starts[line - 1] + len(self.lines[line - 1].decode()[:characters].encode())

    def text(self, node: Placed) -> str:
        """A node's own text."""
        return self.content[self.start(node) : self.end(node)].decode()

    def mutant(self, start: int, end: int, replacement: str, kind: Kind, names: frozenset[str]) -> Mutant:
        """An edit, with the lines that it touches."""
        line = self.content.count(b"\n", 0, start) + 1
        end_line = self.content.count(b"\n", 0, max(start, end - 1)) + 1
        return Mutant(
            path=self.path,
            start=start,
            end=end,
            replacement=replacement,
            kind=kind,
            line=line,
            end_line=end_line,
            original=self.content[start:end].decode(),
            names=names,
            context=self.lines[line - 1].decode().strip(),
        )


def mutants(path: str, content: bytes, members: Members) -> Iterator[Mutant]:
    """Every mistake of these kinds that can be made in this module."""
    source = Source(path, content)
    constants = _constants(source)
    for node, owner in _walk(source.tree):
        names = frozenset(constants.get(owner, ())) if owner is not None else frozenset()
        for start, end, replacement, kind in _edits(source, node, members):
            yield source.mutant(start, end, replacement, kind, names)
    yield from _statements(source, constants)


def enumerations(contents: Sequence[bytes]) -> Members:
    """The members of each class that derives from an enumeration."""
    found: dict[str, list[str]] = {}
    for content in contents:
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.ClassDef) and any("Enum" in ast.unparse(base) for base in node.bases):
                found[node.name] = [
                    one.targets[0].id for one in node.body if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name)
                ]
    return found


def _constants(source: Source) -> dict[ast.stmt, list[str]]:
    """The names that each module-level or class-level statement assigns."""
    names: dict[ast.stmt, list[str]] = {}
    bodies = [source.tree.body, *(node.body for node in source.tree.body if isinstance(node, ast.ClassDef))]
    for statement in (one for body in bodies for one in body):
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        found = [target.id for target in targets if isinstance(target, ast.Name)]
        if found:
            names[statement] = found
    return names


def _walk(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.stmt | None]]:
    """Every node that is executed, with its module-level or class-level statement (None inside a function)."""

    def inside(node: ast.AST, owner: ast.stmt | None) -> Iterator[tuple[ast.AST, ast.stmt | None]]:
        yield node, owner
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "bases", "keywords") and not isinstance(node, ast.Call):
                continue
            if isinstance(node, ast.Subscript) and name == "slice" and isinstance(value, ast.Tuple):
                continue  # Mostly the parameters of a type.
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not _is_dull(child):
                    yield from inside(child, _owner(node, child, owner))

    yield from inside(tree, None)


def _owner(parent: ast.AST, child: ast.AST, owner: ast.stmt | None) -> ast.stmt | None:
    if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        return None
    return child if isinstance(parent, (ast.Module, ast.ClassDef)) and isinstance(child, ast.stmt) else owner


def _is_dull(node: ast.AST) -> bool:
    """Whether no test could notice a change: types, texts for people, logs."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return True
    if isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom)):
        return True
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        return name.startswith(("log_action", "logging.", "cast", "TypeVar")) or name.endswith(("Option", "Argument"))
    return isinstance(node, ast.FunctionDef) and node.name in ("__repr__", "__str__")


Found = Iterator[tuple[int, int, str, Kind]]


def _edits(source: Source, node: ast.AST, members: Members) -> Found:
    if isinstance(node, ast.Compare):
        yield from _comparison(source, node)
    elif isinstance(node, ast.BinOp):
        yield from _arithmetic(source, node)
    elif isinstance(node, ast.BoolOp):
        yield from _operands(source, node)
    elif isinstance(node, ast.If):
        yield from _guard(source, node)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield source.start(node), source.end(node), source.text(node.operand), Kind.CONDITION
    elif isinstance(node, (ast.Tuple, ast.List, ast.Set)) and not isinstance(getattr(node, "ctx", None), ast.Store):
        yield from _elements(source, node.elts)
    elif isinstance(node, ast.Dict):
        yield from _entries(source, node)
    elif isinstance(node, ast.Call):
        yield from _call(source, node)
    elif isinstance(node, ast.Attribute):
        yield from _neighbour(source, node, members)
    for body in ("body", "orelse", "finalbody"):
        statements = getattr(node, body, None)
        if isinstance(statements, list):
            yield from _block(source, statements)


def _comparison(source: Source, node: ast.Compare) -> Found:
    left: ast.expr = node.left
    for operator, right in zip(node.ops, node.comparators, strict=True):
        other = _COMPARED.get(type(operator))
        if other is not None:
            between = source.content[source.end(left) : source.start(right)].decode()
            replaced = re.sub(r"[<>]=?", other, between, count=1)
            yield source.end(left), source.start(right), replaced, Kind.BOUNDARY
        left = right


def _arithmetic(source: Source, node: ast.BinOp) -> Found:
    start, end = source.start(node), source.end(node)
    left, right = source.text(node.left), source.text(node.right)
    if isinstance(node.op, ast.FloorDiv):
        yield start, end, f"(-(-({left}) // ({right})))", Kind.BOUNDARY
    if isinstance(node.right, ast.Constant) and isinstance(node.right.value, int):
        if isinstance(node.op, (ast.Add, ast.Sub)) and node.right.value == 1:
            yield start, end, f"({left})", Kind.BOUNDARY
        if isinstance(node.op, (ast.Mult, ast.Div)) and node.right.value in _SCALES:
            yield start, end, f"({left})", Kind.UNIT


def _operands(source: Source, node: ast.BoolOp) -> Found:
    for index, operand in enumerate(node.values):
        if index:
            yield source.end(node.values[index - 1]), source.end(operand), "", Kind.CONDITION
        else:
            yield source.start(operand), source.start(node.values[1]), "", Kind.CONDITION


def _guard(source: Source, node: ast.If) -> Found:
    """An `if` that only leaves the function or the loop."""
    if len(node.body) == 1 and not node.orelse and isinstance(node.body[0], (ast.Return, ast.Raise, ast.Continue, ast.Break)):
        if any(isinstance(part, ast.NamedExpr) for part in ast.walk(node.test)):
            return
        yield source.start(node.test), source.end(node.test), "False", Kind.CONDITION


def _elements(source: Source, elements: Sequence[ast.expr]) -> Found:
    if len(elements) < 2 or any(isinstance(one, ast.Starred) for one in elements):
        return
    for index, element in enumerate(elements):
        if index:
            yield source.end(elements[index - 1]), source.end(element), "", Kind.FIELD
        elif len(elements) > 2:
            yield source.start(element), source.start(elements[1]), "", Kind.FIELD


def _entries(source: Source, node: ast.Dict) -> Found:
    if len(node.keys) < 2 or None in node.keys:
        return
    for index in range(1, len(node.keys)):
        yield source.end(node.values[index - 1]), source.end(node.values[index]), "", Kind.FIELD


def _call(source: Source, node: ast.Call) -> Found:
    name = ast.unparse(node.func)
    if name in _EXTREMES:
        yield source.start(node.func), source.end(node.func), _EXTREMES[name], Kind.BOUNDARY
    for keyword in node.keywords:
        if keyword.arg in _UNITS and name.endswith("timedelta"):
            start = source.start(keyword)
            yield start, start + len(keyword.arg), _UNITS[keyword.arg], Kind.UNIT
    if name.endswith((".update", "sha256", "hash", "event_id", "uuid5")) or len(node.args) + len(node.keywords) < 2:
        return
    for keyword in node.keywords[1:] if not node.args else node.keywords:
        before = _before(source, node, keyword)
        if keyword.arg is not None and before is not None:
            yield before, source.end(keyword), "", Kind.FIELD


def _before(source: Source, node: ast.Call, keyword: ast.keyword) -> int | None:
    """Where the argument in front of it ends."""
    others: list[Placed] = [*node.args, *node.keywords]
    return max((source.end(one) for one in others if source.end(one) < source.start(keyword)), default=None)


def _neighbour(source: Source, node: ast.Attribute, members: Members) -> Found:
    if isinstance(node.value, ast.Name) and node.attr in members.get(node.value.id, ()) and isinstance(node.ctx, ast.Load):
        known = members[node.value.id]
        if len(known) > 1:
            other = known[(known.index(node.attr) + 1) % len(known)]
            yield source.start(node), source.end(node), f"{node.value.id}.{other}", Kind.NEIGHBOUR


def _block(source: Source, statements: Sequence[ast.stmt]) -> Found:
    for statement in statements:
        if _is_effect(statement) or isinstance(statement, ast.AugAssign):
            yield source.start(statement), source.end(statement), "pass", Kind.LEFT_OUT
    for first, second in itertools.pairwise(statements):
        if _is_effect(first) and _is_effect(second):
            between = source.content[source.end(first) : source.start(second)].decode()
            swapped = source.text(second) + between + source.text(first)
            yield source.start(first), source.end(second), swapped, Kind.ORDER


def _is_effect(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) and not _is_dull(statement.value)


def _statements(source: Source, constants: Mapping[ast.stmt, Sequence[str]]) -> Iterator[Mutant]:
    """Mistakes in the SQL among the strings."""
    docstrings = {
        node.body[0].lineno
        for node in ast.walk(source.tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for line, start, end in _strings(source):
        literal = source.content[start:end].decode()
        quotes = _QUOTES.match(literal)
        assert quotes is not None
        start += len(quotes[0])
        text = literal[len(quotes[0]) : -len(quotes[1])]
        if line in docstrings or not sql.LOOKS_LIKE_SQL.search(text):
            continue
        names = _names_around(line, constants)
        for edit in sql.edits(text):
            first = start + len(text[: edit.start].encode())
            last = start + len(text[: edit.end].encode())
            yield source.mutant(first, last, edit.replacement, edit.kind, names)


def _strings(source: Source) -> Iterator[tuple[int, int, int]]:
    """Line and byte offsets of each string literal. An f-string counts as one, although Python 3.12 and later split it into several tokens."""
    begun: list[tuple[int, int]] = []
    for token in tokenize.tokenize(io.BytesIO(source.content).readline):
        kind = tokenize.tok_name[token.type]
        if kind == "FSTRING_START":
            begun.append((token.start[0], source.offset(*token.start)))
        elif kind == "FSTRING_END":
            line, start = begun.pop()
            if not begun:
                yield line, start, source.offset(*token.end)
        elif kind == "STRING" and not begun:
            yield token.start[0], source.offset(*token.start), source.offset(*token.end)


def _names_around(line: int, constants: Mapping[ast.stmt, Sequence[str]]) -> frozenset[str]:
    for statement, names in constants.items():
        if statement.lineno <= line <= (statement.end_lineno or line):
            return frozenset(names)
    return frozenset()

"""`stack.json`: the addresses of what runs in a home, for commands and tests. Needs no package of the embedded servers."""

from dataclasses import dataclass, fields
from pathlib import Path

import orjson

from compose.embedded.home import Home, HomeError


# No pydantic model: every command imports this, and pydantic would be a third of its start.
@dataclass(frozen=True, kw_only=True)
class StackFile:
    """`stack.json`: all addresses, for users who may read the home (docs/cli.md)."""

    api: str
    kafka: str
    postgres: str
    topic_copies: int | None
    """The replication factor of the topics. None: the brokers are not the home's."""
    console: str
    token: str
    admin_token: str | None
    """Of the first organization. None: the directory has none."""
    pids: dict[str, list[int]]

    def write(self, path: Path) -> None:
        """Replaces the file in one step, readable only by its owner, because it holds tokens and a password."""
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        new.write_bytes(orjson.dumps(self, option=orjson.OPT_INDENT_2) + b"\n")
        new.replace(path)

    @classmethod
    def read(cls, home: Home) -> "StackFile | None":
        """Returns what runs in the home, or None. A file that a killed supervisor left behind is ignored. Raises HomeError."""
        try:
            content = home.stack_file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise HomeError(f"{home.path} can't be read: {error.strerror}") from error
        if home.holder() is None:
            return None
        found = orjson.loads(content)
        try:
            return cls(**{each.name: found[each.name] for each in fields(cls)})
        except KeyError as missing:
            raise HomeError(
                f"another version of bulkreg runs in {home.path}: its stack.json has no {missing.args[0]}; "
                f"stop it with bulkreg down --home {home.path}, then start this one with bulkreg up"
            ) from missing

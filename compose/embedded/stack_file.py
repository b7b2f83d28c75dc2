"""`stack.json`: the addresses of what runs in a home, for commands and tests. Needs no package of the embedded servers."""

from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict

from compose.embedded.home import Home, HomeError


class StackFile(BaseModel):
    """`stack.json`: all addresses, for users who may read the home (docs/cli.md)."""

    model_config = ConfigDict(frozen=True)

    api: str
    kafka: str
    postgres: str
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
        new.write_bytes(orjson.dumps(self.model_dump(), option=orjson.OPT_INDENT_2) + b"\n")
        new.replace(path)

    @classmethod
    def read(cls, home: Home) -> "StackFile | None":
        """Returns what runs in the home, or None. A file that a killed supervisor left behind is ignored."""
        try:
            content = home.stack_file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise HomeError(f"{home.path} can't be read: {error.strerror}") from error
        return cls.model_validate_json(content) if home.holder() is not None else None

"""The settings that the environment gives; what is wrong with them in words."""

import os
from typing import TYPE_CHECKING, Any

from cli.terminal.failures import BadInputError

# Imported in the function, so that shell completion need not wait for it.
if TYPE_CHECKING:
    from orchestrator.process.settings import Settings


_OF_DATABASES = ("BULKREG_DATABASE_URL", "BULKREG_WORKER_DATABASE_URL", "BULKREG_API_DATABASE_URL")
_OF_KAFKA = "BULKREG_KAFKA_"


def load_settings(**given: Any) -> "Settings":
    """The settings; what is given goes before what the environment says.

    Raises BadInputError, which names each variable that has a value that can't be, and never shows the value: it may be a secret.
    """
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from orchestrator.process.settings import Settings

    try:
        return Settings(**given)
    except ValidationError as error:
        mistakes = [f"{_variable(each['loc'])}{each['msg']}" for each in error.errors(include_input=False)]
        raise _refusal(mistakes) from error
    except SettingsError as error:  # no JSON where a table is wanted
        raise _refusal([str(error)]) from error


def forget_servers(*, database: bool, kafka: bool) -> None:
    """Removes from the environment what it says about another database, or another Kafka, than those of a home.

    A home's are known by their addresses. Roles, passwords and certificates of others would be taken for theirs.
    """
    names = list(_OF_DATABASES) if database else []
    names += [name for name in os.environ if kafka and name.startswith(_OF_KAFKA)]
    for name in names:
        os.environ.pop(name, None)


def _variable(place: tuple[int | str, ...]) -> str:
    """What is to be corrected, and where in it; nothing for a mistake that several variables make together, which names them itself."""
    if not place:
        return ""
    name, *within = place
    return ": ".join((f"BULKREG_{name}".upper(), *map(str, within), ""))


def _refusal(mistakes: list[str]) -> BadInputError:
    return BadInputError(
        "The settings in the environment are invalid. Correct them, or unset them to use the defaults:", lines=mistakes
    )

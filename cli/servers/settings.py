"""Reads the settings from the environment, and says in words what is wrong with them."""

import os
from typing import TYPE_CHECKING, Any

from cli.terminal.failures import BadInputError

# Imported in the function, so that shell completion does not wait for it.
if TYPE_CHECKING:
    from orchestrator.process.settings import Settings


_OF_DATABASES = ("BULKREG_DATABASE_URL", "BULKREG_WORKER_DATABASE_URL", "BULKREG_API_DATABASE_URL")
_OF_KAFKA = "BULKREG_KAFKA_"


def load_settings(**given: Any) -> "Settings":
    """Returns the settings. Given values take precedence over the environment.

    Raises BadInputError, which names each variable with an invalid value. It never shows the value, which may be a secret.
    """
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from orchestrator.process.settings import Settings

    try:
        return Settings(**given)
    except ValidationError as error:
        mistakes = [f"{_variable(each['loc'])}{each['msg']}" for each in error.errors(include_input=False)]
        raise _refusal(mistakes) from error
    except SettingsError as error:  # a variable that must be JSON is not
        raise _refusal([str(error)]) from error


def forget_servers(*, database: bool, kafka: bool) -> None:
    """Removes the variables about another database or another Kafka from the environment, when a home's servers are used.

    The servers of a home are known by their addresses. Without this, the roles, passwords and certificates of others would be used for
    them.
    """
    names = list(_OF_DATABASES) if database else []
    names += [name for name in os.environ if kafka and name.startswith(_OF_KAFKA)]
    for name in names:
        os.environ.pop(name, None)


def _variable(place: tuple[int | str, ...]) -> str:
    """Returns the name of the variable, and the place in it. Empty for a mistake of several variables, which names them itself."""
    if not place:
        return ""
    name, *within = place
    return ": ".join((f"BULKREG_{name}".upper(), *map(str, within), ""))


def _refusal(mistakes: list[str]) -> BadInputError:
    return BadInputError(
        "The settings in the environment are invalid. Correct them, or unset them to use the defaults:", lines=mistakes
    )

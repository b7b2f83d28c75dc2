"""The passwords of the two roles: `db upgrade` sets the passwords with which the processes connect."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from sqlalchemy import URL
from sqlalchemy.exc import OperationalError

from orchestrator.process.server_settings import API_ROLE, WORKER_ROLE
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.migrate import upgrade


@pytest.fixture
def separate(settings: Settings) -> Iterator[Settings]:
    """A deployment in which each process knows only its own secret. The roles belong to the whole server, and get their passwords back at
    the end."""
    yield with_passwords(settings, worker="the worker's: 'secret' %s\\", api="the API's")
    upgrade(settings)


def with_passwords(settings: Settings, *, worker: str, api: str) -> Settings:
    return with_urls(
        settings,
        worker_database_url=settings.owner_url.set(username=WORKER_ROLE, password=worker),
        api_database_url=settings.owner_url.set(username=API_ROLE, password=api),
    )


def with_urls(settings: Settings, **urls: URL) -> Settings:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    secrets = {name: SecretStr(url.render_as_string(hide_password=False)) for name, url in urls.items()}
    return Settings.model_validate(given | secrets)


def enter(settings: Settings, *urls: URL) -> None:
    for url in urls:
        engine = create_database_engine(url, settings, connections=1, application_name="test")
        try:
            engine.connect().close()
        finally:
            engine.dispose()


def assert_refused(settings: Settings, *urls: URL) -> None:
    for url in urls:
        with pytest.raises(OperationalError, match="password authentication failed"):
            enter(settings, url)


def test_row_65_upgrade_sets_the_passwords_of_the_urls_and_repeating_it_keeps_them(
    settings: Settings, separate: Settings
) -> None:
    for _ in range(2):  # Each start of the deployment does this.
        upgrade(separate)
        enter(separate, separate.worker_url, separate.api_url)
        assert_refused(settings, settings.worker_url, settings.api_url)


def test_new_passwords_replace_the_old_ones(separate: Settings) -> None:
    upgrade(separate)
    rotated = with_passwords(separate, worker="another", api="a third")
    upgrade(rotated)
    enter(rotated, rotated.worker_url, rotated.api_url)
    assert_refused(separate, separate.worker_url, separate.api_url)


def test_a_url_without_a_password_leaves_the_roles_password_as_it_is(separate: Settings) -> None:
    upgrade(separate)
    upgrade(
        with_urls(separate, worker_database_url=separate.worker_url._replace(password=None))
    )  # Its processes read PGPASSFILE.
    enter(separate, separate.worker_url)


def test_with_a_url_of_another_role_ours_has_the_derived_password(settings: Settings, separate: Settings) -> None:
    upgrade(with_urls(separate, worker_database_url=settings.owner_url))
    enter(settings, settings.worker_url)

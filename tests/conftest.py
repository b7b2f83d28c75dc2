"""Fixtures of all tests: one PostgreSQL and one Kafka for a run, and a database and a topic prefix for each test."""

import gc
import os
import random
import shutil
import signal
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine

from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from producers.producer import EventProducer
from tests.support.databases import ReadyDatabases, migrated_template
from tests.support.kafka import ReadyTopics, delete_topics, made_topics
from tests.support.pipeline import Pipeline, standard_directory
from tests.support.quick_folder import move_to_disk, quick_folder
from tests.support.stack import EXTERNAL, Stack, check_choice, chosen_kind, running_stack
from tests.support.waiting import HELD_S
from tests.support.webhook_keys import WEBHOOK_KEYS

# A shell that runs the tests in the background ignores SIGINT. The programs that the tests start, and interrupt, would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Assertions of tests that several modules inherit are rewritten too, so that they show what they compared.
pytest.register_assert_rewrite("tests.support.port_contract")

# The tests make their own settings. Settings of the shell would change the tests, and every program that they start.
_OURS = ("BULKREG_TEST_", "BULKREG_SIMULATION_", "BULKREG_CACHE_DIR", *(EXTERNAL if chosen_kind() == "external" else ()))
for _name in [name for name in os.environ if name.startswith("BULKREG_") and not name.startswith(_OURS)]:
    del os.environ[_name]


_QUICK_FOLDER = pytest.StashKey[Path]()
_ALL_PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Stops the run if the chosen stack can't be started. It does so here, because a parallel run does not show why a worker ended.

    Then chooses the folder for what the tests write, of which each worker gets a part.
    """
    if hasattr(config, "workerinput"):
        return
    check_choice(chosen_kind())
    if config.option.basetemp is None and (folder := quick_folder()) is not None:
        config.stash[_QUICK_FOLDER] = folder
        config.option.basetemp = str(folder / "tests")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Notes whether every test has passed."""
    session.config.stash[_ALL_PASSED] = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes what the tests have written. If one has failed, moves it, and says where to."""
    folder = config.stash.get(_QUICK_FOLDER, None)
    if folder is None:
        return
    if config.stash.get(_ALL_PASSED, False):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        config.get_terminal_writer().line(f"{folder} is now {move_to_disk(folder)}")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keeps the garbage collector away from what the test modules make, which stays. Walking it again and again took a third of the
    time to collect the tests, and each collection that a test asks for half a second. What is garbage by now is little, and is kept too."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


# A module's tests stay on one worker of a parallel run. The modules that take minutes begin first, or one worker would wait for the other at
# the end. The shortest ones come last.
FIRST_FOLDERS = ("simulation", "end_to_end", "chaos")
LAST_FOLDER = "unit"

# Any text. Modules, and the tests of each, run in an order drawn from it. No test may depend on an earlier one.
ORDER = "BULKREG_TEST_ORDER"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the long modules first and the short ones last. Those between them take turns by folder: tests of faults mostly wait, and would
    leave the cores idle if all workers ran them at the same time. If a random order is asked for, it is random within these three."""
    modules = sorted({item.path for item in items})
    if seed := os.environ.get(ORDER):
        drawn = random.Random(seed)
        places = {path: drawn.random() for path in modules}
        tests = {item: drawn.random() for item in items}
    else:
        places = {}
        for _, folder in groupby(modules, key=lambda path: path.parent):
            of_it = list(folder)
            places |= {path: number / len(of_it) for number, path in enumerate(of_it)}
        tests = dict.fromkeys(items, 0.0)
    items.sort(key=lambda item: (_part(item.path.parent.name), places[item.path], tests[item]))


def _part(folder: str) -> int:
    if folder in FIRST_FOLDERS:
        return FIRST_FOLDERS.index(folder)
    return len(FIRST_FOLDERS) + (folder == LAST_FOLDER)


@pytest.fixture(scope="session")
def infrastructure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """PostgreSQL and Kafka, chosen by BULKREG_TEST_STACK. Tests that kill servers start their own."""
    with running_stack(chosen_kind(), tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="session")
def template_database(infrastructure: Stack) -> Iterator[str]:
    """The URL of the migrated database that each test's database is copied from."""
    with migrated_template(infrastructure.postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def databases(infrastructure: Stack, template_database: str) -> Iterator[ReadyDatabases]:
    """Databases for the tests, each made while the test before it runs."""
    databases = ReadyDatabases(infrastructure.postgres_url, template_database)
    yield databases
    databases.close()


@pytest.fixture(scope="session")
def ready_topics(infrastructure: Stack) -> Iterator[ReadyTopics]:
    """Topics for the tests that need them, made while the test before runs."""
    ready = ReadyTopics(infrastructure.kafka_bootstrap_servers)
    yield ready
    ready.close()


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """A topic prefix for this test only. Its topics exist if the test uses the fixture `topics`."""
    if "topics" in request.fixturenames:
        ready: ReadyTopics = request.getfixturevalue("ready_topics")
        with ready.one() as prefix:
            yield prefix
    else:
        prefix = f"test-{uuid4().hex}"
        yield prefix
        if chosen_kind() == "external":
            # The other servers end with the tests, and their topics with them.
            infrastructure: Stack = request.getfixturevalue("infrastructure")
            delete_topics(infrastructure.kafka_bootstrap_servers, prefix)


@pytest.fixture
def settings(infrastructure: Stack, databases: ReadyDatabases, topic_prefix: str) -> Iterator[Settings]:
    """The settings of a deployment for this test only: a database and a topic prefix. The fixture `topics` creates the topics."""
    with databases.one() as url:
        yield Settings(
            database_url=url,
            kafka_bootstrap_servers=infrastructure.kafka_bootstrap_servers,
            topic_prefix=topic_prefix,
            webhook_keys=WEBHOOK_KEYS,
        )


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """Connections to this test's database with the worker's role. A transaction that a test keeps open is not ended before the test is."""
    holding = settings.model_copy(update={"idle_in_transaction_timeout_ms": int(1000 * HELD_S)})
    engine = create_database_engine(settings.worker_url, holding, connections=10, application_name="test")
    yield engine
    engine.dispose()


@pytest.fixture
def owner(settings: Settings) -> Iterator[Engine]:
    """Connections with the owner's rights: a test damages rows, or looks at all of them."""
    engine = create_engine(settings.owner_url)
    yield engine
    engine.dispose()


@pytest.fixture
def pipeline(settings: Settings, engine: Engine) -> Iterator[Pipeline]:
    """The flow with the standard directory, without a broker. A test runs it step by step."""
    standard_directory(engine)
    pipeline = Pipeline(settings, engine)
    yield pipeline
    pipeline.close()


@pytest.fixture
def topics(settings: Settings, ready_topics: ReadyTopics) -> Iterator[None]:
    """The six topics of this test."""
    if ready_topics.have(settings):
        yield
    else:
        with made_topics(settings):
            yield


@pytest.fixture
def publisher(settings: Settings, topics: None) -> Iterator[EventProducer]:
    """The real producer, on the topics of this test."""
    producer = EventProducer(settings)
    yield producer
    producer.close()

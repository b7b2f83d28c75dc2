"""A console with a directory of named mentors, whose batches are handled when a test says so, and a count of a person's clicks and keys."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from playwright.sync_api import BrowserContext
from sqlalchemy import Engine, text

from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings
from schemas.paths import API_ROOT
from tests.support.api_server import ApiServer
from tests.support.console import running_console, with_console
from tests.support.pipeline import COORDINATOR, ORGANIZATION, Pipeline

NAMES = (
    *(
        "Astrid Moe",
        "Bjørn Haugen",
        "Cecilie Vik",
        "Eva Tangen",
        "Frode Lie",
        "Grete Dahl",
        "Hans Bakke",
        "Ida Strand",
        "Jon Berg",
    ),
    *(
        "Kari Hagen",
        "Lars Lunde",
        "Mona Ås",
        "Nils Øverland",
        "Oda Nesse",
        "Per Solvang",
        "Ragnhild Sæther",
        "Sindre Vold",
        "Tone Ruud",
    ),
    *("Ulf Næss", "Vigdis Eide", "Wenche Foss", "Yngve Hol", "Ærlig Lund", "Øystein By", "Åse Krogh"),
)
"""The mentors of Bergen who are active: `m-01` to `m-25`."""

BERGEN = tuple(f"m-{number:02}" for number in range(1, len(NAMES) + 1))
"""Their ids."""

_DIRECTORY = (
    "INSERT INTO registration.organization VALUES (:org, 'Standard', 'Europe/Oslo')",
    "INSERT INTO registration.chapter VALUES (:org, 'bergen', 'Bergen'), (:org, 'tromso', 'Tromsø')",
    "INSERT INTO registration.coordinator VALUES (:org, :coordinator, 'Coordinator', 'coordinator'), (:org, 'tor', 'Tor Bakke', 'coordinator')",
    "INSERT INTO registration.coordinator_scope VALUES (:org, :coordinator, 'bergen'), (:org, 'tor', 'bergen'), (:org, 'tor', 'tromso')",
    "INSERT INTO registration.activity_type (organization_id, activity_type, name, default_minutes, minimum_minutes) VALUES "
    "(:org, 'talk', 'Peer talk', 60, 30), (:org, 'visit', 'Hospital visit', NULL, NULL), (:org, 'course', 'Course', 90, 45)",
    "INSERT INTO registration.mentor (organization_id, mentor_id, name, chapter_id) VALUES (:org, 'n-01', 'Inger Sara', 'tromso')",
    "INSERT INTO registration.mentor (organization_id, mentor_id, name, chapter_id, active_until) "
    "VALUES (:org, 'm-26', 'Dag Holm', 'bergen', '2020-12-31')",
)

# The server gets the submission, but the page never gets its response.
LOSE_THE_RESPONSE = """(path) => {
    window.fetchBefore = window.fetch;
    window.fetch = async (address, options) => {
        const response = await window.fetchBefore(address, options);
        if (options?.method === "POST" && address === path) {
            throw new TypeError("lost");
        }
        return response;
    };
}"""

# Somebody pastes this text.
PASTE = """(text) => {
    const data = new DataTransfer();
    data.setData("text/plain", text);
    document.activeElement.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true}));
}"""


@dataclass(frozen=True)
class Registering:
    """The console, and the roles behind it."""

    server: ApiServer
    pipeline: Pipeline
    engine: Engine

    @property
    def url(self) -> str:
        """The console's address, without a path."""
        return self.server.url

    def registered(self) -> set[str]:
        """Handles all batches, and returns which mentors have an activity."""
        self.pipeline.drain()
        with self.engine.connect() as connection:
            return set(
                connection.execute(text("SELECT attributed_to FROM registration.activity WHERE revoked_at IS NULL")).scalars()
            )

    def mentors_on(self, day: date, kind: str) -> set[str]:
        """Which mentors have an activity of this type on this date."""
        with self.engine.connect() as connection:
            rows = connection.execute(
                text("SELECT attributed_to FROM registration.activity WHERE activity_date = :day AND activity_type = :kind"),
                {"day": day, "kind": kind},
            )
            return set(rows.scalars())

    def today(self) -> str:
        """The organization's date, from the API."""
        with self.server.client(Role.COORDINATOR, sub=COORDINATOR) as client:
            return str(client.get(f"{API_ROOT}/me").json()["organization"]["today"])

    def registered_by(self) -> set[str]:
        """The coordinators in whose names activities are registered."""
        with self.engine.connect() as connection:
            return set(connection.execute(text("SELECT registered_by FROM registration.activity")).scalars())

    def activities(self) -> int:
        """How many activities there are."""
        with self.engine.connect() as connection:
            return int(connection.execute(text("SELECT count(*) FROM registration.activity")).scalar_one())

    def batches(self) -> int:
        """How many batches there are."""
        with self.engine.connect() as connection:
            return int(connection.execute(text("SELECT count(*) FROM orchestrator.batch")).scalar_one())


@contextlib.contextmanager
def registering_console(settings: Settings, engine: Engine) -> Iterator[Registering]:
    """Runs the console on an empty database, with two chapters, two coordinators and an administrator."""
    with engine.begin() as connection:
        for statement in _DIRECTORY:
            connection.execute(text(statement), {"org": ORGANIZATION, "coordinator": COORDINATOR})
        for mentor_id, name in zip(BERGEN, NAMES, strict=True):
            connection.execute(
                text(
                    "INSERT INTO registration.mentor (organization_id, mentor_id, name, chapter_id) VALUES (:org, :id, :name, 'bergen')"
                ),
                {"org": ORGANIZATION, "id": mentor_id, "name": name},
            )
    with contextlib.closing(Pipeline(settings, engine)) as pipeline, running_console(with_console(settings)) as (server, _):
        yield Registering(server, pipeline, engine)


# A press on a label, or on its check box, counts as one click. Modifier keys do not count.
_COUNT = """
addEventListener("pointerdown", (event) => { if (event.isTrusted) count("clicks"); }, true);
addEventListener("keydown", (event) => { if (event.isTrusted && !["Control", "Shift"].includes(event.key)) count("keys"); }, true);
"""


class Effort:
    """How often a person has clicked, and how many keys they have pressed, on all pages of a context."""

    def __init__(self, context: BrowserContext) -> None:
        self.clicks = 0
        self.keys = 0
        context.expose_binding("count", lambda _, what: setattr(self, what, getattr(self, what) + 1))
        context.add_init_script(_COUNT)

    def restart(self) -> None:
        """Begins to count."""
        self.clicks = self.keys = 0

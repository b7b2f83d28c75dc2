"""What is measured: a running stack, and the organizations that were made for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, timedelta

import orjson
from pydantic import SecretStr
from sqlalchemy import Engine, text

from compose.embedded.home import Home
from orchestrator.process.settings import EARLIEST_YEAR, Settings

ORGANIZATION = "bench"
COORDINATOR = "bench-coordinator"
ACTIVITY_TYPE = "visit"
MENTORS = 10_000
ORGANIZATIONS = 1_000
"""How many other organizations there are, as small as most: for the load in which each batch is of another one."""
MENTORS_OF_EACH = 100
NOTES = "A walk and a talk, as agreed."

_FIRST_DAY = date(EARLIEST_YEAR, 1, 1)
_END = date(2026, 1, 1)


@dataclass(frozen=True, slots=True)
class BenchTarget:
    """A running stack: the API with a service token, the servers with their owner's rights, and the processes by role."""

    api: str
    token: str
    postgres: str
    kafka: str
    pids: Mapping[str, Sequence[int]]

    @classmethod
    def running_in(cls, home: Home) -> "BenchTarget | None":
        """Returns what runs in a home, or None. It may be another version of the product, so that the same load can measure two versions."""
        if home.holder() is None:
            return None
        found = orjson.loads(home.stack_file.read_bytes())
        return cls(**{each.name: found[each.name] for each in fields(cls)})

    def settings(self) -> Settings:
        """The settings of a process that works on the same servers. Other values come from the environment."""
        return Settings(database_url=SecretStr(self.postgres), kafka_bootstrap_servers=self.kafka)


class Days:
    """Days on which the benchmark's organizations have no activity, so that each item of each measurement is new."""

    def __init__(self, first: date) -> None:
        self._next = first

    def take(self, items: int) -> date:
        """Returns the first of as many days as the items need, with one item for each mentor on each day. No other caller gets these days.

        Raises RuntimeError when a stack has been measured so often that the days are used up.
        """
        first = self._next
        self._next += timedelta(days=-(-items // MENTORS))
        if self._next > _END:
            raise RuntimeError("all days before today have activities of earlier benchmarks: measure on another stack")
        return first


def other_organization(number: int) -> str:
    """Returns the id of one of the other organizations, which are numbered from 0."""
    return f"{ORGANIZATION}-{number}"


def make_organizations(engine: Engine) -> Days:
    """Creates the organizations, each with one coordinator who may register for all its mentors; may be repeated. Returns the days on which
    none of them has an activity."""
    sizes = {ORGANIZATION: MENTORS} | {other_organization(number): MENTORS_OF_EACH for number in range(ORGANIZATIONS)}
    values = {"orgs": list(sizes), "mentors": list(sizes.values()), "coordinator": COORDINATOR, "type": ACTIVITY_TYPE}
    statements = (
        "INSERT INTO registration.organization SELECT org, 'Benchmark', 'Europe/Oslo' FROM unnest(:orgs) org ON CONFLICT DO NOTHING",
        "INSERT INTO registration.coordinator SELECT org, :coordinator, 'Benchmark', 'admin' FROM unnest(:orgs) org"
        " ON CONFLICT DO NOTHING",
        "INSERT INTO registration.activity_type SELECT org, :type, 'Visit' FROM unnest(:orgs) org ON CONFLICT DO NOTHING",
        "INSERT INTO registration.mentor SELECT org, 'mentor-' || n, 'Mentor', 'chapter'"
        " FROM unnest(:orgs, :mentors) each (org, mentors), generate_series(1, mentors) n ON CONFLICT DO NOTHING",
    )
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement), values)
        last: date | None = connection.execute(
            text("SELECT max(activity_date) FROM registration.activity WHERE organization_id = ANY(:orgs)"), values
        ).scalar_one()
    return Days(_FIRST_DAY if last is None else last + timedelta(days=1))

"""What tests of the sweeper share: a whole sweep and a whole purge, the broker, and batches whose records are lost."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Engine, text

from consumers.upkeep.purger import Purged, Purger
from consumers.upkeep.sweeper import Sweeper, Swept
from orchestrator.storage.progress import Position, advance_progress
from orchestrator.storage.sweeping import Queue, Queues
from schemas.envelope import Topic
from tests.support.pipeline import Pipeline, mentors

COMMAND_TOPICS = (Topic.COMMANDS, Topic.COMMANDS_BULK)


def sweep(sweeper: Sweeper, engine: Engine) -> Swept:
    """All steps of a sweep, as the role runs them. Raises the error of a step that fails, which the role would only log."""
    return sum((step(engine) for step in sweeper.steps.values()), Swept())


def purge(purger: Purger, engine: Engine) -> Purged:
    """All steps of a purge, as the role runs them. Raises the error of a step that fails, which the role would only log."""
    return sum((step(engine) for step in purger.steps.values()), Purged())


class Broker:
    """Says where the topics end, as the broker would, and how far the consumers are. The test decides both."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.ends: dict[tuple[Topic, int], int] = {(Topic.BATCHES, 0): 1, (Topic.COMMANDS, 0): 1, (Topic.COMMANDS_BULK, 0): 0}
        self.firsts: dict[tuple[Topic, int], int] = {}
        self.ids: dict[Topic, str] = dict.fromkeys((Topic.BATCHES, *COMMAND_TOPICS), "first")

    def __call__(self, topics: Sequence[Topic]) -> Queues:
        return {
            place: Queue(self.firsts.get(place, 0), end, self.ids[place[0]])
            for place, end in self.ends.items()
            if place[0] in topics and place[0] in self.ids
        }

    def handled(self, *topics: Topic) -> None:
        """The consumers of these topics have reached the end."""
        with self._pipeline.engine.begin() as connection:
            advance_progress(
                connection,
                {place: Position(end, self.ids[place[0]]) for place, end in self.ends.items() if place[0] in topics},
            )

    def written(self, topic: Topic) -> None:
        """A record was published to this topic."""
        self.ends[topic, 0] += 1


def queued(pipeline: Pipeline, broker: Broker, count: int = 2) -> UUID:
    """A batch that was split, and whose commands wait, on topics with many handled records."""
    for topic in (Topic.BATCHES, *COMMAND_TOPICS):
        broker.ends[topic, 0] = 1_000
    broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
    batch_id = pipeline.submit(mentors(count))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    broker.written(Topic.BATCHES)
    broker.handled(Topic.BATCHES)
    broker.ends[Topic.COMMANDS, 0] += count
    return batch_id


def run(pipeline: Pipeline, statement: str, **values: object) -> None:
    with pipeline.engine.begin() as connection:
        connection.execute(text(statement), values)

"""Row 25 of the fault catalogue: events that an old version wrote. test_poison.py sends one of them through the product, beside one of an
unknown version."""

import orjson
import pytest

from schemas.envelope import Envelope, Topic
from schemas.event_reader import read_event
from schemas.events import EVENTS, EventData, type_name
from schemas.publish import DIRECTORY, path_of
from tests.faults.golden import FOLDER, golden


def test_row_25_every_published_version_has_a_golden_event() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {path.name for path in DIRECTORY.iterdir()}


@pytest.mark.parametrize(("topic", "model"), [(topic, model) for topic, models in EVENTS.items() for model in models])
def test_row_25_golden_event_means_what_it_meant(topic: Topic, model: type[EventData]) -> None:
    """A field that was added later may have its default. A field that was there keeps its value."""
    oldest, means = (
        read_event(topic, Envelope("id", "/services/attendance", type_name(model), orjson.dumps(data), None))
        for data in golden(path_of(model).name)
    )
    assert oldest == means

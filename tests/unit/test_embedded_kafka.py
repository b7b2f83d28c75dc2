"""The nodes of one home belong to one cluster."""

from pathlib import Path

from compose.embedded.home import Home
from compose.embedded.kafka import KafkaBroker


def test_all_nodes_of_a_home_have_one_cluster_id_and_every_controller(tmp_path: Path) -> None:
    """Each node is prepared in a thread of its own, so what they share exists before."""
    home = Home(tmp_path)
    home.create()
    nodes = [KafkaBroker(home, node=node, nodes=3) for node in (1, 2, 3)]
    (tmp_path / "kafka-cluster").unlink()
    assert len({node._cluster_id() for node in nodes}) == 1
    settings = [node._settings(tmp_path) for node in nodes]
    assert len({each["controller.quorum.voters"] for each in settings}) == 1
    assert [each["node.id"] for each in settings] == ["1", "2", "3"]
    assert {(each["default.replication.factor"], each["min.insync.replicas"]) for each in settings} == {("3", "2")}
    single = KafkaBroker(home)._settings(tmp_path)
    assert (single["default.replication.factor"], single["min.insync.replicas"]) == ("1", "1")

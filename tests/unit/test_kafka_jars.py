"""Downloads from a Maven repository on loopback."""

import gc
import hashlib
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from jgo.maven import MavenContext, PythonResolver

from compose.embedded.kafka_jars import Jar, JarError, fetch_jar, locked_jars

COORDINATE = "org.example:thing:1.0"
CONTENT = b"content of a jar"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def maven(tmp_path: Path) -> Iterator[MavenContext]:
    folder = tmp_path / "remote/org/example/thing/1.0"
    folder.mkdir(parents=True)
    (folder / "thing-1.0.jar").write_bytes(CONTENT)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "remote"))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield MavenContext(PythonResolver(), repo_cache=tmp_path / "scratch", remote_repos={"local": url})
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    cache = tmp_path / "cache"
    cache.mkdir()
    return cache


def test_a_jar_with_the_pinned_checksum_is_kept(maven: MavenContext, cache: Path) -> None:
    fetch_jar(Jar(COORDINATE, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT)), maven, cache)
    assert (cache / "thing-1.0.jar").read_bytes() == CONTENT


def test_a_jar_with_another_checksum_is_refused_and_removed(maven: MavenContext, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(JarError, match=r"org\.example:thing:1\.0 has the SHA-256 .* pins 0000"):
        fetch_jar(Jar(COORDINATE, "0" * 64, len(CONTENT)), maven, cache)
    assert list(cache.iterdir()) == []
    assert list((tmp_path / "scratch").rglob("*.jar")) == []


# jgo leaves the connection of a refused download to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_jar_that_can_not_be_downloaded_is_named_with_what_to_do(maven: MavenContext, cache: Path) -> None:
    with pytest.raises(JarError, match=r"org\.example:absent:1\.0.*BULKREG_KAFKA_BOOTSTRAP_SERVERS"):
        fetch_jar(Jar("org.example:absent:1.0", "0" * 64, 1), maven, cache)
    gc.collect()


def test_every_jar_has_a_file_of_its_own() -> None:
    names = [jar.file_name for jar in locked_jars()]
    assert "kafka_2.13-4.3.1.jar" in names
    assert len(set(names)) == len(names)

"""The jars of Apache Kafka: pinned by checksum in `kafka-jars.lock`, downloaded once from Maven Central, cached for each user.

`python -m compose.embedded.kafka_jars` resolves the jars again and rewrites the lock file.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import requests
import tenacity
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from compose.embedded.product import StartError

if TYPE_CHECKING:
    from jgo.maven import MavenContext

KAFKA_VERSION = "4.3.1"
WANTED = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")
LOCK_FILE = Path(__file__).with_name("kafka-jars.lock")

PARALLEL_DOWNLOADS = 8  # most jars are small, so round trips take most of the time
ATTEMPTS = 3
TIMEOUT_S = 30
MEBIBYTE = 1024 * 1024
SCRATCH = ".download-"
PINNED_TIME_S = 1_000_000_000


class JarError(StartError):
    """A jar could not be downloaded, or does not match its checksum. Nothing of it is kept, so the next start tries again."""


@dataclass(frozen=True)
class Jar:
    """One pinned jar."""

    coordinate: str
    """group:artifact:version"""
    sha256: str
    size_bytes: int

    @property
    def file_name(self) -> str:
        """The file name. It is unique, because no two jars have the same artifact id."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


CACHE_VARIABLE = "BULKREG_CACHE_DIR"
"""Names the folder of downloads."""


def cache_directory() -> Path:
    """Returns the folder of downloads for all homes of this user: `BULKREG_CACHE_DIR`, or `bulkreg` in the XDG cache directory."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bulkreg"


def locked_jars() -> list[Jar]:
    """Returns the jars that the lock file pins."""
    lines = (line.split() for line in LOCK_FILE.read_text().splitlines() if line and not line.startswith("#"))
    return [Jar(coordinate, sha256, int(size_bytes)) for coordinate, sha256, size_bytes in lines]


def class_path() -> list[Path]:
    """Returns the jars as files. Downloads those that are not in the cache. Raises JarError."""
    jars = locked_jars()
    directory = cache_directory() / "jars"
    try:
        os.fsencode(directory.resolve()).decode()
    except UnicodeDecodeError:
        is_readable = False
    else:
        is_readable = "!/" not in str(directory.resolve())
    if not is_readable:
        message = f"Java can't read jars in {directory}: its name has !/ in it, or is not UTF-8; name another folder in BULKREG_CACHE_DIR"
        raise JarError(message)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{directory} can't be made: {error.strerror}; name another folder in BULKREG_CACHE_DIR"
        raise JarError(message) from error
    if _missing(jars, directory):
        with one_at_a_time(directory):  # a second process waits here and then finds everything downloaded
            for abandoned in directory.glob(f"{SCRATCH}*"):
                shutil.rmtree(abandoned)
            missing = _missing(jars, directory)
            if missing:
                _fetch(missing, directory)
    return [directory / jar.file_name for jar in jars]


@contextlib.contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """Keeps other processes out while this one adds to the directory."""
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _missing(jars: Sequence[Jar], directory: Path) -> list[Jar]:
    # A file gets its name only after its checksum was verified, so nothing needs to be read again.
    return [jar for jar in jars if not (directory / jar.file_name).exists()]


def _fetch(jars: Sequence[Jar], directory: Path) -> None:
    with (
        tempfile.TemporaryDirectory(dir=directory, prefix=SCRATCH) as scratch,
        _progress(jars) as advance,
        ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool,
    ):
        context = _maven(Path(scratch), advance)
        # The largest first, so that none is left to download alone at the end.
        for finished in [
            pool.submit(fetch_jar, jar, context, directory) for jar in sorted(jars, key=lambda jar: -jar.size_bytes)
        ]:
            finished.result()


def fetch_jar(jar: Jar, context: "MavenContext", directory: Path) -> None:
    """Downloads one jar into the directory, whole and verified, or not at all. Raises JarError."""
    artifact = context.create_dependency(jar.coordinate).artifact
    try:
        for attempt in tenacity.Retrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_exponential_jitter(multiplier=0.5, max=5),
            retry=tenacity.retry_if_exception_type(requests.RequestException),
            reraise=True,
        ):
            with attempt:
                if artifact.cached_path is not None:
                    artifact.cached_path.unlink(missing_ok=True)  # the rest of an interrupted download
                file = artifact.resolve()
    except (
        OSError,
        RuntimeError,
    ) as error:  # requests' errors are OSErrors; so is a missing file of certificates
        message = (
            f"could not download {jar.coordinate}: {error}. The first start needs Maven Central; "
            "to use a Kafka that runs already, name it in BULKREG_KAFKA_BOOTSTRAP_SERVERS."
        )
        raise JarError(message) from error
    found = _sha256(file)
    if found != jar.sha256:
        file.unlink()
        message = f"{jar.coordinate} has the SHA-256 {found}, but {LOCK_FILE.name} pins {jar.sha256}: it was not kept"
        raise JarError(message)
    with file.open("rb") as content:
        os.fsync(content.fileno())
    # Java's class archive (`kafka.class_archive`) identifies jars by size and time. With a fixed time, a jar that is downloaded again still
    # matches.
    os.utime(file, (PINNED_TIME_S, PINNED_TIME_S))
    file.replace(directory / jar.file_name)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _maven(cache: Path, advance: Callable[[int], None]) -> "MavenContext":
    from jgo.maven import MavenContext, PythonResolver  # slow to import, and only a download needs it

    @contextlib.contextmanager
    def progress_of_file(_name: str, _size_bytes: int) -> Iterator[Callable[[int], None]]:
        yield advance

    return MavenContext(PythonResolver(progress_callback=progress_of_file), repo_cache=cache, timeout=TIMEOUT_S)


@contextlib.contextmanager
def _progress(jars: Sequence[Jar]) -> Iterator[Callable[[int], None]]:
    """Shows the progress of the download: a bar on a terminal, otherwise a line at the start and one at the end."""
    console = Console(stderr=True)
    total_bytes = sum(jar.size_bytes for jar in jars)
    title = f"Downloading Apache Kafka {KAFKA_VERSION}"
    if not console.is_terminal:
        console.print(f"{title}: {len(jars)} files, {total_bytes / MEBIBYTE:.0f} MiB, once per user", soft_wrap=True)
        yield lambda _bytes: None
        console.print(f"{title}: done")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total_bytes)
        yield lambda count_bytes: progress.advance(task, count_bytes)


def update_lock_file() -> None:
    """Resolves the jars that Kafka needs now, downloads them and pins them. For maintainers; needs Maven Central."""
    with tempfile.TemporaryDirectory() as scratch:
        context = _maven(Path(scratch), lambda _bytes: None)
        inputs, transitive = context.resolver.resolve([context.create_dependency(wanted) for wanted in WANTED])
        lines = []
        for dependency in [*inputs, *transitive]:
            file = dependency.artifact.resolve()
            coordinate = f"{dependency.groupId}:{dependency.artifactId}:{dependency.version}"
            lines.append(f"{coordinate} {_sha256(file)} {file.stat().st_size}\n")
    header = "# group:artifact:version sha256 bytes. Written by `python -m compose.embedded.kafka_jars`.\n"
    LOCK_FILE.write_text(header + "".join(sorted(lines)))


if __name__ == "__main__":
    update_lock_file()

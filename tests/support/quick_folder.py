"""A folder in memory for the files of a run. On a disk, each database of a test costs the kernel a tenth of a second of CPU, and the servers
that tests start wait for the disk."""

import os
import shutil
import tempfile
from pathlib import Path

from psutil import pid_exists, virtual_memory

MEMORY = Path("/dev/shm")
NAME = "bulkreg-test-"
ROOM_BYTES = 8 << 30

KEPT = "bulkreg-failed-test-"
KEPT_RUNS = 3


def quick_folder() -> Path | None:
    """Makes an empty folder for this process. None: there is no memory for it."""
    if not _has_room():
        return None
    for left in MEMORY.glob(f"{NAME}*"):
        process = left.name.removeprefix(NAME)
        if process.isdigit() and not pid_exists(int(process)):  # its run was killed
            shutil.rmtree(left, ignore_errors=True)
    folder = MEMORY / f"{NAME}{os.getpid()}"
    folder.mkdir(mode=0o700)
    return folder


def move_to_disk(folder: Path) -> Path:
    """Moves what a failed run has left, so that it takes no memory. Returns where it is. Removes what earlier runs have left, except the last
    ones."""
    usual = Path(tempfile.gettempdir())
    kept = sorted(usual.glob(f"{KEPT}*"), key=lambda path: path.stat().st_mtime)
    for old in kept[: 1 - KEPT_RUNS]:
        shutil.rmtree(old, ignore_errors=True)
    place = Path(tempfile.mkdtemp(prefix=KEPT))
    shutil.copytree(folder, place, symlinks=True, ignore=_special, dirs_exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return place


def _has_room() -> bool:
    if not os.access(MEMORY, os.W_OK) or os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:  # Kafka loads native libraries from its home
        return False
    return min(shutil.disk_usage(MEMORY).free, virtual_memory().available) >= ROOM_BYTES


def _special(folder: str, names: list[str]) -> list[str]:
    """Sockets and pipes, which have no contents to copy."""
    paths = {name: Path(folder, name) for name in names}
    return [name for name, path in paths.items() if not (path.is_symlink() or path.is_file() or path.is_dir())]

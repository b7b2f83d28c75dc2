"""A small disk for PostgreSQL, which can be full."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

SIZE_MB = 8_192
"""It uses memory only for what is written: the hour's data, and the WAL's 2 GB."""


class Disk:
    """The directory of a database cluster on a tmpfs of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Makes the disk as small as its contents, so that the next block does not fit. Enlarges it again at the end."""
        try:
            # A write between the measurement and the change makes it fail. Then it is tried again with a little more room.
            for spare_kb in (0, 256, 1_024, 4_096):
                used_kb = _used_kb(self._directory)
                if self._resize(f"{used_kb + spare_kb}k"):
                    break
            else:
                raise RuntimeError("the disk could not be made full")
            yield
        finally:
            self._resize(f"{SIZE_MB}m")

    def _resize(self, size: str) -> bool:
        command = ["mount", "-o", f"remount,size={size}", str(self._directory)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _used_kb(directory: Path) -> int:
    used = os.statvfs(directory)
    return (used.f_blocks - used.f_bfree) * used.f_frsize // 1024


@contextlib.contextmanager
def small_disk(cluster: Path) -> Iterator[Disk | None]:
    """Puts a stopped database cluster on a disk of its own. Yields None if we lack the rights for that."""
    owner = cluster.stat()
    aside = cluster.with_name("aside")
    cluster.rename(aside)
    cluster.mkdir()
    options = f"size={SIZE_MB}m,mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(cluster)]
    try:
        is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:  # The program does not exist.
        is_mounted = False
    if not is_mounted:
        cluster.rmdir()
        aside.rename(cluster)
        yield None
        return
    try:
        subprocess.run(["cp", "-a", f"{aside}/.", str(cluster)], check=True)
        shutil.rmtree(aside)
        yield Disk(cluster)
    finally:
        # A server that has not ended yet would keep the disk in use, and every later run that tidies up the folder would fail on it.
        subprocess.run(["umount", "--lazy", str(cluster)], check=True)

"""A command's output file replaces a regular file, and nothing else."""

import os
import stat
import threading
from pathlib import Path

import pytest

from cli.terminal.failures import UnwritableError
from cli.terminal.saving import saved_to


def save(file: Path, content: bytes = b"new") -> None:
    with saved_to(file) as out:
        out.write(content)


def fail_half_way(file: Path) -> None:
    with saved_to(file) as out:
        out.write(b"half")
        raise ValueError("half way")


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_new_file_has_the_permissions_of_new_files(tmp_path: Path) -> None:
    file, other = tmp_path / "a.csv", tmp_path / "b.csv"
    save(file)
    other.touch()
    assert (file.read_bytes(), mode(file)) == (b"new", mode(other))


@pytest.mark.parametrize("permissions", [0o600, 0o640, 0o664])
def test_a_file_keeps_its_permissions(tmp_path: Path, permissions: int) -> None:
    file = tmp_path / "a.csv"
    file.touch()
    file.chmod(permissions)
    save(file)
    assert (file.read_bytes(), mode(file)) == (b"new", permissions)
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"old")
    for target in (file, tmp_path / "none.csv"):
        with pytest.raises(ValueError, match="half way"):
            fail_half_way(target)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name, content in (("there.csv", b"old"), ("new.csv", None)):
        target, link = folder / name, tmp_path / name
        if content is not None:
            target.write_bytes(content)
            target.chmod(0o600)
        link.symlink_to(target)
        save(link)
        assert (link.is_symlink(), target.read_bytes()) == (True, b"new")
    assert mode(folder / "there.csv") == 0o600


def test_a_file_with_a_second_name_stays_one_file(tmp_path: Path) -> None:
    file, other = tmp_path / "a.csv", tmp_path / "b.csv"
    file.write_bytes(b"a longer old content")
    os.link(file, other)
    save(file)
    assert (other.read_bytes(), file.stat().st_nlink) == (b"new", 2)


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    save(pipe)
    reader.join()
    assert (read, stat.S_ISFIFO(pipe.stat().st_mode)) == ([b"new"], True)


def test_a_device_is_written_to() -> None:
    before = Path("/dev/null").stat()
    save(Path("/dev/null"))
    after = Path("/dev/null").stat()
    assert (stat.S_ISCHR(after.st_mode), after.st_ino) == (True, before.st_ino)


def test_a_file_that_is_open_elsewhere_is_written_to(tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    with file.open("wb") as out:
        before = file.stat().st_ino
        save(Path(f"/dev/fd/{out.fileno()}"))
    assert (file.read_bytes(), file.stat().st_ino) == (b"new", before)


@pytest.mark.parametrize("name", ["no/such/folder.csv", "folder", "circle"])
def test_a_file_that_can_not_be_written_is_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(UnwritableError, match="can't be written: "):
        save(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write every file")
def test_a_file_that_may_not_be_written_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"old")
    file.chmod(0o400)
    with pytest.raises(UnwritableError, match="Permission denied"):
        save(file)
    assert file.read_bytes() == b"old"

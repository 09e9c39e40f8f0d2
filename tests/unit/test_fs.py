from __future__ import annotations

import errno
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from airlift import fs
from airlift.errors import IntegrityError, StoreError
from tests import components


def test_a_file_is_there_whole_with_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        fs.write(tmp_path / "a", b"x", mode=0o640)
        fs.write(tmp_path / "b", b"y")
    finally:
        os.umask(before)
    assert (tmp_path / "a").read_bytes() == b"x"
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o640, 0o644]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_failure_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with fs.atomic(path) as stream:
            stream.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [("a", b"old")]


def test_our_own_errors_pass_as_they_are(tmp_path: Path) -> None:
    def refused() -> None:
        with fs.atomic(tmp_path / "a"):
            raise IntegrityError("x", expected="1", actual="2")

    with pytest.raises(IntegrityError):
        refused()
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_looks_like_a_part_is_neither_followed_nor_removed(tmp_path: Path) -> None:
    link = tmp_path / f".a.{os.getpid()}.part"
    link.symlink_to(tmp_path / "elsewhere")
    fs.write(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"
    assert link.is_symlink()
    assert not (tmp_path / "elsewhere").exists()


def killed(code: str, folder: Path) -> None:
    """Run some lines in another process, which ends as by kill -9 at the end of them."""
    lines = f"import os\nfrom pathlib import Path\nfrom airlift import fs\nhere = Path({str(folder)!r})\n{code}\nos._exit(9)"
    done = subprocess.run(
        [sys.executable, "-c", lines], check=False, env={**os.environ, "PYTHONPATH": str(components.ROOT)}
    )
    assert done.returncode == 9


def test_what_a_killed_write_left_goes_with_the_next_and_nothing_else_does(tmp_path: Path) -> None:
    killed("one = fs.atomic(here / 'a[1]')\none.__enter__().write(b'half')", tmp_path)
    killed("one = fs.atomic(here / 'other')\none.__enter__().write(b'half')", tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    fs.write(tmp_path / "a[1]", b"whole")
    assert (tmp_path / "a[1]").read_bytes() == b"whole"
    assert [name.name[:7] for name in tmp_path.iterdir() if name.name != "a[1]"] == [".other."]


def test_a_write_that_goes_on_keeps_its_part_when_another_begins(tmp_path: Path) -> None:
    with fs.atomic(tmp_path / "a") as slow:
        slow.write(b"slow")
        fs.write(tmp_path / "a", b"quick")
        assert (tmp_path / "a").read_bytes() == b"quick"
    assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [("a", b"slow")]


def test_a_work_directory_vanishes_at_its_end_and_after_a_kill_with_the_next(tmp_path: Path) -> None:
    killed("one = fs.work_directory(here / 'work', 'x')\n(one.__enter__() / 'file').write_bytes(b'half')", tmp_path)
    (left,) = (tmp_path / "work").iterdir()
    with fs.work_directory(tmp_path / "work", "x") as mine, fs.work_directory(tmp_path / "work", "x") as too:
        assert not left.exists()
        assert mine.is_dir()
        assert too.is_dir()
        assert mine != too
        assert mine.stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "work").iterdir()) == []


def test_a_directory_is_there_whole_and_open_to_all_whatever_the_umask(tmp_path: Path) -> None:
    killed("one = fs.whole_directory(here / 'a', 'making')\n(one.__enter__() / 'half').touch()", tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    before = os.umask(0o077)
    try:
        with fs.whole_directory(tmp_path / "a", "making") as mine:
            with fs.whole_directory(tmp_path / "a", "making") as other:
                (other / "of").write_bytes(b"another run")
            fs.make_folder(mine / "x")
            (tmp_path / "a" / "of").unlink()
            assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["a"]
    finally:
        os.umask(before)
    assert [(path, path.stat().st_mode & 0o777) for path in tmp_path.rglob("*")] == [
        (tmp_path / "a", 0o755),
        (tmp_path / "a" / "x", 0o755),
    ]


def test_a_directory_that_somebody_else_filled_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def overtaken() -> None:
        with fs.whole_directory(tmp_path / "a", "making"):
            (tmp_path / "a").mkdir()
            (tmp_path / "a" / "other").touch()

    with pytest.raises(StoreError, match=rf"^making {tmp_path}/a: Directory not empty$"):
        overtaken()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "other"]
    with pytest.raises(StoreError, match=rf"^making {tmp_path}/no: No such file or directory$"):
        fs.whole_directory(tmp_path / "no" / "a", "making").__enter__()


def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        fs.write(tmp_path / "no" / "a", b"x")
    assert str(caught.value) == f"writing {tmp_path}/no/a: No such file or directory"
    assert caught.value.hint == "see whether the path is right and its disk is mounted"


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "free some space on that disk and run the same command again"),
        (errno.EROFS, "the disk is mounted read-only; mount it writable"),
        (errno.EACCES, "check the owner and mode of the directory"),
    ],
)
def test_known_refusals_of_the_disk_have_a_remedy(number: int, hint: str) -> None:
    error = fs.store_error("writing", OSError(number, os.strerror(number), "/x"))
    assert (str(error), error.hint) == (f"writing /x: {os.strerror(number)}", hint)


def test_a_file_that_the_medium_is_too_small_for_names_what_comes(tmp_path: Path) -> None:
    error = fs.store_error("writing", OSError(errno.EFBIG, os.strerror(errno.EFBIG), "/x"))
    assert str(error) == "writing /x: File too large"
    assert "4 GiB" in str(error.hint)
    assert "--volume-size" in str(error.hint)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    components.require_root()
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mount], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mount is not allowed here: {done.stderr.strip()}")
    try:
        with pytest.raises(StoreError, match="No space left on device"):
            fs.write(mount / "a", b"x" * 200_000)
        assert list(mount.iterdir()) == []
    finally:
        subprocess.run(["umount", mount], check=True)


def test_reading_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert fs.read_bounded(path, 5) == b"12345"
    with pytest.raises(StoreError) as caught:
        fs.read_bounded(path, 4)
    assert str(caught.value) == f"reading {path}: larger than 4 bytes"
    with pytest.raises(StoreError, match=r"^reading .*/b: No such file or directory$"):
        fs.read_bounded(tmp_path / "b", 4)


def test_a_file_is_read_without_room_for_all_that_it_may_have(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 1000)
    tracemalloc.start()
    try:
        assert fs.read_bounded(path, 2**28) == b"x" * 1000
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_file_that_tells_no_size_is_read_to_its_end() -> None:
    whole = fs.read_bounded(Path("/proc/self/mountinfo"), 2**24)
    assert whole == Path("/proc/self/mountinfo").read_bytes()
    with pytest.raises(StoreError, match="larger than 7 bytes"):
        fs.read_bounded(Path("/proc/self/mountinfo"), 7)

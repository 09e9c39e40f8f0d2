from __future__ import annotations

import errno
import os
import subprocess
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


def test_a_link_in_the_parts_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / f".a.{os.getpid()}.part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"^writing .*/a: Too many levels of symbolic links$"):
        fs.write(tmp_path / "a", b"x")
    assert not (tmp_path / "elsewhere").exists()


def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        fs.write(tmp_path / "no" / "a", b"x")
    assert str(caught.value) == f"writing {tmp_path}/no/a: No such file or directory"
    assert caught.value.hint is None


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

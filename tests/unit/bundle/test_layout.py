from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from airlift.bundle import layout
from airlift.bundle.layout import Member, PayloadPlan
from airlift.errors import BundleError
from tests.support.bundles import Recipe, members, plan


@pytest.mark.parametrize("size", [0, 1, 512, 8 * 1024**3 - 1, 8 * 1024**3, 2**42])
def test_a_header_is_what_tar_understands(size: int) -> None:
    made = layout.header("blobs/sha256/" + "a" * 64, size)
    assert len(made) == layout.header_size(size)
    with tarfile.open(fileobj=io.BytesIO(made), ignore_zeros=False) as archive:
        info = archive.next()
    assert info is not None
    assert (info.name, info.size, info.mode, info.mtime) == ("blobs/sha256/" + "a" * 64, size, 0o644, 0)
    assert (info.uid, info.gid, info.uname, info.gname, info.type) == (0, 0, "", "", tarfile.REGTYPE)
    assert set(info.pax_headers) == ({"size"} if size >= 8 * 1024**3 else set())


@pytest.mark.parametrize("size", [0, 511, 8 * 1024**3 - 1, 8 * 1024**3, 2**42])
def test_a_header_comes_back(size: int) -> None:
    made = layout.header("index.json", size)
    assert layout.parse_header(made, limit=size) == ("index.json", size, len(made))
    with pytest.raises(BundleError):
        layout.parse_header(made[:-1], limit=size)
    if size:
        with pytest.raises(BundleError, match=f"'index.json' claims {size} bytes, only {size - 1} are left"):
            layout.parse_header(made, limit=size - 1)


@pytest.mark.parametrize("size", [5, 8 * 1024**3])
def test_no_other_spelling_of_a_header_is_read(size: int) -> None:
    made = layout.header("index.json", size)
    for offset in range(len(made)):
        changed = bytearray(made)
        changed[offset] ^= 1
        try:
            found = layout.parse_header(bytes(changed), limit=2**50)
        except BundleError:
            continue
        # A digit of the size: then it is the one header of that size.
        assert layout.header(*found[:2]) == changed


@pytest.mark.parametrize(("name", "size"), [("", 1), ("a" * 96, 1), ("ä", 1), ("a\0b", 1), ("a b", 1), ("a", -1)])
def test_a_header_outside_of_the_format_is_not_made(name: str, size: int) -> None:
    with pytest.raises(ValueError, match="no tar header for"):
        layout.header(name, size)


def test_offsets_are_those_of_the_archive() -> None:
    content = members([b"one", b"", b"x" * 512, b"y" * 513])
    planned = plan(content)
    whole = bytearray(planned.size)
    for offset, data in planned.fixed(0, planned.size):
        whole[offset : offset + len(data)] = data
    for name, data in content.items():
        assert planned.size_of(name) == len(data)
        whole[planned.offset_of(name) : planned.offset_of(name) + len(data)] = data
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        found = {info.name: (archive.extractfile(info) or io.BytesIO()).read() for info in archive}
    assert found == content
    assert whole.endswith(bytes(1024))
    for step in (1, 7, 512, 1000):
        cut = bytearray(planned.size)
        for start in range(0, planned.size, step):
            for offset, data in planned.fixed(start, min(start + step, planned.size)):
                assert start <= offset < offset + len(data) <= start + step
                cut[offset : offset + len(data)] = data
        for name, data in content.items():
            cut[planned.offset_of(name) : planned.offset_of(name) + len(data)] = data
        assert cut == whole


def test_a_plan_of_very_large_members_needs_no_memory() -> None:
    planned = PayloadPlan(
        [Member("oci-layout", 30), Member("index.json", 30), Member("blobs/sha256/" + "a" * 64, 2**42)]
    )
    assert planned.offset_of("blobs/sha256/" + "a" * 64) == 4 * 512 + 3 * 512
    assert planned.size == 7 * 512 + 2**42 + 1024


def test_a_bundle_is_a_tar_that_other_tools_list(tmp_path: Path) -> None:
    path = tmp_path / "x"
    Recipe().write(path)
    with tarfile.open(path) as archive:
        assert archive.getnames() == [
            "airlift.json",
            "keys.json",
            "roots.json",
            "volume.json",
            "tree",
            "payload",
            "attest",
        ]

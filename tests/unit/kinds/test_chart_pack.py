from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from airlift import digest
from airlift.errors import ResolveError
from airlift.kinds import chart_ignore, chart_pack, charts


def _write(root: Path, files: dict[str, str]) -> Path:
    for path, content in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    return root


_MINIMAL = {"Chart.yaml": "apiVersion: v2\nname: site\nversion: 1.0.0\n", "values.yaml": "a: 1\n"}


def test_the_same_directory_gives_the_same_bytes_whatever_the_disk_says(tmp_path: Path) -> None:
    one = _write(tmp_path / "one", {**_MINIMAL, "templates/a.yaml": "x"})
    two = _write(tmp_path / "two", {"templates/a.yaml": "x", **_MINIMAL})
    os.utime(two / "values.yaml", (1, 1))
    (two / "values.yaml").chmod(0o600)
    (two / "templates").chmod(0o711)
    first, second = (chart_pack.pack("site", chart_pack.read_directory(d, subject="x")) for d in (one, two))
    assert first == second
    assert charts.read_archive(first, subject="x").name == "site"


def test_the_archive_is_plain_gzip_and_tar_without_owner_time_or_mode(tmp_path: Path) -> None:
    data = chart_pack.pack("site", chart_pack.read_directory(_write(tmp_path, _MINIMAL), subject="x"))
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == ["site/Chart.yaml", "site/values.yaml"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}


@pytest.mark.parametrize("size", [0, 1, 65534, 65535, 65536, 131070, 131071])
def test_stored_blocks_end_exactly_where_they_should(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    packed = chart_pack.stored_gzip(data[:size])
    assert gzip.decompress(packed) == data[:size]
    assert len(packed) == 18 + size + 5 * max(1, -(-size // 65535))


def test_the_bytes_of_a_packed_chart_are_pinned(tmp_path: Path) -> None:
    data = chart_pack.pack("site", chart_pack.read_directory(_write(tmp_path, _MINIMAL), subject="x"))
    # A change here changes the digest of every chart directory in every lock.
    assert digest.of(data) == "sha256:0229d376ab4f78f5cd9e076f23ff1d0f0e74b3476a708628f2099b320b0732f2"


def test_helmignore_leaves_files_and_folders_out(tmp_path: Path) -> None:
    files = {
        **_MINIMAL,
        ".helmignore": "# comment\n*.swp\n.git/\n/docs\nci/*.txt\n",
        "a.swp": "",
        "templates/b.swp": "",
        ".git/config": "",
        "docs/readme.md": "",
        "sub/docs/kept.md": "",
        "ci/x.txt": "",
        "ci/deep/x.txt": "",
        "templates/.hidden": "",
        ".kept": "",
    }
    found = chart_pack.read_directory(_write(tmp_path, files), subject="x")
    assert sorted(found) == [
        ".helmignore",
        ".kept",
        "Chart.yaml",
        "ci/deep/x.txt",
        "sub/docs/kept.md",
        "values.yaml",
    ]


@pytest.mark.parametrize(
    ("rule", "path", "is_folder", "ignored"),
    [
        ("*.txt", "a/b.txt", False, True),
        ("/*.txt", "a/b.txt", False, False),
        ("a/*.txt", "a/b.txt", False, True),
        ("a/", "a", True, True),
        ("a/", "a", False, False),
        ("a?c", "abc", False, True),
        ("a?c", "a/c", False, False),
        ("[a-c].yaml", "b.yaml", False, True),
        ("[^a-c].yaml", "b.yaml", False, False),
        (r"\*.x", "*.x", False, True),
        (r"\*.x", "a.x", False, False),
        ("!keep", "other", False, True),
        ("!keep", "keep", False, False),
        ("a.b", "aXb", False, False),
        ("file", "file\n", False, False),
    ],
)
def test_patterns_mean_what_they_mean_to_helm(rule: str, path: str, is_folder: bool, ignored: bool) -> None:
    assert chart_ignore.parse(rule, subject="x").ignores(path, is_folder=is_folder) is ignored


@pytest.mark.parametrize(
    ("rule", "said"), [("a/**/b", "does not know **"), ("[a", "is not a pattern"), ("[]", "is not a")]
)
def test_a_rule_that_helm_refuses_is_refused(rule: str, said: str) -> None:
    with pytest.raises(ResolveError) as caught:
        chart_ignore.parse(rule, subject="x/.helmignore")
    assert said in str(caught.value)


def test_a_link_inside_is_followed_and_one_that_leads_out_is_refused(tmp_path: Path) -> None:
    root = _write(tmp_path / "chart", _MINIMAL)
    (root / "same.yaml").symlink_to("values.yaml")
    assert chart_pack.read_directory(root, subject="x")["same.yaml"] == b"a: 1\n"
    (tmp_path / "secret").write_text("s")
    (root / "out.yaml").symlink_to("../secret")
    with pytest.raises(ResolveError, match=r"x/out.yaml: a link to what is no file of the chart \(../secret\)"):
        chart_pack.read_directory(root, subject="x")


def test_a_pipe_a_large_file_and_a_directory_that_is_no_chart_are_refused(tmp_path: Path) -> None:
    root = _write(tmp_path / "chart", _MINIMAL)
    os.mkfifo(root / "pipe")
    with pytest.raises(ResolveError, match="x/pipe: neither a file nor a directory"):
        chart_pack.read_directory(root, subject="x")
    (root / "pipe").unlink()
    (root / "big").write_bytes(bytes(5 * 1024 * 1024 + 1))
    with pytest.raises(ResolveError, match="x/big: larger than 5242880 bytes, which Helm does not load"):
        chart_pack.read_directory(root, subject="x")
    with pytest.raises(ResolveError, match="no chart is there"):
        chart_pack.read_directory(tmp_path, subject="x")


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    root = _write(tmp_path, _MINIMAL)
    (root / os.fsdecode(b"bad\xff.txt")).write_text("")
    with pytest.raises(ResolveError, match="not UTF-8"):
        chart_pack.pack("site", chart_pack.read_directory(root, subject="x"))

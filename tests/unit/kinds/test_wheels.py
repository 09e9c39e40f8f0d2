from __future__ import annotations

import io
import json
import struct
import zipfile

import pytest

from airlift import digest as digests
from airlift import limits, oci
from airlift.artifact import PYTHON_TYPE
from airlift.errors import IntegrityError
from airlift.kinds.wheels import (
    DistributionFile,
    check_members,
    normalise,
    parse_filename,
    parse_manifest,
    parse_metadata,
    read_metadata,
    set_index,
)
from tests.support.indexes import make_wheel, metadata_of, wheel_name, zip_of

NAME = parse_filename("acme-1.0-py3-none-any.whl")


def test_all_spellings_of_a_project_are_one() -> None:
    assert {normalise(text) for text in ("acme.plug_in", "Acme_Plug-In", "acme--plug.-in")} == {"acme-plug-in"}


def test_a_file_name_with_a_local_version_is_kept_as_it_came() -> None:
    name = parse_filename("Acme_Torch-2.1.0+cpu-cp312-cp312-manylinux_2_28_x86_64.whl")
    assert name.project == "acme-torch"
    assert str(name.version) == "2.1.0+cpu"
    assert name.filename == "Acme_Torch-2.1.0+cpu-cp312-cp312-manylinux_2_28_x86_64.whl"


@pytest.mark.parametrize(
    "name",
    ["../acme-1.0-py3-none-any.whl", "acme-1.0.tar.gz", "acme-1.0-py3-none-any.whl\n", "acme-x-y-py3-none-any.whl", "",
     "a/b-1.0-py3-none-any.whl", "acme-1.0-py3-none-any.WHL", "x" * 2000 + "-1.0-py3-none-any.whl", ".whl",
     "C:acme-1.0-py3-none-any.whl"],
)  # fmt: skip
def test_what_is_no_name_of_a_wheel_is_refused(name: str) -> None:
    with pytest.raises(IntegrityError, match="expected the name of a wheel"):
        parse_filename(name)


def test_metadata_is_read_out_of_a_wheel() -> None:
    data = make_wheel(
        "acme", "1.0", requires=["numpy>=2; python_version < '3.13'"], python=">=3.9", more=["License-Expression: MIT"]
    )
    text = read_metadata(io.BytesIO(data), wheel=NAME)
    said = parse_metadata(text, wheel=NAME)
    assert (said.project, said.version, said.requires_python, said.licence) == ("acme", "1.0", ">=3.9", "MIT")
    assert [str(item) for item in said.requires_dist] == ['numpy>=2; python_version < "3.13"']


def test_a_long_licence_text_is_not_a_licence_name() -> None:
    assert parse_metadata(metadata_of("acme", "1.0", more=["License: BSD"]), wheel=NAME).licence == "BSD"
    assert parse_metadata(metadata_of("acme", "1.0", more=["License: " + "x" * 500]), wheel=NAME).licence is None


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("acme-1.0.dist-info/METADATA", b"x"), ("../evil", b"")], "expected names inside the wheel, got '../evil'"),
        ([("/etc/passwd", b"")], "expected names inside the wheel, got '/etc/passwd'"),
        ([("a/../../b", b"")], "expected names inside the wheel, got 'a/../../b'"),
        ([("a//b", b"")], "expected names inside the wheel, got 'a//b'"),
        ([("C:/x", b"")], "expected names inside the wheel, got 'C:/x'"),
        ([("a\\b", b"")], r"expected names inside the wheel, got 'a\\\\b'"),
        ([("acme/Data", b""), ("acme/data", b"")],
         "expected names that differ in more than case, got 'acme/Data' and 'acme/data'"),
        ([("Acme/x", b""), ("acme/y", b"")], "expected names that differ in more than case, got 'Acme' and 'acme'"),
        ([("acme/x.py", b"")], "expected exactly one METADATA, its own, got none"),
        ([("other-1.0.dist-info/METADATA", b"")],
         "expected exactly one METADATA, its own, got other-1.0.dist-info/METADATA"),
        ([("acme-1.0.dist-info/METADATA", b""), ("other-1.0.dist-info/METADATA", b"")],
         "expected exactly one METADATA, its own, got acme-1.0.dist-info/METADATA, other-1.0.dist-info/METADATA"),
        ([("acme-1.0.dist-info/METADATA", bytes(limits.SMALL_BLOB + 1))],
         f"expected METADATA of at most {limits.SMALL_BLOB} bytes, got {limits.SMALL_BLOB + 1} bytes"),
    ],
)  # fmt: skip
def test_a_bad_wheel_is_refused(members: list[tuple[str, bytes]], message: str) -> None:
    with pytest.raises(IntegrityError, match=f"^acme-1.0-py3-none-any.whl: {message}$".replace("+", r"\+")):
        read_metadata(io.BytesIO(zip_of(members)), wheel=NAME)


def test_a_name_that_is_there_twice_is_refused() -> None:
    with pytest.raises(IntegrityError, match="expected every name once, got 'a' twice"):
        check_members(["a", "a"], subject="x.whl")


def test_folders_and_their_content_are_no_collision() -> None:
    check_members(["a/", "a/b/", "a/b/c", "ab", "ab.py"], subject="x.whl")


def test_too_many_members_are_refused() -> None:
    with pytest.raises(IntegrityError, match="expected at most 100000 members, got 100001 members"):
        check_members([str(n) for n in range(limits.ARCHIVE_MEMBERS + 1)], subject="x.whl")


def test_a_bomb_that_lies_about_its_size_is_stopped_while_it_unpacks() -> None:
    data = bytearray(zip_of([("acme-1.0.dist-info/METADATA", bytes(64 * limits.MIB))]))
    assert len(data) < limits.MIB
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        start = archive.start_dir
    struct.pack_into("<I", data, start + 24, 100)  # uncompressed size in the directory
    with pytest.raises(IntegrityError, match=r"acme-1.0-py3-none-any.whl: expected"):
        read_metadata(io.BytesIO(bytes(data)), wheel=NAME)


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip archive at all", make_wheel("acme", "1.0")[:-10]])
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"expected a wheel \(zip archive\)"):
        read_metadata(io.BytesIO(data), wheel=NAME)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (metadata_of("other", "1.0"), "METADATA of acme-1.0-py3-none-any.whl: expected acme 1.0, got other 1.0"),
        (metadata_of("acme", "2.0"), "METADATA of acme-1.0-py3-none-any.whl: expected acme 1.0, got acme 2.0"),
        (b"", "METADATA of acme-1.0-py3-none-any.whl: expected acme 1.0, got  "),
        (metadata_of("acme", "1.0", python="three"), "METADATA of acme-1.0-py3-none-any.whl: expected valid"),
        (metadata_of("acme", "1.0", requires=["num py>"]), "METADATA of acme-1.0-py3-none-any.whl: expected valid"),
    ],
)
def test_metadata_of_something_else_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse_metadata(data, wheel=NAME)
    assert caught.value.message.startswith(message)


def test_an_equal_version_in_another_spelling_is_the_same() -> None:
    assert parse_metadata(metadata_of("Acme", "1.0.0"), wheel=NAME).version == "1.0.0"


def _file(name: str = "acme-1.0-py3-none-any.whl", **more: str) -> DistributionFile:
    return DistributionFile(parse_filename(name), digests.of(b"wheel"), 5, digests.of(b"meta"), 4, **more)


def test_a_manifest_says_what_is_known_and_reads_back() -> None:
    file = _file(requires_python=">=3.9", yanked="", upload_time="2026-01-01T00:00:00Z", sdist_built="a@sha256:b")
    data = file.manifest()
    value = json.loads(data)
    assert value["artifactType"] == PYTHON_TYPE
    assert value["annotations"]["org.opencontainers.image.title"] == "acme-1.0-py3-none-any.whl"
    assert value["annotations"]["io.airlift.python.yanked"] == ""
    assert parse_manifest(data, subject="m") == file
    assert parse_manifest(_file().manifest(), subject="m") == _file()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("org.opencontainers.image.title", "../x"),
        ("io.airlift.python.project", "other"),
        ("io.airlift.python.version", "2.0"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(key: str, value: str) -> None:
    body = json.loads(_file().manifest())
    body["annotations"][key] = value
    with pytest.raises(IntegrityError):
        parse_manifest(json.dumps(body).encode(), subject="m")


def test_the_index_of_a_set_names_every_manifest() -> None:
    manifests = [_file().manifest(), _file(wheel_name("b", "2")).manifest()]
    parsed = oci.parse_manifest(set_index(manifests), subject="set")
    assert [item.digest for item in parsed.manifests] == [digests.of(data) for data in manifests]
    assert {item.artifact_type for item in parsed.manifests} == {PYTHON_TYPE}

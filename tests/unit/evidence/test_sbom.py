"""The SBOM: right by its schema, complete, and the same for the same lock."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from airlift import canonical, digest, oci
from airlift.artifact import Artifact, Kind
from airlift.errors import ResolveError
from airlift.evidence.sbom import sbom
from airlift.lock import Component, Lock, LockedArtifact, LockedEntry

REDIS = Component("pkg:oci/redis@sha256:aaa?tag=7.4", "container", "redis", "7.4", digest.of(b"redis"))
NUMPY = Component("pkg:pypi/numpy@2.3.0", "library", "numpy", "2.3.0", digest.of(b"numpy-amd64"), "BSD-3-Clause")
NUMPY_ARM = replace(NUMPY, digest=digest.of(b"numpy-arm64"), licence=None)
PANDAS = Component(
    "pkg:pypi/pandas@3.0.0", "library", "pandas", "3.0.0", digest.of(b"pandas"), "Their own words", (NUMPY.purl,)
)
CHART = Component(
    "pkg:helm/site@1.0.0", "application", "site", "1.0.0", digest.of(b"chart"), None, (REDIS.purl, "pkg:x/y@1")
)
MODEL = Component(
    "pkg:huggingface/org/detector@" + "a" * 40, "machine-learning-model", "org/detector", "a" * 40, None, "apache-2.0"
)
FILE = Component("pkg:generic/k3s@1", "file", "k3s", "1", digest.of(b"k3s"), "MIT OR Apache-2.0")


def entry(kind: Kind, name: str, source: str, *components: Component) -> LockedEntry:
    root = oci.describe(name.encode(), oci.MANIFEST)
    return LockedEntry(kind, name, {}, source, (LockedArtifact(Artifact(kind, f"{name}:1", root), (), ()),), components)


LOCK = Lock(
    "vision",
    "stable",
    {"residency.region": "eu"},
    ("linux/amd64",),
    (
        entry(Kind.IMAGE, "docker.io/library/redis", "docker.io", REDIS),
        entry(Kind.WHEELS, "python/amd", "pypi", NUMPY, PANDAS),
        entry(Kind.WHEELS, "python/arm", "pypi", NUMPY_ARM),
        entry(Kind.CHART, "charts/site", "local", CHART),
        entry(Kind.MODEL, "models/org/detector", "huggingface.co", MODEL),
        entry(Kind.FILE, "files/k3s", "example.com", FILE),
    ),
)


def read(lock: Lock = LOCK, *, issued: dt.datetime | None = None) -> dict[str, Any]:
    data = sbom(lock, issued=issued, tool_version="1.2.3")
    value: dict[str, Any] = json.loads(data)
    assert canonical.encode(value) == data
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode()) is None
    return value


def test_it_follows_the_schema_and_names_the_drop_by_its_content() -> None:
    value = read()
    content_id = LOCK.layout().content_id
    assert (value["bomFormat"], value["specVersion"], value["version"]) == ("CycloneDX", "1.6", 1)
    drop = value["metadata"]["component"]
    assert (drop["name"], drop["version"]) == ("vision", content_id)
    assert {item["name"]: item["value"] for item in drop["properties"]} == {
        "airlift:channel": "stable",
        "airlift:label:residency.region": "eu",
    }
    assert value["metadata"]["tools"]["components"][0]["version"] == "1.2.3"


def test_every_kind_is_there_with_digest_and_licence() -> None:
    components = {item["purl"]: item for item in read()["components"]}
    assert {item["type"] for item in components.values()} == {
        "container", "library", "application", "machine-learning-model", "file",
    }  # fmt: skip
    assert len(components) == 6
    redis = components[REDIS.purl]
    assert redis["hashes"] == [{"alg": "SHA-256", "content": digest.hex_of(digest.of(b"redis"))}]
    assert components[MODEL.purl]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert components[FILE.purl]["licenses"] == [{"expression": "MIT OR Apache-2.0"}]
    assert components[PANDAS.purl]["licenses"] == [{"license": {"name": "Their own words"}}]


def test_several_files_of_one_version_are_one_component_with_all_digests() -> None:
    numpy = next(item for item in read()["components"] if item["purl"] == NUMPY.purl)
    assert "hashes" not in numpy
    listed = [item["value"] for item in numpy["properties"] if item["name"] == "airlift:digest"]
    assert listed == sorted([digest.of(b"numpy-amd64"), digest.of(b"numpy-arm64")])
    assert numpy["licenses"] == [{"license": {"id": "BSD-3-Clause"}}]


def test_dependencies_are_a_graph_of_what_is_in_the_drop() -> None:
    graph = {item["ref"]: item.get("dependsOn", []) for item in read()["dependencies"]}
    assert graph[PANDAS.purl] == [NUMPY.purl]
    assert graph[CHART.purl] == [REDIS.purl]
    assert len(graph[f"urn:airlift:drop:{LOCK.layout().content_id}"]) == 6


def test_the_same_lock_gives_the_same_bytes_in_another_process() -> None:
    first = sbom(LOCK, issued=None, tool_version="1.2.3")
    program = (
        "import sys; from airlift.evidence.sbom import sbom; from airlift import lock; "
        "sys.stdout.buffer.write(sbom(lock.decode(sys.stdin.buffer.read(), subject='lock'), issued=None, "
        "tool_version='1.2.3'))"
    )
    for seed in ("1", "2"):
        again = subprocess.run(
            [sys.executable, "-c", program],
            input=LOCK.encode(), capture_output=True, check=True, env={"PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert again.stdout == first


def test_a_time_is_there_only_when_it_is_given() -> None:
    assert "timestamp" not in read()["metadata"]
    issued = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
    assert read(issued=issued)["metadata"]["timestamp"] == "2026-03-01T12:00:00+00:00"


def test_the_serial_number_moves_with_the_content() -> None:
    other = replace(LOCK, entries=LOCK.entries[:-1])
    assert read()["serialNumber"] == read(issued=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))["serialNumber"]
    assert read(other)["serialNumber"] != read()["serialNumber"]


def test_a_drop_of_nothing_is_a_right_document() -> None:
    assert read(replace(LOCK, entries=())).get("components", []) == []


@pytest.mark.parametrize("component", [replace(FILE, purl="k3s"), replace(FILE, type="program")])
def test_a_component_that_is_none_is_named(component: Component) -> None:
    lock = replace(LOCK, entries=(entry(Kind.FILE, "files/k3s", "local", component),))
    with pytest.raises(ResolveError, match=f"component '{component.purl}' of the lock"):
        sbom(lock, issued=None, tool_version="1")


def test_it_loads_nothing_that_could_reach_a_network() -> None:
    program = (
        "import sys; import airlift.evidence.sbom; "
        "print([n for n in ('requests', 'urllib3', 'aiohttp', 'socket', 'ssl') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert found.stdout == "[]\n"

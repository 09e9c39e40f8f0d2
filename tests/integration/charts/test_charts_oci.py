from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from airlift import digest
from airlift.connected.source import Settings
from airlift.connected.sources.charts import ChartSource
from airlift.errors import FetchError, IntegrityError, ResolveError
from airlift.kinds import charts
from airlift.lock import LockedEntry
from airlift.manifest import Chart
from tests.components import require
from tests.support.chart_servers import helm
from tests.support.charts import chart, pod
from tests.support.registry import running_registry
from tests.support.sources import Taken, settings


@dataclass
class Setting:
    settings: Settings
    registry: str
    folder: Path

    def push(self, name: str, version: str, **more: str) -> bytes:
        data = chart(name, version, {"templates/p.yaml": pod("redis:7"), **more})
        place = self.folder / f"{name}-{version}.tgz"
        place.write_bytes(data)
        helm("push", place, f"oci://{self.registry}/org", "--plain-http")
        return data

    def resolve(self, **request: str) -> LockedEntry:
        return ChartSource(self.settings).resolve(Chart.model_validate(request), None)

    def version(self, wanted: str) -> str:
        entry = self.resolve(ref=f"oci://{self.registry}/org/app", version=wanted)
        return str(entry.artifacts[0].artifact.facts["version"])


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Setting]:
    require("helm")
    with running_registry(tmp_path / "registry") as registry:
        yield Setting(settings(tmp_path, environment={"PATH": os.environ["PATH"]}), registry.host, tmp_path)


def test_a_chart_of_a_registry_keeps_its_manifest_and_all_bytes(here: Setting) -> None:
    data = here.push("app", "1.2.3+b1")
    entry = here.resolve(ref=f"oci://{here.registry}/org/app:1.2.3+b1")
    item = entry.artifacts[0]
    assert entry.name == f"oci://{here.registry}/org/app:1.2.3+b1"
    assert entry.source == here.registry
    assert item.artifact.name == f"{here.registry}/org/app:1.2.3_b1"
    url = f"http://{here.registry}/v2/org/app/manifests/1.2.3_b1"
    published = requests.get(url, headers={"Accept": "application/vnd.oci.image.manifest.v1+json"}, timeout=10).content
    assert item.artifact.root.digest == digest.of(published)
    assert item.large[0].digest == digest.of(data)
    for blob in (*item.small, *item.large):
        sink = Taken()
        ChartSource(here.settings).fetch(entry, blob, sink)
        assert digest.of(bytes(sink.data)) == blob.digest
    assert [image["image"] for image in item.artifact.facts["images"]] == ["docker.io/library/redis:7"]
    by_digest = here.resolve(ref=f"oci://{here.registry}/org/app@{digest.of(published)}").artifacts[0]
    assert by_digest.artifact.root == item.artifact.root
    both = here.resolve(ref=f"oci://{here.registry}/org/app:1.2.3+b1@{digest.of(published)}").artifacts[0]
    assert both.artifact.name == item.artifact.name


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("^1.0.0", "v1.5.0"), (">=1", "2.0.0"), (">=1-0", "3.0.0-rc.1"), ("1.3.0", "1.3.0"), ("1.0.0+b2", "1.0.0+b2")],
)
def test_a_range_picks_what_it_picks_over_http(here: Setting, wanted: str, found: str) -> None:
    for version in ("1.0.0+b1", "1.0.0+b2", "1.3.0", "v1.5.0", "2.0.0", "3.0.0-rc.1"):
        here.push("app", version)
    assert here.version(wanted) == found


def test_all_pages_of_the_tags_are_read_and_odd_tags_are_named(here: Setting) -> None:
    here.push("app", "1.0.0")
    # Where docker-registry has them: 1,200 requests would take half a minute.
    tags = here.folder / "registry/data/docker/registry/v2/repositories/org/app/_manifests/tags"
    link = (tags / "1.0.0/current/link").read_bytes()
    for tag in ["latest", *(f"0.{number}.0" for number in range(1200))]:
        (tags / tag / "current").mkdir(parents=True)
        (tags / tag / "current/link").write_bytes(link)
    entry = here.resolve(ref=f"oci://{here.registry}/org/app", version="<1")
    assert entry.artifacts[0].artifact.name == f"{here.registry}/org/app:0.1199.0"
    assert here.resolve(ref=f"oci://{here.registry}/org/app").artifacts[0].artifact.name.endswith("/app:1.0.0")
    with pytest.raises(ResolveError, match=r"no version is inside '>=2'; there are 1.0.0, .*; not versions: latest"):
        here.version(">=2")


def test_a_signature_is_kept_as_a_layer(here: Setting) -> None:
    data = chart("app", "1.0.0")
    (here.folder / "app-1.0.0.tgz").write_bytes(data)
    (here.folder / "app-1.0.0.tgz.prov").write_text("-----BEGIN PGP SIGNED MESSAGE-----\n")
    helm("push", here.folder / "app-1.0.0.tgz", f"oci://{here.registry}/org", "--plain-http")
    item = here.resolve(ref=f"oci://{here.registry}/org/app:1.0.0").artifacts[0]
    assert {blob.media_type for blob in item.large} == {charts.CHART_LAYER, charts.PROVENANCE_LAYER}


def test_what_is_not_there_or_no_chart_is_said(here: Setting) -> None:
    with pytest.raises(FetchError, match="org/gone"):
        here.resolve(ref=f"oci://{here.registry}/org/gone:1.0.0")
    here.push("app", "1.0.0")
    with pytest.raises(FetchError, match=r"org/app:9\.0\.0"):
        here.resolve(ref=f"oci://{here.registry}/org/app:9.0.0")
    with pytest.raises(ResolveError, match="it has a version, and"):
        here.resolve(ref=f"oci://{here.registry}/org/app:1.0.0", version="^1")
    layout = here.folder / "layout"
    layout.mkdir()
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def put(data: bytes, kind: str) -> dict[str, object]:
        (blobs / digest.hex_of(digest.of(data))).write_bytes(data)
        return {"mediaType": kind, "digest": digest.of(data), "size": len(data)}

    manifest = {"schemaVersion": 2, "config": put(config, "application/vnd.oci.image.config.v1+json"), "layers": []}
    entry = put(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    skopeo = require("skopeo")
    arguments = ["copy", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{here.registry}/org/image:1.0.0"]
    subprocess.run([str(skopeo), "--insecure-policy", *arguments], check=True, capture_output=True, timeout=60)
    with pytest.raises(IntegrityError, match="expected a Helm chart"):
        here.resolve(ref=f"oci://{here.registry}/org/image:1.0.0")


def _put(registry: str, repository: str, data: bytes) -> dict[str, object]:
    start = requests.post(f"http://{registry}/v2/{repository}/blobs/uploads/", timeout=10)
    headers = {"Content-Type": "application/octet-stream"}
    place = start.headers["Location"]
    requests.put(place, params={"digest": digest.of(data)}, data=data, headers=headers, timeout=10).raise_for_status()
    return {"mediaType": "application/octet-stream", "digest": digest.of(data), "size": len(data)}


def _put_manifest(registry: str, repository: str, tag: str, manifest: dict[str, object]) -> str:
    data = json.dumps(manifest).encode()
    headers = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
    url = f"http://{registry}/v2/{repository}/manifests/{tag}"
    requests.put(url, data=data, headers=headers, timeout=10).raise_for_status()
    return digest.of(data)


def test_the_signature_of_a_chart_is_carried_with_it(here: Setting) -> None:
    here.push("app", "1.0.0")
    root = here.resolve(ref=f"oci://{here.registry}/org/app:1.0.0").artifacts[0].artifact.root
    config = _put(here.registry, "org/app", b"{}") | {"mediaType": "application/vnd.oci.image.config.v1+json"}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config}
    tag = f"sha256-{digest.hex_of(root.digest)}.sig"
    signature = _put_manifest(
        here.registry, "org/app", tag, {**manifest, "layers": [_put(here.registry, "org/app", b"s")]}
    )
    entry = here.resolve(ref=f"oci://{here.registry}/org/app:1.0.0")
    own, signed = entry.artifacts
    assert (own.artifact.kind.value, own.artifact.facts["name"]) == ("chart", "app")
    assert (signed.artifact.kind.value, signed.artifact.name) == ("image", f"{here.registry}/org/app:{tag}")
    assert signed.artifact.root.digest == signature
    sink = Taken()
    ChartSource(here.settings).fetch(entry, signed.large[0], sink)
    assert bytes(sink.data) == b"s"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (b'{"apiVersion":"v2","name":"other","version":"1.0.0"}', "expected app 1.0.0, as in the archive, got other"),
        (b"{}", "config, apiVersion"),
        (b"", "config: expected JSON"),
    ],
)
def test_a_config_that_does_not_speak_of_its_chart_is_refused(here: Setting, config: bytes, said: str) -> None:
    layer = _put(here.registry, "org/odd", chart("app", "1.0.0")) | {"mediaType": charts.CHART_LAYER}
    kind = "application/vnd.cncf.helm.config.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _put(here.registry, "org/odd", config) | {"mediaType": kind},
        "layers": [layer],
    }
    _put_manifest(here.registry, "org/odd", "1.0.0", manifest)
    with pytest.raises(IntegrityError) as caught:
        here.resolve(ref=f"oci://{here.registry}/org/odd:1.0.0")
    assert said in str(caught.value)

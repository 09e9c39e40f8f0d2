"""Images from real registries and layouts: what is pinned, what is carried, what is refused."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from airlift import digest as digests
from airlift import oci
from airlift.connected.layouts import Layout
from airlift.connected.source import Settings
from airlift.connected.sources.images import ImageSource
from airlift.errors import FetchError, IntegrityError, ResolveError
from airlift.lock import LockedArtifact, LockedBlob, LockedEntry
from airlift.manifest import Image
from airlift.oci import Descriptor
from airlift.transport.http import HttpSettings
from tests.support.folders import SharedFolder
from tests.support.images import Box, skopeo
from tests.support.registry import Fault, Registry, cut, lie, running_front, running_registry
from tests.support.sources import Taken


@dataclass
class Heard:
    warnings: list[str] = field(default_factory=list)

    def start(self, label: str, total: int, *, unit: str = "B") -> None: ...
    def advance(self, amount: int) -> None: ...
    def finish(self) -> None: ...
    def note(self, message: str) -> None: ...
    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture(scope="module")
def registry(shared_folder: SharedFolder) -> Iterator[Registry]:
    with running_registry(shared_folder("registry"), secure=True) as running:
        yield running


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "box")


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def settings(tmp_path: Path, registry: Registry, heard: Heard) -> Settings:
    return Settings(
        base=tmp_path,
        work=tmp_path,
        cache=None,
        platforms=("linux/amd64",),
        http=HttpSettings(ca_bundle=registry.ca, retries=1),
        docker_config=registry.docker_config(),
        progress=heard,
    )


def resolve(settings: Settings, ref: str, **more: Any) -> LockedEntry:
    return ImageSource(settings).resolve(Image.model_validate({"ref": ref, **more}), None)


def names(entry: LockedEntry) -> list[str]:
    return [item.artifact.name for item in entry.artifacts]


def blobs(item: LockedArtifact) -> list[LockedBlob]:
    return [*item.small, *item.large]


def fetched(settings: Settings, entry: LockedEntry) -> dict[str, bytes]:
    """Get every blob, as the builder would, and check it."""
    source = ImageSource(settings)
    found = {}
    for item in entry.artifacts:
        for blob in blobs(item):
            memory = Taken()
            if blob.text is None:
                source.fetch(entry, blob, memory)
            else:
                memory.write(blob.text.encode())
            assert (digests.of(memory.data), memory.written) == (blob.digest, blob.size)
            found[blob.digest] = bytes(memory.data)
    return found


def test_an_index_is_carried_whole_when_all_of_it_is_wanted(registry: Registry, box: Box, settings: Settings) -> None:
    amd, arm = box.image(platform="linux/amd64"), box.image(platform="linux/arm64/v8", text="arm")
    index = box.index("1", [amd, arm, box.attestation(amd), box.attestation(arm)])
    box.push(registry, "whole/app")
    for wanted in ("all", ["linux/amd64", "linux/arm64"]):
        entry = resolve(settings, f"{registry.host}/whole/app:1", platforms=wanted)
        (item,) = entry.artifacts
        assert item.artifact.root.digest == index.digest
        assert item.small[0].digest == index.digest
        assert [b.media_type for b in item.small] == [oci.INDEX, *[oci.MANIFEST, oci.CONFIG] * 4]
        assert fetched(settings, entry)[index.digest] == box.bytes(index.digest)
        assert entry.source == registry.host


def test_one_platform_of_an_index_is_its_own_manifest(
    registry: Registry, box: Box, settings: Settings, heard: Heard
) -> None:
    amd, arm = box.image(platform="linux/amd64"), box.image(platform="linux/arm64/v8", text="arm")
    attestation = box.attestation(amd)
    index = box.index("1", [amd, arm, attestation, box.attestation(arm)])
    box.signature(index, "x")
    box.push(registry, "one/app")
    entry = resolve(settings, f"{registry.host}/one/app:1")
    name = f"{registry.host}/one/app"
    assert names(entry) == [f"{name}:1", f"{name}@{attestation.digest}"]
    assert entry.artifacts[0].artifact.root.digest == amd.digest
    assert index.digest not in fetched(settings, entry)
    (warning,) = heard.warnings
    assert warning == (
        f"{name}:1: what signs or describes its whole index is not carried, since only some of its platforms are; "
        "ask for `platforms: all` to have it"
    )


def test_some_platforms_of_an_index_get_an_index_of_their_own(registry: Registry, box: Box, settings: Settings) -> None:
    parts = [box.image(platform=name, text=name) for name in ("linux/amd64", "linux/arm64/v8", "linux/s390x")]
    attested = [box.attestation(part) for part in parts]
    index = box.index("1", [*parts, *attested])
    box.push(registry, "some/app")
    entry = resolve(settings, f"{registry.host}/some/app:1", platforms=["linux/s390x", "linux/amd64"])
    content = fetched(settings, entry)
    made = json.loads(content[entry.artifacts[0].artifact.root.digest])
    carried = [parts[0], parts[2], attested[0], attested[2]]
    assert [item["digest"] for item in made["manifests"]] == [item.digest for item in carried]
    assert made["annotations"] == {"io.airlift.image.narrowed-from": index.digest}
    assert parts[1].digest not in content
    again = resolve(settings, f"{registry.host}/some/app:1", platforms=["linux/amd64", "linux/s390x"])
    assert again == entry


def test_tag_and_digest_give_the_digest_and_not_where_the_tag_points_now(
    registry: Registry, box: Box, settings: Settings, heard: Heard
) -> None:
    old = box.multi("1")
    box.push(registry, "pin/app")
    new = box.image("1", text="moved")
    box.push(registry, "pin/app")
    ref = f"{registry.host}/pin/app:1@{old.digest}"
    entry = resolve(settings, ref)
    assert names(entry) == [f"{registry.host}/pin/app:1"]
    assert entry.artifacts[0].artifact.root.digest == old.digest
    assert new.digest not in fetched(settings, entry)
    assert heard.warnings == [f"{ref}: pinned by the digest of an index, so all its platforms are carried"]
    alone = resolve(settings, f"{registry.host}/pin/app@{old.digest}")
    assert names(alone) == [f"{registry.host}/pin/app@{old.digest}"]


def test_an_absent_digest_or_tag_is_refused(registry: Registry, box: Box, settings: Settings) -> None:
    box.image("1")
    box.push(registry, "absent/app")
    absent = digests.of(b"absent")
    ref = f"{registry.host}/absent/app:1@{absent}"
    with pytest.raises(ResolveError, match=f"^{ref}: {registry.host} does not have the digest {absent}"):
        resolve(settings, ref)
    with pytest.raises(ResolveError, match="does not have the tag 2"):
        resolve(settings, f"{registry.host}/absent/app:2")


@pytest.mark.parametrize("docker", [False, True])
def test_a_missing_platform_is_named_with_those_that_exist(
    registry: Registry, box: Box, settings: Settings, docker: bool
) -> None:
    box.multi("many", docker=docker)
    box.image("one", platform="linux/arm64/v8", docker=docker)
    box.push(registry, "missing/app")
    with pytest.raises(ResolveError) as caught:
        resolve(settings, f"{registry.host}/missing/app:many", platforms=["linux/s390x"])
    assert str(caught.value) == (
        f"{registry.host}/missing/app:many: no image for linux/s390x; there is linux/amd64, linux/arm64/v8"
    )
    with pytest.raises(ResolveError, match=r"app:one: no image for linux/amd64; there is linux/arm64/v8$"):
        resolve(settings, f"{registry.host}/missing/app:one")


def test_docker_manifests_stay_what_they_are(registry: Registry, box: Box, settings: Settings) -> None:
    index = box.multi("1", docker=True)
    box.push(registry, "docker/app")
    entry = resolve(settings, f"{registry.host}/docker/app:1", platforms="all")
    assert entry.artifacts[0].artifact.root.media_type == oci.DOCKER_LIST
    assert fetched(settings, entry)[index.digest] == box.bytes(index.digest)


def test_what_refers_to_an_image_is_carried_and_what_refers_to_that(
    registry: Registry, box: Box, settings: Settings
) -> None:
    image = box.image("1")
    sbom = box.artifact("application/spdx+json", b"{}", subject=image)
    signature = box.artifact("application/vnd.dev.sigstore.bundle.v0.3+json", b"sig", subject=sbom)
    for subject, item in ((image, sbom), (sbom, signature)):
        # docker-registry 2 has no referrers API, so it is the tag that says it.
        box.index(f"sha256-{subject.digest[7:]}", [item])
    for suffix in (".sig", ".att", ".sbom"):
        box.signature(image, f"x{suffix}", suffix)
    box.push(registry, "refer/app")
    entry = resolve(settings, f"{registry.host}/refer/app:1", **{"as": "site.example.com/a/b:2"})
    name = "site.example.com/a/b"
    tag = f"{name}:sha256-{image.digest[7:]}"
    assert names(entry) == [f"{name}:2", f"{name}@{sbom.digest}", f"{tag}.sig", f"{tag}.att", f"{tag}.sbom", f"{name}@{signature.digest}"]  # fmt: skip
    assert entry.artifacts[1].artifact.root.artifact_type == "application/spdx+json"
    fetched(settings, entry)


def test_what_refers_to_a_platform_is_carried(registry: Registry, box: Box, settings: Settings) -> None:
    amd = box.image(platform="linux/amd64")
    box.index("1", [amd, box.image(platform="linux/arm64/v8", text="arm")])
    box.signature(amd, "x")
    box.push(registry, "child/app")
    entry = resolve(settings, f"{registry.host}/child/app:1", platforms="all")
    assert names(entry)[1:] == [f"{registry.host}/child/app:sha256-{amd.digest[7:]}.sig"]


def test_a_second_resolve_is_the_same(registry: Registry, box: Box, settings: Settings) -> None:
    box.multi("1")
    box.push(registry, "same/app")
    ref = f"{registry.host}/same/app:1"
    assert resolve(settings, ref, platforms="all") == resolve(settings, ref, platforms="all")


def test_the_component_names_the_upstream(registry: Registry, box: Box, settings: Settings) -> None:
    image = box.image("1")
    box.push(registry, "sbom/app")
    (line,) = resolve(settings, f"{registry.host}/sbom/app:1", **{"as": "x.io/a:9"}).components
    assert (line.type, line.version, line.digest) == ("container", "1", image.digest)
    assert line.name == f"{registry.host}/sbom/app"


def test_a_login_that_is_missing_is_said(registry: Registry, settings: Settings) -> None:
    with pytest.raises(FetchError, match="answered 401 Unauthorized") as caught:
        resolve(replace(settings, docker_config={}), f"{registry.host}/x/y:1")
    assert "docker login" in (caught.value.hint or "")


def test_a_foreign_layer_comes_from_its_url(tmp_path: Path, box: Box, settings: Settings) -> None:
    data = b"foreign content" * 1000
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    with running_registry(tmp_path / "plain") as plain, running_front(plain) as elsewhere:
        elsewhere.faults.append(Fault(lambda handler: handler.answer(200, data), match="/layer"))
        config = box.put_json({"os": "linux", "architecture": "amd64"}, oci.CONFIG)
        foreign = Descriptor(kind, digests.of(data), len(data), urls=(f"{elsewhere.url}/layer",))
        value = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": config.to_json(),
            "layers": [foreign.to_json()],
        }
        image = box.put_json(value, oci.MANIFEST)
        with running_front(plain) as front:
            answers = {
                "/manifests/": (box.bytes(image.digest), oci.MANIFEST),
                config.digest: (box.bytes(config.digest), "application/octet-stream"),
            }

            def give(handler: Any) -> bool:
                for part, (body, content_type) in answers.items():
                    if part in handler.path and "sha256-" not in handler.path:
                        handler.answer(200, body, {"Content-Type": content_type})
                        return True
                return False

            front.faults.append(Fault(give))
            entry = resolve(settings, f"{front.host}/win/app:1")
            assert fetched(settings, entry)[foreign.digest] == data


def test_a_plain_registry_elsewhere_needs_to_be_allowed(settings: Settings) -> None:
    with pytest.raises(FetchError):
        resolve(replace(settings, http=HttpSettings(timeout_s=0.2, retries=0)), "192.0.2.1:5000/a/b:1")


def test_a_lying_registry_is_found_out_and_a_cut_is_resumed(tmp_path: Path, box: Box, settings: Settings) -> None:
    image = box.image("1")
    layer = oci.parse_manifest(box.bytes(image.digest), subject="x").layers[0]
    with running_registry(tmp_path / "plain") as plain, running_front(plain) as front:
        box.push(plain, "lie/app")
        entry = resolve(settings, f"{front.host}/lie/app:1")
        front.faults.append(cut(0.5, match=layer.digest, times=1))
        fetched(settings, entry)
        assert [item.range for item in front.asked if layer.digest in item.path] == [None, f"bytes={layer.size // 2}-"]
        front.faults[:] = [lie(lambda data: data.replace(b"linux", b"linus"), match="/blobs/")]
        with pytest.raises(IntegrityError, match="config: expected sha256:"):
            resolve(settings, f"{front.host}/lie/app:1")
        front.faults[:] = [lie(lambda data: data + b"\n", match="/manifests/1")]
        with pytest.raises(IntegrityError, match=f"^{front.host}/lie/app:1: expected {image.digest}, got sha256:"):
            resolve(settings, f"{front.host}/lie/app:1")


def test_indexes_that_nest_too_deep_are_refused(tmp_path: Path, box: Box, settings: Settings) -> None:
    item = box.image()
    for _ in range(12):
        item = box.index("deep", [item])
    for wanted in ("all", ["linux/amd64"]):
        with pytest.raises(IntegrityError, match="nested at most 8 deep"):
            resolve(settings, "oci-layout:box:deep", **{"as": "x.io/a:1", "platforms": wanted})


def test_an_index_in_an_index_is_carried_as_it_is(box: Box, settings: Settings) -> None:
    inner = box.multi("inner")
    outer = box.index("outer", [inner, box.image(platform="linux/s390x", text="z")])
    entry = resolve(settings, "oci-layout:box:outer", **{"as": "x.io/a:1", "platforms": "all"})
    assert entry.artifacts[0].artifact.root.digest == outer.digest
    fetched(settings, entry)
    entry = resolve(settings, "oci-layout:box:outer", **{"as": "x.io/a:1"})
    made = json.loads(entry.artifacts[0].small[0].text or "")
    assert [item["digest"] for item in made["manifests"]] == [inner.digest]


# Layouts


def test_an_image_of_a_layout_is_found_by_its_name(box: Box, settings: Settings) -> None:
    first, second = box.image("1.2"), box.image("docker.io/library/app:2", text="two")
    for ref, want in (
        ("oci-layout:./box:1.2", first),
        ("oci-layout:box:docker.io/library/app:2", second),
        ("oci-layout:box:2", second),
        (f"oci-layout:box@{first.digest}", first),
    ):
        entry = resolve(settings, ref, **{"as": "registry.example.com/a/app:1.2"})
        assert entry.artifacts[0].artifact.root.digest == want.digest
        assert (entry.name, entry.source) == ("registry.example.com/a/app:1.2", "local")
        fetched(settings, entry)


def test_a_layout_with_one_image_needs_no_name(box: Box, settings: Settings) -> None:
    image = box.image("only")
    entry = resolve(settings, "oci-layout:box", **{"as": "x.io/a:1"})
    assert entry.artifacts[0].artifact.root.digest == image.digest
    box.image("other", text="two")
    with pytest.raises(ResolveError, match="lists 2 images that answer; there is only, other"):
        resolve(settings, "oci-layout:box", **{"as": "x.io/a:1"})
    with pytest.raises(ResolveError, match="lists no such image; there is only, other"):
        resolve(settings, "oci-layout:box:third", **{"as": "x.io/a:1"})


def test_a_layout_of_many_images_is_read_once_and_not_once_for_each(
    box: Box, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        box.image(f"x.io/app{number}:1", text=str(number))
    read: Counter[str] = Counter()
    original = Layout.blob

    def counted(layout: Layout, blob: Descriptor) -> bytes:
        read[blob.digest] += 1
        return original(layout, blob)

    monkeypatch.setattr(Layout, "blob", counted)
    source = ImageSource(settings)
    for number in range(12):
        source.resolve(
            Image.model_validate({"ref": f"oci-layout:box:x.io/app{number}:1", "as": f"x.io/app{number}:1"}), None
        )
    assert max(read.values()) <= 2


def test_nothing_of_the_machine_is_noted(box: Box, settings: Settings, tmp_path: Path) -> None:
    box.image("1")
    entry = resolve(settings, "oci-layout:./box:1", **{"as": "x.io/a:1"})
    assert str(tmp_path) not in repr(entry)
    assert {blob.origin["path"] for blob in blobs(entry.artifacts[0])} == {"./box"}


def test_an_archive_is_read_like_a_layout(box: Box, settings: Settings, tmp_path: Path) -> None:
    image = box.image("1")
    skopeo("copy", f"oci:{box.path}:1", f"oci-archive:{tmp_path}/app.tar:1")
    entry = resolve(settings, "oci-layout:app.tar:1", **{"as": "x.io/a:1"})
    assert entry.artifacts[0].artifact.root.digest == image.digest
    fetched(settings, entry)
    (tmp_path / "no.tar").write_bytes(b"nothing" * 1000)
    with pytest.raises(ResolveError, match="not an uncompressed tar of an OCI layout"):
        resolve(settings, "oci-layout:no.tar:1", **{"as": "x.io/a:1"})


def test_a_layout_that_is_none_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ResolveError, match=r"^oci-layout:nowhere: there is no such file or directory$"):
        resolve(settings, "oci-layout:nowhere:1", **{"as": "x.io/a:1"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ResolveError, match="no file oci-layout, so not an OCI image layout"):
        resolve(settings, "oci-layout:empty:1", **{"as": "x.io/a:1"})


def test_a_layout_with_a_missing_or_damaged_part_is_refused(box: Box, settings: Settings) -> None:
    image = box.image("1")
    manifest = oci.parse_manifest(box.bytes(image.digest), subject="x")
    layer = box.store.path(manifest.layers[0].digest)
    data = layer.read_bytes()
    layer.write_bytes(data[:-1])
    with pytest.raises(IntegrityError, match=f"expected {len(data)} bytes, got {len(data) - 1} bytes"):
        resolve(settings, "oci-layout:box:1", **{"as": "x.io/a:1"})
    layer.unlink()
    with pytest.raises(ResolveError, match=f"{manifest.layers[0].digest} .* is not in the layout"):
        resolve(settings, "oci-layout:box:1", **{"as": "x.io/a:1"})
    layer.write_bytes(data)
    config = box.store.path(manifest.layers[0].digest if manifest.config is None else manifest.config.digest)
    config.write_bytes(config.read_bytes().replace(b"linux", b"linus"))
    with pytest.raises(IntegrityError, match="expected sha256:"):
        resolve(settings, "oci-layout:box:1", **{"as": "x.io/a:1"})


def test_a_layout_that_went_away_is_said_at_build(box: Box, settings: Settings) -> None:
    box.image("1")
    entry = resolve(settings, "oci-layout:box:1", **{"as": "x.io/a:1"})
    shutil.rmtree(box.path / "blobs" / "sha256")
    (box.path / "blobs" / "sha256").mkdir()
    with pytest.raises(ResolveError, match="is not in the layout any more"):
        fetched(settings, entry)


def test_what_refers_to_an_image_of_a_layout_is_carried(box: Box, settings: Settings) -> None:
    image = box.image("1")
    sbom = box.artifact("application/spdx+json", b"{}", subject=image, name="sbom")
    box.signature(image, "x")
    entry = resolve(settings, "oci-layout:box:1", **{"as": "x.io/a:1"})
    assert names(entry) == ["x.io/a:1", f"x.io/a@{sbom.digest}", f"x.io/a:sha256-{image.digest[7:]}.sig"]


def test_a_fetch_goes_on_where_the_sink_is(box: Box, settings: Settings) -> None:
    box.image("1")
    entry = resolve(settings, "oci-layout:box:1", **{"as": "x.io/a:1"})
    layer = entry.artifacts[0].large[0]
    memory = Taken(box.bytes(layer.digest)[:1000])
    ImageSource(settings).fetch(entry, layer, memory)
    assert digests.of(memory.data) == layer.digest

"""What an image says about itself, and which parts of an index are wanted."""

from __future__ import annotations

import json

import pytest

from airlift import digest as digests
from airlift import oci, reference
from airlift.digest import Digest
from airlift.errors import IntegrityError, ResolveError
from airlift.kinds import images
from airlift.oci import Descriptor, Platform, parse_platform

A, B, C = (digests.of(text) for text in (b"a", b"b", b"c"))


def platforms(*names: str) -> dict[Digest, Platform]:
    return {digests.of(name.encode()): parse_platform(name) for name in names}


def chosen(available: dict[Digest, Platform], *wanted: str) -> list[str]:
    found = images.choose(available, [parse_platform(name) for name in wanted], subject="x.io/a:1")
    return [str(available[digest]) for digest in found]


def test_what_is_wanted_is_chosen_in_the_order_of_the_index() -> None:
    available = platforms("linux/amd64", "linux/arm64/v8", "linux/s390x")
    assert chosen(available, "linux/s390x", "linux/amd64") == ["linux/amd64", "linux/s390x"]


def test_a_variant_is_taken_as_asked_and_any_when_none_is_asked() -> None:
    available = platforms("linux/arm/v6", "linux/arm/v7", "linux/arm64/v8")
    assert chosen(available, "linux/arm/v7") == ["linux/arm/v7"]
    assert chosen(available, "linux/arm") == ["linux/arm/v6", "linux/arm/v7"]
    assert chosen(available, "linux/arm64") == ["linux/arm64/v8"]
    assert chosen(platforms("linux/arm64"), "linux/arm64/v8") == ["linux/arm64"]


def test_the_exact_platform_wins_over_its_variants() -> None:
    assert chosen(platforms("linux/amd64", "linux/amd64/v3"), "linux/amd64") == ["linux/amd64"]


def test_every_missing_platform_is_named_with_those_that_exist() -> None:
    with pytest.raises(ResolveError) as caught:
        chosen(platforms("linux/amd64", "linux/arm64"), "linux/amd64", "linux/s390x", "windows/amd64")
    assert str(caught.value) == ("x.io/a:1: no image for linux/s390x, windows/amd64; there is linux/amd64, linux/arm64")
    with pytest.raises(ResolveError, match="there is none"):
        chosen({}, "linux/amd64")


def index(*entries: dict[str, object], **more: object) -> oci.Manifest:
    value = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": list(entries), **more}
    return oci.parse_manifest(json.dumps(value, indent=2).encode(), subject="x")


def entry(digest: Digest, **more: object) -> dict[str, object]:
    return {"mediaType": oci.MANIFEST, "digest": digest, "size": 5, **more}


def test_a_narrowed_index_keeps_entries_as_they_are_and_says_where_they_are_from() -> None:
    windows = {"os": "windows", "architecture": "amd64", "os.version": "10.0.1", "os.features": ["win32k"]}
    upstream = index(
        entry(A), entry(B, platform=windows, x=[1, None]), entry(C), annotations={"org.opencontainers.image.title": "t"}
    )
    data = images.narrow(upstream, [B, A], subject="x")
    value = json.loads(data)
    assert value["manifests"] == [entry(A), entry(B, platform=windows, x=[1, None])]
    assert value["annotations"] == {
        "org.opencontainers.image.title": "t",
        "io.airlift.image.narrowed-from": upstream.descriptor.digest,
    }
    assert data == images.narrow(upstream, [A, B], subject="x")


def test_an_entry_that_has_no_canonical_form_is_refused() -> None:
    with pytest.raises(IntegrityError, match="expected an index of plain values"):
        images.narrow(index(entry(A, x=1.5)), [A], subject="x")


def test_an_attestation_is_known_by_its_annotations() -> None:
    marks = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": A}
    assert images.attested(Descriptor(oci.MANIFEST, B, 1, marks)) == A
    assert images.attested(Descriptor(oci.MANIFEST, B, 1)) is None


def test_a_foreign_layer_has_a_foreign_type_and_urls() -> None:
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    assert images.is_foreign(Descriptor(kind, A, 1, urls=("https://x/y",)))
    assert not images.is_foreign(Descriptor(kind, A, 1))
    assert not images.is_foreign(Descriptor(oci.LAYER_GZIP, A, 1, urls=("https://x/y",)))


@pytest.mark.parametrize("config", [b"", b"[]", b"{", b'{"os": 1}', b'{"os":"linux","architecture":["x"]}'])
def test_a_config_that_is_none_is_refused(config: bytes) -> None:
    with pytest.raises(IntegrityError):
        images.platform_of(config, subject="x")


def test_a_config_names_its_platform() -> None:
    assert images.platform_of(b'{"os":"linux","architecture":"arm","variant":"v7"}', subject="x") == Platform(
        "linux", "arm", "v7"
    )
    assert images.platform_of(b"{}", subject="x") == Platform("unknown", "unknown")


def test_a_package_url_has_repository_and_tag() -> None:
    assert (
        images.purl(reference.parse("ghcr.io:443/org/app:1.2-x"), A)
        == f"pkg:oci/app@{A.replace(':', '%3A')}?repository_url=ghcr.io%3A443/org/app&tag=1.2-x"
    )
    assert "&tag" not in images.purl(reference.parse(f"redis@{A}"), A)


def test_indexes_do_not_nest_without_end() -> None:
    images.check_depth(8, subject="x")
    with pytest.raises(IntegrityError, match="expected indexes nested at most 8 deep, got more"):
        images.check_depth(9, subject="x")

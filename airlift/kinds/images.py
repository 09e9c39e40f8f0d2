"""Container images: which parts of an index are wanted, and what an image says about itself.

What came from a registry is never changed. Where only some platforms of an index are wanted, a new index over exactly
those is made, so that nothing a drop carries points at what it does not carry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from airlift import canonical, limits, oci
from airlift.digest import Digest
from airlift.errors import IntegrityError, ResolveError
from airlift.oci import Descriptor, Manifest, Platform
from airlift.reference import Reference

DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
CONFIG_TYPES: Final = frozenset({oci.CONFIG, DOCKER_CONFIG})
NARROWED_FROM: Final = "io.airlift.image.narrowed-from"
"""Annotation of an index that was made here: digest of the index that its entries come from."""

SUFFIXES: Final = (".sig", ".att", ".sbom")
"""Endings of the tags ``sha256-<hex>`` under which cosign keeps signatures, attestations and SBOMs."""

_ATTESTATION: Final = "attestation-manifest"
_REFERENCE_TYPE: Final = "vnd.docker.reference.type"
_REFERENCE_DIGEST: Final = "vnd.docker.reference.digest"
_MAX_DEPTH: Final = 8
_FOREIGN: Final = (".foreign.", ".nondistributable.")


def attested(descriptor: Descriptor) -> Digest | None:
    """Return the digest that a BuildKit attestation in an index describes, or None when it is no attestation."""
    if descriptor.annotations.get(_REFERENCE_TYPE) != _ATTESTATION:
        return None
    text = descriptor.annotations.get(_REFERENCE_DIGEST, "")
    return Digest(text)


def is_foreign(layer: Descriptor) -> bool:
    """Say whether a layer may be kept outside of registries, at its ``urls``."""
    return bool(layer.urls) and any(part in layer.media_type for part in _FOREIGN)


def platform_of(config: bytes, *, subject: str) -> Platform:
    """Return the platform that an image config names.

    Raises:
        IntegrityError: it is no image config.
    """
    try:
        value = json.loads(config)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise IntegrityError(subject, expected="an image config in JSON", actual=repr(config[:40]))
    parts = [value.get(key) or None for key in ("os", "architecture", "variant")]
    if not all(part is None or isinstance(part, str) for part in parts):
        raise IntegrityError(subject, expected="os, architecture and variant as text", actual=repr(parts)[:100])
    return Platform(parts[0] or "unknown", parts[1] or "unknown", parts[2])


def choose(available: Mapping[Digest, Platform], wanted: Sequence[Platform], *, subject: str) -> tuple[Digest, ...]:
    """Return what answers the wanted platforms, in the order it is available in.

    Args:
        available: digest and platform of each image.
        wanted: platforms; one without a variant takes the image that has none, else every variant.
        subject: the full reference, for the message.

    Raises:
        ResolveError: a platform is missing; the message has it, and those that exist.
    """
    found: set[Digest] = set()
    missing = []
    for item in wanted:
        same = {digest for digest, platform in available.items() if platform == item}
        answers = same or {digest for digest, platform in available.items() if platform.matches(item)}
        found |= answers
        if not answers:
            missing.append(str(item))
    if missing:
        exist = sorted({str(platform) for platform in available.values()}) or ["none"]
        raise ResolveError(
            f"{subject}: no image for {', '.join(missing)}; there is {', '.join(exist)}",
            hint="ask for other platforms with `platforms:`, or take another image",
        )
    return tuple(digest for digest in available if digest in found)


def narrow(index: Manifest, keep: Sequence[Digest], *, subject: str) -> bytes:
    """Return a new index over some entries of another, each entry as it was; the same input gives the same bytes.

    Raises:
        IntegrityError: the entries hold what has no canonical form.
    """
    value: Any = json.loads(index.data)
    entries = [item for item in value["manifests"] if item["digest"] in keep]
    made = {
        "schemaVersion": 2,
        "mediaType": oci.INDEX,
        "manifests": entries,
        "annotations": {**index.annotations, NARROWED_FROM: index.descriptor.digest},
    }
    try:
        return canonical.encode(made)
    except ValueError as error:
        raise IntegrityError(subject, expected="an index of plain values", actual=str(error)) from None


def manifest(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """Return the manifest of an image whose parts came without one (from a docker daemon)."""
    return canonical.encode(
        {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
    )


def purl(reference: Reference, digest: Digest) -> str:
    """Return the package URL of an image at its upstream name (purl-spec, type ``oci``)."""
    name = reference.repository.rpartition("/")[2]
    tag = f"&tag={quote(reference.tag, safe='')}" if reference.tag else ""
    return f"pkg:oci/{quote(name)}@{quote(digest, safe='')}?repository_url={quote(reference.name, safe='/')}{tag}"


def check_tree_size(count: int, *, subject: str) -> None:
    """Check that an image is not made of more manifests than are accepted.

    Raises:
        IntegrityError: it is.
    """
    if count > limits.IMAGE_MANIFESTS:
        raise IntegrityError(subject, expected=f"at most {limits.IMAGE_MANIFESTS} manifests", actual="more")


def check_depth(depth: int, *, subject: str) -> None:
    """Check that indexes do not nest deeper than is accepted.

    Raises:
        IntegrityError: they do.
    """
    if depth > _MAX_DEPTH:
        raise IntegrityError(subject, expected=f"indexes nested at most {_MAX_DEPTH} deep", actual="more")

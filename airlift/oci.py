"""Descriptors, manifests and media types of the OCI image specification 1.1 and of Docker's schema 2.

What a registry or a layout gave us is parsed for reading only: its bytes are kept and carried exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from airlift import limits
from airlift.canonical import JsonObject
from airlift.digest import Digest
from airlift.digest import of as digest_of
from airlift.digest import parse as parse_digest
from airlift.errors import IntegrityError

INDEX: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY: Final = "application/vnd.oci.empty.v1+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPES: Final = frozenset({INDEX, DOCKER_LIST})
MANIFEST_TYPES: Final = frozenset({MANIFEST, DOCKER_MANIFEST})
ACCEPT: Final = f"{INDEX}, {MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}"
"""All four types, always: with fewer, registries say that an image does not exist."""

REF_NAME: Final = "org.opencontainers.image.ref.name"
TITLE: Final = "org.opencontainers.image.title"
IMAGE_NAME: Final = "io.containerd.image.name"

LAYOUT_FILE: Final = b'{"imageLayoutVersion":"1.0.0"}'
EMPTY_CONFIG: Final = b"{}"


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and processor, such as ``linux/arm64/v8``."""

    os: str
    architecture: str
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def matches(self, wanted: Platform) -> bool:
        """Say whether an image for `self` answers a request for `wanted`; no variant wanted: any; arm64 is arm64/v8."""
        if (self.os, self.architecture) != (wanted.os, wanted.architecture):
            return False
        if wanted.variant is None:
            return True
        default = "v8" if self.architecture == "arm64" else None
        return (self.variant or default) == wanted.variant

    def to_json(self) -> JsonObject:
        """Return the OCI form."""
        value: JsonObject = {"architecture": self.architecture, "os": self.os}
        if self.variant:
            value["variant"] = self.variant
        return value


def parse_platform(text: str) -> Platform:
    """Return the platform of ``os/architecture[/variant]``.

    Raises:
        ValueError: it has another form.
    """
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(part.isascii() and part for part in parts):
        raise ValueError(f"{text!r} is not os/architecture[/variant], such as linux/amd64")
    return Platform(*parts)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What is pointed at: type, digest and size, and what the pointer says about it."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    artifact_type: str | None = None
    urls: tuple[str, ...] = ()

    def to_json(self) -> JsonObject:
        """Return the OCI form."""
        value: JsonObject = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.platform is not None:
            value["platform"] = self.platform.to_json()
        if self.artifact_type is not None:
            value["artifactType"] = self.artifact_type
        if self.urls:
            value["urls"] = list(self.urls)
        return value


def describe(data: bytes, media_type: str) -> Descriptor:
    """Return the descriptor of these bytes."""
    return Descriptor(media_type, digest_of(data), len(data))


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest or index, read. `data` is what it was read from, byte for byte."""

    media_type: str
    data: bytes
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str | None
    annotations: Mapping[str, str]

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests rather than layers."""
        return self.media_type in INDEX_TYPES

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of `data`."""
        return describe(self.data, self.media_type)


def parse_descriptor(value: object, *, subject: str) -> Descriptor:
    """Return a descriptor from its JSON form.

    Raises:
        IntegrityError: a required field is missing or has the wrong type, or a size is out of bounds.
    """
    if not isinstance(value, dict):
        raise _wrong(subject, "a descriptor", value)
    media_type, size = value.get("mediaType"), value.get("size")
    if not isinstance(media_type, str) or not 0 < len(media_type) <= limits.NAME:
        raise _wrong(subject, "a media type", media_type)
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= limits.BLOB:
        raise _wrong(subject, f"a size from 0 to {limits.BLOB}", size)
    artifact_type = value.get("artifactType")
    if artifact_type is not None and not isinstance(artifact_type, str):
        raise _wrong(subject, "an artifactType", artifact_type)
    return Descriptor(
        media_type,
        parse_digest(value.get("digest"), subject=f"{subject}, digest"),
        size,
        _annotations(value.get("annotations"), subject),
        _platform(value.get("platform"), subject),
        artifact_type or None,
        _urls(value.get("urls"), subject),
    )


def _urls(value: object, subject: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) and len(item) <= limits.KIB * 4 for item in value):
        raise _wrong(subject, "a list of URLs", value)
    return tuple(value)


def _annotations(value: object, subject: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise _wrong(subject, "annotations from text to text", value)
    return dict(value)


def _platform(value: object, subject: str) -> Platform | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _wrong(subject, "a platform", value)
    parts = (value.get("os"), value.get("architecture"), value.get("variant"))
    if not all(part is None or isinstance(part, str) for part in parts):
        raise _wrong(subject, "a platform", value)
    return Platform(parts[0] or "unknown", parts[1] or "unknown", parts[2] or None)


def parse_manifest(
    data: bytes,
    *,
    subject: str,
    media_type: str | None = None,
    limit: int = limits.SMALL_BLOB,
) -> Manifest:
    """Read an image manifest or index.

    Args:
        data: the bytes, kept as they are.
        subject: whose manifest it is, for messages.
        media_type: what the descriptor or the server called it; the body's own ``mediaType`` wins, and where both are
            silent the shape decides (Helm's manifests carry none).
        limit: the most bytes that are looked at.

    Raises:
        IntegrityError: too large, not JSON, or not of that shape.
    """
    if len(data) > limit:
        raise IntegrityError(subject, expected=f"at most {limit} bytes", actual=f"{len(data)} bytes")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise _wrong(subject, "a manifest in JSON", data[:40]) from None
    if not isinstance(value, dict) or value.get("schemaVersion") != 2:  # noqa: PLR2004 - the specification's number
        raise _wrong(subject, "a manifest of schemaVersion 2", value)
    kind = _media_type(value, media_type, subject)
    config = value.get("config")
    subject_value = value.get("subject")
    artifact_type = value.get("artifactType")
    if artifact_type is not None and not isinstance(artifact_type, str):
        raise _wrong(subject, "an artifactType", artifact_type)
    is_index = kind in INDEX_TYPES
    if not is_index and config is None:
        raise _wrong(subject, "a config", config)
    return Manifest(
        kind,
        data,
        None if is_index else parse_descriptor(config, subject=f"{subject}, config"),
        () if is_index else _descriptors(value.get("layers"), f"{subject}, layers"),
        _descriptors(value.get("manifests"), f"{subject}, manifests") if is_index else (),
        None if subject_value is None else parse_descriptor(subject_value, subject=f"{subject}, subject"),
        artifact_type or None,
        _annotations(value.get("annotations"), subject),
    )


def _media_type(value: dict[str, Any], announced: str | None, subject: str) -> str:
    own = value.get("mediaType")
    if own is None and announced in INDEX_TYPES | MANIFEST_TYPES:
        own = announced
    if own is None:
        own = INDEX if "manifests" in value else MANIFEST
    if not isinstance(own, str) or own not in INDEX_TYPES | MANIFEST_TYPES:
        raise _wrong(subject, "an image manifest or index", own)
    if (own in INDEX_TYPES and "layers" in value) or (own in MANIFEST_TYPES and "manifests" in value):
        raise _wrong(subject, f"only what belongs into {own}", "layers and manifests")
    return own


def _descriptors(value: object, subject: str) -> tuple[Descriptor, ...]:
    if not isinstance(value, list) or len(value) > limits.ARTIFACTS:
        raise _wrong(subject, f"a list of at most {limits.ARTIFACTS}", value)
    return tuple(parse_descriptor(item, subject=f"{subject}[{number}]") for number, item in enumerate(value))


def _wrong(subject: str, expected: str, actual: object) -> IntegrityError:
    return IntegrityError(subject, expected=expected, actual=repr(actual)[:100])

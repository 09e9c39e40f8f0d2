"""The lock: everything a drop will carry, pinned by digest and size. `build` reads nothing else.

Canonical JSON (`airlift.canonical`), with the digest of its own body, so that an edit by hand is noticed. Nothing of
the machine that resolved is in it. See docs/lock-format.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from airlift import canonical, digest, fs, limits, oci
from airlift.artifact import Artifact, DropConfig, DropLayout, Kind, lay_out
from airlift.canonical import JsonObject
from airlift.digest import Digest
from airlift.errors import AirliftError, IntegrityError, ResolveError
from airlift.oci import Descriptor

FORMAT: Final = "airlift.lock/v1"

_HINT: Final = "run airlift resolve again; a lock is not edited by hand"


@dataclass(frozen=True, slots=True)
class LockedBlob:
    """One blob that will be carried.

    Attributes:
        digest, size, media_type: what it is.
        text: the content itself, for a small JSON document that we made (a manifest, a config); then nobody fetches it.
        origin: what its source needs to find it again, by name: never a path of the machine, never a credential.
    """

    digest: Digest
    size: int
    media_type: str
    text: str | None = None
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def descriptor(self) -> Descriptor:
        """Type, digest and size."""
        return Descriptor(self.media_type, self.digest, self.size)


def made(data: bytes, media_type: str) -> LockedBlob:
    """Return the blob of a small JSON document that was made here."""
    return LockedBlob(digest.of(data), len(data), media_type, data.decode())


@dataclass(frozen=True, slots=True)
class Component:
    """One line of the SBOM.

    Attributes:
        purl: package URL with a version; also the line's identity.
        type: CycloneDX component type: ``container``, ``library``, ``application``, ``machine-learning-model`` or
            ``file``.
        name, version: as their ecosystem says them.
        digest: of the carried bytes, or None where the component is only inside another.
        licence: SPDX expression or text, or None.
        depends_on: purls of other components of the drop.
    """

    purl: str
    type: str
    name: str
    version: str
    digest: Digest | None = None
    licence: str | None = None
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LockedArtifact:
    """An artifact with all its blobs.

    Attributes:
        artifact: name, root and facts, as the drop will say them.
        small: its indexes, manifests and configs, depth first, root first; each at most `limits.SMALL_BLOB`.
        large: its other blobs in order.
    """

    artifact: Artifact
    small: tuple[LockedBlob, ...]
    large: tuple[LockedBlob, ...]


@dataclass(frozen=True, slots=True)
class LockedEntry:
    """What one entry of the manifest became.

    Attributes:
        kind: which of the five.
        name: how a person names the entry (``--update NAME``): the reference, set, chart, model or file name.
        request: the manifest's entry in normal form, with the digests of the small files that it names; while it is
            unchanged, the pins stay.
        source: name of where it comes from: a registry host, ``pypi``, a repository URL as the manifest has it, or
            ``local``.
        artifacts: what will be carried for it.
        components: its lines of the SBOM.
    """

    kind: Kind
    name: str
    request: JsonObject
    source: str
    artifacts: tuple[LockedArtifact, ...]
    components: tuple[Component, ...] = ()


@dataclass(frozen=True, slots=True)
class Lock:
    """A whole lock.

    Attributes:
        name, channel, labels: the manifest's metadata.
        platforms: the manifest's platforms.
        entries: in the manifest's order: images, python, charts, models, files.
        deploy: {chart, namespace, release, values: [{name, digest}]} for each ``deploy`` entry.
        values: the values files that ``deploy`` names, each once, ``origin`` {"path"} relative to the manifest.
        k3s: {preload: [full references]}.
    """

    name: str
    channel: str
    labels: Mapping[str, str]
    platforms: tuple[str, ...]
    entries: tuple[LockedEntry, ...]
    deploy: tuple[JsonObject, ...] = ()
    values: tuple[LockedBlob, ...] = ()
    k3s: Mapping[str, Any] = field(default_factory=dict)

    def artifacts(self) -> Iterator[LockedArtifact]:
        """Yield every artifact once, in the order of ``index.json``."""
        seen: set[tuple[str, Digest]] = set()
        for entry in self.entries:
            for item in entry.artifacts:
                key = (item.artifact.name, item.artifact.root.digest)
                if key not in seen:
                    seen.add(key)
                    yield item

    def layout(self) -> DropLayout:
        """Return the drop's generated documents, ``index.json`` among them."""
        config = DropConfig(
            self.name,
            self.channel,
            self.labels,
            [i.artifact for i in self.artifacts()],
            self.deploy,
            self.k3s,
        )
        return lay_out(config, [blob.descriptor for blob in self.values])

    def blobs(self) -> tuple[LockedBlob, ...]:
        """Return every blob once, in the payload's order: all small ones depth first, then the others by artifact.

        The drop artifact's own manifest and config come first, its values files first among the others.
        """
        layout = self.layout()
        own = [made(layout.manifest, oci.MANIFEST), made(layout.config, oci.CONFIG)]
        if not self.values:
            own.append(made(oci.EMPTY_CONFIG, oci.EMPTY))
        order = [*own, *(blob for item in self.artifacts() for blob in item.small)]
        order += [
            *self.values,
            *(blob for item in self.artifacts() for blob in item.large),
        ]
        first: dict[Digest, LockedBlob] = {}
        for blob in order:
            first.setdefault(blob.digest, blob)
        return tuple(first.values())

    def entry_of(self) -> dict[Digest, LockedEntry]:
        """Return which entry can fetch each blob (the first that carries it)."""
        found: dict[Digest, LockedEntry] = {}
        for entry in self.entries:
            for item in entry.artifacts:
                for blob in (*item.small, *item.large):
                    found.setdefault(blob.digest, entry)
        return found

    def encode(self) -> bytes:
        """Return the lock file's bytes."""
        body = {
            "format": FORMAT,
            "name": self.name,
            "channel": self.channel,
            "labels": dict(self.labels),
            "platforms": list(self.platforms),
            "entries": [_entry_json(entry) for entry in self.entries],
            "deploy": list(self.deploy),
            "values": [_blob_json(blob) for blob in self.values],
            "k3s": dict(self.k3s),
        }
        return canonical.encode({"body": body, "digest": digest.of(canonical.encode(body))})


def _entry_json(entry: LockedEntry) -> JsonObject:
    return {
        "kind": entry.kind.value,
        "name": entry.name,
        "request": entry.request,
        "source": entry.source,
        "artifacts": [
            {
                **item.artifact.to_json(),
                "small": [_blob_json(blob) for blob in item.small],
                "large": [_blob_json(blob) for blob in item.large],
            }
            for item in entry.artifacts
        ],
        "components": [
            {
                "purl": c.purl,
                "type": c.type,
                "name": c.name,
                "version": c.version,
                "digest": c.digest,
                "licence": c.licence,
                "dependsOn": list(c.depends_on),
            }
            for c in entry.components
        ],
    }


def _blob_json(blob: LockedBlob) -> JsonObject:
    value: JsonObject = {
        "digest": blob.digest,
        "size": blob.size,
        "mediaType": blob.media_type,
    }
    if blob.text is not None:
        value["text"] = blob.text
    if blob.origin:
        value["origin"] = dict(blob.origin)
    return value


def load(path: Path) -> Lock:
    """Read a lock file.

    Raises:
        ResolveError: it is not a lock of ours, of another version, or was edited by hand.
        StoreError: it cannot be read.
    """
    return decode(fs.read_bounded(path, limits.LOCK), subject=str(path))


def decode(data: bytes, *, subject: str) -> Lock:
    """Read a lock's bytes; see `load`."""
    try:
        body = _body(data, subject)
        return Lock(
            _text(body["name"]),
            _text(body["channel"]),
            _texts(body["labels"]),
            tuple(_text(item) for item in _list(body["platforms"])),
            tuple(_entry(item) for item in _list(body["entries"])),
            tuple(_object(item) for item in _list(body["deploy"])),
            _blobs(body["values"]),
            _object(body["k3s"]),
        )
    except ResolveError:
        raise
    except AirliftError as error:
        raise ResolveError(f"{subject}: not a lock: {error.message}", hint=_HINT) from None
    except KeyError as error:
        raise ResolveError(f"{subject}: not a lock: {error} is missing", hint=_HINT) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ResolveError(f"{subject}: not a lock: {error}", hint=_HINT) from None


def _body(data: bytes, subject: str) -> JsonObject:
    value = _object(canonical.decode(data, limit=limits.LOCK, subject=subject))
    body, own = _object(value["body"]), value["digest"]
    if own != digest.of(canonical.encode(body)):
        raise ResolveError(f"{subject}: the lock was changed after it was resolved", hint=_HINT)
    if body["format"] != FORMAT:
        raise ResolveError(f"{subject}: lock format {body['format']!r}, expected {FORMAT!r}", hint=_HINT)
    return body


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r:.80}")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {value!r:.80}")
    return value


def _object(value: object) -> JsonObject:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {value!r:.80}")
    return value


def _texts(value: object) -> dict[str, str]:
    return {key: _text(item) for key, item in _object(value).items()}


def _entry(value: JsonObject) -> LockedEntry:
    return LockedEntry(
        Kind(value["kind"]),
        _text(value["name"]),
        _object(value["request"]),
        _text(value["source"]),
        tuple(_artifact(item) for item in _list(value["artifacts"])),
        tuple(_component(item) for item in _list(value["components"])),
    )


def _component(value: JsonObject) -> Component:
    licence, carried = value["licence"], value["digest"]
    return Component(
        _text(value["purl"]),
        _text(value["type"]),
        _text(value["name"]),
        _text(value["version"]),
        None if carried is None else digest.parse(carried, subject="a component's digest"),
        None if licence is None else _text(licence),
        tuple(_text(item) for item in _list(value["dependsOn"])),
    )


def _artifact(value: JsonObject) -> LockedArtifact:
    name = _text(value["name"])
    root = oci.parse_descriptor(value["root"], subject=f"root of {name}")
    return LockedArtifact(
        Artifact(Kind(value["kind"]), name, root, _object(value["facts"])),
        _blobs(value["small"]),
        _blobs(value["large"]),
    )


def _blobs(values: object) -> tuple[LockedBlob, ...]:
    return tuple(_blob(value) for value in _list(values))


def _blob(value: JsonObject) -> LockedBlob:
    descriptor = oci.parse_descriptor(value, subject="a blob")
    text = value.get("text")
    if text is not None and digest.of(_text(text).encode()) != descriptor.digest:
        raise IntegrityError("a blob's text", expected=descriptor.digest, actual=digest.of(text.encode()))
    return LockedBlob(
        descriptor.digest,
        descriptor.size,
        descriptor.media_type,
        text,
        _texts(value.get("origin", {})),
    )

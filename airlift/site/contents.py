"""What a drop's payload has to hold, and what each of its artifacts shows; both follow from the manifests alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from airlift import artifact, limits, oci
from airlift.artifact import Artifact, DropConfig, Kind
from airlift.digest import Digest
from airlift.digest import of as digest_of
from airlift.errors import BundleError, IntegrityError, PolicyError
from airlift.kinds.images import is_foreign
from airlift.oci import Descriptor
from airlift.site import oci_listing
from airlift.site.listing import Held, Listing, Name, Service, part_of
from airlift.site.mirrors import charts, files, images, models, wheels
from airlift.store import Store

LISTINGS: Final[Mapping[Kind, Callable[[Artifact, Store], Listing]]] = {
    Kind.IMAGE: images.listing,
    Kind.WHEELS: wheels.listing,
    Kind.CHART: charts.listing,
    Kind.MODEL: models.listing,
    Kind.FILE: files.listing,
}
REGISTRY_KINDS: Final = frozenset({Kind.IMAGE, Kind.CHART})
"""What an external registry takes, where the site has one."""

OWN: Final = 2
"""The first blobs of a payload: the drop's own manifest, and its config, which may be large."""

_EMPTY: Final = digest_of(oci.EMPTY_CONFIG)
"""It is the config of many artifacts, and the layer of those that have none."""

_SHOWN: Final = 10
_AS_SIGNED: Final = "it is so as it was signed: the release engineer has to build it again"


class Payload(Store):
    """The store, as far as one payload goes: what an earlier drop left is not seen.

    Attributes:
        sizes: every blob of the payload so far.
        memory: content of blobs that are not to be written.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store.root)
        self.sizes: dict[Digest, int] = {}
        self.memory: dict[Digest, bytes] = {}
        self._read_on: set[Digest] = set()
        self._content: set[Digest] = set()

    def keep(self, digest: Digest, data: bytes) -> None:
        """Keep a blob that is not to be written, where it can be a manifest or a config: both are JSON objects."""
        if not data.startswith(b"{"):
            return
        self.memory[digest] = data
        with contextlib.suppress(IntegrityError):
            manifest = oci.parse_manifest(data, subject=digest)
            self._read_on.update(child.digest for child in manifest.manifests)
            if manifest.config is not None:
                self._read_on.add(manifest.config.digest)
            self._content.update(layer.digest for layer in manifest.layers if layer.digest != _EMPTY)

    def is_content(self, digest: Digest) -> bool:
        """Say whether a blob is content and nothing else, by what was kept: all manifests come before the first."""
        return digest in self._content and digest not in self._read_on

    def has(self, digest: Digest) -> bool:
        """Say whether the payload has brought it."""
        return digest in self.sizes

    def read(self, digest: Digest, *, limit: int = limits.SMALL_BLOB) -> bytes:
        """Return a small blob of the payload.

        Raises:
            BundleError: the payload does not have it, or it is larger than `limit`.
            StoreError: it cannot be read.
            IntegrityError: the disk returns other bytes than were put.
        """
        size = self.sizes.get(digest)
        if size is None:
            raise BundleError(f"payload: {digest} is missing")
        if size > limit:
            raise BundleError(f"payload: {digest} has {size} bytes, at most {limit} were expected")
        if digest in self.memory:
            return self.memory[digest]
        return super().read(digest, limit=limit)


@dataclass(frozen=True, slots=True)
class Contents:
    """A drop, read.

    Attributes:
        artifact: the drop's own.
        values: descriptors of the values files.
        config_digest: digest of the config blob.
        config: what it says.
    """

    artifact: Artifact
    values: tuple[Descriptor, ...]
    config_digest: Digest
    config: DropConfig


def read(index: bytes, payload: Store) -> Contents:
    """Read a drop's own artifact.

    Raises:
        BundleError: it is malformed, missing, or index.json lists other artifacts.
        IntegrityError: a manifest is malformed.
    """
    own, others = artifact.drop_entry(index)
    data = payload.read(own.digest)
    manifest = oci.parse_manifest(data, subject="the drop's manifest", media_type=own.media_type)
    if manifest.config is None or manifest.config.media_type != artifact.DROP_TYPE:
        raise BundleError(f"the drop's manifest: expected a config of type {artifact.DROP_TYPE}")
    config = artifact.decode_drop_config(payload.read(manifest.config.digest, limit=limits.INDEX_DOCUMENT))
    listed = [(entry.annotations.get(oci.REF_NAME), entry.digest, entry.size) for entry in others]
    if listed != [(item.name, item.root.digest, item.root.size) for item in config.artifacts]:
        raise BundleError("index.json lists other artifacts than the drop's config")
    values = tuple(layer for layer in manifest.layers if layer.media_type != oci.EMPTY)
    return Contents(Artifact(Kind.FILE, "the drop's manifest", own), values, manifest.config.digest, config)


def check_complete(contents: Contents, payload: Payload) -> None:
    """Compare what the payload brought with what its manifests name: nothing is missing, nothing is left over.

    Raises:
        BundleError: something is.
        IntegrityError: a manifest is malformed.
    """
    needed: dict[Digest, int] = {}
    missing: dict[Digest, str] = {}
    for item in (contents.artifact, *contents.config.artifacts):
        for blob, is_optional in tree(item, payload):
            size = payload.sizes.get(blob.digest)
            if size is None:
                if not is_optional:
                    missing.setdefault(blob.digest, item.name)
            elif size != blob.size:
                raise BundleError(
                    f"{item.name}: {blob.digest} has {size} bytes, its descriptor says {blob.size}", hint=_AS_SIGNED
                )
            needed[blob.digest] = blob.size
    if missing:
        lacking = [f"{digest} of {name}" for digest, name in missing.items()]
        raise BundleError(_several("payload: missing", lacking), hint=_AS_SIGNED)
    if left := sorted(payload.sizes.keys() - needed.keys()):
        raise BundleError(_several("payload: named by no manifest", left), hint=_AS_SIGNED)


def tree(item: Artifact, payload: Payload) -> Iterator[tuple[Descriptor, bool]]:
    """Yield what an artifact names, and whether it may be absent (a platform nobody asked for, a foreign layer)."""
    yield item.root, False
    if not payload.has(item.root.digest):
        return
    for _, manifest in oci_listing.walk(item.root, payload, subject=item.name):
        for child in manifest.manifests:
            yield child, item.kind is Kind.IMAGE
        for blob in oci_listing.blobs_of(manifest):
            yield blob, is_foreign(blob)


def list_all(config: DropConfig, store: Store, *, is_embedded: bool) -> Listing:
    """Return what a drop shows.

    Args:
        config: the drop.
        store: has its manifests and configs.
        is_embedded: whether images and charts are served from the store too; else only their tags are listed.

    Raises:
        PolicyError: one name would point at two contents.
        BundleError, IntegrityError: an artifact is malformed.
    """
    names: dict[tuple[Service, str, str], Name] = {}
    held: dict[tuple[Service, str, Digest], Held] = {}
    problems: list[str] = []
    for item in config.artifacts:
        listing = listing_of(item, store, is_embedded=is_embedded)
        for name in listing.names:
            key = (name.service, name.key, part_of(name))
            known = names.setdefault(key, name)
            if known.value["digest"] != name.value["digest"]:
                problems.append(f"{shown(*key)}: {known.value['digest']} and {name.value['digest']}")
        for one in listing.held:
            held[one.service, one.scope, one.digest] = one
    if problems:
        raise PolicyError("the drop gives one name to two contents", violations=problems)
    return Listing(tuple(names.values()), tuple(held.values()))


def listing_of(item: Artifact, store: Store, *, is_embedded: bool) -> Listing:
    """Return what one artifact shows.

    Args:
        item: the artifact.
        store: has its manifests and configs.
        is_embedded: whether images and charts are served from the store too; else only their tags are listed.

    Raises:
        BundleError, IntegrityError: it is malformed.
        StoreError: a manifest or config is missing.
    """
    listing = LISTINGS[item.kind](item, store)
    if is_embedded or item.kind not in REGISTRY_KINDS:
        return listing
    return Listing(tuple(name for name in listing.names if name.service is Service.OCI))


def shown(service: str, key: str, part: str) -> str:
    """Return a name as messages have it, such as ``simple/numpy/numpy-2.0-py3-none-any.whl``."""
    return "/".join(word for word in (service, key, part) if word)


def _several(what: str, items: Sequence[str]) -> str:
    more = [f"  and {len(items) - _SHOWN} more"] if len(items) > _SHOWN else []
    return "\n".join([f"{what}: {len(items)} blob(s)", *(f"  {item}" for item in items[:_SHOWN]), *more])

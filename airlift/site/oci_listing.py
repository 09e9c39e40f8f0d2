"""What an OCI artifact shows in a registry: its tag, and every manifest and blob below it by digest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from airlift import oci
from airlift.digest import Digest
from airlift.errors import IntegrityError
from airlift.kinds.images import check_depth, is_foreign
from airlift.oci import Descriptor, Manifest
from airlift.site.listing import Held, Listing, Name, Service
from airlift.store import Store

Tree = tuple[str, list[tuple[Descriptor, Manifest]]]
"""A repository, and the manifests of an artifact in it, children first."""


def oci_listing(path: str, tag: str | None, root: Descriptor, store: Store) -> Listing:
    """List a tree of manifests that is in the store.

    Args:
        path: repository at the site, such as ``docker.io/library/redis``.
        tag: the tag, or None for what is asked for by digest alone.
        root: the index or manifest.
        store: has all manifests; a child that it does not have belongs to a platform that was not asked for.

    Raises:
        IntegrityError: a manifest is malformed, or nests too deep.
        StoreError: the root is not in the store.
    """
    held: dict[str, Held] = {}
    for descriptor, manifest in walk(root, store, subject=f"{path}:{tag or root.digest}"):
        held[descriptor.digest] = _manifest(path, descriptor, manifest)
        for blob in blobs_of(manifest):
            if is_foreign(blob) and not store.has(blob.digest):
                continue
            held.setdefault(blob.digest, Held(Service.OCI, path, blob.digest, blob.size, blob.media_type))
    names = () if tag is None else (Name(Service.OCI, f"{path}:{tag}", {"digest": root.digest}),)
    return Listing(names, tuple(held.values()))


def walk(root: Descriptor, store: Store, *, subject: str) -> Iterator[tuple[Descriptor, Manifest]]:
    """Yield the manifests of a tree, each once, a parent before its children.

    Raises:
        IntegrityError: a manifest is malformed, or nests too deep.
        StoreError: the root is not in the store.
    """
    seen: set[str] = set()
    waiting = [(root, 0)]
    while waiting:
        descriptor, depth = waiting.pop()
        if descriptor.digest in seen or (depth and not store.has(descriptor.digest)):
            continue
        seen.add(descriptor.digest)
        check_depth(depth, subject=subject)
        data = store.read(descriptor.digest)
        manifest = oci.parse_manifest(data, subject=subject, media_type=descriptor.media_type)
        if len(data) != descriptor.size:
            raise IntegrityError(subject, expected=f"{descriptor.size} bytes", actual=f"{len(data)} bytes")
        yield descriptor, manifest
        waiting.extend((child, depth + 1) for child in reversed(manifest.manifests))


def blobs_of(manifest: Manifest) -> Iterator[Descriptor]:
    """Yield what a manifest needs beside other manifests."""
    if manifest.config is not None:
        yield manifest.config
    yield from manifest.layers


def _manifest(path: str, descriptor: Descriptor, manifest: Manifest) -> Held:
    facts: dict[str, object] = {}
    subject = None
    if manifest.subject is not None:
        subject = manifest.subject.digest
        artifact_type = manifest.artifact_type or (manifest.config.media_type if manifest.config else None)
        facts = {"artifactType": artifact_type, "annotations": dict(manifest.annotations)}
    return Held(Service.OCI, path, descriptor.digest, descriptor.size, manifest.media_type, subject, facts)


def children_first(root: Descriptor, store: Store, *, subject: str) -> list[tuple[Descriptor, Manifest]]:
    """Return the manifests of a tree, each once, children before their parents, which is how registries take them.

    Raises:
        IntegrityError, StoreError: see `walk`.
    """
    found = {descriptor.digest: (descriptor, manifest) for descriptor, manifest in walk(root, store, subject=subject)}
    ordered: dict[Digest, tuple[Descriptor, Manifest]] = {}

    def visit(digest: Digest) -> None:
        if digest in found and digest not in ordered:
            for child in found[digest][1].manifests:
                visit(child.digest)
            ordered[digest] = found[digest]

    visit(root.digest)
    return list(ordered.values())


def subjects_first(trees: Iterable[Tree]) -> Iterator[list[Tree]]:
    """Yield trees in rounds, what refers to one in a later round than that.

    Harbor looks for a manifest's subject when it comes, and for what refers to a subject when that comes: of two that
    come at once it may see neither.
    """
    left = list(trees)
    while left:
        coming = {descriptor.digest for _, tree in left for descriptor, _ in tree}
        waiting = [one for one in left if (subject := one[1][-1][1].subject) and subject.digest in coming]
        if len(waiting) == len(left):
            # No order can be right for those that refer to each other.
            waiting = []
        late = {id(one) for one in waiting}
        yield [one for one in left if id(one) not in late]
        left = waiting

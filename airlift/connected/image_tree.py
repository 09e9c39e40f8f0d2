"""Pinning an image: its manifests, configs and layers, and what refers to them, from whatever origin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from airlift import digest as digests
from airlift import limits, oci
from airlift.artifact import Artifact, Kind
from airlift.connected.image_origin import Origin
from airlift.digest import Digest
from airlift.errors import IntegrityError
from airlift.kinds import images
from airlift.lock import LockedArtifact, LockedBlob, made
from airlift.oci import Descriptor, Manifest, Platform
from airlift.progress import Progress
from airlift.reference import Reference


def pin(
    origin: Origin,
    name: Reference,
    wanted: Sequence[Platform] | None,
    *,
    is_pinned: bool,
    progress: Progress,
) -> tuple[LockedArtifact, ...]:
    """Return an image and everything that refers to it.

    Args:
        origin: where it is read.
        name: what it is called at the site.
        wanted: platforms, or None for all.
        is_pinned: the reference has a digest, which the site has to answer; so an index stays whole.
        progress: told what a person should know.

    Raises:
        ResolveError: a platform, or a part, is missing.
        FetchError: the origin does not answer.
        IntegrityError: the origin gives other bytes than it names.
    """
    return _Pinning(origin, name, progress).run(wanted, is_pinned=is_pinned)


class _Pinning:
    """One image being pinned."""

    def __init__(self, origin: Origin, name: Reference, progress: Progress) -> None:
        self._origin = origin
        self._name = name
        self._progress = progress
        self._manifests: dict[Digest, Manifest] = {}
        self._configs: dict[Digest, bytes] = {}

    def run(self, wanted: Sequence[Platform] | None, *, is_pinned: bool) -> tuple[LockedArtifact, ...]:
        """Pin the image, then what refers to it."""
        upstream = self._origin.root()
        self._manifests[upstream.descriptor.digest] = upstream
        extra: tuple[Descriptor, ...] = ()
        root, text = upstream, None
        if not upstream.is_index:
            self._check_platform(upstream, wanted)
        elif wanted is not None:
            keep = self._chosen(upstream, wanted)
            if len(keep) == len({item.digest for item in upstream.manifests}):
                pass
            elif is_pinned:
                self._progress.warn(
                    f"{self._origin.name}: pinned by the digest of an index, so all its platforms are carried"
                )
            else:
                root, text, extra = self._narrowed(upstream, keep)
        subject = str(self._name)
        artifacts = [self._artifact(subject, root, text)]
        artifacts += self._referring(root, upstream, extra, is_made=text is not None)
        return tuple(artifacts)

    def _check_platform(self, manifest: Manifest, wanted: Sequence[Platform] | None) -> None:
        platform = self._platform(manifest)
        if platform is not None and wanted is not None:
            images.choose({manifest.descriptor.digest: platform}, wanted, subject=self._origin.name)

    def _platform(self, manifest: Manifest) -> Platform | None:
        """Return an image's platform by its config; None for what is no image (a chart, a signature)."""
        config = manifest.config
        if config is None or config.media_type not in images.CONFIG_TYPES:
            return None
        return images.platform_of(self._config(config), subject=f"{self._origin.name}, config {config.digest}")

    def _config(self, config: Descriptor) -> bytes:
        if config.digest not in self._configs:
            if config.size > limits.SMALL_BLOB:
                raise IntegrityError(
                    f"{self._origin.name}, config {config.digest}",
                    expected=f"at most {limits.SMALL_BLOB} bytes",
                    actual=f"{config.size} bytes",
                )
            data = self._origin.small(config)
            self._configs[config.digest] = digests.check(data, config.digest, subject=f"{self._origin.name}, config")
        return self._configs[config.digest]

    def _child(self, descriptor: Descriptor) -> Manifest:
        if descriptor.digest not in self._manifests:
            images.check_tree_size(len(self._manifests), subject=self._origin.name)
            found = self._origin.manifest(descriptor)
            if found.descriptor.size != descriptor.size:
                raise IntegrityError(
                    f"{self._origin.name}, {descriptor.digest}",
                    expected=f"{descriptor.size} bytes",
                    actual=f"{found.descriptor.size} bytes",
                )
            self._manifests[descriptor.digest] = found
        return self._manifests[descriptor.digest]

    def _chosen(self, index: Manifest, wanted: Sequence[Platform]) -> tuple[Digest, ...]:
        """Return the entries of an index that are wanted, the attestations of those among them."""
        available: dict[Digest, Platform] = {}
        always: set[Digest] = set()
        for item in index.manifests:
            if images.attested(item) is not None:
                continue
            if item.media_type in oci.INDEX_TYPES:
                # An index in an index is carried as it is; what it holds counts.
                always.add(item.digest)
                available.update(self._leaves(item))
                continue
            platform = item.platform or self._platform(self._child(item))
            if platform is None:
                always.add(item.digest)
            else:
                available[item.digest] = platform
        keep = {*images.choose(available, wanted, subject=self._origin.name), *always}
        keep |= {item.digest for item in index.manifests if images.attested(item) in keep}
        return tuple(dict.fromkeys(item.digest for item in index.manifests if item.digest in keep))

    def _leaves(self, descriptor: Descriptor, depth: int = 1) -> Iterator[tuple[Digest, Platform]]:
        images.check_depth(depth, subject=self._origin.name)
        for item in self._child(descriptor).manifests:
            if item.media_type in oci.INDEX_TYPES:
                yield from self._leaves(item, depth + 1)
            elif images.attested(item) is None and item.platform is not None:
                yield item.digest, item.platform

    def _narrowed(
        self, index: Manifest, keep: Sequence[Digest]
    ) -> tuple[Manifest, bytes | None, tuple[Descriptor, ...]]:
        """Return the root over some entries, its text when it is made here, and what no longer hangs on the root."""
        entries = {item.digest: item for item in index.manifests if item.digest in keep}
        own = [item for item in entries.values() if images.attested(item) is None]
        if len(own) == 1 and own[0].media_type not in oci.INDEX_TYPES:
            attestations = tuple(item for item in entries.values() if images.attested(item) is not None)
            return self._child(own[0]), None, attestations
        data = images.narrow(index, keep, subject=self._origin.name)
        return oci.parse_manifest(data, subject=self._origin.name, media_type=oci.INDEX), data, ()

    def _artifact(self, name: str, root: Manifest, text: bytes | None) -> LockedArtifact:
        small: dict[Digest, LockedBlob] = {}
        large: dict[Digest, LockedBlob] = {}
        descriptor = replace(root.descriptor, artifact_type=root.artifact_type)
        if text is not None:
            small[descriptor.digest] = made(text, root.media_type)
        self._walk(root, descriptor, small, large)
        return LockedArtifact(Artifact(Kind.IMAGE, name, descriptor), tuple(small.values()), tuple(large.values()))

    def _walk(
        self,
        manifest: Manifest,
        descriptor: Descriptor,
        small: dict[Digest, LockedBlob],
        large: dict[Digest, LockedBlob],
        depth: int = 0,
    ) -> None:
        images.check_depth(depth, subject=self._origin.name)
        if descriptor.digest not in small:
            small[descriptor.digest] = self._locked(descriptor)
        for child in manifest.manifests:
            if child.digest not in small:
                found = self._child(child)
                self._walk(found, replace(found.descriptor, platform=child.platform), small, large, depth + 1)
        if manifest.config is not None:
            place = small if manifest.config.size <= limits.SMALL_BLOB else large
            place.setdefault(manifest.config.digest, self._locked(manifest.config))
        for layer in manifest.layers:
            if layer.digest not in small:
                large.setdefault(layer.digest, self._locked(layer))

    def _locked(self, blob: Descriptor) -> LockedBlob:
        return LockedBlob(blob.digest, blob.size, blob.media_type, None, dict(self._origin.found_at(blob)))

    def _referring(
        self, root: Manifest, upstream: Manifest, extra: Sequence[Descriptor], *, is_made: bool
    ) -> Iterator[LockedArtifact]:
        """Yield what refers to the carried manifests, what refers to that, and so on; each once."""
        carried = [item.digest for item in self._tree(root)]
        seen = set(carried)
        for item in extra:
            seen.add(item.digest)
            yield self._artifact(f"{self._name.name}@{item.digest}", self._child(item), None)
        names: set[str] = set()
        pending = carried[1:] if is_made else list(carried)
        while pending:
            digest = pending.pop(0)
            for descriptor in self._origin.referrers(digest):
                if descriptor.digest not in seen:
                    seen.add(descriptor.digest)
                    pending.append(descriptor.digest)
                    yield self._artifact(f"{self._name.name}@{descriptor.digest}", self._child(descriptor), None)
            for suffix in images.SUFFIXES:
                tag = f"sha256-{digests.hex_of(digest)}{suffix}"
                tagged = self._origin.tagged(tag)
                if tagged is not None and tag not in names:
                    names.add(tag)
                    yield self._artifact(f"{self._name.name}:{tag}", self._child(tagged), None)
        if upstream.descriptor.digest not in seen:
            self._note_lost(upstream)

    def _note_lost(self, index: Manifest) -> None:
        """Say so when the whole index is signed: its signature is for a digest that is not carried."""
        digest = index.descriptor.digest
        tag = f"sha256-{digests.hex_of(digest)}.sig"
        if self._origin.referrers(digest) or self._origin.tagged(tag) is not None:
            self._progress.warn(
                f"{self._origin.name}: what signs or describes its whole index is not carried, since only some of its "
                "platforms are; ask for `platforms: all` to have it"
            )

    def _tree(self, root: Manifest) -> Iterator[Descriptor]:
        seen: set[Digest] = set()
        pending = [root.descriptor]
        while pending:
            item = pending.pop(0)
            if item.digest in seen:
                continue
            seen.add(item.digest)
            yield item
            manifest = root if item.digest == root.descriptor.digest else self._child(item)
            pending += [child for child in manifest.manifests if images.attested(child) is None]

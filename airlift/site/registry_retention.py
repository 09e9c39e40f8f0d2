"""Prune in an external registry: manifests that only pruned drops need, deleted by digest.

Tags that are not ours stand in the way: deleting by digest takes all tags of a manifest, so one that another tag
leads to stays, with its children, and that is said. Blobs are left for the registry's own garbage collection.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from airlift import oci
from airlift.canonical import JsonObject
from airlift.digest import Digest
from airlift.digest import parse as parse_digest
from airlift.errors import AirliftError, DeliveryError, StoreError
from airlift.progress import Progress
from airlift.site import contents, mirror, oci_listing
from airlift.site.config import Site
from airlift.site.inspection import take_inventory
from airlift.site.journal import Journal
from airlift.site.registry_inspection import items_of
from airlift.transport.push import delivering
from airlift.transport.referrers import ReferrerLists
from airlift.transport.registry import RegistryClient

_FALLBACK: Final = re.compile(r"sha256-[0-9a-f]{64}")
_NESTED: Final = 4


@dataclass(frozen=True, slots=True)
class Doomed:
    """A manifest in the registry that goes.

    Attributes:
        repository: where.
        digest: which.
        tags: those that the pruned drops gave it; they go with it.
        subject: what it refers to, or None.
    """

    repository: str
    digest: Digest
    tags: tuple[str, ...] = ()
    subject: Digest | None = None

    def to_json(self) -> JsonObject:
        """Return it as part of a plan."""
        value: JsonObject = {"repository": self.repository, "digest": self.digest, "tags": list(self.tags)}
        return value if self.subject is None else {**value, "subject": self.subject}


def read_doomed(value: Mapping[str, Any]) -> Doomed:
    """Read what `Doomed.to_json` made.

    Raises:
        KeyError, TypeError, IntegrityError: it is something else.
    """
    subject = value.get("subject")
    return Doomed(
        str(value["repository"]),
        parse_digest(value["digest"]),
        tuple(str(tag) for tag in value["tags"]),
        None if subject is None else parse_digest(subject),
    )


def doomed(site: Site, journal: Journal, going: Iterable[str]) -> tuple[Doomed, ...]:
    """Return the registry's manifests that only these drops need, parents before their children.

    What an import needs there that is not complete is not known yet: nothing of this may be deleted before it is.

    Raises:
        StoreError: the journal cannot be read.
    """
    registry = site.config.registry
    releases = set(going)
    if registry is None or not releases:
        return ()
    inventory = take_inventory(site, journal)
    subjects = _subjects(site, journal, releases)
    tags: dict[tuple[str, Digest], set[str]] = defaultdict(set)
    for release in releases:
        for path, tag, digest in mirror.tags(journal.names_of(release)):
            tags[registry.repository(path), digest].add(tag)
    return tuple(
        Doomed(
            item.repository,
            item.digest,
            tuple(sorted(tags[item.repository, item.digest])),
            subjects.get((item.repository, item.digest)),
        )
        for item in items_of(site, inventory)
        if item.is_manifest and set(item.releases) <= releases
    )


def _subjects(site: Site, journal: Journal, releases: set[str]) -> dict[tuple[str, Digest], Digest]:
    registry = site.config.registry
    found: dict[tuple[str, Digest], Digest] = {}
    for drop, config in take_inventory(site, journal).configs:
        for item in config.artifacts:
            if registry is None or drop.release not in releases or item.kind not in contents.REGISTRY_KINDS:
                continue
            repository = registry.repository(mirror.place_of(item)[0])
            try:
                for descriptor, manifest in oci_listing.walk(item.root, site.store, subject=item.name):
                    if manifest.subject is not None:
                        found[repository, descriptor.digest] = manifest.subject.digest
            except (AirliftError, StoreError):
                continue
    return found


def remove(
    client: RegistryClient, wanted: Iterable[Doomed], needed: set[tuple[str, Digest]], progress: Progress
) -> tuple[Doomed, ...]:
    """Delete what a plan dooms and nobody needs; say what stays, and why. Repeating it finishes it.

    Args:
        client: the registry.
        wanted: parents before their children.
        needed: repository and digest of what the other drops need.
        progress: hears of it.

    Returns:
        What is gone.

    Raises:
        DeliveryError: the registry does not answer.
    """
    repositories: dict[str, list[Doomed]] = defaultdict(list)
    for item in wanted:
        if (item.repository, item.digest) not in needed:
            repositories[item.repository].append(item)
    gone: list[Doomed] = []
    lists = ReferrerLists(client)
    progress.start("pruning the registry", sum(map(len, repositories.values())), unit="manifests")
    try:
        for repository, items in repositories.items():
            gone += _remove_in(client, lists, repository, items, progress)
        for name in lists.settle():
            progress.warn(
                f"{name}: another site writes this list of referrers all the while, and what was pruned is in it "
                "again; execute the same plan again when the other is done"
            )
    except _KeepsAllError:
        progress.warn(
            f"{client.registry} does not let manifests be deleted; what was pruned here stays there. "
            "docker-registry needs storage.delete.enabled: true"
        )
    progress.finish()
    return tuple(gone)


class _KeepsAllError(Exception):
    """The registry deletes nothing at all."""


def _remove_in(
    client: RegistryClient, lists: ReferrerLists, repository: str, items: list[Doomed], progress: Progress
) -> Iterator[Doomed]:
    try:
        kept = _kept(client, repository, items)
    except DeliveryError as error:
        if error.temporary:
            raise
        progress.warn(f"{client.registry}/{repository} is left as it is: {error.message}")
        return
    for item in items:
        progress.advance(1)
        if item.digest in kept:
            progress.warn(f"{client.name(repository, item.digest)} stays: {kept[item.digest]}")
            continue
        try:
            if not client.delete_manifest(repository, item.digest):
                raise _KeepsAllError
            if item.subject is not None:
                lists.remove(repository, item.subject, item.digest)
        except DeliveryError as error:
            if error.temporary:
                raise
            progress.warn(f"{client.name(repository, item.digest)} stays: {error.message}")
        else:
            yield item


def _kept(client: RegistryClient, repository: str, items: Iterable[Doomed]) -> dict[Digest, str]:
    """Return what tags that are not ours lead to, each with the reason."""
    own = {item.digest: set(item.tags) for item in items}
    kept: dict[Digest, str] = {}

    def keep(digest: Digest, reason: str, depth: int) -> None:
        kept[digest] = reason
        if depth < _NESTED:
            for child in client.manifest(repository, digest).manifests:
                keep(child.digest, reason, depth + 1)

    with delivering(client.registry):
        for tag in client.tags(repository):
            if _FALLBACK.fullmatch(tag):
                continue
            found = client.head(repository, tag)
            if found is None or tag in own.get(found.digest, ()):
                continue
            if found.digest in own or found.media_type in oci.INDEX_TYPES:
                keep(found.digest, f"the tag {tag} leads there and is of no pruned drop", 0)
    return kept

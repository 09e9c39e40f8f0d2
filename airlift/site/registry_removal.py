"""Deletes in an external registry what a plan dooms and nobody needs, by digest.

* Deleting by digest takes all tags of a manifest, so one that a tag of somebody else leads to stays.
* Harbor deletes with a manifest what refers to it and what it lists, unless that has a tag or another index lists it
  too; so one that would take along what a kept drop needs stays.
* What stays keeps what it lists, and all that stays is said. Blobs are left for the registry's own garbage collection.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from airlift import oci
from airlift.digest import Digest
from airlift.errors import DeliveryError, IntegrityError
from airlift.oci import Descriptor
from airlift.progress import Progress
from airlift.site.elsewhere import Doomed
from airlift.transport.harbor import HarborClient
from airlift.transport.harbor_login import Meaning, RefusedError
from airlift.transport.http import HttpStatusError
from airlift.transport.referrers import ReferrerLists
from airlift.transport.refusals import delivering
from airlift.transport.registry import RegistryClient

_FALLBACK: Final = re.compile(r"sha256-[0-9a-f]{64}")
_NESTED: Final = 4
_NOT_FOUND: Final = 404
_DENIED: Final = (None, 401, 403)
"""The statuses of what the account may not do; a login of Harbor that is refused has none."""

Needed = Mapping[str, Mapping[Digest, frozenset[Digest]]]
"""By repository the manifests that stay, each with those that it lists."""


def remove(client: RegistryClient, wanted: Iterable[Doomed], needed: Needed, progress: Progress) -> tuple[Doomed, ...]:
    """Delete what a plan dooms and nobody needs; say what stays, and why. Repeating it finishes it.

    Args:
        client: the registry.
        wanted: parents before their children.
        needed: what the other drops need.
        progress: hears of it.

    Returns:
        What is gone.

    Raises:
        DeliveryError: the registry does not answer; or the account may not do it, or a repository gives an answer that
            cannot be used, and then the rest was tried.
    """
    repositories: dict[str, list[Doomed]] = defaultdict(list)
    for item in wanted:
        if item.digest not in needed.get(item.repository, {}):
            repositories[item.repository].append(item)
    gone: list[Doomed] = []
    failures: list[DeliveryError] = []
    lists = ReferrerLists(client)
    progress.start("pruning the registry", sum(map(len, repositories.values())), unit="manifests")
    try:
        for repository, items in repositories.items():
            place = _Repository(client, repository, needed.get(repository, {}))
            gone += _remove_in(place, lists, items, failures, progress)
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
    if failures:
        raise failures[0]
    return tuple(gone)


class _KeepsAllError(Exception):
    """The registry deletes nothing at all."""


def _remove_in(
    place: _Repository, lists: ReferrerLists, items: list[Doomed], failures: list[DeliveryError], progress: Progress
) -> Iterator[Doomed]:
    client = place.client
    try:
        if not place.look_at_tags(items):
            progress.advance(len(items))
            yield from items
            return
        for item in items:
            progress.advance(1)
            reason = _delete(place, lists, item, failures)
            if reason is None:
                yield item
            else:
                progress.warn(f"{client.name(place.name, item.digest)} stays: {reason}")
    except (DeliveryError, IntegrityError) as error:
        if isinstance(error, DeliveryError) and error.temporary:
            raise
        failures.append(DeliveryError(error.message, mirror=client.registry, hint=error.hint))
        progress.warn(f"{client.registry}/{place.name} is left as it is: {error.message}")


def _delete(place: _Repository, lists: ReferrerLists, item: Doomed, failures: list[DeliveryError]) -> str | None:
    """Delete a manifest, or return why it stays."""
    reason = place.why_kept(item.digest)
    if reason is not None:
        return reason
    try:
        if not place.client.delete_manifest(place.name, item.digest):
            raise _KeepsAllError
        if item.subject is not None:
            lists.remove(place.name, item.subject, item.digest)
    except DeliveryError as error:
        if error.temporary:
            raise
        if error.status in _DENIED:
            failures.append(error)
        place.keep_children(item.digest)
        return error.message
    return None


class _Repository:
    """What stays in one repository."""

    def __init__(self, client: RegistryClient, name: str, needed: Mapping[Digest, frozenset[Digest]]) -> None:
        self.client = client
        self.name = name
        self._needed = needed
        self._kept: dict[Digest, str] = {}
        self._tagged: set[Digest] = set()
        self._listed: dict[Digest, bool] = {}

    def look_at_tags(self, items: Iterable[Doomed]) -> bool:
        """Keep what tags that are not ours lead to; return whether anything can be there at all.

        Raises:
            DeliveryError: the registry does not answer, or does not say.
            IntegrityError: its answer cannot be used.
        """
        own = {item.digest: set(item.tags) for item in items}
        with delivering(self.client.registry):
            try:
                tags = self.client.tags(self.name)
            except RefusedError as error:
                if error.meaning is not Meaning.PROJECT:
                    raise
                return False
            except HttpStatusError as error:
                if error.status != _NOT_FOUND:
                    raise
                # It is gone, or all of it has digests alone: docker-registry says the same of both.
                return True
            for tag in tags:
                if _FALLBACK.fullmatch(tag):
                    continue
                found = self.client.head(self.name, tag)
                if found is None:
                    continue
                self._tagged.add(found.digest)
                if tag not in own.get(found.digest, ()) and (
                    found.digest in own or found.media_type in oci.INDEX_TYPES
                ):
                    self._keep(found, f"the tag {tag} leads there and is of no pruned drop")
        return True

    def _keep(self, found: Descriptor, reason: str, depth: int = 0) -> None:
        self._kept[found.digest] = reason
        if depth < _NESTED:
            for child in self._children(found):
                self._keep(child, reason, depth + 1)

    def keep_children(self, digest: Digest) -> None:
        """Keep what a manifest lists that stays.

        Raises:
            DeliveryError: the registry does not answer, or does not say.
            IntegrityError: its answer cannot be used.
        """
        with delivering(self.client.registry):
            found = self.client.head(self.name, digest)
            for child in () if found is None else self._children(found):
                self._keep(child, f"{digest} stays, which lists it")

    def why_kept(self, digest: Digest) -> str | None:
        """Return why a manifest stays, or None.

        Raises:
            DeliveryError: the registry does not answer, or does not say.
            IntegrityError: its answer cannot be used.
        """
        if digest not in self._kept and isinstance(self.client, HarborClient):
            with delivering(self.client.registry):
                taken = self._taken_along(digest)
                if taken is not None:
                    self._kept[digest] = (
                        f"{self.client.registry} would delete with it {taken}, which a kept drop needs; execute the "
                        "same plan again when that drop is pruned too"
                    )
                    self.keep_children(digest)
        return self._kept.get(digest)

    def _taken_along(self, digest: Digest) -> Digest | None:
        """Return something that is needed and that Harbor would delete together with a manifest."""
        seen, waiting = {digest}, [digest]
        while waiting:
            one = waiting.pop()
            found = self.client.head(self.name, one)
            if found is None:
                continue
            referring = {item.digest for item in self.client.referrers(self.name, one)}
            children = {child.digest for child in self._children(found)} - self._tagged
            for below in sorted((referring | children) - seen):
                seen.add(below)
                if self._is_listed(below):
                    continue
                if below in self._needed:
                    return below
                waiting.append(below)
        return None

    def _children(self, found: Descriptor) -> tuple[Descriptor, ...]:
        # Only of an index: registries count what is read as pulled.
        return self.client.manifest(self.name, found.digest).manifests if found.media_type in oci.INDEX_TYPES else ()

    def _is_listed(self, digest: Digest) -> bool:
        """Say whether an index lists it that stays, and that the registry has."""
        if digest not in self._listed:
            self._listed[digest] = any(
                digest in children and self.client.head(self.name, parent) is not None
                for parent, children in self._needed.items()
            )
        return self._listed[digest]

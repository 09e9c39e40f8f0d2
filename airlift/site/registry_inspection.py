"""Compares an external registry with the drops: manifests by digest, blobs by their last byte, tags of active drops."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from airlift import limits, oci
from airlift.digest import Digest, Verifier
from airlift.errors import AirliftError, FetchError, IntegrityError
from airlift.kinds.images import is_foreign
from airlift.progress import Progress
from airlift.site import contents, mirror, oci_listing
from airlift.site.config import Site
from airlift.site.inspection import FROM_STORE, Finding, Inventory, Owner, Place, owner_of, side_by_side
from airlift.site.journal import Drop, Journal
from airlift.transport.harbor import HarborClient
from airlift.transport.harbor_login import Meaning, RefusedError
from airlift.transport.http import HttpStatusError
from airlift.transport.refusals import delivering
from airlift.transport.registry import RegistryClient

_SHOWN: Final = 3
"""How many drops a remedy names: the newest."""
_NOT_FOUND: Final = 404
_OK: Final = 200
_PARTIAL: Final = 206
_UNSATISFIABLE: Final = 416
_INTERNAL: Final = 500
NOT_GIVEN: Final = "damaged: the registry answers "
"""How an object is described that the registry fails to give: it may be damaged, or what stores it be away."""

_FIRST_IN_HARBOR: Final = (
    "; where Harbor's garbage collection deletes untagged artifacts, or a retention policy does, switch that off for "
    "this project first"
)


@dataclass(frozen=True, slots=True)
class Item:
    """Something that a repository has to have.

    Attributes:
        repository: where.
        digest, size: of what; size is 0 for manifests, which are compared by digest alone.
        is_manifest: a manifest or index, else a blob.
        owners: the artifacts that need it.
    """

    repository: str
    digest: Digest
    size: int
    is_manifest: bool
    owners: tuple[Owner, ...]


@dataclass(frozen=True, slots=True)
class _Lack:
    """Something that the registry does not have as it should. What to do depends on what the store lacks of all of it.

    Attributes:
        subject, problem, owners: see `Finding`.
        drops: those one of whose bundles has it, where the store is known not to.
        first: what to do before, with a semicolon in front.
    """

    subject: str
    problem: str
    owners: tuple[Owner, ...]
    drops: tuple[str, ...] = ()
    first: str = ""

    def found(self, lost: Container[Owner], word: str) -> Finding:
        """Return it with its remedy.

        Args:
            lost: the artifacts of which store and registry lack something.
            word: between the drops whose bundles bring it.
        """
        drops = self.drops or tuple(dict.fromkeys(owner.drop for owner in self.owners if owner in lost))
        remedy = _from_bundle(word.join(drops[-_SHOWN:])) if drops else FROM_STORE
        return Finding(
            Place.REGISTRY, self.subject, self.problem, f"{remedy}{self.first}", self.owners, is_of_bundle=bool(drops)
        )


def items_of(site: Site, inventory: Inventory) -> list[Item]:
    """Return what the registry has to have; of a tree with a damaged manifest only what can be read."""
    registry = site.config.registry
    found: dict[tuple[str, Digest, bool], tuple[int, dict[Owner, None]]] = {}
    if registry is None:
        return []
    for drop, config in inventory.configs:
        for item in config.artifacts:
            if item.kind not in contents.REGISTRY_KINDS:
                continue
            repository = registry.repository(mirror.place_of(item)[0])
            try:
                for descriptor, manifest in oci_listing.walk(item.root, site.store, subject=item.name):
                    wanted = [(descriptor.digest, descriptor.size, True)]
                    wanted += [(b.digest, b.size, False) for b in oci_listing.blobs_of(manifest) if not is_foreign(b)]
                    for digest, size, is_manifest in wanted:
                        _, owners = found.setdefault((repository, digest, is_manifest), (size, {}))
                        owners.setdefault(owner_of(drop, item))
            except AirliftError:
                continue
    return [
        Item(repository, digest, size, is_manifest, tuple(owners))
        for (repository, digest, is_manifest), (size, owners) in found.items()
    ]


def inspect_registry(
    site: Site, journal: Journal, inventory: Inventory, client: RegistryClient, progress: Progress, *, is_deep: bool
) -> list[Finding]:
    """Ask the registry for every object of the kept drops and every tag of the active ones.

    Args:
        site: with a registry in its site.yaml.
        journal: what is active.
        inventory: what the drops hold.
        client: the registry.
        progress: hears of the objects.
        is_deep: read every blob whole and hash it; else its size and its last byte are asked for.

    Raises:
        DeliveryError: the registry does not answer, or does not let us in.
    """
    with delivering(client.registry):
        client.ping()
    items = items_of(site, inventory)
    progress.start("asking the registry", len(items), unit="objects")

    def one(item: Item) -> _Lack | None:
        with delivering(client.registry):
            problem = problem_of(client, item, is_deep=is_deep)
        progress.advance(1)
        if problem is None:
            return None
        is_untagged = item.is_manifest and problem == "missing" and isinstance(client, HarborClient)
        first = _FIRST_IN_HARBOR if is_untagged else ""
        return _Lack(client.name(item.repository, item.digest), problem, item.owners, first=first)

    asked = side_by_side(one, items)
    progress.finish()
    found = [item for item in asked if item is not None]
    lost = [item for item, lack in zip(items, asked, strict=True) if lack and not site.store.has(item.digest)]
    owners = {owner for item in lost for owner in item.owners}
    # Each of its drops has an object; of a repository they have different ones.
    gone = [lack.found(owners, " and ") for lack in _gone(client, items, found)]
    each = [lack.found(owners, " or ") for lack in (*found, *_tags(site, journal, inventory, client))]
    return [*gone, *each]


def _from_bundle(drops: str) -> str:
    return f"airlift check --site DIR --repair BUNDLE with the bundle of {drops}: the store does not have all of it"


def problem_of(client: RegistryClient, item: Item, *, is_deep: bool) -> str | None:
    """Say what is wrong with an object of the registry, or None.

    Raises:
        FetchError: the registry does not answer.
    """
    try:
        if item.is_manifest:
            return _manifest_problem(client, item)
        return _content_problem(client, item) if is_deep else _blob_problem(client, item)
    except RefusedError as error:
        # Harbor has no 404 for what is in a project that is gone.
        if error.meaning is Meaning.PROJECT:
            return "missing"
        raise


def _manifest_problem(client: RegistryClient, item: Item) -> str | None:
    try:
        manifest = client.manifest(item.repository, item.digest)
    except HttpStatusError as error:
        if error.status == _NOT_FOUND:
            return "missing"
        if error.status >= _INTERNAL:
            return f"{NOT_GIVEN}{error.status}"
        raise
    except IntegrityError as error:
        return f"damaged: expected {error.expected}, got {error.actual}"
    if manifest.subject is None:
        return None
    subject = manifest.subject.digest
    try:
        listed = {one.digest for one in client.referrers(item.repository, subject)}
    except HttpStatusError as error:
        if error.status != _INTERNAL:
            raise
        return f"not listed as a referrer of {subject}: the registry answers {error.status}"
    return None if item.digest in listed else f"not listed as a referrer of {subject}"


def _blob_problem(client: RegistryClient, item: Item) -> str | None:
    """Compare size and last byte: a registry may know a size and have no bytes."""
    url = client.url(f"/v2/{item.repository}/blobs/{item.digest}")
    name = client.name(item.repository, item.digest)
    scope = client.pull_scope(item.repository)
    statuses = (_NOT_FOUND, _INTERNAL)
    answer = client.http.head(url, auth=scope, plain_http=client.plain_http, subject=name, accept=statuses)
    if answer.status in statuses:
        # A docker-registry whose disk was full has links without content.
        return "missing" if answer.status == _NOT_FOUND else f"{NOT_GIVEN}{answer.status}"
    length = answer.headers.get("Content-Length")
    if length is not None and length != str(item.size):
        return f"damaged: the registry says it has it and holds {length} bytes, expected {item.size}"
    if item.size == 0:
        return None
    try:
        answer = client.http.exchange(
            "GET",
            url,
            limit=limits.ERROR_BODY,
            headers={"Range": f"bytes={item.size - 1}-"},
            auth=scope,
            plain_http=client.plain_http,
            subject=name,
            accept=(_NOT_FOUND, _UNSATISFIABLE),
        )
    except IntegrityError:
        # More than was asked for: it takes no ranges, so the whole has to be read.
        return _content_problem(client, item)
    if (answer.status, len(answer.body)) in ((_PARTIAL, 1), (_OK, item.size)):
        return None
    return f"damaged: the registry says it has it and does not give its last byte (of {item.size})"


class _Hashing:
    """Takes a download and keeps nothing but its digest."""

    def __init__(self, item: Item, name: str) -> None:
        self._verifier = Verifier(item.digest, item.size, subject=name)
        self.finish = self._verifier.finish

    @property
    def written(self) -> int:
        return self._verifier.seen

    def write(self, data: bytes) -> None:
        self._verifier.update(data)


def _content_problem(client: RegistryClient, item: Item) -> str | None:
    sink = _Hashing(item, client.name(item.repository, item.digest))
    try:
        client.blob(item.repository, item.digest, item.size, sink)
        sink.finish()
    except HttpStatusError as error:
        if error.status == _NOT_FOUND:
            return "missing"
        raise
    except IntegrityError as error:
        return f"damaged: expected {error.expected}, got {error.actual}"
    except FetchError:
        if sink.written == 0:
            raise
        return f"damaged: ends after {sink.written} bytes, expected {item.size}"
    return None


def _gone(client: RegistryClient, items: list[Item], found: list[_Lack]) -> list[_Lack]:
    """Say it in one line where a whole repository is gone."""
    missing = {lack.subject for lack in found if lack.problem == "missing"}
    gone = []
    for repository in sorted({item.repository for item in items}):
        own = [item for item in items if item.repository == repository]
        if all(client.name(repository, item.digest) in missing for item in own):
            owners = tuple(dict.fromkeys(owner for item in own for owner in item.owners))
            gone.append(
                _Lack(
                    f"{client.registry}/{repository}",
                    f"the repository is gone: none of its {len(own)} objects is there",
                    owners,
                )
            )
    return gone


def _tags(site: Site, journal: Journal, inventory: Inventory, client: RegistryClient) -> list[_Lack]:
    registry = site.config.registry
    if registry is None:
        return []
    wanted = [
        (registry.repository(path), tag, digest, drop)
        for drop in journal.drops()
        if drop.active and not drop.pending
        for path, tag, digest in mirror.tags(journal.names_of(drop.release))
    ]

    def one(item: tuple[str, str, Digest, Drop]) -> _Lack | None:
        repository, tag, digest, drop = item
        with delivering(client.registry):
            problem = _tag_problem(client, repository, tag, digest)
        if problem is None:
            return None
        drops = () if site.store.has(digest) else (f"{drop.channel}/{drop.sequence}",)
        return _Lack(client.name(repository, tag), problem, inventory.owners_of(digest, drop), drops)

    return [item for item in side_by_side(one, wanted) if item is not None]


def _tag_problem(client: RegistryClient, repository: str, tag: str, digest: Digest) -> str | None:
    try:
        actual: oci.Descriptor | None = client.head(repository, tag)
    except HttpStatusError as error:
        if error.status != _INTERNAL:
            raise
        return f"the tag cannot be read: the registry answers {error.status}, expected {digest}"
    if actual is None:
        return f"the tag is missing, expected {digest}"
    return None if actual.digest == digest else f"the tag was moved to {actual.digest}, expected {digest}"

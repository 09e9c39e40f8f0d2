"""Compares a site with its complete drops, object by object: every blob hashed again, every name, file and tag.

Nothing is written here; `airlift.site.repair` mends. What is found is said of the object, with what to do about it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeVar

from airlift import artifact, fs, limits
from airlift.artifact import Artifact, DropConfig
from airlift.digest import Digest
from airlift.digest import parse as parse_digest
from airlift.errors import AirliftError, BundleError, IntegrityError, StoreError
from airlift.kinds.images import is_foreign
from airlift.progress import Progress
from airlift.site import contents, kept, oci_listing
from airlift.site.config import Site
from airlift.site.contents import shown
from airlift.site.journal import READY, Drop, Journal
from airlift.site.listing import Listing, Name, part_of
from airlift.store import Store

WORKERS: Final = 4
FROM_STORE: Final = "airlift check --site DIR --repair, from the store"
"""What to do about what the store can mend."""
_FROM_BUNDLE: Final = "airlift check --site DIR --repair BUNDLE with the bundle of that drop"
_NO_STORE: Final = (
    "see whether its disk is mounted; if it is lost, airlift check --site DIR --repair BUNDLE makes it again, with the"
    " bundle of each drop"
)
_ACCEPT: Final = (
    "pin a trust file that accepts it too, such as one with the old keys beside the new ones (airlift site trust); or"
    " let the drop go with airlift drops prune once nothing needs it, that of a channel which the trust file does not"
    " list any more after airlift drops deactivate"
)
_NOT_OURS: Final = "airlift did not put it there: look at it, and move it away"

ItemT = TypeVar("ItemT")
FoundT = TypeVar("FoundT")


class Place(StrEnum):
    """Where something is wrong."""

    STORE = "store"
    JOURNAL = "journal"
    DROPS = "drops"
    TRUST = "trust"
    REGISTRY = "registry"
    INDEX = "index"
    TREE = "tree"


@dataclass(frozen=True, slots=True)
class Owner:
    """What of a drop needs an object.

    Attributes:
        release: of the drop.
        drop: its ``CHANNEL/SEQUENCE``.
        kind, name: of the artifact; empty for what belongs to the drop itself.
    """

    release: str
    drop: str
    kind: str = ""
    name: str = ""


def owner_of(drop: Drop, item: Artifact | None = None) -> Owner:
    """Return the drop, or an artifact of it, as an owner."""
    kind, name = ("", "") if item is None else (item.kind.value, item.name)
    return Owner(drop.release, f"{drop.channel}/{drop.sequence}", kind, name)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as the drops say.

    Attributes:
        place: where.
        subject: a digest, name, file or tag.
        problem: ``missing``, ``damaged``, ``moved`` and so on, with what was expected.
        remedy: what to do.
        owners: what needs it.
        is_of_bundle: whether only the bundle of a drop brings it.
    """

    place: Place
    subject: str
    problem: str
    remedy: str
    owners: tuple[Owner, ...] = ()
    is_of_bundle: bool = False

    @property
    def artifacts(self) -> dict[tuple[str, str], list[str]]:
        """Return the artifacts that need it, kind and name, each with its drops."""
        found: dict[tuple[str, str], list[str]] = {}
        for one in self.owners:
            if one.name:
                found.setdefault((one.kind, one.name), []).append(one.drop)
        return found

    @property
    def drops(self) -> tuple[str, ...]:
        """Return the drops that need it, each as ``CHANNEL/SEQUENCE``."""
        return tuple(dict.fromkeys(one.drop for one in self.owners))

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` says of it."""
        return {
            "place": self.place.value,
            "subject": self.subject,
            "problem": self.problem,
            "remedy": self.remedy,
            "artifacts": [
                {"kind": kind, "name": name, "drops": drops} for (kind, name), drops in self.artifacts.items()
            ],
            "drops": list(self.drops),
            "releases": list(dict.fromkeys(one.release for one in self.owners)),
        }


@dataclass(slots=True)
class Inventory:
    """What the complete drops say has to be there.

    Attributes:
        store: has what the drops say of themselves.
        drops: the complete ones.
        sizes: every blob that the store has to have; None where nothing says how large it is.
        owners: blob to what needs it, in the store or in a registry.
    """

    store: Store
    drops: list[Drop] = field(default_factory=list)
    sizes: dict[Digest, int | None] = field(default_factory=dict)
    owners: dict[Digest, list[Owner]] = field(default_factory=dict)

    @property
    def configs(self) -> Iterator[tuple[Drop, DropConfig]]:
        """Yield each drop with what it holds, as far as that can be read; one at a time, since each may be large."""
        for drop in self.drops:
            with contextlib.suppress(BundleError, IntegrityError, StoreError):
                # The blob itself is found when it is hashed.
                yield drop, artifact.decode_drop_config(self.store.read(drop.config, limit=limits.INDEX_DOCUMENT))

    def need(self, digest: Digest, size: int | None, owner: Owner) -> None:
        """Note that something needs a blob in the store."""
        if self.sizes.get(digest) is None:
            self.sizes[digest] = size
        self.own(digest, owner)

    def own(self, digest: Digest, owner: Owner) -> None:
        """Note that something needs a blob, wherever that is."""
        known = self.owners.setdefault(digest, [])
        # All that one owner needs is noted in one go, so that a second time follows the first.
        if not known or known[-1] != owner:
            known.append(owner)

    def owners_of(self, digest: str, *drops: Drop) -> tuple[Owner, ...]:
        """Return what needs a blob: artifacts, or what belongs to a drop itself.

        Args:
            digest: of the blob.
            drops: nothing of others; they are returned themselves where nothing of theirs has the blob.
        """
        releases = {drop.release for drop in drops}
        known = [one for one in self.owners.get(Digest(digest), ()) if not drops or one.release in releases]
        return tuple([one for one in known if one.name] or known or [owner_of(drop) for drop in drops])


def take_inventory(site: Site, journal: Journal) -> Inventory:
    """Return what has to be there.

    Raises:
        StoreError: the journal cannot be read.
    """
    found = Inventory(site.store)
    for drop in journal.drops():
        if drop.state != READY:
            continue
        found.drops.append(drop)
        own_parts = owner_of(drop)
        found.need(drop.config, None, own_parts)
        with contextlib.suppress(BundleError, IntegrityError, StoreError):
            # A missing index is found by itself.
            index = fs.read_bounded(site.index_path(drop.release), limits.INDEX_DOCUMENT)
            own, _ = artifact.drop_entry(index)
            found.need(own.digest, own.size, own_parts)
        for digest, size in journal.held_blobs(drop.release):
            found.need(digest, size, own_parts)
    for drop, config in found.configs:
        own_parts = owner_of(drop)
        for entry in config.deploy:
            values = entry.get("values", [])
            for item in values if isinstance(values, list) else []:
                if isinstance(item, dict):
                    found.need(parse_digest(item.get("digest")), None, own_parts)
        for item in config.artifacts:
            _need_tree(site, found, item, owner_of(drop, item))
    return found


def _need_tree(site: Site, found: Inventory, item: Artifact, owner: Owner) -> None:
    """Note what an artifact needs; a manifest that is not right ends it, and is found when it is hashed."""
    found.need(item.root.digest, item.root.size, owner)
    is_elsewhere = item.kind in contents.REGISTRY_KINDS and site.config.registry is not None
    try:
        for descriptor, manifest in oci_listing.walk(item.root, site.store, subject=item.name):
            found.need(descriptor.digest, descriptor.size, owner)
            for blob in oci_listing.blobs_of(manifest):
                found.own(blob.digest, owner)
                if is_foreign(blob) and not site.store.has(blob.digest):
                    continue
                if not is_elsewhere or blob.size <= limits.SMALL_BLOB or site.store.has(blob.digest):
                    found.need(blob.digest, blob.size, owner)
    except (IntegrityError, StoreError):
        return


def inspect_site(site: Site, journal: Journal, progress: Progress) -> tuple[Inventory, list[Finding]]:
    """Compare store, journal and ``drops/`` with what the complete drops say.

    Raises:
        StoreError: the journal cannot be read.
    """
    inventory = take_inventory(site, journal)
    findings = _blobs(site, inventory, progress)
    for drop, config in inventory.configs:
        findings += differing_names(site, journal, inventory, drop, config)
    for release in kept.newer(site, journal):
        subject = f"{release.channel}/{release.sequence}"
        problem = f"the journal is {kept.older_than(release)}"
        owner = Owner(release.digest, subject)
        findings.append(Finding(Place.JOURNAL, subject, problem, kept.OLDER_JOURNAL, (owner,)))
    for drop in journal.drops():
        if drop.state == READY:
            findings += _files(site, drop)
        elif drop.state:
            findings.append(
                Finding(
                    Place.JOURNAL,
                    f"{drop.channel}/{drop.sequence}",
                    f"not complete ({drop.state})",
                    "run airlift import with its bundle again; it goes on",
                    (owner_of(drop),),
                )
            )
        if drop.pending:
            findings.append(
                Finding(
                    Place.JOURNAL,
                    f"{drop.channel}/{drop.sequence}",
                    "its tags were moving in the registry, and not all may have moved",
                    f"airlift drops activate --site DIR {drop.channel}/{drop.sequence}; or, where clients are to see"
                    f" nothing of the channel, airlift drops deactivate --site DIR {drop.channel}",
                    (owner_of(drop),),
                )
            )
    return inventory, findings


def _blobs(site: Site, inventory: Inventory, progress: Progress) -> list[Finding]:
    if not site.store.is_there:
        owners = tuple(owner_of(drop) for drop in inventory.drops)
        return [Finding(Place.STORE, str(site.store.blobs), "the directory of the store is missing", _NO_STORE, owners)]
    items = sorted(inventory.sizes.items())
    progress.start("hashing the store", len(items), unit="blobs")

    def one(item: tuple[Digest, int | None]) -> Finding | None:
        digest, size = item
        problem = _blob_problem(site, digest, size)
        progress.advance(1)
        if problem is None:
            return None
        return Finding(Place.STORE, digest, problem, _FROM_BUNDLE, inventory.owners_of(digest))

    found = side_by_side(one, items)
    progress.finish()
    strange = [Finding(Place.STORE, str(path), "not a blob", _NOT_OURS) for path in site.store.strange()]
    return [*(item for item in found if item is not None), *strange]


def _blob_problem(site: Site, digest: Digest, size: int | None) -> str | None:
    if not site.store.has(digest):
        return "missing: a directory has its name" if site.store.path(digest).is_dir() else "missing"
    try:
        actual = site.store.size(digest)
        if size is not None and actual != size:
            return f"damaged: {actual} bytes, expected {size}"
        site.store.verify(digest)
    except IntegrityError as error:
        return f"damaged: its bytes have the digest {error.actual}"
    except StoreError as error:
        return f"damaged: {error.message}"
    return None


def differing_names(
    site: Site, journal: Journal, inventory: Inventory, drop: Drop, config: DropConfig
) -> list[Finding]:
    """Compare what the journal shows and serves of a drop with what its manifests say.

    What was served here before site.yaml named a registry may stay.

    Raises:
        StoreError: the journal cannot be read.
    """
    try:
        listing = spared = listing_of(site, config)
    except AirliftError:
        # A manifest is damaged or missing: that was found already, and says more than this would.
        return []
    if site.config.registry is not None:
        with contextlib.suppress(AirliftError):
            spared = contents.list_all(config, site.store, is_embedded=True)
    wanted, own = _digests(listing.names), _digests(spared.names)
    actual = _digests(journal.names_of(drop.release))
    found = []
    for key in sorted(wanted.keys() | actual.keys()):
        want, have = wanted.get(key), actual.get(key)
        if want == have or (want is None and have == own.get(key)):
            continue
        problem = (
            f"the journal has {have}, the drop does not have this name"
            if want is None
            else f"the journal has {have or 'no such name'}, the drop says {want}"
        )
        owners = inventory.owners_of(want or have or "", drop)
        found.append(Finding(Place.JOURNAL, shown(*key), problem, FROM_STORE, owners))
    served = journal.served_of(drop.release)
    for what, keys in (("lacks", _served(listing) - served), ("has strange", served - _served(spared))):
        scopes: dict[tuple[str, str], list[str]] = {}
        for service, scope, digest in sorted(keys):
            scopes.setdefault((service, scope), []).append(digest)
        for (service, scope), digests in scopes.items():
            problem = f"the journal {what} digests to serve: {len(digests)}, such as {digests[0]}"
            owners = inventory.owners_of(digests[0], drop)
            found.append(Finding(Place.JOURNAL, shown(service, scope, ""), problem, FROM_STORE, owners))
    return found


def _digests(names: Iterable[Name]) -> dict[tuple[str, str, str], str]:
    return {(name.service.value, name.key, part_of(name)): str(name.value["digest"]) for name in names}


def _served(listing: Listing) -> set[tuple[str, str, str]]:
    return {(one.service.value, one.scope, one.digest) for one in listing.held}


def listing_of(site: Site, config: DropConfig) -> Listing:
    """Return what a drop shows, from its manifests in the store.

    Raises:
        AirliftError: a manifest is missing or damaged.
    """
    return contents.list_all(config, site.store, is_embedded=site.config.registry is None)


def _files(site: Site, drop: Drop) -> list[Finding]:
    """Compare what an import keeps beside the store."""
    owners = (owner_of(drop),)
    found = [
        Finding(Place.DROPS, f"drops/{drop.release}/{name}", problem, _FROM_BUNDLE, owners)
        for name, problem in kept.problems(site, drop).items()
    ]
    if (reason := kept.refusal(site, drop)) is not None:
        problem = f"not signed as the trust that is pinned now demands: {reason}"
        found.append(Finding(Place.TRUST, f"drops/{drop.release}/{kept.ENVELOPE}", problem, _ACCEPT, owners))
    return found


def side_by_side(call: Callable[[ItemT], FoundT], items: Sequence[ItemT]) -> list[FoundT]:
    """Make the calls a few at a time, and return their results in order."""
    with ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="check") as pool:
        return list(pool.map(call, items))


def summary(findings: Iterable[Finding]) -> Mapping[str, Any]:
    """Return what ``airlift check --json`` says."""
    listed = list(findings)
    return {"clean": not listed, "findings": [item.to_json() for item in listed]}

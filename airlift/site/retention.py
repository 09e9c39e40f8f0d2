"""Prune: which kept drops go, and which blobs nobody needs afterwards. Planned first, reviewed, then executed.

* Of a channel without an active drop no complete drop goes, unless it was deactivated.
* A drop whose import is not complete goes only when a person names it: its bundle may still come.
* An active drop, one whose tags are on their way, and the newest drops of each channel stay, with all they need.
* Where nothing tells whole what a kept drop needs, only what the going drops served goes, or nothing.
* Executing compares the plan with the site once more: what came or became active meanwhile is never touched.
* The journal forgets a drop before its blobs go, so a kill leaves at most blobs that nobody names, and the next plan
  has them. A reserve on the disk lets the journal forget even when the disk is full.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from airlift import artifact, fs, limits
from airlift import digest as digests
from airlift.digest import Digest
from airlift.digest import parse as parse_digest
from airlift.errors import BundleError, DeliveryError, IntegrityError, StoreError, UsageError
from airlift.progress import Progress
from airlift.site import kept, oci_listing, registry_removal, registry_retention
from airlift.site.config import Site
from airlift.site.elsewhere import Doomed, merged
from airlift.site.journal import READY, Drop, Journal
from airlift.site.left_behind import names_beyond, warn_of_wheels
from airlift.site.listing import Name, Service, part_of
from airlift.site.mirrors import images, wheels
from airlift.site.prune_plan import Plan
from airlift.transport.registry import RegistryClient
from airlift.transport.settings import HttpSettings

_UNREADABLE: Final = (StoreError, BundleError, IntegrityError)


def plan(site: Site, keep: int, give_up: Iterable[Drop] = ()) -> Plan:
    """Say what a prune would do; changes nothing.

    Args:
        site: where.
        keep: how many of each channel's newest complete drops stay beside the active one; none of a channel that was
            deactivated and that the pinned trust does not list any more, since nothing new takes their place.
        give_up: drops whose import is not complete and never will be, since their bundle is lost.

    Raises:
        UsageError: `keep` is negative, a drop to give up is complete, or a drop would go of a channel that has no
            active one.
        StoreError: the journal or a manifest cannot be read, or the journal is older than the site.
    """
    if keep < 0:
        raise UsageError(f"--keep {keep}: expected 0 or more")
    given_up = tuple(dict.fromkeys(drop.release for drop in give_up))
    with site.journal() as journal:
        kept.refuse_older_journal(site, journal)
        drops = journal.drops()
        _refuse_complete(drops, given_up)
        ended = journal.deactivated() - site.trust.channels.keys()
        newest = {
            drop.release
            for channel in {drop.channel for drop in drops} - ended
            for drop in sorted(
                (item for item in drops if item.channel == channel and item.state == READY),
                key=lambda item: item.sequence,
            )[-keep or len(drops) :]
        }
        going = tuple(
            d.release for d in drops if d.state == READY and not d.active and not d.pending and d.release not in newest
        )
        _refuse_without_active(drops, going, journal.deactivated())
        needed, unsure = _needed(site, journal, (drop for drop in drops if drop.release not in going))
        candidates: Iterable[Digest] = site.store.digests()
        waits_for = _incomplete(drops, given_up)
        if unsure:
            served = _served(journal, going)
            candidates = [digest for digest in candidates if digest in served]
        elif waits_for:
            # What an import that was cut short has brought has no name yet; it is left for the import to go on with.
            freed = _freed(site, journal, (drop for drop in drops if drop.release in going))
            candidates = [digest for digest in candidates if digest in freed]
        blobs = [(digest, site.store.size(digest)) for digest in candidates if digest not in needed]
        manifests = merged(_unfinished(site, journal), registry_retention.doomed(site, journal, going))
        left = tuple(name.value["filename"] for name in _only_here(site, journal, drops, going))
        return Plan(
            going,
            tuple(blobs),
            manifests,
            waits_for if manifests else (),
            given_up,
            unsure,
            left,
            _mirrors_left(site, journal, going),
        )


def execute(
    site: Site, wanted: Plan, progress: Progress, http: HttpSettings | None = None, *, now: datetime | None = None
) -> Plan:
    """Do what a plan says and is still to be done, and return what was done.

    The external registry comes last: where it does not answer, or an import is not complete, executing the same plan
    again finishes it. `now` is the time, with its zone, for the history.

    Raises:
        UsageError: a drop of the plan is active now, or its channel has no active one; or one that it gives up is
            complete now.
        TrustError: another trust file was pinned while this waited.
        StoreError: the disk refuses, or the journal is older than the site.
        DeliveryError: the external registry does not answer or refuses. Nothing was done where that shows at once.
    """
    with kept.changing(site, "pruning", progress, is_written=True, now=now) as journal:
        drops = {drop.release: drop for drop in journal.drops()}
        for release in wanted.releases:
            drop = drops.get(release)
            if drop is not None and (drop.active or drop.pending):
                raise UsageError(f"{release} is active now and stays", hint="make a new plan")
        _refuse_complete(drops.values(), wanted.given_up)
        _refuse_without_active(drops.values(), wanted.releases, journal.deactivated())
        needed, unsure = _needed(site, journal, (d for d in drops.values() if d.release not in wanted.releases))
        served = _served(journal, wanted.releases)
        has_registry = site.config.registry is not None and bool(wanted.manifests)
        host = "" if site.config.registry is None else site.config.registry.host
        waits_for = _incomplete(drops.values(), wanted.given_up) if has_registry else ()
        client = None
        if site.config.registry is not None and wanted.manifests and not waits_for:
            client = images.connect(site, http or HttpSettings(), progress)
            # Before the journal forgets the drops: a registry that refuses now ends this with nothing changed.
            images.RegistryTarget(client, site.config.registry.repository).check()
        left = _say_wheels(site, _only_here(site, journal, drops.values(), wanted.releases), progress, http)
        mirrors_left = _mirrors_left(site, journal, wanted.releases)
        # First, since what is kept of a release that the journal does not know says that the journal is an older one.
        _forget_reports(site, wanted.given_up)
        with journal.transaction():
            for release in (*wanted.releases, *wanted.given_up):
                journal.withdraw(release)
            # A plan that is made later has to know what this one leaves undone.
            journal.elsewhere.forget(wanted.releases, host, wanted.manifests if has_registry else ())
        gone = [
            (digest, size)
            for digest, size in wanted.blobs
            if digest not in needed and (not unsure or digest in served) and site.store.has(digest)
        ]
        progress.start("pruning", len(gone), unit="blobs")
        for digest, _ in gone:
            site.store.delete(digest)
            progress.advance(1)
        progress.finish()
        _forget_left(site, journal)
        manifests = () if client is None else _prune_registry(site, journal, client, wanted.manifests, progress)
    done, given_up = (tuple(one for one in some if one in drops) for some in (wanted.releases, wanted.given_up))
    return Plan(done, tuple(gone), manifests, waits_for, given_up, unsure, left, mirrors_left)


def _unfinished(site: Site, journal: Journal) -> tuple[Doomed, ...]:
    """Return what earlier prunes have left undone in the registry, but for what a drop needs again."""
    if site.config.registry is None or not (found := journal.elsewhere.doomed(site.config.registry.host)):
        return ()
    needed = registry_retention.needed(site, journal)
    return tuple(item for item in found if item.digest not in needed.get(item.repository, {}))


def _mirrors_left(site: Site, journal: Journal, going: Iterable[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return what mirrors that site.yaml does not name any more may still show of drops that go."""
    found: dict[str, set[str]] = defaultdict(set)
    for release in going:
        for service, address in journal.elsewhere.given(release).keys() - set(site.mirrors):
            names = [name for name in journal.names_of(release) if name.service == service]
            found[address].update(part_of(name) or name.key for name in names)
    return tuple((address, tuple(sorted(names))) for address, names in sorted(found.items()) if names)


def _only_here(site: Site, journal: Journal, drops: Iterable[Drop], going: Iterable[str]) -> list[Name]:
    """Return the wheels that no drop which stays has; nothing where there is no external package index."""
    if site.config.python is None:
        return []
    known, releases = list(drops), set(going)
    pruned, others = ([d for d in known if (d.release in releases) == is_going] for is_going in (True, False))
    return names_beyond(journal, pruned, others, Service.SIMPLE)


def _say_wheels(site: Site, names: list[Name], progress: Progress, http: HttpSettings | None) -> tuple[str, ...]:
    """Say which of them the index has, before the site forgets them; no protocol of indexes deletes a file."""
    if not names:
        return ()
    target = wheels.IndexTarget(wheels.connect(site, http or HttpSettings(), progress))
    return warn_of_wheels(site, target, names, "no kept drop has any more", progress)


def _refuse_without_active(drops: Iterable[Drop], going: Iterable[str], deactivated: set[str]) -> None:
    """Refuse where nobody knows what clients see: after a recovery the tags in a registry may be of any drop."""
    known = list(drops)
    releases = set(going)
    lost = {drop.channel for drop in known if drop.release in releases} - {d.channel for d in known if d.active}
    for channel in sorted(lost - deactivated):
        raise UsageError(
            f"no drop of channel {channel} is active, so it is not known which one clients use",
            hint=f"activate that one first: airlift drops activate --site DIR {channel}/SEQUENCE",
        )


def _refuse_complete(drops: Iterable[Drop], given_up: Iterable[str]) -> None:
    """Refuse to give up what may be in use."""
    releases = set(given_up)
    for drop in drops:
        if drop.release in releases and drop.state == READY:
            raise UsageError(
                f"{drop.channel}/{drop.sequence} is complete and is not given up: {drop.release}",
                hint="--keep says how many of the complete drops stay; make a new plan",
            )


def _incomplete(drops: Iterable[Drop], given_up: Iterable[str]) -> tuple[str, ...]:
    releases = set(given_up)
    return tuple(drop.release for drop in drops if drop.state != READY and drop.release not in releases)


def _prune_registry(
    site: Site, journal: Journal, client: RegistryClient, wanted: tuple[Doomed, ...], progress: Progress
) -> tuple[Doomed, ...]:
    needed = registry_retention.needed(site, journal)
    try:
        gone = registry_removal.remove(client, wanted, needed, progress)
    except DeliveryError as error:
        first = "" if error.hint is None else f"{error.hint}; "
        raise DeliveryError(
            f"{error.message}; the site has forgotten the pruned drops, and the registry still has some of them",
            mirror=error.mirror,
            temporary=error.temporary,
            status=error.status,
            hint=f"{first}execute the plan again; a new one has what is left there too",
        ) from None
    settled = {item.place for item in gone} | {(place, digest) for place, known in needed.items() for digest in known}
    with journal.transaction():
        journal.elsewhere.settle(client.registry, settled & {item.place for item in wanted})
    return gone


def _needed(site: Site, journal: Journal, drops: Iterable[Drop]) -> tuple[set[Digest], tuple[str, ...]]:
    """Return every blob that these drops need, and those releases of which the own manifest is not known.

    Raises:
        StoreError: what one needs cannot be read.
    """
    found: set[Digest] = set()
    unsure = []
    for drop in drops:
        if drop.state != READY:
            continue
        try:
            found.update(_blobs_of(site, journal, drop))
        except _UNREADABLE as error:
            raise StoreError(
                f"{drop.channel}/{drop.sequence} stays, and what it needs cannot be read: {error.message}",
                hint="airlift check --site DIR --repair BUNDLE with the bundle of that drop, then prune",
            ) from None
        own = _own_manifest(site, drop)
        if own is None:
            unsure.append(drop.release)
        else:
            found.add(own)
    return found, tuple(unsure)


def _freed(site: Site, journal: Journal, drops: Iterable[Drop]) -> set[Digest]:
    """Return what these drops need, as far as it can be read."""
    found: set[Digest] = set()
    for drop in drops:
        if (own := _own_manifest(site, drop)) is not None:
            found.add(own)
        with contextlib.suppress(*_UNREADABLE):
            for digest in _blobs_of(site, journal, drop):
                found.add(digest)
    return found


def _served(journal: Journal, releases: Iterable[str]) -> set[Digest]:
    """Return what the store has for the clients of these drops; what the others have so is known of all."""
    return {digest for release in releases for digest, _ in journal.held_blobs(release)}


def _own_manifest(site: Site, drop: Drop) -> Digest | None:
    """Return the digest of the drop's own manifest, which recovery begins with; None where its index is not right."""
    with contextlib.suppress(*_UNREADABLE):
        index = fs.read_bounded(site.index_path(drop.release), limits.INDEX_DOCUMENT)
        return artifact.drop_entry(digests.check(index, drop.content_id))[0].digest
    return None


def _blobs_of(site: Site, journal: Journal, drop: Drop) -> Iterator[Digest]:
    """Yield what a complete drop serves, and what says so but for its own manifest."""
    yield from (digest for digest, _ in journal.held_blobs(drop.release))
    yield drop.config
    config = artifact.decode_drop_config(site.store.read(drop.config, limit=limits.INDEX_DOCUMENT))
    for entry in config.deploy:
        yield from (parse_digest(item["digest"]) for item in _values(entry))
    for item in config.artifacts:
        yield item.root.digest
        for _, manifest in oci_listing.walk(item.root, site.store, subject=item.name):
            yield from (child.digest for child in manifest.manifests)
            yield from (blob.digest for blob in oci_listing.blobs_of(manifest))


def _values(entry: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    values = entry.get("values", [])
    return values if isinstance(values, list) else []


def _forget_left(site: Site, journal: Journal) -> None:
    """Take away what is kept of pruned drops, also of those of a prune that was cut short before it did."""
    leaving = journal.elsewhere.leaving()
    known = {drop.release for drop in journal.drops()}
    _forget_reports(site, (release for release in leaving if release not in known))
    with journal.transaction():
        journal.elsewhere.left(leaving)


def _forget_reports(site: Site, releases: Iterable[str]) -> None:
    for release in releases:
        folder = site.drops_dir / release
        with fs.guarded("removing"):
            if not folder.is_dir():
                continue
            for path in sorted(folder.iterdir()):
                path.unlink()
            folder.rmdir()

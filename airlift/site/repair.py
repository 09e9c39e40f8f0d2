"""Checks a site, and mends it: all but the store from the store, and the store from a bundle."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from airlift import limits
from airlift.digest import Digest
from airlift.errors import AirliftError, DeliveryError, FetchError, IntegrityError, PolicyError, StoreError
from airlift.progress import Progress
from airlift.site import (
    contents,
    history,
    index_inspection,
    inspection,
    kept,
    registry_inspection,
    static_inspection,
    static_places,
    static_tree,
)
from airlift.site.clashes import refuse_clashes
from airlift.site.config import Site
from airlift.site.importer import import_bundle
from airlift.site.inspection import Finding, Inventory, Place
from airlift.site.journal import READY, Journal
from airlift.site.listing import Service
from airlift.site.mirrors import images, wheels
from airlift.site.registry_inspection import NOT_GIVEN, Item, items_of, problem_of
from airlift.transport.harbor import HarborClient
from airlift.transport.http import HttpStatusError
from airlift.transport.package_index import PackageIndex
from airlift.transport.referrers import ReferrerLists
from airlift.transport.refusals import delivering
from airlift.transport.registry import RegistryClient
from airlift.transport.settings import HttpSettings
from airlift.trust.keys import Passphrase

_GONE: Final = (202, 204, 404, 405)
_WITNESSES: Final = 3
"""How many other objects of a repository are asked for before a failing one counts as damaged."""
_CHANGED: Final = (
    "something else than airlift changed state.db, or it is damaged: tell the auditor; put a state.db from before back,"
    " or move it away with its -wal and -shm files and run airlift site recover, whose log begins anew"
)
_UNREACHED: Final = "could not be compared"


def check(site: Site, *, progress: Progress, http: HttpSettings, is_deep: bool = False) -> list[Finding]:
    """Compare everything with the drops, and return what differs. Nothing is written.

    That a registry does not answer, or does not let us in, is a finding too, the last one.

    Args:
        site: which.
        progress: hears of the objects.
        http: how to reach the external registry.
        is_deep: read the registry's blobs whole.

    Raises:
        StoreError: the journal cannot be read.
    """
    with site.journal() as journal:
        return _check(site, journal, progress, http, is_deep=is_deep)


def _check(site: Site, journal: Journal, progress: Progress, http: HttpSettings, *, is_deep: bool) -> list[Finding]:
    inventory, findings = inspection.inspect_site(site, journal, progress)
    unreached: list[Finding] = []
    if site.config.registry is not None:
        try:
            client = images.connect(site, http, progress)
            findings += registry_inspection.inspect_registry(
                site, journal, inventory, client, progress, is_deep=is_deep
            )
        except (DeliveryError, StoreError) as error:
            # What was found before would be lost with it.
            remedy = error.hint or "see that the registry runs and answers, then check again"
            unreached.append(
                Finding(Place.REGISTRY, site.config.registry.host, f"{_UNREACHED}: {error.message}", remedy)
            )
    if site.config.python is not None:
        try:
            findings += index_inspection.inspect_index(journal, inventory, wheels.connect(site, http, progress))
        except StoreError as error:
            remedy = error.hint or "mend python in site.yaml, then check again"
            unreached.append(Finding(Place.INDEX, site.config.python.index, f"{_UNREACHED}: {error.message}", remedy))
    findings += static_inspection.inspect_trees(site, journal, inventory, progress)
    return findings + _history(journal) + unreached


def _history(journal: Journal) -> list[Finding]:
    try:
        journal.history.entries()
    except IntegrityError as error:
        return [Finding(Place.JOURNAL, "site log", error.message, _CHANGED)]
    return []


def repair(
    site: Site,
    findings: Sequence[Finding],
    bundle: Path | None,
    *,
    now: datetime | None,
    passphrase: Passphrase,
    progress: Progress,
    http: HttpSettings,
    is_deep: bool = False,
) -> list[Finding]:
    """Mend what `check` found, check once more, and return what is still wrong.

    Damaged blobs of the store are replaced by those of the bundle; without a bundle they stay. While the registry does
    not answer, or the store is not there and no bundle brings it, nothing is mended.

    Args:
        site: which.
        findings: what `check` returned.
        bundle: brings what the store lacks; its release has to be one that the site has.
        now: the time.
        passphrase: opens the site's identity.
        progress: hears of the objects.
        http: how to reach the external registry.
        is_deep: read the registry's blobs whole.

    Raises:
        AirliftError: as `import_bundle`.
        UsageError: see `Site.refuse_foreign_root`.
        StoreError: the journal is older than the site.
        DeliveryError: the registry refuses.
    """
    is_store_lost = bundle is None and not site.store.is_there
    if is_store_lost or any(item.problem.startswith(_UNREACHED) for item in findings):
        return list(findings)
    site.refuse_foreign_root()
    with site.journal() as journal:
        kept.refuse_older_journal(site, journal)
    if bundle is not None:
        # Its directory is what keeps other commands out meanwhile.
        site.store.create()
    client = None if site.config.registry is None else images.connect(site, http, progress)
    if client is not None:
        with kept.changing(site, "mending", progress) as journal:
            damaged = items_of(site, inspection.take_inventory(site, journal))
            mendable = [item for item in damaged if bundle is not None or site.store.has(item.digest)]
            _forget_damaged(client, mendable, is_deep=is_deep)
    with kept.changing(site, "mending", progress) as journal:
        _list_again(site, journal, progress)
    brought = ""
    if bundle is not None:
        drop = import_bundle(
            site,
            bundle,
            now=now,
            passphrase=passphrase,
            progress=progress,
            http=http,
            mend=frozenset(
                # What is strange, or the store itself, has a path.
                Digest(f.subject)
                for f in findings
                if f.place is Place.STORE and f.subject.startswith("sha256:")
            ),
        ).drop
        brought = f"{drop.channel}/{drop.sequence}"
    if client is not None:
        with kept.changing(site, "mending", progress) as journal:
            _fill(site, journal, inspection.take_inventory(site, journal), client, progress)
    if site.config.python is not None:
        with kept.changing(site, "mending", progress) as journal:
            _fill_index(site, journal, wheels.connect(site, http, progress), progress)
    _export_again(site, progress)
    with site.journal() as journal:
        left = _check(site, journal, progress, http, is_deep=is_deep)
    with kept.changing(site, "mending", progress, now=now) as journal, kept.noting(journal, progress):
        said = f"{len(findings)} found, {len(left)} left" + (f"; with the bundle of {brought}" if brought else "")
        journal.history.note(history.REPAIRED, detail=said)
    return [_explained(item, brought) for item in left]


def _fill(site: Site, journal: Journal, inventory: Inventory, client: RegistryClient, progress: Progress) -> None:
    """Push again what the registry lacks, and move the tags of the active drops back."""
    registry = site.config.registry
    if registry is None:
        return
    lists = ReferrerLists(client)
    mirrors = [(Service.OCI, registry.place)]
    with kept.noting(journal, progress):
        journal.elsewhere.give((drop.release for drop in inventory.drops), mirrors)
    target = images.RegistryTarget(client, registry.repository, lists)
    artifacts = {(a.name, a.root.digest): a for _, config in inventory.configs for a in config.artifacts}
    unfilled = set()
    for item in artifacts.values():
        if item.kind not in contents.REGISTRY_KINDS:
            continue
        one = images.RegistryTarget(client, registry.repository, lists)
        try:
            one.expect([item], site.store, is_named=False)
            one.complete(site.store, progress)
        except (StoreError, IntegrityError):
            # What the store cannot give is left for the check that follows to tell; its tag has nothing to point at.
            unfilled.add(item.root.digest)
    target.settle(progress)
    for drop in journal.drops():
        if drop.active and drop.state == READY and not drop.pending:
            names = [name for name in journal.names_of(drop.release) if name.value["digest"] not in unfilled]
            target.activate(names, site.store, progress)
            if not unfilled & {Digest(name.value["digest"]) for name in journal.names_of(drop.release)}:
                with kept.noting(journal, progress):
                    journal.elsewhere.give([drop.release], mirrors, whole=True)


def _list_again(site: Site, journal: Journal, progress: Progress) -> None:
    """Write the journal's names and digests of a drop again where its manifests say others.

    So is a site that served images from a registry and does so itself from now on.
    """
    inventory = inspection.take_inventory(site, journal)
    for drop, config in inventory.configs:
        if not inspection.differing_names(site, journal, inventory, drop, config):
            continue
        listing = inspection.listing_of(site, config)
        try:
            if drop.active:
                refuse_clashes(journal, drop.channel, listing.names)
        except PolicyError as error:
            progress.warn(error.message)
            continue
        with journal.transaction():
            journal.publish(drop, listing.names, listing.held)


def _fill_index(site: Site, journal: Journal, index: PackageIndex, progress: Progress) -> None:
    """Upload again what the package index lacks of the active drops."""
    found = index_inspection.inspect_index(journal, inspection.take_inventory(site, journal), index)
    lacking = {item.subject for item in found if item.problem == "missing"}
    for drop in journal.drops():
        if drop.active and drop.state == READY and not drop.pending:
            names = [
                name
                for name in journal.names_of(drop.release)
                if f"{index.name}/{name.key}/{name.value.get('filename')}" in lacking
                and site.store.has(name.value["digest"])
            ]
            wheels.IndexTarget(index).activate(names, site.store, progress)
            with kept.noting(journal, progress):
                journal.elsewhere.give(
                    [drop.release], [one for one in site.mirrors if one[0] == Service.SIMPLE], whole=True
                )


def _export_again(site: Site, progress: Progress) -> None:
    """Write the static trees that differ; why one cannot be written is said, and that it differs by the next check.

    Where there is no link any more, nothing is written: it would be under the place where a disk belongs.
    """
    with contextlib.suppress(StoreError):
        for place in static_places.known(site):
            try:
                if static_tree.current(place) is not None:
                    static_tree.export(site, place, progress)
            except AirliftError as error:
                progress.warn(error.message)


def _forget_damaged(client: RegistryClient, items: Sequence[Item], *, is_deep: bool) -> None:
    """Take away what the registry holds damaged, as far as it lets: else it says that it has it, and takes nothing.

    Raises:
        DeliveryError: the registry does not answer, or fails at what may be whole.
    """
    for item in items:
        with delivering(client.registry):
            problem = problem_of(client, item, is_deep=is_deep)
            if problem is None or not problem.startswith("damaged"):
                continue
            if problem.startswith(NOT_GIVEN):
                _refuse_outage(client, item, items, problem)
            kind = "manifests" if item.is_manifest else "blobs"
            with contextlib.suppress(AirliftError):
                client.http.exchange(
                    "DELETE",
                    client.url(f"/v2/{item.repository}/{kind}/{item.digest}"),
                    limit=limits.ERROR_BODY,
                    auth=client.scope(f"repository:{item.repository}:pull,push,delete"),
                    plain_http=client.plain_http,
                    subject=client.name(item.repository, item.digest),
                    accept=_GONE,
                )


def _refuse_outage(client: RegistryClient, item: Item, items: Sequence[Item], problem: str) -> None:
    """Delete nothing because of an outage: tags and signatures go with a manifest, and the manifest may be whole.

    A Harbor deletes while what stores its manifests is away. Another registry has to give something else of the
    repository in the same moment.

    Raises:
        FetchError: it may be an outage.
    """
    name = client.name(item.repository, item.digest)
    if isinstance(client, HarborClient):
        raise FetchError(
            f"{name}: {problem.removeprefix('damaged: ')}; it may be whole, so nothing was deleted",
            temporary=True,
            hint="let the administrator of Harbor see to its registry and storage, then run the same command again;"
            " when this artifact alone stays so, delete it in Harbor first",
        )
    others = [other for other in items if other.repository == item.repository and other.digest != item.digest]
    for other in others[:_WITNESSES]:
        with contextlib.suppress(HttpStatusError):
            if problem_of(client, other, is_deep=False) is None:
                return
    raise FetchError(
        f"{name}: {problem.removeprefix('damaged: ')}, and nothing else of the repository can be read; "
        "nothing was deleted",
        temporary=True,
        hint="see to the registry and its storage, then run the same command again",
    )


def _explained(item: Finding, brought: str) -> Finding:
    """Say what is left to do of what was sent again, from the store or by the bundle of the drop `brought`, in vain."""
    was_sent = not item.is_of_bundle or brought in item.drops
    if item.place is not Place.REGISTRY or not item.problem.startswith("damaged") or not was_sent:
        return item
    return Finding(
        item.place,
        item.subject,
        item.problem,
        "the registry keeps its damaged file under this digest although it was deleted and sent again; remove the file"
        " in the registry's storage, then run airlift check --repair once more",
        item.owners,
    )

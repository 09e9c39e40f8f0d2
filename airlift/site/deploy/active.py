"""The active drops of a site, as `airlift.site.deploy.k3s` wants them: from its journal, its store and its registry."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from airlift import digest, fs, limits
from airlift.artifact import Artifact, DropConfig, Kind
from airlift.digest import Digest
from airlift.errors import DeployError, IntegrityError, StoreError, first_of
from airlift.oci import Platform
from airlift.progress import Progress
from airlift.site.config import Site
from airlift.site.deploy import k3s, moved, program, pulling, skew
from airlift.site.deploy.blobs import BlobSource, FirstOf, StoreBlobs
from airlift.site.deploy.k3s import Plan
from airlift.site.deploy.registries import Endpoint, site_endpoint
from airlift.site.deploy.registry_blobs import RegistryBlobs
from airlift.site.deploy.rendered import Renderer, helm_at_site
from airlift.site.drops import active_drops, list_drops, load_drop
from airlift.site.journal import READY, Drop
from airlift.site.mirror import place_of
from airlift.site.mirrors import images
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.settings import HttpSettings

CA_FOLDER: Final = PurePosixPath("etc/rancher/k3s")
_SHOWN: Final = 5


def plan_for_site(
    site: Site,
    *,
    root: Path,
    platform: Platform,
    http: HttpSettings,
    progress: Progress,
    environment: Mapping[str, str] | None = None,
    architecture: str | None = None,
    drops: Sequence[DropConfig] | None = None,
) -> Plan:
    """Check everything and say what would be written; nothing is.

    Args:
        site: the site.
        root: what stands for ``/`` of the node.
        platform: the node's.
        http: how to reach the registry that site.yaml names, where it names one.
        progress: listener.
        environment: the process's, where a helm may be found; None looks in the drop alone.
        architecture: of the machine that this runs on, where it is not the node's.
        drops: what is gone back to; None is what is active.

    Raises:
        DeployError: no drop is active, nodes may not pull, or see `k3s.make_plan`.
        IntegrityError, StoreError, DeliveryError: as there.
    """
    is_going_back = drops is not None
    drops = drops or required_drops(site)
    source = blobs(site, http, progress)
    registry = endpoint(site)
    with helm_at_site(drops, site.store, environment or {}, architecture or platform.architecture) as helm:
        plan = k3s.make_plan(
            drops,
            root=root,
            endpoint=registry,
            platform=platform,
            blobs=source,
            values=site.store.read,
            shown=None if helm is None else Renderer(helm, source, site.store.read),
        )
    # After it: what the site itself cannot read is said in its own words.
    try:
        unasked = pulling.check(site, registry, drops, http, progress)
    except DeployError as error:
        if not is_going_back:
            raise
        unasked = error.message  # what ran before may be on the nodes still, and who goes back has trouble enough
    joined = None if site.config.registry is None else _joined(site.config.registry, drops)
    return replace(plan, notes=(*plan.notes, *filter(None, (joined, unasked))))


def _joined(registry: RegistryConfig, drops: Sequence[DropConfig]) -> str | None:
    """Say which images no node can pull, since `depth` gives them another path than their name says."""
    paths = {place_of(item)[0] for drop in drops for item in drop.artifacts if item.kind is Kind.IMAGE}
    found = []
    for path in sorted(paths):
        source, _, rest = path.partition("/")
        if registry.repository(path) != f"{registry.repository(source)}/{rest}".strip("/"):
            found.append(path)
    if not found:
        return None
    return (
        f"{first_of(found, _SHOWN)}: `depth` in site.yaml joins parts of the name, so no node finds this "
        "there; raise `depth` and import again, or list the image under `k3s.preload`"
    )


def with_words(plan: Plan, site: Site, platform: Platform, drops: Sequence[DropConfig] | None) -> Plan:
    """Return a plan for files only, with notes on what files alone do not change: K3s, and pods that keep an image.

    Raises:
        IntegrityError, StoreError: see `skew.stays`.
    """
    deployed = drops or required_drops(site)
    words = (skew.stays(plan.root, deployed, platform, site.store), moved.word(plan.pins, _others(site, deployed)))
    return replace(plan, notes=(*plan.notes, *filter(None, words)))


def programs(site: Site, platform: Platform) -> frozenset[Digest]:
    """Return the K3s of every drop that the site can go back to, and of those that are active.

    Raises:
        DeployError: there is no K3s for this processor.
        StoreError: the journal cannot be read.
    """
    found = [program.find_binary([drop], platform, site.store) for drop in _ready(site)]
    return frozenset(item.digest for item in found if item is not None)


def _others(site: Site, deployed: Sequence[DropConfig]) -> Iterator[DropConfig]:
    return (drop for drop in _ready(site) if drop not in deployed)


def _ready(site: Site) -> Iterator[DropConfig]:
    for drop in list_drops(site):
        if drop.state == READY:
            with contextlib.suppress(StoreError, IntegrityError):  # one that nobody deploys is for `airlift check`
                yield load_drop(site, drop.release)


def required_drops(site: Site) -> list[DropConfig]:
    """Return the active drops, at least one.

    Raises:
        DeployError: none is active.
        StoreError: one cannot be read.
    """
    drops = active_drops(site)
    if not drops:
        raise DeployError(
            f"no drop is active at {site.root}", hint="import a bundle, or activate one with: airlift drops activate"
        )
    return drops


def drops_after(site: Site, target: Drop) -> list[DropConfig]:
    """Return what would be active if a drop were that of its channel.

    Raises:
        StoreError: a drop cannot be read.
    """
    now = [drop for drop in list_drops(site) if drop.active]
    return [load_drop(site, (target if drop.channel == target.channel else drop).release) for drop in now]


def blobs(site: Site, http: HttpSettings, progress: Progress) -> BlobSource:
    """Return where the content of the site's images and charts is read.

    Raises:
        StoreError: the certificates or the password of its registry cannot be read.
    """
    registry = site.config.registry
    store = StoreBlobs(site.store)
    if registry is None:
        return store

    def repository(artifact: Artifact) -> str:
        return registry.repository(place_of(artifact)[0])

    # What the importer needed whole (manifests, small configs) is in the store, the rest is only there.
    return FirstOf(store, RegistryBlobs(images.connect(site, http, progress), repository))


def endpoint(site: Site) -> Endpoint:
    """Return where nodes ask for images: at the registry that site.yaml names, else at the site itself.

    Raises:
        StoreError: the certificates or the password cannot be read.
    """
    registry, place = site.config.registry, asked(site)
    if registry is None:
        return place
    ca = site.at(registry.ca)
    certificates = None if ca is None else fs.read_bounded(ca, limits.DOCUMENT)
    account = registry if registry.pull is None else registry.pull
    return replace(
        place,
        ca_path=None if certificates is None else _ca_path(certificates),
        ca=certificates,
        password=None if place.username is None or account == "anonymous" else site.password(account),
    )


def asked(site: Site) -> Endpoint:
    """Return the same without certificates and password, which not everybody may read."""
    registry = site.config.registry
    if registry is None:
        return site_endpoint(site.config.url)
    parts = urlsplit(registry.url)
    account = None if registry.pull == "anonymous" else registry.pull or registry
    return Endpoint(
        f"{parts.scheme}://{parts.netloc}/v2",
        username=None if account is None else account.username,
        place=registry.repository,
    )


def _ca_path(certificates: bytes) -> PurePosixPath:
    # Named by content: a later certificate does not change what an earlier registries.yaml means.
    return CA_FOLDER / f"airlift-ca-{digest.hex_of(digest.of(certificates))[:16]}.pem"

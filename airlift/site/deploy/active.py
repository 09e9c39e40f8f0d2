"""The active drops of a site, as `airlift.site.deploy.k3s` wants them: from its journal, its store and its registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from airlift import digest, fs, limits
from airlift.artifact import Artifact, DropConfig, decode_drop_config
from airlift.errors import DeployError
from airlift.oci import Platform
from airlift.site.config import Site
from airlift.site.deploy import k3s
from airlift.site.deploy.blobs import BlobSource, FirstOf, StoreBlobs
from airlift.site.deploy.k3s import Plan
from airlift.site.deploy.registries import Endpoint, site_endpoint
from airlift.site.deploy.registry_blobs import RegistryBlobs
from airlift.transport.credentials import Credentials
from airlift.transport.http import HttpClient
from airlift.transport.registry import RegistryClient
from airlift.transport.settings import HttpSettings

CA_FOLDER = PurePosixPath("etc/rancher/k3s")


def plan_for_site(site: Site, *, root: Path, platform: Platform, registry: RegistryClient | None) -> Plan:
    """Check everything and say what would be written; nothing is.

    Args:
        site: the site.
        root: what stands for ``/`` of the node.
        platform: the node's.
        registry: a client of the registry that site.yaml names, or None where it names none.

    Raises:
        DeployError: no drop is active, or see `k3s.make_plan`.
        IntegrityError, StoreError, FetchError: as there.
    """
    drops = active_drops(site)
    if not drops:
        raise DeployError(
            f"no drop is active at {site.root}", hint="import a bundle, or activate one with: airlift drops activate"
        )
    blobs: BlobSource = StoreBlobs(site.store)
    if registry is not None:
        blobs = FirstOf(blobs, RegistryBlobs(registry, lambda artifact: repository(site, artifact)))
    return k3s.make_plan(
        drops, root=root, endpoint=endpoint(site), platform=platform, blobs=blobs, values=site.store.read
    )


def connect(site: Site, settings: HttpSettings) -> RegistryClient | None:
    """Return a client of the registry that site.yaml names, or None where it names none. Nothing is asked yet.

    Args:
        site: the site.
        settings: proxies and time-outs; certificates too, where site.yaml names none.

    Raises:
        StoreError: the password cannot be read.
    """
    registry = site.config.registry
    if registry is None:
        return None
    parts = urlsplit(registry.url)
    where = endpoint(site)
    credentials = None
    if where.username is not None:
        credentials = Credentials(where.username, where.password or "")
    http = HttpClient(replace(settings, ca_bundle=site.at(registry.ca) or settings.ca_bundle))
    return RegistryClient(parts.netloc, http=http, credentials=credentials, plain_http=parts.scheme == "http")


def active_drops(site: Site) -> Sequence[DropConfig]:
    """Return the configs of the active drops, by channel.

    Raises:
        StoreError: the journal or store cannot be read.
        IntegrityError, BundleError: a config is damaged.
    """
    with site.journal() as journal:
        active = [drop for drop in journal.drops() if drop.active]
    return [decode_drop_config(site.store.read(drop.config, limit=limits.INDEX_DOCUMENT)) for drop in active]


def endpoint(site: Site) -> Endpoint:
    """Return where nodes ask for images: at the registry that site.yaml names, else at the site itself.

    Raises:
        StoreError: the certificates or the password cannot be read.
    """
    registry = site.config.registry
    if registry is None:
        return site_endpoint(site.config.url)
    parts = urlsplit(registry.url)
    ca = site.at(registry.ca)
    certificates = None if ca is None else fs.read_bounded(ca, limits.DOCUMENT)
    password_file = site.at(registry.password_file)
    password = None
    if password_file is not None:
        data = fs.read_bounded(password_file, limits.ERROR_BODY)
        password = data.split(b"\n", 1)[0].rstrip(b"\r").decode(errors="replace")
    return Endpoint(
        f"{parts.scheme}://{parts.netloc}/v2{parts.path.rstrip('/')}",
        ca_path=None if certificates is None else _ca_path(certificates),
        ca=certificates,
        username=registry.username,
        password=password,
    )


def _ca_path(certificates: bytes) -> PurePosixPath:
    # Named by content: a later certificate does not change what an earlier registries.yaml means.
    return CA_FOLDER / f"airlift-ca-{digest.hex_of(digest.of(certificates))[:16]}.pem"


def repository(site: Site, artifact: Artifact) -> str:
    """Return an artifact's repository in the registry that site.yaml names."""
    name = artifact.name.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    if colon and "/" not in tag:
        name = head
    registry, slash, path = name.partition("/")
    external = site.config.registry
    prefix = urlsplit(external.url).path.strip("/") if external is not None else ""
    return f"{prefix}/{registry.replace(':', '_')}{slash}{path}".lstrip("/")

"""A site with an active drop, made without bundle and importer."""

from __future__ import annotations

from pathlib import Path

from airlift import digest
from airlift.artifact import Artifact, Kind
from airlift.site.config import Site, init_site
from airlift.site.journal import STAGING, Drop, Journal
from airlift.site.listing import Listing
from airlift.site.mirror import place_of
from airlift.site.mirrors import models
from airlift.site.oci_listing import oci_listing
from airlift.site.site_yaml import RegistryConfig, SiteConfig
from airlift.trust import keys
from airlift.trust.roots import dump_trust, make_trust
from tests.support.drops import Drops


def make_site(folder: Path, *, url: str = "http://10.0.0.1:8080", registry: RegistryConfig | None = None) -> Site:
    """An empty site."""
    trust = make_trust(["stable"], [("ann", [keys.generate_signer().public_pem])])
    folder.mkdir()
    (folder / "trust.json").write_bytes(dump_trust(trust))
    config = SiteConfig(url=url, registry=registry)
    return init_site(folder / "site", folder / "trust.json", config)


def activate(site: Site, drops: Drops, *, sequence: int = 1, channel: str = "stable", listed: bool = True) -> Drop:
    """Make a drop the active one; with `listed` its images, charts and models, which are in the site's store, are served."""
    config = drops.config(channel=channel)
    own = site.store.put_bytes(config.encode())
    release = digest.of(f"{channel} {sequence}".encode())
    drop = Drop(
        release, channel, sequence, STAGING, own, config.name, own, len(config.artifacts), "2026-11-25T12:00:00Z", False
    )
    shown = [item for item in config.artifacts if item.kind in (Kind.IMAGE, Kind.CHART, Kind.MODEL) and listed]
    listings = [_listing(item, site) for item in shown]
    with Journal(site.journal_path) as journal:
        journal.stage(drop)
        with journal.transaction():
            journal.accept(drop)
            journal.publish(
                drop, [n for item in listings for n in item.names], [h for item in listings for h in item.held]
            )
            journal.activate(drop)
    return drop


def _listing(artifact: Artifact, site: Site) -> Listing:
    if artifact.kind is Kind.MODEL:
        return models.listing(artifact, site.store)
    path, tag = place_of(artifact)
    return oci_listing(path, tag, artifact.root, site.store)

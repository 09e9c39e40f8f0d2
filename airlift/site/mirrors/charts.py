"""What a chart shows at the site: an OCI artifact under its own name, and an entry of the chart repository's index."""

from __future__ import annotations

from airlift import oci
from airlift.artifact import Artifact
from airlift.errors import IntegrityError
from airlift.kinds import charts
from airlift.site.listing import Held, Listing, Name, Service
from airlift.site.mirror import place_of
from airlift.site.oci_listing import oci_listing
from airlift.store import Store


def listing(artifact: Artifact, store: Store) -> Listing:
    """Return the names and contents of a chart.

    In the chart repository the scope of an archive is its file name, ``<name>-<version>.tgz``; its provenance file, if
    there is one, has the scope ``<name>-<version>.tgz.prov``, and the archive's facts name its digest.

    Raises:
        BundleError: its name is no complete reference.
        IntegrityError: it is no chart.
        StoreError: a blob is missing.
    """
    subject = f"chart {artifact.name}"
    manifest = oci.parse_manifest(
        store.read(artifact.root.digest), subject=subject, media_type=artifact.root.media_type
    )
    archive, provenance = charts.layers_of(manifest, subject=subject)
    if manifest.config is None:
        raise IntegrityError(subject, expected="a config", actual="none")
    chart = charts.parse_config(store.read(manifest.config.digest), subject=subject)
    path, tag = place_of(artifact)
    mirrored = oci_listing(path, tag, artifact.root, store)
    value = {"digest": archive.digest, "version": chart.version, "chart": chart.metadata}
    facts = {} if provenance is None else {"provenance": provenance.digest}
    held = [Held(Service.CHARTS, chart.file_name, archive.digest, archive.size, "application/gzip", facts=facts)]
    if provenance is not None:
        held.append(
            Held(
                Service.CHARTS,
                f"{chart.file_name}.prov",
                provenance.digest,
                provenance.size,
                "application/pgp-signature",
            )
        )
    return Listing(
        (*mirrored.names, Name(Service.CHARTS, chart.name, value)),
        (*mirrored.held, *held),
    )

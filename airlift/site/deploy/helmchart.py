"""Releases as HelmChart resources that K3s picks up from ``server/manifests``, their charts under ``server/static``.

* One file holds one object, and the file's name follows from the object's: a later drop replaces a file by one that
  names the same object, and a release that is no longer deployed keeps its file. K3s deletes what a manifest no longer
  names, so no manifest ever shrinks.
* A chart's file name has the digest of its content: new content under an old name is never taken.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from airlift import digest as digests
from airlift import limits
from airlift.artifact import Artifact, DropConfig, Kind
from airlift.digest import Digest
from airlift.errors import DeployError
from airlift.kinds import chart_archive, charts
from airlift.kinds.chart_archive import Budget
from airlift.oci import Descriptor
from airlift.site.deploy import documents, values
from airlift.site.deploy.blobs import BlobSource, copy_checked, read_archive, read_manifest
from airlift.site.deploy.documents import Origin
from airlift.site.deploy.files import PlannedFile, locate, plan_bytes, plan_stream

MANIFESTS: Final = PurePosixPath("var/lib/rancher/k3s/server/manifests")
CHARTS: Final = PurePosixPath("var/lib/rancher/k3s/server/static/charts")
SYSTEM: Final = "kube-system"
GROUP: Final = "apis/helm.cattle.io/v1"
"""Where HelmCharts are on the API."""
PREFIX: Final = "airlift-"

K3S_ADDONS: Final = frozenset(
    {"ccm", "coredns", "local-storage", "metrics-server", "rolebindings", "runtimes", "traefik"}
)
"""AddOns of K3s itself: the names of its packaged manifests."""
K3S_RELEASES: Final = frozenset({"traefik", "traefik-crd"})
"""HelmCharts of K3s itself, in kube-system like ours."""

# At most 50 characters: the job of K3s is helm-install-NAME, and the label that Kubernetes makes of it has room for 63.
_RELEASE = re.compile(r"[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_CHART_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CHART_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,99}")
_MODE: Final = 0o600
_CHART_MODE: Final = 0o644
_COMMENT: Final = """\
A failed install or upgrade is kept as it is (failurePolicy abort) and waits for a person:
look at it with `helm -n {namespace} status {release}`, then roll back or uninstall with helm."""


@dataclass(frozen=True, slots=True)
class Release:
    """A chart of a drop that the cluster runs.

    Attributes:
        name: of the release and of its HelmChart.
        namespace: where its objects go.
        chart: the drop's entry.
        values: name and digest of its values files, later ones win.
    """

    name: str
    namespace: str
    chart: Artifact
    values: tuple[tuple[str, Digest], ...]

    @property
    def stem(self) -> str:
        """Name of the AddOn: what the manifest's file name has in front of its first dot."""
        return f"{PREFIX}{self.name}"

    @property
    def path(self) -> PurePosixPath:
        """Where its manifest is."""
        return MANIFESTS / f"{self.stem}.yaml"


def releases(drops: Sequence[DropConfig]) -> tuple[Release, ...]:
    """Return what the drops' ``deploy`` sections ask for, in order.

    Raises:
        DeployError: an entry is malformed or names no chart of its drop, or a release's name is taken.
    """
    found: dict[str, Release] = {}
    for drop in drops:
        for number, entry in enumerate(drop.deploy):
            release = _release(drop, entry, f"{drop.name}, deploy[{number}]")
            if release.name in K3S_RELEASES or release.stem in K3S_ADDONS:
                raise DeployError(
                    f"release {release.name}: the name belongs to K3s itself",
                    hint="the release engineer has to set another one with `release:`",
                )
            if release.name in found:
                raise DeployError(
                    f"release {release.name} is deployed twice; a cluster has each name once",
                    hint="the release engineer has to set another name for one of them with `release:`",
                )
            found[release.name] = release
    return tuple(found.values())


def _release(drop: DropConfig, entry: Mapping[str, Any], subject: str) -> Release:
    chart = _chart(drop, entry.get("chart"), subject)
    name = entry.get("release") or chart.facts.get("name")
    namespace = entry.get("namespace", "default")
    if not isinstance(name, str) or not _RELEASE.fullmatch(name):
        raise DeployError(
            f"{subject}: {name!r} is no name for a release",
            hint="the release engineer has to set one with `release:`: at most 50 of a-z, 0-9 and -",
        )
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        raise DeployError(f"{subject}: {namespace!r} is no namespace")
    files = entry.get("values", [])
    if not isinstance(files, list) or not all(isinstance(item, dict) for item in files):
        raise DeployError(f"{subject}: the list of values files is malformed")
    pinned = tuple((str(item.get("name")), digests.parse(item.get("digest"), subject=subject)) for item in files)
    return Release(name, namespace, chart, pinned)


def _chart(drop: DropConfig, wanted: object, subject: str) -> Artifact:
    carried = [item for item in drop.artifacts if item.kind is Kind.CHART]
    exact = [item for item in carried if wanted in (item.name, f"oci://{item.name}")]
    found = exact or [item for item in carried if wanted == item.facts.get("name")]
    if len(found) != 1:
        have = ", ".join(sorted(item.name for item in carried)) or "none"
        what = "no chart" if not found else "more than one chart"
        raise DeployError(f"{subject}: {what} of the drop is {wanted!r}; it has {have}")
    return found[0]


def plan_chart(root: Path, chart: Artifact, source: BlobSource) -> PlannedFile:
    """Return the plan for a chart's archive.

    Raises:
        DeployError: it is not at this site, or a file is in the way.
        IntegrityError: it is damaged, or no chart.
        StoreError, DeliveryError: it cannot be read.
    """
    layer = archive_of(chart, source)
    path = CHARTS / chart_file(chart, layer)
    return plan_stream(root, path, lambda sink: copy_checked(source, chart, layer, sink), mode=_CHART_MODE)


def archive_of(chart: Artifact, source: BlobSource) -> Descriptor:
    """Return the layer that is a chart's archive.

    Raises:
        DeployError: it is not a chart, or the archive is not at this site.
        IntegrityError: its manifest is damaged.
        StoreError, FetchError: it cannot be read.
    """
    manifest = read_manifest(source, chart, chart.root)
    layer, _ = charts.layers_of(manifest, subject=chart.name)
    if not source.has(chart, layer):
        raise DeployError(
            f"{chart.name}: its archive {layer.digest} is not at this site",
            hint="import the bundle again; airlift mends the gap",
        )
    return layer


def chart_file(chart: Artifact, layer: Descriptor) -> str:
    """Return the archive's file name: name, version and digest.

    Raises:
        DeployError: the chart's name or version is none.
    """
    name, version = chart.facts.get("name"), chart.facts.get("version")
    if not isinstance(name, str) or not _CHART_NAME.fullmatch(name):
        raise DeployError(f"{chart.name}: {name!r} is no chart name")
    if not isinstance(version, str) or not _CHART_VERSION.fullmatch(version):
        raise DeployError(f"{chart.name}: {version!r} is no chart version")
    return f"{name}-{version}-{digests.hex_of(layer.digest)[:16]}.tgz"


def chart_of(release: Release, source: BlobSource) -> bytes:
    """Return the archive of a release's chart.

    Raises:
        DeployError: it is too large, or not at this site.
        IntegrityError: it is damaged.
        StoreError, FetchError: it cannot be read.
    """
    layer = archive_of(release.chart, source)
    if layer.size > limits.CHART:
        raise DeployError(f"release {release.name}: its chart has {layer.size} bytes, at most {limits.CHART} expected")
    return read_archive(source, release.chart, layer)


def values_of(release: Release, source: BlobSource, read: Callable[[Digest], bytes]) -> str:
    """Return the values that a release is deployed with: the drop's, else a default of its chart, said again.

    Args:
        release: the release.
        source: where its chart is.
        read: gives a values file.

    Raises:
        DeployError: they are no YAML, or too much; or the chart is not at this site.
        IntegrityError: the chart is damaged, or none.
        StoreError, FetchError: something cannot be read.
    """
    found = values.combine([(name, read(wanted)) for name, wanted in release.values], release=release.name)
    if found:
        return found
    _, files = chart_archive.read(chart_of(release, source), subject=release.chart.name, budget=Budget())
    return values.said_again(files.get("values.yaml", b"").removeprefix(codecs.BOM_UTF8), release=release.name)


def plan_manifest(root: Path, release: Release, chart_path: PurePosixPath, content: str) -> PlannedFile:
    """Return the plan for a release's manifest.

    Args:
        root: what stands for ``/`` of the node.
        release: the release.
        chart_path: where its chart is.
        content: its values.

    Raises:
        DeployError: its place is taken.
        StoreError: the disk cannot be read.
    """
    place = locate(root, release.path)
    found, _ = documents.origin(place)
    documents.refuse_strangers(
        place, found, hint="move it out of server/manifests (K3s keeps what it made) and run the same command again"
    )
    comment = _COMMENT.format(namespace=release.namespace, release=release.name)
    data = documents.dump(resource(release, chart_path.name, content), comment=comment)
    return plan_bytes(root, release.path, data, mode=_MODE, text=data.decode())


def resource(release: Release, chart_file_name: str, values_content: str) -> dict[str, Any]:
    """Return the HelmChart object."""
    spec: dict[str, Any] = {
        "chart": f"https://%{{KUBERNETES_API}}%/static/charts/{chart_file_name}",
        "targetNamespace": release.namespace,
        "createNamespace": True,
        # The default uninstalls a failed release, with its data.
        "failurePolicy": "abort",
        # With Helm 4 a field that somebody set by hand is a conflict, and would fail every upgrade.
        "forceConflicts": True,
    }
    if values_content:
        spec["valuesContent"] = values_content
    return {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChart",
        "metadata": {"name": release.name, "namespace": SYSTEM},
        "spec": spec,
    }


def kept(root: Path, planned: Sequence[Release]) -> tuple[PurePosixPath, ...]:
    """Return the manifests of earlier drops that stay though these drops do not deploy them.

    Raises:
        StoreError: the disk cannot be read.
    """
    now = {release.path for release in planned}
    folder = locate(root, MANIFESTS / "x").parent
    stays = [path for path in sorted(folder.glob(f"{PREFIX}*.yaml")) if MANIFESTS / path.name not in now]
    return tuple(MANIFESTS / path.name for path in stays if documents.origin(path)[0] is not Origin.FOREIGN)

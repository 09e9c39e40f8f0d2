"""Files that make a K3s node run the active drops: planned and checked whole, then written in the order K3s needs.

What a real node does with each of them, and why they are as they are, is in docs/deploy-k3s.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from airlift import fs, limits, reference
from airlift.artifact import Artifact, DropConfig
from airlift.canonical import JsonObject
from airlift.digest import Digest
from airlift.errors import DeployError, ManifestError
from airlift.oci import Platform
from airlift.progress import Progress, Silent
from airlift.site.deploy import files, helmchart, tarball
from airlift.site.deploy.blobs import BlobSource
from airlift.site.deploy.files import Action, PlannedFile
from airlift.site.deploy.foreign import check_foreign
from airlift.site.deploy.images import Images, NodeImage, Wanted, require, shown_by
from airlift.site.deploy.registries import PATH as REGISTRIES
from airlift.site.deploy.registries import Endpoint, plan_registries, source_registries

KUBELET_DROP_INS: Final = PurePosixPath("var/lib/rancher/k3s/agent/etc/kubelet.conf.d")
_NEVER_VERIFY = re.compile(r"^imagePullCredentialsVerificationPolicy:\s*[\"']?NeverVerify[\"']?\s*$", re.MULTILINE)
_DROP_IN_HINT: Final = f"""\
ship the content under one name, or write {KUBELET_DROP_INS}/90-airlift.conf first:
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
imagePullCredentialsVerificationPolicy: NeverVerify"""

_RESTART: Final = "registries.yaml changed: restart K3s so that it is read (systemctl restart k3s, or k3s-agent)"
_DEFAULT_ENDPOINT: Final = (
    "start K3s with --disable-default-registry-endpoint, or every image that the site lacks "
    "costs seconds of asking a registry that cannot be reached"
)
_NO_KLIPPER: Final = (
    "no klipper-helm image is in the drop; K3s installs charts with it, so the node must have it from "
    "K3s's own air-gap images"
)
FOR_WRITTEN_FILES: Final = frozenset({_RESTART, _DEFAULT_ENDPOINT, _NO_KLIPPER})
"""Notes for a person who starts K3s, and brings its own images, by hand."""
_UNRENDERED: Final = (
    "no helm is at the site, so releases were not rendered again with the values under `deploy:`; what was checked are "
    "the images that the connected side saw (carry helm as a file of the drop, or install it)"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done to a root.

    Attributes:
        root: what stands for ``/`` of the node.
        files: in the order in which they are written.
        kept: what earlier drops brought and stays.
        pins: each image that is to run, and the digest by which workloads should name it.
        notes: what a person should know.
        restart: whether K3s has to be restarted to see a change.
    """

    root: Path
    files: tuple[PlannedFile, ...]
    kept: tuple[PurePosixPath, ...]
    pins: Mapping[str, Digest]
    notes: tuple[str, ...]
    restart: bool

    def to_json(self) -> JsonObject:
        """Return what ``--json`` says; paths are those of the node."""
        return {
            "root": str(self.root),
            "changed": bool(self.changes),
            "restart": self.restart,
            "files": [
                {
                    "path": f"/{item.path}",
                    "action": item.action.value,
                    "size": item.size,
                    "digest": item.shown_digest,
                    "mode": f"{item.mode:04o}",
                    "text": item.text,
                }
                for item in self.files
            ],
            "kept": [f"/{path}" for path in self.kept],
            "images": dict(self.pins),
            "notes": list(self.notes),
        }

    @property
    def changes(self) -> tuple[PlannedFile, ...]:
        """The files that are not there yet or differ."""
        return tuple(item for item in self.files if item.action is not Action.UNCHANGED)


@fs.guarded("reading")
def make_plan(
    drops: Sequence[DropConfig],
    *,
    root: Path,
    endpoint: Endpoint,
    platform: Platform,
    blobs: BlobSource,
    values: Callable[[Digest], bytes],
    shown: Callable[[helmchart.Release], Sequence[Wanted]] | None = None,
) -> Plan:
    """Check everything and say what would be written; nothing is.

    Args:
        drops: the active drops of the site.
        root: what stands for ``/`` of the node.
        endpoint: the site's registry as the node reaches it.
        platform: the node's.
        blobs: content of images and charts.
        values: gives a values file of a drop.
        shown: which images a release runs, from rendering it here; None takes the connected side's word.

    Raises:
        DeployError: an image that is to run is not in the drops, or a file cannot be written as asked.
        IntegrityError: content at the site is damaged.
        StoreError, DeliveryError: something cannot be read.
    """
    images = Images(drops, blobs)
    releases = helmchart.releases(drops)
    charts = {release.chart.name: release.chart for release in releases}
    if shown is None:
        seen = [item for chart in charts.values() for item in shown_by(chart)]
    else:
        seen = [item for release in releases for item in shown(release)]
    running = require(images, [*_preloaded(drops), *seen])
    preload = {item.image: running[item.image] for item in _preloaded(drops)}
    nodes = [images.on_node(artifact, platform) for artifact in _distinct(preload.values())]
    others = images.fitting(_distinct(running.values()), platform)
    _one_name_each(root, nodes, others)
    check_foreign(root, releases)
    registries = plan_registries(root, source_registries(drops), endpoint)
    tarballs = tarball.plan_tarballs(root, nodes, others, blobs)
    archives = {name: helmchart.plan_chart(root, chart, blobs) for name, chart in charts.items()}
    manifests = [
        helmchart.plan_manifest(root, item, archives[item.chart.name].path, helmchart.values_of(item, blobs, values))
        for item in releases
    ]
    planned = (
        *tarballs,
        *registries,
        *{item.path: item for item in archives.values()}.values(),
        *manifests,
    )
    restart = any(item.action is not Action.UNCHANGED for item in registries)
    unrendered = [_UNRENDERED] if releases and shown is None else []
    notes = (*_skipped(root, releases), *unrendered, *_notes(drops, releases, restart=restart, images=images))
    return Plan(
        root,
        planned,
        (*tarball.kept(root, tarballs), *helmchart.kept(root, releases)),
        {name: artifact.root.digest for name, artifact in sorted(running.items())},
        notes,
        restart,
    )


def _preloaded(drops: Sequence[DropConfig]) -> tuple[Wanted, ...]:
    return tuple(Wanted(name, f"{drop.name}, k3s.preload", ()) for drop in drops for name in preloaded(drop))


def preloaded(drop: DropConfig) -> tuple[str, ...]:
    """Return the full names of the images that a drop puts onto nodes as tarballs.

    Raises:
        DeployError: the list is malformed.
    """
    names = drop.k3s.get("preload", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DeployError(f"{drop.name}: k3s.preload is malformed")
    return tuple(map(_full, names))


def _full(name: str) -> str:
    try:
        return str(reference.parse(name))
    except ManifestError:
        return name  # `require` lists it with the others


def _distinct(artifacts: Iterable[Artifact]) -> tuple[Artifact, ...]:
    return tuple({item.name: item for item in artifacts}.values())


def _one_name_each(root: Path, preload: Sequence[NodeImage], running: Sequence[NodeImage]) -> None:
    """Refuse an image in a tarball that is to run under another repository's name, too.

    The kubelet asks for pull credentials of an image by its name, and containerd has one image for both names.
    """
    first = {config: node.reference.name for node in preload for config in node.configs}
    clashes = {
        f"  {' and '.join(sorted((first[config], node.reference.name)))}"
        for node in running
        for config in node.configs
        if first.get(config, node.reference.name) != node.reference.name
    }
    if clashes and not _never_verify(root):
        raise DeployError(
            "\n".join(["one image would be on the node under two names, one of them from a tarball", *sorted(clashes)]),
            hint=_DROP_IN_HINT,
        )


def _never_verify(root: Path) -> bool:
    folder = files.locate(root, KUBELET_DROP_INS / "x").parent
    return any(
        _NEVER_VERIFY.search(fs.read_bounded(path, limits.DOCUMENT).decode(errors="replace"))
        for path in sorted(folder.glob("*.conf"))
    )


def _skipped(root: Path, releases: Sequence[helmchart.Release]) -> tuple[str, ...]:
    places = [files.locate(root, item.path) for item in releases]
    skips = [place.with_name(f"{place.name}.skip") for place in places]
    return tuple(f"{skip} makes K3s ignore {skip.stem}; remove it to deploy" for skip in skips if skip.exists())


def _notes(
    drops: Sequence[DropConfig], releases: Sequence[helmchart.Release], *, restart: bool, images: Images
) -> tuple[str, ...]:
    notes = []
    if restart:
        notes.append(_RESTART)
    if source_registries(drops):
        notes.append(_DEFAULT_ENDPOINT)
    if releases:
        names = {artifact.name for artifact in images}
        if not any("/klipper-helm:" in name for name in names):
            notes.append(_NO_KLIPPER)
        notes.append(
            "charts under static/charts are served on the API port without a login: "
            "keep secrets out of charts and values"
        )
        notes.append(
            "judge a release by the label `status` of its newest Secret sh.helm.release.v1.*, and by its pods; "
            "a Job that is complete says nothing, a failed upgrade ends so, too"
        )
    return tuple(notes)


def write(plan: Plan, *, progress: Progress | None = None) -> None:
    """Write what is not there yet: image tarballs, registries.yaml, charts, and manifests last.

    May be repeated after a crash; what is there already is left as it is.

    Raises:
        IntegrityError: content at the site changed since the plan was made.
        StoreError, DeliveryError: something cannot be read or written, or a disk has no room for it.
    """
    progress = progress or Silent()
    if not plan.changes:
        return
    files.check_space(plan.root, files.sizes(plan.changes))
    files.remove_parts(plan.root, [tarball.FOLDER, REGISTRIES.parent, helmchart.CHARTS, helmchart.MANIFESTS])
    progress.start("writing", sum(item.size for item in plan.changes))
    for item in plan.changes:
        files.write_file(plan.root, item, progress)
    progress.finish()

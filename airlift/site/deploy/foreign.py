"""What others put under ``server/manifests`` and K3s would mix with ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from airlift import fs, limits
from airlift.errors import DeployError
from airlift.site.deploy.files import locate
from airlift.site.deploy.helmchart import MANIFESTS, SYSTEM, Release

_READ: Final = (".yaml", ".yml", ".json")
_OWN_KINDS: Final = ("HelmChart", "HelmChartConfig")


def check_foreign(root: Path, planned: Sequence[Release]) -> None:
    """Accept a folder of manifests in which nothing else speaks for our releases against us.

    * A second file with the AddOn name of one of ours: a name ends at the file's first dot, in sub-folders, too, and of
      two files with one name the later deletes what the earlier made.
    * Another HelmChart of the same name.
    * A HelmChartConfig of the same name whose failure policy is not ``abort``: it wins over that of the HelmChart, and
      where it is silent it means ``reinstall``, which uninstalls a release that failed.

    Raises:
        DeployError: with all files that clash.
        StoreError: the disk cannot be read.
    """
    folder = locate(root, MANIFESTS / "x").parent
    ours = {folder / release.path.name for release in planned}
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in _READ and path not in ours]
    files = [path for path in files if path.is_file() and not path.name.startswith(".")]
    _check_stems(files, planned)
    _check_objects(files, planned)


def _check_stems(files: Sequence[Path], planned: Sequence[Release]) -> None:
    wanted = {release.stem: release.path.name for release in planned}
    stems = [(path, path.name.partition(".")[0].lower()) for path in files]
    clashes = [f"  {path} and {wanted[stem]}" for path, stem in stems if stem in wanted]
    if clashes:
        raise DeployError(
            "\n".join(["two files under server/manifests would have one AddOn name", *clashes]),
            hint="rename or move the other file; K3s takes a name up to its first dot",
        )


def _check_objects(files: Sequence[Path], planned: Sequence[Release]) -> None:
    names = {release.name for release in planned}
    clashes = []
    for path in files:
        for item in _objects(path):
            kind, policy = _text(item, "kind"), _text(item, "spec", "failurePolicy")
            name, namespace = _text(item, "metadata", "name"), _text(item, "metadata", "namespace")
            if kind in _OWN_KINDS and namespace == SYSTEM and name in names:
                if kind == "HelmChart":
                    clashes.append(f"  {path}: another HelmChart {name}")
                elif policy != "abort":
                    clashes.append(f"  {path}: HelmChartConfig {name} has failurePolicy {policy or 'reinstall'}")
    if clashes:
        raise DeployError(
            "\n".join(["other manifests would change releases of the drop", *clashes]),
            hint="remove the HelmChart, or the release engineer has to set another `release:`; give a"
            " HelmChartConfig `failurePolicy: abort`",
        )


def _objects(path: Path) -> Iterator[MappingNode]:
    """Yield the objects of a manifest, those of Lists too; nothing of a file that is none (K3s says so in its log)."""
    if path.stat().st_size > limits.DOCUMENT:
        return
    try:
        documents = list(yaml.compose_all(fs.read_bounded(path, limits.DOCUMENT), Loader=yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return
    for document in documents:
        if isinstance(document, MappingNode):
            yield document
            items = _child(document, "items")
            if isinstance(items, SequenceNode):
                yield from (item for item in items.value if isinstance(item, MappingNode))


def _child(node: Node | None, key: str) -> Node | None:
    if isinstance(node, MappingNode):
        for name, value in node.value:
            if isinstance(name, ScalarNode) and name.value == key:
                return value  # type: ignore[no-any-return]
    return None


def _text(node: Node, *path: str) -> str | None:
    found: Node | None = node
    for key in path:
        found = _child(found, key)
    return str(found.value) if isinstance(found, ScalarNode) else None

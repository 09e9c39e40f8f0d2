"""Helm charts: what a chart archive says about itself, and the OCI manifest that carries it.

* An archive's bytes are never changed; reading it is bounded over all archives inside it.
* A chart that came from an HTTP repository or a path gets an OCI manifest from us, always the same for the same bytes;
  one from a registry keeps its own. Layers are found by media type: Helm does not promise an order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from airlift import canonical, limits, oci
from airlift.artifact import HELM_CONFIG
from airlift.digest import Digest
from airlift.errors import IntegrityError
from airlift.kinds import chart_archive, chart_yaml
from airlift.kinds.chart_archive import Budget
from airlift.kinds.chart_metadata import Chart, Dependency, parse_dependencies, parse_metadata

CHART_LAYER: Final = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
PROVENANCE_LAYER: Final = "application/vnd.cncf.helm.chart.provenance.v1.prov"

_REPOSITORY_PART = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def read_archive(data: bytes, *, subject: str, budget: Budget | None = None) -> Chart:
    """Read a chart archive and the charts inside it.

    Raises:
        IntegrityError: it is not a chart, or is out of bounds; see `chart_archive.read`.
    """
    budget = budget or Budget()
    return read_files(_unpacked(data, subject, budget), subject=subject, budget=budget)


def read_files(files: Mapping[str, bytes], *, subject: str, budget: Budget | None = None) -> Chart:
    """Read a chart from its files, by path below its directory.

    Raises:
        IntegrityError: as `read_archive`.
    """
    budget = budget or Budget()
    budget.depth -= 1
    if budget.depth < 0:
        raise IntegrityError(subject, expected="charts inside charts, 16 deep at most", actual="deeper")
    if "Chart.yaml" not in files:
        raise IntegrityError(subject, expected="a chart", actual="no Chart.yaml in it")
    chart = parse_metadata(_load(files, "Chart.yaml", subject), subject=f"{subject}, Chart.yaml")
    dependencies = chart.dependencies
    if "requirements.yaml" in files and not dependencies:
        value = _load(files, "requirements.yaml", subject)
        dependencies = parse_dependencies(value, subject=f"{subject}, requirements.yaml")
    subcharts = tuple(_subcharts(files, subject, budget))
    budget.depth += 1
    return replace(chart, dependencies=dependencies, subcharts=subcharts)


def _load(files: Mapping[str, bytes], path: str, subject: str) -> Any:
    return chart_yaml.load(files[path].removeprefix(b"\xef\xbb\xbf"), subject=f"{subject}, {path}", limit=limits.MIB)


def _subcharts(files: Mapping[str, bytes], subject: str, budget: Budget) -> Iterator[Chart]:
    for where, below in inside(files, subject=subject, budget=budget):
        yield read_files(below, subject=where, budget=budget)


def inside(files: Mapping[str, bytes], *, subject: str, budget: Budget) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """Yield what Helm would load from ``charts/``: directories and archives, without hidden ones.

    Args:
        files: of a chart.
        subject: what it is, for messages.
        budget: what may still be unpacked.

    Yields:
        What each is, for messages, and its files.

    Raises:
        IntegrityError: an archive is out of bounds; see `chart_archive.read`.
    """
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(files):
        if not path.startswith("charts/"):
            continue
        head, slash, tail = path.removeprefix("charts/").partition("/")
        if head.startswith(("_", ".")):
            continue
        if slash:
            found.setdefault(head, {})[tail] = files[path]
        elif head.endswith(".tgz"):
            found[head] = {}
    for head, below in sorted(found.items()):
        where = f"{subject}, charts/{head}"
        yield where, below or _unpacked(files[f"charts/{head}"], where, budget)


def _unpacked(data: bytes, subject: str, budget: Budget) -> Mapping[str, bytes]:
    if len(data) > limits.CHART:
        raise IntegrityError(subject, expected=f"at most {limits.CHART} bytes", actual=f"{len(data)} bytes")
    _, files = chart_archive.read(data, subject=subject, budget=budget)
    return files


def lock_of(files: Mapping[str, bytes], *, subject: str) -> tuple[Dependency, ...] | None:
    """Return what Chart.lock (or requirements.lock) pins, or None without one.

    Raises:
        IntegrityError: it is malformed.
    """
    for path in ("Chart.lock", "requirements.lock"):
        if path in files:
            return parse_dependencies(_load(files, path, subject), subject=f"{subject}, {path}")
    return None


def artifact_name(chart: Chart) -> str:
    """Return ``charts/<name>:<version>``, the name of a chart that did not come from a registry.

    Raises:
        IntegrityError: name or version cannot be part of an OCI reference.
    """
    name, tag = chart.name.lower(), tag_of(chart.version)
    if not _REPOSITORY_PART.fullmatch(name) or not _TAG.fullmatch(tag):
        raise _wrong(f"chart {chart.name} {chart.version}", "a name that an OCI reference can have", f"{name}:{tag}")
    return f"charts/{name}:{tag}"


def tag_of(version: str) -> str:
    """Return the OCI tag of a version: a tag has no ``+``."""
    return version.replace("+", "_")


def version_of(tag: str) -> str:
    """Return the version that an OCI tag stands for."""
    return tag.replace("_", "+")


def config_blob(chart: Chart) -> bytes:
    """Return the config blob that we give to a chart."""
    return canonical.encode(chart.metadata)


def parse_config(data: bytes, *, subject: str) -> Chart:
    """Read a config blob.

    Raises:
        IntegrityError: it is not what Chart.yaml says, in JSON.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise _wrong(f"{subject}, config", "JSON", data[:40]) from None
    return parse_metadata(value, subject=f"{subject}, config")


def check_config(data: bytes, chart: Chart, *, subject: str) -> None:
    """Compare a registry's config blob with the chart itself.

    Raises:
        IntegrityError: it speaks of another chart or version.
    """
    config = parse_config(data, subject=subject)
    if (config.name, config.version) != (chart.name, chart.version):
        raise IntegrityError(
            f"{subject}, config",
            expected=f"{chart.name} {chart.version}, as in the archive",
            actual=f"{config.name} {config.version}",
            hint="it was not pushed by helm; push it again with helm push",
        )


def wrap(chart: Chart, archive: oci.Descriptor, provenance: oci.Descriptor | None) -> bytes:
    """Return the OCI manifest for a chart that has none.

    Args:
        chart: the chart.
        archive: descriptor of the .tgz.
        provenance: descriptor of its .prov, where it has one.
    """
    layers = [oci.Descriptor(CHART_LAYER, archive.digest, archive.size).to_json()]
    if provenance is not None:
        layers.append(oci.Descriptor(PROVENANCE_LAYER, provenance.digest, provenance.size).to_json())
    return canonical.encode(
        {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": oci.describe(config_blob(chart), HELM_CONFIG).to_json(),
            "layers": layers,
            "annotations": {
                oci.TITLE: chart.name,
                "org.opencontainers.image.version": chart.version,
            },
        }
    )


def layers_of(manifest: oci.Manifest, *, subject: str) -> tuple[oci.Descriptor, oci.Descriptor | None]:
    """Return the archive's descriptor and that of its provenance file, or None.

    Raises:
        IntegrityError: it is not the manifest of a Helm chart.
    """
    if manifest.config is None or manifest.config.media_type != HELM_CONFIG:
        kind = manifest.media_type if manifest.config is None else manifest.config.media_type
        raise _wrong(subject, f"a Helm chart ({HELM_CONFIG})", kind)
    archives = [layer for layer in manifest.layers if layer.media_type == CHART_LAYER]
    if len(archives) != 1:
        raise _wrong(subject, "one chart archive among its layers", len(archives))
    if archives[0].size > limits.CHART:
        raise _wrong(subject, f"a chart of at most {limits.CHART} bytes", archives[0].size)
    signed = [layer for layer in manifest.layers if layer.media_type == PROVENANCE_LAYER]
    return archives[0], signed[0] if signed else None


_PROVENANCE_FILE = re.compile(r"^\s*(\S+\.tgz):\s*sha256:([0-9a-f]{64})\s*$", re.MULTILINE)


def check_provenance(data: bytes, file_name: str, digest: Digest, *, subject: str) -> bool:
    """Say whether `data` is a provenance file; one that names this archive must give its digest.

    The signature itself is for those who hold the keyring: it is carried, not judged.

    Raises:
        IntegrityError: it gives another digest.
    """
    if len(data) > limits.MIB or b"-----BEGIN PGP SIGNED MESSAGE-----" not in data[:1024]:
        return False
    for name, digits in _PROVENANCE_FILE.findall(data.decode("utf-8", "replace")):
        if name == file_name and f"sha256:{digits}" != digest:
            raise IntegrityError(f"{subject}, provenance", expected=digest, actual=f"sha256:{digits}")
    return True


def _wrong(subject: str, expected: str, actual: object) -> IntegrityError:
    return IntegrityError(subject, expected=expected, actual=repr(actual)[:100])

"""What a chart is made of: from its archive, and from Helm's record of a release, in one form.

Helm's record has the chart's own files, what its Chart.lock pins and its default values, but none of the charts inside.
For a chart that names dependencies it is changed by what was installed: those that are switched off are gone, an alias
has become the name, and the defaults of the charts inside are mixed in (see `chart_defaults`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from airlift import digest as digests
from airlift import limits
from airlift.digest import Digest
from airlift.errors import DeployError
from airlift.kinds import chart_archive, chart_yaml, charts
from airlift.kinds.chart_archive import Budget
from airlift.site.deploy import chart_defaults, helm_values
from airlift.site.deploy.chart_defaults import Named, Tree
from airlift.site.deploy.objects import at, listed

_BOM: Final = b"\xef\xbb\xbf"
_VALUES: Final = "values.yaml"
_LOCK: Final = "Chart.lock"
# What Helm keeps parsed and not as a file, or keeps for charts of one age only.
_APART: Final = frozenset(
    {"Chart.yaml", _LOCK, _VALUES, "values.schema.json", "requirements.yaml", "requirements.lock"}
)
_INSIDE: Final = "charts/"
_EXPORTS: Final = "exports"


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A dependency, as Chart.yaml names it.

    Attributes:
        name: its alias, else its name: where its values are.
        version: as Chart.yaml has it, mostly a range.
        may_be_off: whether values can switch it off.
    """

    name: str
    version: str
    may_be_off: bool


@dataclass(frozen=True, slots=True)
class Content:
    """A chart without the charts inside it.

    Attributes:
        version: of the chart.
        metadata: what else its Chart.yaml says that a change of it could change in the cluster.
        parts: its dependencies.
        files: digests of its templates and other files, by path.
        locked: what its Chart.lock pins: names and versions.
        defaults: of an archive those of all its charts, of a record what Helm mixed from them.
    """

    version: str
    metadata: Mapping[str, Any]
    parts: tuple[Part, ...]
    files: Mapping[str, Digest]
    locked: tuple[tuple[str, str], ...]
    defaults: Tree | Mapping[str, Any]

    def differing(self, record: Content) -> Iterator[str]:
        """Yield what is not the same in a record of Helm's: a version, a file, a default value."""
        if self.version != record.version:
            yield f"version {record.version}"
            return
        yield from (f"Chart.yaml: {path}" for path in helm_values.differing(self.metadata, record.metadata))
        yield from (f"Chart.yaml: dependency {name}" for name in self._other_parts(record))
        yield from (
            path for path in sorted({*self.files, *record.files}) if self.files.get(path) != record.files.get(path)
        )
        yield from (f"{_LOCK}: {name}" for name in sorted({name for name, _ in {*self.locked} ^ {*record.locked}}))
        yield from (f"{_VALUES}: {path}" for path in self._other_defaults(record))

    def _other_parts(self, record: Content) -> list[str]:
        mine = {(item.name, item.version) for item in self.parts}
        theirs = {(item.name, item.version) for item in record.parts}
        gone = {item.name for item in self.parts if not item.may_be_off and (item.name, item.version) not in theirs}
        return sorted(gone | {name for name, _ in theirs - mine})

    def _other_defaults(self, record: Content) -> Iterator[str]:
        mine, theirs = self.defaults, record.defaults
        if not isinstance(mine, Tree) or isinstance(theirs, Tree):
            raise TypeError("an archive is compared with a record")
        if not mine.named:
            yield from helm_values.differing(mine.values, theirs)
        else:
            yield from chart_defaults.mix(mine, {item.name for item in record.parts}).differing(theirs)


def of_archive(data: bytes, *, subject: str) -> Content:
    """Return what a chart's archive holds.

    Raises:
        DeployError: its values.yaml cannot be read.
        IntegrityError: it is no chart, or is out of bounds.
    """
    chart = charts.read_archive(data, subject=subject)
    budget = Budget()
    _, files = chart_archive.read(data, subject=subject, budget=budget)
    own = {path: digests.of(content.removeprefix(_BOM)) for path, content in files.items() if _is_own(path)}
    named = _dependencies(files, subject)
    locked = _locked(_read(files, (_LOCK, "requirements.lock"), subject))
    return Content(
        chart.version, _metadata(chart.metadata), _parts(named), own, locked, _tree(files, chart.name, subject, budget)
    )


def _tree(files: Mapping[str, bytes], name: str, subject: str, budget: Budget) -> Tree:
    text = files.get(_VALUES, b"").removeprefix(_BOM).decode("utf-8", "replace")
    inner = (
        _tree(below, str(at(_read(below, ("Chart.yaml",), where), "name")), where, budget)
        for where, below in charts.inside(files, subject=subject, budget=budget)
    )
    return Tree(
        name,
        helm_values.read(text, subject=f"{subject}, {_VALUES}"),
        tuple(_named(item) for item in _listed(_dependencies(files, subject))),
        tuple(inner),
    )


def _named(item: Mapping[str, Any]) -> Named:
    part, name = _part(item), str(at(item, "name"))
    return Named(name, part.name, part.may_be_off, tuple(_imports(at(item, "import-values"))))


def _imports(named: object) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    for item in named if isinstance(named, list) else ():
        if isinstance(item, str):
            yield (_EXPORTS, *item.split(".")), ()
        elif isinstance(item, Mapping):
            child, parent = str(at(item, "child")), str(at(item, "parent"))
            yield tuple(child.split(".")), () if parent == "." else tuple(parent.split("."))


def of_record(record: Mapping[str, Any], *, subject: str) -> Content:
    """Return the chart in Helm's record of a release.

    Raises:
        DeployError: the record is malformed.
    """
    files = {}
    for part in ("templates", "files"):
        for item in listed(record, "chart", part):
            path = at(item, "name")
            if isinstance(path, str) and _is_own(path):
                files[path] = digests.of(_data(at(item, "data"), f"{subject}, {path}"))
    defaults, lock = at(record, "chart", "values"), at(record, "chart", "lock")
    metadata = at(record, "chart", "metadata") or {}
    return Content(
        str(at(metadata, "version") or ""),
        _metadata(metadata),
        _parts(at(metadata, "dependencies")),
        files,
        _locked(lock),
        defaults if isinstance(defaults, dict) else {},
    )


def _metadata(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: at(value, key) for key in ("appVersion", "kubeVersion", "annotations") if at(value, key)}


def _dependencies(files: Mapping[str, bytes], subject: str) -> object:
    """Return what Chart.yaml names, or requirements.yaml, which old charts have."""
    named = at(_read(files, ("Chart.yaml",), subject), "dependencies")
    return named or at(_read(files, ("requirements.yaml",), subject), "dependencies")


def _read(files: Mapping[str, bytes], paths: Sequence[str], subject: str) -> object:
    """Return what the first of these files says that is there."""
    for path in paths:
        if text := files.get(path, b"").removeprefix(_BOM):
            return chart_yaml.load(text, subject=f"{subject}, {path}", limit=limits.MIB)
    return None


def _listed(named: object) -> list[Mapping[str, Any]]:
    return [item for item in named if isinstance(item, Mapping)] if isinstance(named, list) else []


def _parts(named: object) -> tuple[Part, ...]:
    return tuple(map(_part, _listed(named)))


def _part(item: Mapping[str, Any]) -> Part:
    name, version = at(item, "alias") or at(item, "name"), at(item, "version")
    return Part(str(name), str(version or ""), bool(at(item, "condition") or at(item, "tags")))


def _locked(lock: object) -> tuple[tuple[str, str], ...]:
    return tuple((str(at(item, "name")), str(at(item, "version"))) for item in _listed(at(lock, "dependencies")))


def _data(text: object, subject: str) -> bytes:
    try:
        return base64.b64decode(text or "", validate=True) if isinstance(text, str | None) else b""
    except ValueError:
        raise DeployError(f"{subject}: Helm's record is malformed") from None


def _is_own(path: str) -> bool:
    return path not in _APART and not path.startswith(_INSIDE)

"""What a chart is made of: from its archive, and from Helm's record of a release, in one form.

Helm's record has the chart's own files and default values, but none of the charts inside it. For a chart that names
dependencies it is changed by what was installed: those that are switched off are gone, an alias has become the name,
and the defaults of the charts inside are mixed in where the chart itself is silent.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from airlift import digest as digests
from airlift import limits
from airlift.digest import Digest
from airlift.errors import DeployError
from airlift.kinds import chart_archive, chart_yaml, charts
from airlift.kinds.chart_archive import Budget
from airlift.site.deploy import helm_values
from airlift.site.deploy.objects import at, listed

_BOM: Final = b"\xef\xbb\xbf"
_VALUES: Final = "values.yaml"
# What Helm keeps parsed and not as a file, or keeps for charts of one age only.
_APART: Final = frozenset(
    {"Chart.yaml", "Chart.lock", _VALUES, "values.schema.json", "requirements.yaml", "requirements.lock"}
)
_INSIDE: Final = "charts/"
_GLOBAL: Final = "global"


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
        defaults: its values.yaml; None where it imports values of charts inside it.
        inside: the keys of its values under which charts inside it have theirs; none where it names no dependency.
    """

    version: str
    metadata: Mapping[str, Any]
    parts: tuple[Part, ...]
    files: Mapping[str, Digest]
    defaults: Mapping[str, Any] | None
    inside: frozenset[str] = frozenset()

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
        if self.defaults is not None and record.defaults is not None:
            yield from (f"{_VALUES}: {path}" for path in self._other_defaults(self.defaults, record.defaults))

    def _other_parts(self, record: Content) -> list[str]:
        mine = {(item.name, item.version) for item in self.parts}
        theirs = {(item.name, item.version) for item in record.parts}
        gone = {item.name for item in self.parts if not item.may_be_off and (item.name, item.version) not in theirs}
        return sorted(gone | {name for name, _ in theirs - mine})

    def _other_defaults(self, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
        if not self.inside:
            yield from helm_values.differing(mine, theirs)
            return
        # Helms differ in whether they keep a null once they mix defaults.
        mine, theirs = _without_nulls(mine), _without_nulls(theirs)
        found = {key: _at_most(mine.get(key), value) if key in self.inside else value for key, value in theirs.items()}
        own = {key: _without_globals(value) if key in self.inside else value for key, value in mine.items()}
        yield from helm_values.differing(own, {key: value for key, value in found.items() if value is not None})


def _without_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in values.items() if value is not None}
    return {key: _without_nulls(value) if isinstance(value, dict) else value for key, value in shown.items()}


def _without_globals(value: Any) -> Any:
    """Leave out what a chart above may have set in the values of a chart inside."""
    if not isinstance(value, dict):
        return value
    return {key: _without_globals(item) for key, item in value.items() if key != _GLOBAL}


def _at_most(mine: Any, theirs: Any) -> Any:
    """Return of the record's value what the chart itself speaks of; the rest is of the charts inside."""
    if not isinstance(mine, dict) or not isinstance(theirs, dict):
        return None if mine is None else theirs
    return {key: _at_most(mine[key], value) for key, value in theirs.items() if key in mine and key != _GLOBAL}


def of_archive(data: bytes, *, subject: str) -> Content:
    """Return what a chart's archive holds.

    Raises:
        DeployError: its values.yaml cannot be read.
        IntegrityError: it is no chart, or is out of bounds.
    """
    chart = charts.read_archive(data, subject=subject)
    _, files = chart_archive.read(data, subject=subject, budget=Budget())
    named = _dependencies(files, subject)
    parts = _parts(named)
    defaults = None
    if not _imports(named):
        text = files.get(_VALUES, b"").removeprefix(_BOM).decode("utf-8", "replace")
        defaults = helm_values.read(text, subject=f"{subject}, {_VALUES}")
    own = {path: digests.of(content.removeprefix(_BOM)) for path, content in files.items() if _is_own(path)}
    inside = {*(item.name for item in parts), *(item.name for item in chart.subcharts), _GLOBAL} if parts else set()
    return Content(chart.version, _metadata(chart.metadata), parts, own, defaults, frozenset(inside))


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
    defaults = at(record, "chart", "values") or {}
    metadata = at(record, "chart", "metadata") or {}
    named = at(metadata, "dependencies")
    return Content(
        str(at(metadata, "version") or ""),
        _metadata(metadata),
        _parts(named),
        files,
        defaults if isinstance(defaults, dict) and not _imports(named) else None,
    )


def _metadata(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: at(value, key) for key in ("appVersion", "kubeVersion", "annotations") if at(value, key)}


def _dependencies(files: Mapping[str, bytes], subject: str) -> object:
    """Return what Chart.yaml names, or requirements.yaml, which old charts have."""
    for path in ("Chart.yaml", "requirements.yaml"):
        text = files.get(path, b"").removeprefix(_BOM)
        if text and (
            named := at(chart_yaml.load(text, subject=f"{subject}, {path}", limit=limits.MIB), "dependencies")
        ):
            return named
    return None


def _listed(named: object) -> list[Any]:
    return [item for item in named if isinstance(item, Mapping)] if isinstance(named, list) else []


def _parts(named: object) -> tuple[Part, ...]:
    return tuple(
        Part(
            str(at(item, "alias") or at(item, "name")),
            str(at(item, "version") or ""),
            bool(at(item, "condition") or at(item, "tags")),
        )
        for item in _listed(named)
    )


def _imports(named: object) -> bool:
    return any(at(item, "import-values") for item in _listed(named))


def _data(text: object, subject: str) -> bytes:
    try:
        return base64.b64decode(text or "", validate=True) if isinstance(text, str | None) else b""
    except ValueError:
        raise DeployError(f"{subject}: Helm's record is malformed") from None


def _is_own(path: str) -> bool:
    return path not in _APART and not path.startswith(_INSIDE)

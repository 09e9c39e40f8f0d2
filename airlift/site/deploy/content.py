"""What a chart is made of: from its archive, and from Helm's record of a release, in one form.

Helm's record has the chart's own files and default values, but none of the charts inside it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from airlift import digest as digests
from airlift.digest import Digest
from airlift.errors import DeployError
from airlift.kinds import chart_archive, charts
from airlift.kinds.chart_archive import Budget
from airlift.site.deploy import helm_values
from airlift.site.deploy.objects import at

_BOM: Final = b"\xef\xbb\xbf"
_VALUES: Final = "values.yaml"
# What Helm keeps parsed and not as a file, or keeps for charts of one age only.
_APART: Final = frozenset(
    {"Chart.yaml", "Chart.lock", _VALUES, "values.schema.json", "requirements.yaml", "requirements.lock"}
)
_INSIDE: Final = "charts/"


@dataclass(frozen=True, slots=True)
class Content:
    """A chart without the charts inside it.

    Attributes:
        version: of the chart.
        metadata: what else its Chart.yaml says that a change of it could change in the cluster.
        files: digests of its templates and other files, by path.
        defaults: its values.yaml; None where it has dependencies, whose values Helm mixes into its record.
    """

    version: str
    metadata: Mapping[str, Any]
    files: Mapping[str, Digest]
    defaults: Mapping[str, Any] | None

    def differing(self, other: Content) -> Iterator[str]:
        """Yield what is not the same in another chart: a version, a file, a default value."""
        if self.version != other.version:
            yield f"version {other.version}"
            return
        yield from (f"Chart.yaml: {path}" for path in helm_values.differing(self.metadata, other.metadata))
        yield from (
            path for path in sorted({*self.files, *other.files}) if self.files.get(path) != other.files.get(path)
        )
        if self.defaults is not None and other.defaults is not None:
            yield from (f"{_VALUES}: {path}" for path in helm_values.differing(self.defaults, other.defaults))


def of_archive(data: bytes, *, subject: str) -> Content:
    """Return what a chart's archive holds.

    Raises:
        DeployError: its values.yaml cannot be read.
        IntegrityError: it is no chart, or is out of bounds.
    """
    chart = charts.read_archive(data, subject=subject)
    _, files = chart_archive.read(data, subject=subject, budget=Budget())
    defaults = None
    if not chart.dependencies:
        text = files.get(_VALUES, b"").removeprefix(_BOM).decode("utf-8", "replace")
        defaults = helm_values.read(text, subject=f"{subject}, {_VALUES}")
    own = {path: digests.of(content.removeprefix(_BOM)) for path, content in files.items() if _is_own(path)}
    return Content(chart.version, _metadata(chart.metadata), own, defaults)


def of_record(record: Mapping[str, Any], *, subject: str) -> Content:
    """Return the chart in Helm's record of a release.

    Raises:
        DeployError: the record is malformed.
    """
    files = {}
    for part in ("templates", "files"):
        for item in at(record, "chart", part) or []:
            path = at(item, "name")
            if isinstance(path, str) and _is_own(path):
                files[path] = digests.of(_data(at(item, "data"), f"{subject}, {path}"))
    defaults = at(record, "chart", "values")
    metadata = at(record, "chart", "metadata") or {}
    has_own = not at(metadata, "dependencies")
    return Content(
        str(at(metadata, "version") or ""), _metadata(metadata), files, (defaults or {}) if has_own else None
    )


def _metadata(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return what both have alike: Helm adds to a dependency whether it is switched on."""
    named = {key: at(value, key) for key in ("appVersion", "kubeVersion", "annotations") if at(value, key)}
    parts = at(value, "dependencies") or []
    found = [{key: at(item, key) for key in ("name", "version", "alias") if at(item, key)} for item in parts]
    return {**named, **({"dependencies": found} if found else {})}


def _data(text: object, subject: str) -> bytes:
    try:
        return base64.b64decode(text or "", validate=True) if isinstance(text, str | None) else b""
    except ValueError:
        raise DeployError(f"{subject}: Helm's record is malformed") from None


def _is_own(path: str) -> bool:
    return path not in _APART and not path.startswith(_INSIDE)

"""What a deploy would change in a cluster, from what the cluster has now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from airlift.canonical import JsonObject
from airlift.digest import Digest
from airlift.site.deploy import values
from airlift.site.deploy.helmchart import PREFIX, SYSTEM
from airlift.site.deploy.objects import at
from airlift.site.deploy.status import Cluster, Phase, State

GROUP: Final = "apis/helm.cattle.io/v1"
_OWNER: Final = "objectset.rio.cattle.io/owner-name"
_NOTHING: Final = "nothing"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as the drops have it.

    Attributes:
        what: ``chart``, ``values``, ``image`` or ``release``.
        release: ``namespace/name``.
        cluster: what is there.
        drop: what the drops have.
    """

    what: str
    release: str
    cluster: str
    drop: str

    def to_json(self) -> JsonObject:
        """Return what ``--json`` says of it."""
        return {"what": self.what, "release": self.release, "cluster": self.cluster, "drop": self.drop}


def between(cluster: Cluster, states: Sequence[State], read: Callable[[Digest], bytes]) -> list[Difference]:
    """Return what differs, in the order of the drops' releases; releases of earlier drops last.

    Args:
        cluster: is asked for the HelmCharts.
        states: what was seen of the releases.
        read: gives a values file.

    Raises:
        DeployError: the cluster does not answer.
        IntegrityError, StoreError: a values file cannot be read.
    """
    charts = {str(at(item, "metadata", "name")): item for item in cluster.items(GROUP, "helmcharts", SYSTEM)}
    found: list[Difference] = []
    for state in states:
        found += _release(state, charts.get(state.release.name), read)
    names = {state.release.name for state in states}
    for name, item in sorted(charts.items()):
        owner = at(item, "metadata", "annotations", _OWNER)
        if name not in names and owner == f"{PREFIX}{name}":
            space = at(item, "spec", "targetNamespace") or "default"
            found.append(Difference("release", f"{space}/{name}", "of an earlier drop", _NOTHING))
    return found


def _release(state: State, chart: Mapping[str, Any] | None, read: Callable[[Digest], bytes]) -> list[Difference]:
    release = state.release
    name = f"{release.namespace}/{release.name}"
    if state.phase is Phase.ABSENT:
        return [Difference("release", name, _NOTHING, f"{release.chart.facts.get('name')} {state.version}")]
    found = []
    if state.revision is not None and state.revision.chart_version != state.version:
        found.append(Difference("chart", name, state.revision.chart_version, state.version))
    wanted = values.combine([(file, read(pin)) for file, pin in release.values], release=release.name)
    if chart is not None and (at(chart, "spec", "valuesContent") or "") != wanted:
        found.append(Difference("values", name, "other values", "the drop's"))
    for item in state.containers:
        if item.problem is not None:
            where = f"{name} {item.container.pod}, {item.container.name}"
            found.append(Difference("image", where, item.running or item.container.image, item.shipped or _NOTHING))
    return found

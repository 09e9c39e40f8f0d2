"""What a deploy would change in a cluster, from what the cluster has now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from airlift.canonical import JsonObject
from airlift.site.deploy.cluster import Cluster
from airlift.site.deploy.helmchart import GROUP, PREFIX, SYSTEM
from airlift.site.deploy.objects import at
from airlift.site.deploy.status import State

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


def between(cluster: Cluster, states: Sequence[State]) -> list[Difference]:
    """Return what differs, in the order of the drops' releases; releases of earlier drops last.

    Args:
        cluster: is asked for the HelmCharts.
        states: what was seen of the releases.

    Raises:
        DeployError: the cluster does not answer.
    """
    found = [item for state in states for item in _release(state)]
    names = {state.release.name for state in states}
    charts = {str(at(item, "metadata", "name")): item for item in cluster.items(GROUP, "helmcharts", SYSTEM)}
    for name, item in sorted(charts.items()):
        owner = at(item, "metadata", "annotations", _OWNER)
        if name not in names and owner == f"{PREFIX}{name}":
            space = at(item, "spec", "targetNamespace") or "default"
            found.append(Difference("release", f"{space}/{name}", "of an earlier drop", _NOTHING))
    return found


def _release(state: State) -> list[Difference]:
    release = state.release
    name = f"{release.namespace}/{release.name}"
    if state.revision is None:
        return [Difference("release", name, _NOTHING, f"{release.chart.facts.get('name')} {state.version}")]
    found = []
    if state.other_chart:
        version = state.revision.chart.version
        there = (
            version if version != state.version else f"{version} with other content ({', '.join(state.other_chart)})"
        )
        found.append(Difference("chart", name, there, state.version))
    if state.other_values:
        found.append(Difference("values", name, f"other values ({', '.join(state.other_values)})", "the drop's"))
    for item in state.containers:
        if item.problem is not None:
            where = f"{name} {item.container.pod}, {item.container.name}"
            found.append(Difference("image", where, item.running or item.container.image, item.shipped or _NOTHING))
    return found

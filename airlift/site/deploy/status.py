"""Releases of the active drops as a cluster has them: where each is, and whether what runs is what was shipped.

A release is good when Helm's newest revision is deployed with the drop's chart and values, its workloads are ready,
and every container reports a digest that was shipped. Jobs and HelmCharts of K3s say nothing about that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from airlift import reference
from airlift.canonical import JsonObject
from airlift.errors import DeployError, ManifestError, first_of
from airlift.progress import Progress
from airlift.site.deploy import helm_values, revisions
from airlift.site.deploy.cluster import AwayError, Cluster
from airlift.site.deploy.expected import Expected
from airlift.site.deploy.helmchart import GROUP, SYSTEM, Release
from airlift.site.deploy.objects import at
from airlift.site.deploy.registries import Endpoint
from airlift.site.deploy.restarts import commands as restarts_of
from airlift.site.deploy.revisions import Revision
from airlift.site.deploy.rollout import SOURCES, Container, Objects
from airlift.site.deploy.running import Compared, Shipped

INTERVAL_S: Final = 2.0
_SHOWN: Final = 3
_STRANGE: Final = (
    "a pod keeps what its tag meant when it started; where no drop ever had that digest, find out who put it there "
    "(airlift check)"
)
_ON_NODES: Final = "to run what was shipped, on every node:"
_NOT_PULLED: Final = ("ErrImagePull", "ImagePullBackOff")
_PULLING: Final = (
    "a node knows account and certificates from registries.yaml as K3s read it when it started: mend registry in "
    "site.yaml, then airlift deploy k3s on every node; airlift check looks into the registry"
)
_THEN: Final = "then, where kubectl reaches the cluster:"


class Phase(StrEnum):
    """Where a release is."""

    ABSENT = "absent"
    OUTDATED = "outdated"
    PENDING = "pending"
    FAILED = "failed"
    ROLLING = "rolling"
    READY = "ready"
    DIFFERS = "differs"


FINAL: Final = frozenset({Phase.READY, Phase.FAILED, Phase.DIFFERS})


@dataclass(frozen=True, slots=True)
class State:
    """A release in the cluster.

    Attributes:
        release: as the drop has it.
        phase: where it is.
        revision: Helm's newest, or None.
        waiting: what it waits for, or why it failed.
        containers: what runs.
        other_chart, other_values: what of the revision is not the drop's: files and values by path.
    """

    release: Release
    phase: Phase
    revision: Revision | None
    waiting: tuple[str, ...]
    containers: tuple[Compared, ...]
    other_chart: tuple[str, ...] = ()
    other_values: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The chart's version in the drop."""
        return str(self.release.chart.facts.get("version", ""))

    @property
    def problems(self) -> tuple[str, ...]:
        """What differs from what was shipped, a line each."""
        found = (item for item in self.containers if item.problem is not None)
        return tuple(f"{item.container.pod}, {item.container.name}: {item.problem}" for item in found)

    def to_json(self) -> JsonObject:
        """Return what ``--json`` and the record say."""
        return {
            "release": self.release.name,
            "namespace": self.release.namespace,
            "phase": self.phase.value,
            "revision": None if self.revision is None else self.revision.number,
            "status": None if self.revision is None else self.revision.status,
            "chart": self.release.chart.facts.get("name"),
            "version": None if self.revision is None else self.revision.chart.version,
            "wanted": self.version,
            "waiting": list(self.waiting),
            "containers": [item.to_json() for item in self.containers],
        }


def look(cluster: Cluster, wanted: Sequence[Expected], shipped: Shipped) -> tuple[State, ...]:
    """Return where every release of the drops is now.

    Raises:
        DeployError: the cluster does not answer, or what Helm wrote there cannot be read.
    """
    if not wanted:
        return ()
    configs = {str(at(item, "metadata", "name")): item for item in cluster.items(GROUP, "helmchartconfigs", SYSTEM)}
    return tuple(_state(cluster, item, _values(configs.get(item.release.name)), shipped) for item in wanted)


def _values(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what a HelmChartConfig puts over a chart's values; None when it names Secrets that have them."""
    if at(config, "spec", "valuesSecrets"):
        return None
    text, inline = at(config, "spec", "valuesContent"), at(config, "spec", "values")
    name = at(config, "metadata", "name")
    found = helm_values.read(text, subject=f"HelmChartConfig {name}") if isinstance(text, str) else {}
    return helm_values.merged(found, inline) if isinstance(inline, dict) else found


def _state(cluster: Cluster, wanted: Expected, over: Mapping[str, Any] | None, shipped: Shipped) -> State:
    state = _seen(cluster, wanted, over, shipped)
    # Lists are read one after the other: an upgrade that began in between has pods, and no revision was there yet.
    return _seen(cluster, wanted, over, shipped) if state.phase is Phase.DIFFERS else state


def _seen(cluster: Cluster, wanted: Expected, over: Mapping[str, Any] | None, shipped: Shipped) -> State:
    release = wanted.release
    secrets = cluster.items("api/v1", "secrets", release.namespace, selector=f"owner=helm,name={release.name}")
    revision = revisions.newest(secrets, release=release.name, namespace=release.namespace)
    if revision is None:
        return State(release, Phase.ABSENT, None, ("Helm has not installed it yet",), ())
    objects = _objects(cluster, {release.namespace, *(item.namespace for item in revision.workloads)})
    containers = tuple(shipped.compare(item) for item in objects.containers(revision.workloads))
    chart, values = wanted.other_chart(revision), wanted.other_values(revision, over)
    if chart or values:
        said = (_other(revision, "another chart", chart), _other(revision, "other values", values))
        return State(release, Phase.OUTDATED, revision, tuple(filter(None, said)), containers, chart, values)
    if revision.status == "failed":
        return State(release, Phase.FAILED, revision, (revision.description or "Helm does not say why",), containers)
    if revision.status != "deployed":
        return State(release, Phase.PENDING, revision, (f"Helm says {revision.status}",), containers)
    gone = {item for item in revision.fleeting if item not in objects}
    missing = (objects.missing_for(item) for item in revision.workloads if item not in revision.hooks | gone)
    waiting = [item for item in missing if item is not None]
    waiting += [_unstarted(item.container) for item in containers if _early(item)]
    if any(item.problem is not None for item in containers):
        # Pods of the revision before may still run: that counts only when nothing is on its way any more.
        return State(release, Phase.ROLLING if waiting else Phase.DIFFERS, revision, tuple(waiting), containers)
    return State(release, Phase.ROLLING if waiting else Phase.READY, revision, tuple(waiting), containers)


def _other(revision: Revision, what: str, paths: Sequence[str]) -> str:
    if not paths:
        return ""
    return f"revision {revision.number}, {revision.status}, has {what}: {first_of(paths, _SHOWN)}"


def _unstarted(container: Container) -> str:
    return f"{container.pod}: {container.name} has not started" + (f": {container.waits}" if container.waits else "")


def _early(item: Compared) -> bool:
    return item.problem is None and item.running is None


def _objects(cluster: Cluster, namespaces: set[str]) -> Objects:
    return Objects(
        {
            kind: [item for name in sorted(namespaces) for item in cluster.items(group, plural, name)]
            for group, plural, kind in SOURCES
        }
    )


def watch(
    see: Callable[[], tuple[State, ...]],
    count: int,
    *,
    timeout: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    progress: Progress,
) -> tuple[State, ...]:
    """Look until every release is ready or cannot become so, or the time is up.

    Args:
        see: looks once.
        count: of the releases.
        timeout: seconds; 0 looks once.
        clock: seconds that only grow.
        sleep: waits.
        progress: hears of each release that changes.

    Raises:
        AwayError: the cluster does not answer until the time is up.
        DeployError: as `look`.
    """
    end = clock() + timeout
    told: dict[str, str] = {}
    progress.start("waiting for releases", count, unit="releases")
    done = 0
    while True:
        try:
            states = see()
        except AwayError as error:
            if clock() >= end:
                raise
            if told.get("") != error.message:
                told[""] = error.message
                progress.note(f"waiting for the cluster: {error.message}")
            sleep(INTERVAL_S)
            continue
        for item in states:
            line = f"{item.release.namespace}/{item.release.name}: {item.phase}" + "".join(
                f"; {text}" for text in item.waiting[:3]
            )
            if told.get(item.release.name) != line:
                told[item.release.name] = line
                progress.note(line)
        final = sum(item.phase in FINAL for item in states)
        progress.advance(max(0, final - done))
        done = max(done, final)
        if final == len(states) or clock() >= end:
            progress.finish()
            return states
        sleep(INTERVAL_S)


def refuse(states: Sequence[State], endpoint: Endpoint) -> None:
    """Accept releases that are all ready and run what was shipped.

    Args:
        states: what was seen of them.
        endpoint: where nodes ask for images.

    Raises:
        DeployError: with the list of what is not.
    """
    refuse_others(states)
    late = [
        line
        for item in states
        if item.phase is not Phase.READY
        for line in (
            f"  {item.release.namespace}/{item.release.name} is {item.phase}: {'; '.join(item.waiting)}",
            *(f"    {problem}" for problem in item.problems),
            *(f"    {asked}" for asked in _asked(item, endpoint)),
        )
    ]
    if late:
        hint = ["look with kubectl describe and helm history; docs/deploy-k3s.md says what to do after an abort"]
        if any(_asked(item, endpoint) for item in states):
            hint.append(_PULLING)
        raise DeployError("\n".join(["releases of the active drops are not ready", *late]), hint="\n".join(hint))


def _asked(state: State, endpoint: Endpoint) -> tuple[str, ...]:
    """Say where a node asks for images that it could not pull, and as whom."""
    waiting = [item.container for item in state.containers if _early(item)]
    images = dict.fromkeys(item.image for item in waiting if item.waits.startswith(_NOT_PULLED))
    account = "without an account" if endpoint.username is None else f"as {endpoint.username}"
    found = []
    for image in images:
        with contextlib.suppress(ManifestError):
            registry = reference.parse(image).registry
            found.append(f"{image} is asked for at {endpoint.url(registry)} {account}")
    return tuple(found)


def refuse_others(states: Sequence[State]) -> None:
    """Accept releases none of which runs something else than what was shipped, however far they are.

    Raises:
        DeployError: with the list of what differs, and what to type.
    """
    differing = [item for item in states if item.phase is Phase.DIFFERS]
    if not differing:
        return
    pulls: dict[str, None] = {}
    restarts: dict[str, None] = {}
    for item in differing:
        pull, restart = restarts_of(item.release.name, item.containers)
        pulls |= dict.fromkeys(pull)
        restarts |= dict.fromkeys(restart)
    hint = [_STRANGE]
    if pulls:
        hint += [_ON_NODES, *(f"  {line}" for line in pulls)]
    if restarts:
        hint += [_THEN, *(f"  {line}" for line in restarts)]
    raise DeployError(
        "\n".join(
            ["what runs is not what was shipped", *(f"  {line}" for item in differing for line in item.problems)]
        ),
        hint="\n".join(hint),
    )

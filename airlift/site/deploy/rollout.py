"""How far the workloads of a release are, and which pods they made: from objects of the API, without asking anyone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from airlift.site.deploy.objects import at, listed
from airlift.site.deploy.revisions import Workload

SOURCES: Final = (
    ("apis/apps/v1", "deployments", "Deployment"),
    ("apis/apps/v1", "replicasets", "ReplicaSet"),
    ("apis/apps/v1", "statefulsets", "StatefulSet"),
    ("apis/apps/v1", "daemonsets", "DaemonSet"),
    ("apis/batch/v1", "jobs", "Job"),
    ("apis/batch/v1", "cronjobs", "CronJob"),
    ("api/v1", "pods", "Pod"),
)
"""Where each kind is on the API: group, plural, kind.

Pods come last: once a rollout is said to be over, no old one is left.
"""

Object = Mapping[str, Any]
_ENDS: Final = frozenset({"Job", "Pod"})
_MAKERS: Final = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"})
_UPDATED: Final = frozenset({"StatefulSet", "DaemonSet"})
_ENDED: Final = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a pod, or an image that is mounted into one as a volume.

    Attributes:
        maker: what of the release made the pod, or the pod itself.
        pod: ``namespace/name``.
        name: its own.
        image: as the pod asks for it.
        image_id: as the node reports it; empty while it has not started.
        waits: why it has not started, in the node's words; empty where it has, or nothing is wrong.
        is_unreported: whether it runs and the node does not say from what: a volume, which few nodes report.
        is_held: whether its maker leaves its pods as they are when it is restarted (`OnDelete`, a partition, a pause).
    """

    maker: Workload
    pod: str
    name: str
    image: str
    image_id: str
    waits: str = ""
    is_unreported: bool = False
    is_held: bool = False


class Objects:
    """Objects of some namespaces by kind and name."""

    def __init__(self, found: Mapping[str, Sequence[Object]]) -> None:
        """Take lists by kind."""
        self._found = {
            Workload(kind, str(at(item, "metadata", "namespace")), str(at(item, "metadata", "name"))): item
            for kind, items in found.items()
            for item in items
        }

    def __contains__(self, workload: Workload) -> bool:
        """Whether it is there."""
        return workload in self._found

    def missing_for(self, workload: Workload) -> str | None:
        """Say what a workload waits for, or None when it is there and ready."""
        item = self._found.get(workload)
        if item is None:
            return f"{workload} is not there"
        said = _MISSING[workload.kind](item)
        if said is None and workload.kind in _MAKERS and _wanted(item) and not self.containers([workload]):
            # Lists are read one after the other: its status may be from before its pods were deleted.
            said = "its pods are not there"
        return None if said is None else f"{workload}: {said}"

    def containers(self, workloads: Sequence[Workload]) -> tuple[Container, ...]:
        """Return the containers of all pods that these workloads made and that are not being removed.

        A pod that has ended counts for a Job alone: what a CronJob or an evicted pod leaves is of earlier revisions.
        """
        wanted = frozenset(workloads)
        found: list[Container] = []
        for key, pod in sorted(self._found.items()):
            if key.kind != "Pod" or at(pod, "metadata", "deletionTimestamp"):
                continue
            maker = self._maker(key, wanted)
            if maker is not None and (maker.kind in _ENDS or str(at(pod, "status", "phase")) not in _ENDED):
                is_held = _held(maker.kind, self._found.get(maker, {})) is not None
                found += [replace(item, is_held=is_held) for item in _containers(maker, key, pod)]
        return tuple(found)

    def _maker(self, key: Workload, wanted: frozenset[Workload]) -> Workload | None:
        for _ in range(4):  # Pod, Job, CronJob: no chain of Kubernetes's own is longer
            if key in wanted:
                return key
            owners = listed(self._found.get(key), "metadata", "ownerReferences")
            owner = next((item for item in owners if isinstance(item, Mapping) and item.get("controller")), None)
            if owner is None:
                return None
            key = Workload(str(owner.get("kind")), key.namespace, str(owner.get("name")))
        return None


def _number(item: Object, *path: str, default: int = 0) -> int:
    value = at(item, *path)
    return value if isinstance(value, int) else default


def _unseen(item: Object) -> str | None:
    if _number(item, "status", "observedGeneration") < _number(item, "metadata", "generation"):
        return "its controller has not seen it yet"
    return None


def _wanted(item: Object) -> int:
    return _number(item, "status", "desiredNumberScheduled", default=_number(item, "spec", "replicas", default=1))


def _held(kind: str, item: Object) -> str | None:
    """Say what keeps a maker's pods from being replaced by those of a new revision, or return None."""
    if kind in _UPDATED and at(item, "spec", "updateStrategy", "type") == "OnDelete":
        return "until they are deleted (updateStrategy OnDelete)"
    if kind == "StatefulSet" and (kept := _number(item, "spec", "updateStrategy", "rollingUpdate", "partition")):
        return f"while its partition is {kept}"
    return "while it is paused" if kind == "Deployment" and at(item, "spec", "paused") is True else None


def _old(kind: str, item: Object, count: int) -> str | None:
    """Say which pods nobody replaces, if any of an earlier revision are left."""
    held = _held(kind, item)
    return None if held is None or count <= 0 else f"{count} pods of an earlier revision stay {held}"


def _deployment(item: Object) -> str | None:
    wanted = _number(item, "spec", "replicas", default=1)
    updated, total = _number(item, "status", "updatedReplicas"), _number(item, "status", "replicas")
    available = _number(item, "status", "availableReplicas")
    if (unseen := _unseen(item)) is not None:
        return unseen
    if (old := _old("Deployment", item, total - updated)) is not None:
        return old
    if updated < wanted or available < wanted:
        return f"{min(updated, available)} of {wanted} pods are ready"
    return f"{total - updated} old pods are left" if total > updated else None


def _stateful_set(item: Object) -> str | None:
    wanted = _number(item, "spec", "replicas", default=1)
    if (unseen := _unseen(item)) is not None:
        return unseen
    ready, updated = _number(item, "status", "readyReplicas"), _number(item, "status", "updatedReplicas")
    same = at(item, "status", "currentRevision") == at(item, "status", "updateRevision")
    if not same and (old := _old("StatefulSet", item, wanted - updated)) is not None:
        return old
    now = ready if same else min(ready, updated)
    return f"{now} of {wanted} pods are ready" if now < wanted else None


def _daemon_set(item: Object) -> str | None:
    wanted = _number(item, "status", "desiredNumberScheduled")
    if (unseen := _unseen(item)) is not None:
        return unseen
    updated = _number(item, "status", "updatedNumberScheduled")
    if (old := _old("DaemonSet", item, wanted - updated)) is not None:
        return old
    now = min(updated, _number(item, "status", "numberAvailable"))
    return f"{now} of {wanted} pods are ready" if now < wanted else None


def _replica_set(item: Object) -> str | None:
    wanted, now = _number(item, "spec", "replicas", default=1), _number(item, "status", "readyReplicas")
    return f"{now} of {wanted} pods are ready" if now < wanted else None


def _is_true(item: Object, condition: str) -> bool:
    conditions = at(item, "status", "conditions")
    return isinstance(conditions, list) and any(
        at(entry, "type") == condition and at(entry, "status") == "True" for entry in conditions
    )


def _job(item: Object) -> str | None:
    if _is_true(item, "Failed"):
        return "it failed"
    return None if _is_true(item, "Complete") else "it is not complete"


def _pod(item: Object) -> str | None:
    done = at(item, "status", "phase") == "Succeeded"
    return None if done or _is_true(item, "Ready") else f"it is {at(item, 'status', 'phase') or 'not scheduled'}"


def _cron_job(item: Object) -> str | None:
    return None if item else "it is empty"


_MISSING: Final = {
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
    "ReplicaSet": _replica_set,
    "Job": _job,
    "Pod": _pod,
    "CronJob": _cron_job,
}


_PARTS: Final = (
    ("initContainers", "initContainerStatuses"),
    ("containers", "containerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
)
_STARTED: Final = frozenset({"Running", *_ENDED})
_ON_ITS_WAY: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
_PULL_FAILED: Final = "ErrImagePull: "
_WORDS: Final = 1000


def _containers(maker: Workload, key: Workload, pod: Object) -> list[Container]:
    where = f"{key.namespace}/{key.name}"
    found: list[Container] = []
    mounted: dict[str, object] = {}
    for part, statuses in _PARTS:
        seen = listed(pod, "status", statuses)
        reported = {str(at(item, "name")): (str(at(item, "imageID") or ""), _waits(item)) for item in seen}
        mounts = [mount for item in seen for mount in listed(item, "volumeMounts")]
        mounted |= {str(at(mount, "name")): at(mount, "volumeStatus", "image", "imageRef") for mount in mounts}
        for item in listed(pod, "spec", part):
            name = str(at(item, "name"))
            found.append(Container(maker, where, name, str(at(item, "image") or ""), *reported.get(name, ("",))))
    has_started = str(at(pod, "status", "phase")) in _STARTED
    for item in listed(pod, "spec", "volumes"):
        if (image := at(item, "image", "reference")) is not None:
            name = str(at(item, "name"))
            digest, is_unreported = _volume(str(image), mounted.get(name), has_started=has_started)
            named = f"volume {name}"
            found.append(Container(maker, where, named, str(image), digest, is_unreported=is_unreported))
    return found


def _waits(status: object) -> str:
    reason, message = (str(at(status, "state", "waiting", key) or "") for key in ("reason", "message"))
    if reason in _ON_ITS_WAY:
        return ""
    text = f"{reason}: {' '.join(message.split())}".removesuffix(": ")
    # A kubelet that tries again says every other time that it waits, and then what for: one text is enough.
    return text[max(0, text.find(_PULL_FAILED)) :][:_WORDS]


def _volume(image: str, reported: object, *, has_started: bool) -> tuple[str, bool]:
    """Return the digest of an image that is mounted, and whether nobody says it.

    It is what the node reports, else the digest that it had to be mounted by.
    """
    if isinstance(reported, str) and reported:
        return reported, False
    if not has_started or "@" in image:
        return (image if has_started else ""), False
    return "", True

"""What a person types so that pods run the digests that were shipped, where they keep another one.

Nothing makes them do so by themselves when only the content of a tag changed: the release is the same, so Helm leaves
its pods; a pod keeps what it was started with; and a node that has the tag does not ask for it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from airlift.site.deploy.helmchart import SYSTEM
from airlift.site.deploy.rollout import Container
from airlift.site.deploy.running import Compared

_RESTARTED: Final = frozenset({"Deployment", "StatefulSet", "DaemonSet"})
_REMADE: Final = frozenset({"ReplicaSet", "CronJob"})


def commands(release: str, containers: Iterable[Compared]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what to type, each once: on every node, and then where kubectl reaches the cluster.

    Args:
        release: whose containers they are.
        containers: what runs; those that run what was shipped, or an image that no drop has, need nothing of this.
    """
    found = [item.container for item in containers if item.has_other_content]
    pulls = dict.fromkeys(f"k3s crictl pull {item.image}" for item in found if "@" not in item.image)
    restarts = dict.fromkeys(line for item in found for line in _restart(release, item))
    return tuple(pulls), tuple(restarts)


def _restart(release: str, container: Container) -> Iterator[str]:
    maker = container.maker
    kind = maker.kind.lower()
    if maker.kind in _RESTARTED and not container.is_held:
        yield f"kubectl -n {maker.namespace} rollout restart {kind}/{maker.name}"
    elif maker.kind in _RESTARTED | _REMADE:
        yield f"kubectl -n {maker.namespace} delete pod {container.pod.rpartition('/')[2]}"
    else:
        yield f"kubectl -n {maker.namespace} delete {kind} {maker.name}"
        # Helm makes again what is missing.
        yield f"kubectl -n {SYSTEM} delete job helm-install-{release}"

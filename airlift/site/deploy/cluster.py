"""What is asked of a cluster, whatever drives it."""

from __future__ import annotations

from typing import Any, Protocol

from airlift.errors import DeployError


class AwayError(DeployError):
    """The API server does not answer now, and may later: it starts, or is out of reach."""


class Cluster(Protocol):
    """A cluster that is read."""

    def items(self, group: str, plural: str, namespace: str, *, selector: str = "") -> list[dict[str, Any]]:
        """Return the objects of one kind in a namespace; none when the cluster does not know the kind.

        Args:
            group: ``api/v1`` or ``apis/<group>/<version>``.
            plural: the kind, such as ``pods``.
            namespace: where.
            selector: labels, such as ``owner=helm,name=web``.

        Raises:
            AwayError: the cluster does not answer.
            DeployError: it refuses.
        """

"""What Helm's record of a release says once the cluster has taken what the drop has of it.

Until then the revision that the cluster has is an earlier one, however ready its workloads are: the drop may change no
more than the values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airlift.artifact import DropConfig
from airlift.digest import Digest
from airlift.site.deploy import content, helm_values, helmchart
from airlift.site.deploy.blobs import BlobSource
from airlift.site.deploy.content import Content
from airlift.site.deploy.helmchart import Release
from airlift.site.deploy.revisions import Revision


@dataclass(frozen=True, slots=True)
class Expected:
    """A release as the drop has it.

    Attributes:
        release: the drop's.
        chart: what its chart is made of.
        values: its values, as Helm has them once it read them.
    """

    release: Release
    chart: Content
    values: Mapping[str, Any]

    def other_chart(self, revision: Revision) -> tuple[str, ...]:
        """Return what is not the drop's in the chart of a revision."""
        return tuple(self.chart.differing(revision.chart))

    def other_values(self, revision: Revision, over: Mapping[str, Any] | None) -> tuple[str, ...]:
        """Return the paths of the values that are not the drop's in a revision; values may be secret, paths are not.

        Args:
            revision: Helm's.
            over: what a HelmChartConfig of the cluster puts over the drop's; None when that cannot be known.
        """
        if over is None:
            return ()
        return tuple(helm_values.differing(helm_values.merged(self.values, over), revision.values))


def of_drops(drops: Sequence[DropConfig], source: BlobSource, read: Callable[[Digest], bytes]) -> tuple[Expected, ...]:
    """Return what is expected of every release of the drops, in their order.

    Args:
        drops: the active drops.
        source: where charts are.
        read: gives a values file.

    Raises:
        DeployError: a release is malformed, or its values cannot be read.
        IntegrityError: a chart is damaged.
        StoreError, FetchError: something cannot be read.
    """
    return tuple(_expected(release, source, read) for release in helmchart.releases(drops))


def _expected(release: Release, source: BlobSource, read: Callable[[Digest], bytes]) -> Expected:
    return Expected(
        release,
        content.of_archive(helmchart.chart_of(release, source), subject=release.chart.name),
        helm_values.read(helmchart.values_of(release, source, read), subject=f"release {release.name}, values"),
    )

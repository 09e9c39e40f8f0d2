"""Where artifacts are below a site's registry."""

from __future__ import annotations

import pytest

from airlift import oci
from airlift.artifact import Artifact, Kind
from airlift.errors import BundleError
from airlift.site.mirror import place_of

ROOT = oci.describe(b"a manifest", oci.MANIFEST)
OTHER = oci.describe(b"another", oci.MANIFEST).digest


@pytest.mark.parametrize(
    ("kind", "name", "place"),
    [
        (Kind.IMAGE, "docker.io/library/redis:7.4", ("docker.io/library/redis", "7.4")),
        (Kind.IMAGE, "registry.example.com:5000/a/b:1", ("registry.example.com_5000/a/b", "1")),
        (Kind.IMAGE, f"ghcr.io/a/b@{ROOT.digest}", ("ghcr.io/a/b", None)),
        (Kind.CHART, "charts/site:1.0.0_build.1", ("charts/site", "1.0.0_build.1")),
        (Kind.CHART, "ghcr.io/org/charts/app:1.2.3", ("ghcr.io/org/charts/app", "1.2.3")),
    ],
)
def test_an_artifact_is_under_its_registry_and_a_local_chart_under_charts(
    kind: Kind, name: str, place: tuple[str, str | None]
) -> None:
    assert place_of(Artifact(kind, name, ROOT)) == place


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Kind.IMAGE, "redis:7.4"),
        (Kind.IMAGE, "charts/site:1.0.0"),
        (Kind.IMAGE, f"ghcr.io/a/b@{OTHER}"),
        (Kind.CHART, "charts/../../v2/other:1"),
        (Kind.CHART, "charts/site?x=y:1"),
        (Kind.CHART, "charts/site"),
        (Kind.CHART, "app:1.2.3"),
    ],
)
def test_a_name_that_is_not_complete_or_leaves_its_place_is_refused(kind: Kind, name: str) -> None:
    with pytest.raises(BundleError, match="the drop's config: "):
        place_of(Artifact(kind, name, ROOT))

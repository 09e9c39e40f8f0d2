from __future__ import annotations

import os
from pathlib import Path

import pytest

from airlift.connected import resolver
from airlift.errors import ResolveError
from airlift.manifest import load
from tests.components import require
from tests.support.chart_servers import helm, nginx
from tests.support.charts import chart, pod
from tests.support.sources import settings

_MANIFEST = """\
apiVersion: airlift/v1
kind: Drop
metadata: {{name: test, channel: stable}}
charts: [{{repo: "{url}", name: app, version: "*"}}]
deploy: [{{chart: app, values: [site.yaml]}}]
"""


def test_an_edit_of_a_deployments_values_makes_the_lock_stale_and_its_images_are_looked_up_again(
    tmp_path: Path,
) -> None:
    require("helm")
    here = settings(tmp_path, environment={"PATH": os.environ["PATH"]})
    repository = tmp_path / "repo"
    repository.mkdir()
    data = chart(files={"templates/a.yaml": pod("'{{ .Values.image }}'"), "values.yaml": "image: main:1\n"})
    (repository / "app-1.0.0.tgz").write_bytes(data)
    helm("repo", "index", repository)
    values = tmp_path / "site.yaml"
    values.write_text("image: site:1\n")

    with nginx(repository, tmp_path / "nginx") as url:
        (tmp_path / "drop.yaml").write_text(_MANIFEST.format(url=url))
        manifest = load(tmp_path / "drop.yaml")
        first = resolver.resolve(manifest, here)
        assert resolver.resolve(manifest, here, previous=first) == first
        resolver.check(manifest, first, here)

        values.write_text("image: site:2\n")
        with pytest.raises(ResolveError, match=r"charts\[app\]: changed since the lock was made"):
            resolver.check(manifest, first, here)
        second = resolver.resolve(manifest, here, previous=first)

        values.unlink()
        with pytest.raises(ResolveError, match=r"^deploy: site\.yaml is not a file$"):
            resolver.resolve(manifest, here)

    shown = [[i["image"] for i in lock.entries[0].artifacts[0].artifact.facts["images"]] for lock in (first, second)]
    assert shown == [["docker.io/library/site:1"], ["docker.io/library/site:2"]]

"""Drops that differ in the content of a tag alone: Helm sees no change, so pods keep what they were started with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from airlift.cli import deploy_running
from airlift.cli.main import run
from airlift.digest import Digest
from airlift.site import drops as kept
from airlift.site.config import Site
from tests import components
from tests.support.charts import chart
from tests.support.cluster_api import Api, running_api
from tests.support.deployable import activate, make_site
from tests.support.drops import Drops
from tests.support.helm_records import record
from tests.support.registry import free_port

APP = "docker.io/library/app:1"
DEPLOYMENT = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n"
CHART = chart("site", "1.0.0", {"templates/web.yaml": DEPLOYMENT, "values.yaml": "a: 0\n"})
VALUES = "a: 1\n"
NOTE = (
    "airlift: note: docker.io/library/app:1: the same tag has other content in another drop of this site, and pods that "
    "were started with that keep it; `airlift deploy status` finds them and says what to type\n"
)


@pytest.fixture(autouse=True)
def _only_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/kubectl").symlink_to(components.require("kubectl"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("KUBECONFIG", raising=False)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with running_api(tmp_path) as running:
        yield running


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


@pytest.fixture
def digests(site: Site) -> dict[int, Digest]:
    """Two drops, the second of which is active; the digests of their only image."""
    found = {}
    for sequence in (1, 2):
        drops = Drops(site.store)
        found[sequence] = drops.image(APP, b"app %d" % sequence).root.digest
        drops.chart("site", "1.0.0", [APP], archive=CHART)
        drops.release("site", namespace="vision", release="web", v=VALUES.encode())
        activate(site, drops, sequence=sequence)
    return found


def deploy(verb: str, site: Site, tmp_path: Path, *more: str) -> int:
    where = ["--site", str(site.root), "--root", str(tmp_path / "root"), "--platform", "linux/amd64"]
    return run(["deploy", verb, *where, *more])


def runs(api: Api, digest: Digest) -> None:
    api.helm_release(1, "deployed", record(CHART, VALUES))
    api.deployment("web", {"app": (APP, f"docker.io/library/app@{digest}")})


def refusal(running: Digest, shipped: Digest) -> str:
    return (
        "airlift: error: what runs is not what was shipped\n"
        f"airlift:   vision/web-5d-abc, app: {running} runs, {shipped} was shipped\n"
        "airlift: hint: a pod keeps what its tag meant when it started; where no drop ever had that digest, find out who "
        "put it there (airlift check)\n"
        "airlift: to run what was shipped, on every node:\n"
        f"airlift:   k3s crictl pull {APP}\n"
        "airlift: then, where kubectl reaches the cluster:\n"
        "airlift:   kubectl -n vision rollout restart deployment/web\n"
    )


def test_a_rollback_says_which_pods_keep_the_newer_image_and_what_to_type(
    site: Site, digests: dict[int, Digest], api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = ["--kubeconfig", str(api.kubeconfig)]
    runs(api, digests[2])
    assert deploy("k3s", site, tmp_path, *cluster) == 0
    capsys.readouterr()

    assert deploy("rollback", site, tmp_path, *cluster, "--dry-run") == 0
    assert capsys.readouterr().err.endswith(NOTE)
    assert deploy("rollback", site, tmp_path, *cluster) == 18

    said = capsys.readouterr()
    assert said.out.startswith("went from stable/2 back to stable/1\n")
    assert said.err.endswith(NOTE + refusal(digests[2], digests[1]))
    assert [drop.sequence for drop in kept.list_drops(site) if drop.active] == [1]
    assert deploy("k3s", site, tmp_path, *cluster) == 18
    runs(api, digests[1])
    assert deploy("k3s", site, tmp_path, *cluster) == 0


def test_a_rollback_that_is_broken_off_while_it_compares_goes_no_further_back_when_it_is_repeated(
    site: Site,
    digests: dict[int, Digest],
    api: Api,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = ["--kubeconfig", str(api.kubeconfig)]
    runs(api, digests[1])

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(deploy_running, "compare", interrupted)
        assert deploy("rollback", site, tmp_path, *cluster) == 130
    assert "interrupted; run the same command again to go on" in capsys.readouterr().err

    assert deploy("rollback", site, tmp_path, *cluster) == 0

    assert capsys.readouterr().out.startswith("went from stable/2 back to stable/1\n")
    assert [drop.sequence for drop in kept.list_drops(site) if drop.active] == [1]
    assert deploy("rollback", site, tmp_path, *cluster) == 2


def test_the_next_drop_says_it_too_and_gives_its_json_first(
    site: Site, digests: dict[int, Digest], api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs(api, digests[1])

    assert deploy("k3s", site, tmp_path, "--kubeconfig", str(api.kubeconfig), "--json") == 18

    said = capsys.readouterr()
    assert json.loads(said.out)["images"] == {APP: digests[2]}
    assert refusal(digests[1], digests[2]) in said.err


def test_a_release_that_the_cluster_has_not_taken_yet_is_not_judged(
    site: Site, digests: dict[int, Digest], api: Api, tmp_path: Path
) -> None:
    api.helm_release(1, "deployed", record(CHART, "a: 2\n"))
    api.deployment("web", {"app": (APP, f"docker.io/library/app@{digests[1]}")})

    assert deploy("k3s", site, tmp_path, "--kubeconfig", str(api.kubeconfig)) == 0


def test_where_no_cluster_can_be_asked_it_is_said_that_pods_may_keep_it(
    site: Site, digests: dict[int, Digest], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy("k3s", site, tmp_path) == 0
    assert capsys.readouterr().err.endswith(NOTE)
    assert len(set(digests.values())) == 2

    kubeconfig = tmp_path / "away"
    kubeconfig.write_text(
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], "
        f"users: [{{name: u, user: {{}}}}], clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{free_port()}'}}}}]}}"
    )
    assert deploy("k3s", site, tmp_path, "--kubeconfig", str(kubeconfig)) == 0
    said = capsys.readouterr().err
    assert "note: what runs was not compared (" in said
    assert "; do so with: airlift deploy status\n" in said


def test_a_cluster_that_is_not_there_is_refused_before_the_first_change(
    site: Site, digests: dict[int, Digest], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = ["--kubeconfig", str(tmp_path / "none")]

    assert deploy("rollback", site, tmp_path, *missing) == 2
    assert f"--kubeconfig {missing[1]}: no such file" in capsys.readouterr().err
    (tmp_path / "none").write_text("{}")
    assert run(["deploy", "k3s", "--site", str(site.root), *missing]) == 2
    assert "--kubeconfig is for --root DIR; this machine asks its own K3s" in capsys.readouterr().err
    assert [drop.sequence for drop in kept.list_drops(site) if drop.active] == [max(digests)]
    assert not (tmp_path / "root").exists()

"""Status, diff and rollback: the command, kubectl and an API that holds what a cluster would."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airlift.cli import deploy_running
from airlift.cli.main import run
from airlift.site import drops as kept
from airlift.site.config import Site
from airlift.site.deploy import kubectl
from airlift.site.deploy import status as releases
from airlift.site.deploy.cluster import Cluster
from airlift.site.site_yaml import RegistryConfig
from tests import components
from tests.support.charts import chart
from tests.support.cli import environment
from tests.support.cluster_api import Api, running_api
from tests.support.deployable import activate, make_site
from tests.support.drops import Drops
from tests.support.helm_records import record
from tests.support.servers import free_port

APP = "docker.io/library/app:1"
TWIN = "docker.io/other/twin:1"
REDIS = "docker.io/library/redis:7.4"
TEMPLATE = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {metadata: {annotations: {a: {{ .Values.a | quote }}}}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
"""
VALUES = "a: 1\n"
STRANGE = "sha256:" + "0" * 64


@pytest.fixture(autouse=True)
def _programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only kubectl: the charts of these tests are none that helm could render."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/kubectl").symlink_to(components.require("kubectl"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("KUBECONFIG", raising=False)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


@pytest.fixture
def drops(site: Site) -> Drops:
    drops = Drops(site.store)
    drops.image(APP, b"app")
    drops.image(TWIN, b"app", platforms=None)
    drops.image(REDIS, b"redis")
    drops.chart("site", "1.2.0", [APP], archive=site_chart("1.2.0"))
    drops.release("site", namespace="vision", release="web", v=VALUES.encode())
    activate(site, drops)
    return drops


def site_chart(version: str, **more: str) -> bytes:
    files = {"templates/web.yaml": TEMPLATE, "values.yaml": "a: 0\nb: {c: 1}\n", **more}
    return chart("site", version, files)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with running_api(tmp_path) as running:
        yield running


def status(site: Site, api: Api, *more: str) -> int:
    command = ["deploy", "status", "--site", str(site.root), "--kubeconfig", str(api.kubeconfig), "--json"]
    return run([*command, *(more or ("--timeout", "0"))])


def digest_of(drops: Drops, name: str) -> str:
    return next(item.root.digest for item in drops.artifacts if item.name == name)


def deployed(api: Api, image_id: str, *, image: str = APP, ready: bool = True) -> None:
    api.helm_release(1, "superseded", record(site_chart("1.1.0"), VALUES))
    api.helm_release(2, "deployed", record(site_chart("1.2.0"), VALUES))
    api.deployment("web", {"app": (image, image_id)}, ready=ready)


def read(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    said = capsys.readouterr()
    found: dict[str, Any] = json.loads(said.out)
    return found, said.err


def test_a_release_is_ready_when_pods_run_the_index_that_was_shipped(
    site: Site, drops: Drops, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = digest_of(drops, APP)
    deployed(api, f"docker.io/library/app@{digest}")

    assert status(site, api) == 0

    found, _ = read(capsys)
    assert found["ready"] is True
    (release,) = found["releases"]
    assert (release["phase"], release["revision"], release["version"]) == ("ready", 2, "1.2.0")
    assert release["containers"] == [
        {
            "pod": "vision/web-5d-abc",
            "container": "app",
            "image": APP,
            "running": digest,
            "shipped": digest,
            "problem": None,
        }
    ]


def test_what_was_seen_is_kept_beside_the_drop(site: Site, drops: Drops, api: Api) -> None:
    deployed(api, f"docker.io/library/app@{digest_of(drops, APP)}")
    assert status(site, api) == 0

    (active,) = kept.list_drops(site)
    record = json.loads((site.drops_dir / active.release / "deployed.json").read_text())

    assert (record["release"], record["sequence"]) == (active.release, 1)
    assert [item["phase"] for item in record["releases"]] == ["ready"]


def test_another_shipped_image_with_the_same_config_counts_as_the_same(
    site: Site, drops: Drops, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed(api, f"docker.io/other/twin@{digest_of(drops, TWIN)}")

    assert status(site, api) == 0
    assert read(capsys)[0]["releases"][0]["phase"] == "ready"


@pytest.mark.parametrize("which", [STRANGE, REDIS])
def test_an_image_that_was_swapped_behind_our_back_ends_with_18_and_the_list(
    site: Site, drops: Drops, api: Api, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    running = STRANGE if which == STRANGE else digest_of(drops, REDIS)
    deployed(api, f"docker.io/library/app@{running}")

    assert status(site, api) == 18

    found, said = read(capsys)
    assert found["releases"][0]["phase"] == "differs"
    assert "airlift: error: what runs is not what was shipped" in said
    assert f"airlift:   vision/web-5d-abc, app: {running} runs, {digest_of(drops, APP)} was shipped" in said
    (active,) = kept.list_drops(site)
    assert STRANGE in (site.drops_dir / active.release / "deployed.json").read_text() or which == REDIS


@pytest.mark.parametrize(
    ("tail", "reported", "problem"),
    [
        ("", "", "the node does not report which image it mounts; name it by its digest in the values"),
        ("", f"docker.io/library/redis@{STRANGE}", f"{STRANGE} runs, DIGEST was shipped"),
        ("", "docker.io/library/redis@DIGEST", None),
        ("@DIGEST", "", None),
        (f"@{STRANGE}", "", f"docker.io/library/redis@{STRANGE} is not in the active drops"),
    ],
)
def test_an_image_that_is_mounted_as_a_volume_is_compared_too(
    site: Site,
    drops: Drops,
    api: Api,
    capsys: pytest.CaptureFixture[str],
    tail: str,
    reported: str,
    problem: str | None,
) -> None:
    digest = digest_of(drops, REDIS)
    deployed(api, f"docker.io/library/app@{digest_of(drops, APP)}")
    name = REDIS.partition(":")[0] + tail.replace("DIGEST", digest) if tail else REDIS
    volume = {"name": "data", "image": {"reference": name}}
    status_of = {"name": "data", "volumeStatus": {"image": {"imageRef": reported.replace("DIGEST", digest)}}}
    api.mount("web", volume, status_of if reported else {"name": "data"})

    assert status(site, api) == (18 if problem else 0)

    found, _ = read(capsys)
    (compared,) = (item for item in found["releases"][0]["containers"] if item["container"] == "volume data")
    assert compared["problem"] == (problem and problem.replace("DIGEST", digest))


def test_a_container_that_somebody_attached_to_a_pod_is_compared_too(
    site: Site, drops: Drops, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed(api, f"docker.io/library/app@{digest_of(drops, APP)}")
    api.change_pod("web", lambda pod: pod["spec"].update(ephemeralContainers=[{"name": "debug", "image": "a/b:1"}]))

    assert status(site, api) == 18
    assert "debug: a/b:1 is not in the active drops" in capsys.readouterr().err


def test_an_image_that_no_drop_has_is_a_difference(
    site: Site, drops: Drops, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed(api, f"ghcr.io/a/b@{STRANGE}", image="ghcr.io/a/b:1")

    assert status(site, api) == 18
    assert "app: ghcr.io/a/b:1 is not in the active drops" in capsys.readouterr().err
    assert drops.artifacts


def test_a_release_that_helm_has_not_seen_is_absent(
    site: Site, drops: Drops, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(site, api) == 18

    found, said = read(capsys)
    assert found["releases"][0]["phase"] == "absent"
    assert "airlift:   vision/web is absent: Helm has not installed it yet" in said
    assert drops.artifacts


def test_a_failed_upgrade_is_seen_though_its_job_would_be_complete(
    site: Site, drops: Drops, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed(api, f"docker.io/library/app@{digest_of(drops, APP)}")
    api.helm_release(3, "failed", record(site_chart("1.2.0"), VALUES), "timed out waiting")

    assert status(site, api, "--timeout", "60") == 18
    assert "vision/web is failed: timed out waiting" in capsys.readouterr().err


def test_the_version_before_is_not_taken_for_success(
    site: Site, drops: Drops, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    api.helm_release(1, "deployed", record(site_chart("1.1.0"), VALUES))
    api.deployment("web", {"app": (APP, f"docker.io/library/app@{digest_of(drops, APP)}")})

    assert status(site, api) == 18
    assert "vision/web is outdated: revision 1, deployed, has another chart: version 1.1.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "values", "said"),
    [
        (site_chart("1.2.0"), "a: 0\nsecret: {key: hunter2}\n", "has other values: a, secret"),
        (site_chart("1.2.0"), "", "has other values: a"),
        (
            site_chart("1.2.0", **{"templates/more.yaml": "# more", "files/x": "y"}),
            VALUES,
            "has another chart: files/x, templates/more.yaml",
        ),
        (site_chart("1.2.0", **{"values.yaml": "a: 0\nb: {c: 2}\n"}), VALUES, "has another chart: values.yaml: b.c"),
    ],
)
def test_a_revision_before_is_not_taken_for_the_drops_though_its_version_is_the_same(
    site: Site,
    drops: Drops,
    api: Api,
    capsys: pytest.CaptureFixture[str],
    before: bytes,
    values: str,
    said: str,
) -> None:
    """K3s looks at manifests every 15 s, and its job takes its time: until then the old revision is all there is."""
    api.helm_release(1, "deployed", record(before, values))
    api.deployment("web", {"app": (APP, f"docker.io/library/app@{digest_of(drops, APP)}")})

    assert status(site, api, "--timeout", "0.1") == 18

    found, words = read(capsys)
    assert found["releases"][0]["phase"] == "outdated"
    assert f"vision/web is outdated: revision 1, deployed, {said}" in words
    assert "hunter2" not in words + json.dumps(found)


@contextlib.contextmanager
def waiting(site: Site, kubeconfig: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`airlift deploy status`, which waits, and says for what."""
    command = ["deploy", "status", "--site", site.root, "--kubeconfig", kubeconfig, "--timeout", "120", *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "airlift", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(site.root.parent),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_an_upgrade_that_comes_while_status_waits_is_seen(site: Site, drops: Drops, api: Api) -> None:
    """Also when the image that the old revision runs is none of the drop."""
    api.helm_release(1, "deployed", record(site_chart("1.2.0"), "a: 0\n"))
    api.deployment("web", {"app": ("docker.io/library/app:0", f"docker.io/library/app@{STRANGE}")})
    with waiting(site, api.kubeconfig, "--json") as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if "vision/web: " in line)
        deployed(api, f"docker.io/library/app@{digest_of(drops, APP)}")
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out)["releases"][0]["phase"] == "ready"
    assert "vision/web: outdated; revision 1, deployed, has other values: a" in said


@dataclass
class Moving:
    """A cluster that changes just before its pods are listed for the first time."""

    inner: Cluster
    changes: list[Callable[[], None]]

    def items(self, group: str, plural: str, namespace: str, *, selector: str = "") -> list[dict[str, Any]]:
        if plural == "pods" and self.changes:
            self.changes.pop()()
        return self.inner.items(group, plural, namespace, selector=selector)


def test_pods_of_an_upgrade_that_begins_between_two_lists_are_no_difference(site: Site, drops: Drops, api: Api) -> None:
    deployed(api, f"docker.io/library/app@{digest_of(drops, APP)}")

    def begin() -> None:
        api.helm_release(3, "pending-upgrade", record(site_chart("1.3.0"), VALUES))
        api.deployment("web", {"app": ("docker.io/library/app:3", f"docker.io/library/app@{STRANGE}")})

    cluster = kubectl.find(os.environ, api.kubeconfig)
    wanted, shipped = deploy_running.of_drops(site)
    (state,) = releases.look(Moving(cluster, [begin]), wanted, shipped)

    assert state.phase is releases.Phase.OUTDATED
    assert state.waiting == ("revision 3, pending-upgrade, has another chart: version 1.3.0",)


def test_values_that_a_helm_chart_config_puts_over_the_drops_are_expected(
    site: Site, drops: Drops, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    over = "b: {c: 5}\nextra: yes\n"
    spec = {"valuesContent": "b: {c: 4}\nextra: yes\n", "values": {"b": {"c": 5}}, "failurePolicy": "abort"}
    api.put("HelmChartConfig", "web", "kube-system", spec=spec)
    api.helm_release(1, "deployed", record(site_chart("1.2.0"), VALUES + over))
    api.deployment("web", {"app": (APP, f"docker.io/library/app@{digest_of(drops, APP)}")})

    assert status(site, api) == 0, capsys.readouterr()


def test_values_that_a_helm_chart_config_takes_from_secrets_are_not_compared(
    site: Site, drops: Drops, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {"valuesSecrets": [{"name": "s", "keys": ["values.yaml"]}], "failurePolicy": "abort"}
    api.put("HelmChartConfig", "web", "kube-system", spec=spec)
    api.helm_release(1, "deployed", record(site_chart("1.2.0"), VALUES + "password: hunter2\n"))
    api.deployment("web", {"app": (APP, f"docker.io/library/app@{digest_of(drops, APP)}")})

    assert status(site, api) == 0, capsys.readouterr()


def test_it_waits_for_pods_and_says_what_for(
    site: Site, drops: Drops, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed(api, "", ready=False)

    assert status(site, api, "--timeout", "0.1") == 18

    said = capsys.readouterr().err
    assert "vision/web: rolling; Deployment vision/web: 0 of 1 pods are ready; vision/web-5d-abc: app has not" in said
    assert drops.artifacts


def test_a_pod_that_cannot_pull_says_why_and_where_and_as_whom(
    tmp_path: Path, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = {
        "url": "https://harbor.example.com/mirror",
        "username": "importer",
        "password_file": str(tmp_path / "password"),
        "pull": {"username": "robot$pull", "password_file": "which nobody may read here"},
    }
    (tmp_path / "password").write_text("s3cret\n")
    site = make_site(tmp_path / "with", registry=RegistryConfig.model_validate(registry))
    drops = Drops(site.store)
    drops.image(APP, b"app")
    drops.chart("site", "1.2.0", [APP], archive=site_chart("1.2.0"))
    drops.release("site", namespace="vision", release="web", v=VALUES.encode())
    activate(site, drops)
    deployed(api, "", ready=False)
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image: 401\n  Unauthorized"}
    api.change_pod("web", lambda pod: pod["status"]["containerStatuses"][0].update(state={"waiting": waiting}))

    assert status(site, api) == 18

    said = capsys.readouterr().err
    why = "vision/web-5d-abc: app has not started: ImagePullBackOff: Back-off pulling image: 401 Unauthorized"
    asked = f"{APP} is asked for at https://harbor.example.com/v2/mirror/docker.io as robot$pull"
    assert f"airlift:   vision/web is rolling: Deployment vision/web: 0 of 1 pods are ready; {why}\n" in said
    assert f"airlift:     {asked}\n" in said
    assert "airlift: a node knows account and certificates from registries.yaml as K3s read it" in said


def test_a_release_that_is_not_ready_says_which_images_keep_it(
    site: Site, drops: Drops, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed(api, "", image="ghcr.io/a/b:1", ready=False)

    assert status(site, api, "--timeout", "0") == 18

    said = capsys.readouterr().err
    assert "airlift:   vision/web is rolling: Deployment vision/web: 0 of 1 pods are ready" in said
    assert "airlift:     vision/web-5d-abc, app: ghcr.io/a/b:1 is not in the active drops" in said
    assert drops.artifacts


def test_a_job_that_kubernetes_removed_after_its_end_is_not_waited_for(
    site: Site, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    job = "{ttlSecondsAfterFinished: 9, template: {spec: {restartPolicy: Never, containers: []}}}"
    text = f"apiVersion: batch/v1\nkind: Job\nmetadata: {{name: j}}\nspec: {job}\n"
    archive = site_chart("1.2.0", **{"templates/job.yaml": text})
    drops = Drops(site.store)
    drops.image(APP, b"app")
    drops.chart("site", "1.2.0", [APP], archive=archive)
    drops.release("site", namespace="vision", release="web", v=VALUES.encode())
    activate(site, drops)
    api.helm_release(1, "deployed", record(archive, VALUES))
    api.deployment("web", {"app": (APP, f"docker.io/library/app@{digest_of(drops, APP)}")})

    assert status(site, api) == 0
    api.put("Job", "j", spec={}, status={"active": 1})
    assert status(site, api) == 18
    assert "vision/web is rolling: Job vision/j: it is not complete" in capsys.readouterr().err


def test_drops_without_releases_ask_no_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = make_site(tmp_path / "bare")
    drops = Drops(site.store)
    drops.image(APP, b"app")
    activate(site, drops)

    assert run(["deploy", "status", "--site", str(site.root), "--json", "--timeout", "0"]) == 0
    assert read(capsys)[0] == {"ready": True, "releases": []}


def test_a_cluster_that_does_not_answer_ends_with_18_in_kubectls_words(
    site: Site, drops: Drops, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dead").write_text(
        "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}]\n"
        "contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\ncurrent-context: c\n"
    )
    command = ["deploy", "status", "--site", str(site.root), "--kubeconfig", str(tmp_path / "dead")]

    assert run([*command, "--timeout", "0"]) == 18
    assert "kubectl ended with 1" in capsys.readouterr().err
    assert drops.artifacts


def test_a_cluster_that_comes_back_while_status_waits_is_asked_again(site: Site, drops: Drops, tmp_path: Path) -> None:
    """K3s restarts when its settings changed, and status is typed right after."""
    port = free_port()
    (tmp_path / "later").mkdir()
    (tmp_path / "kubeconfig").write_text(
        f"apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n"
        "contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\ncurrent-context: c\n"
    )
    with waiting(site, tmp_path / "kubeconfig") as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if "waiting for the cluster: " in line)
        with running_api(tmp_path / "later", port=port) as api:
            deployed(api, f"docker.io/library/app@{digest_of(drops, APP)}")
            out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "/apis/helm.cattle.io/v1/namespaces/kube-system/helmchartconfigs: kubectl" in said
    assert out.startswith("ready     vision/web 1.2.0, revision 2")


def test_diff_names_chart_values_images_and_releases_of_earlier_drops(
    site: Site, drops: Drops, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    api.helm_release(1, "deployed", record(site_chart("1.1.0"), "a: 0\nz: {y: 1}\n"))
    api.deployment("web", {"app": (APP, f"docker.io/library/app@{STRANGE}")})
    owner = {"annotations": {"objectset.rio.cattle.io/owner-name": "airlift-old"}}
    api.put("HelmChart", "old", "kube-system", metadata=owner, spec={"targetNamespace": "vision"})

    command = ["deploy", "diff", "--site", str(site.root), "--kubeconfig", str(api.kubeconfig)]
    assert run(command) == 0

    assert capsys.readouterr().out.splitlines() == [
        "chart    vision/web: 1.1.0 -> 1.2.0",
        "values   vision/web: other values (a, z) -> the drop's",
        f"image    vision/web vision/web-5d-abc, app: {STRANGE} -> {digest_of(drops, APP)}",
        "release  vision/old: of an earlier drop -> nothing",
    ]

"""The machine itself, on a real Kubernetes: K3s installed and upgraded by a drop, releases pruned, aborted, taken back."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from airlift.site.config import Site
from airlift.site.deploy.datastore import FOLDER as DATASTORE
from airlift.site.deploy.helmchart import CHARTS, MANIFESTS
from tests import components
from tests.support.chart_servers import helm
from tests.support.deployable import activate, make_site
from tests.support.drops import AMD64, ARM64, Drops
from tests.support.folders import SharedFolder
from tests.support.k3s.host import Host, host
from tests.support.k3s.lent import Lent
from tests.support.servers import free_port
from tests.support.serving import serving

SPACE = "machine"
IMAGE = "registry.example.com/machine/app"
TWIN = "registry.example.com/machine/twin"
TEMPLATE = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  selector: {matchLabels: {app: {{ .Values.selected | default .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      terminationGracePeriodSeconds: 0
      initContainers: [{name: first, image: {{ .Values.image }}, command: [/bin/true]}]
      containers:
        - {name: app, image: {{ .Values.image }}, command: [/bin/sleep, "100000"]}
        - {name: twin, image: {{ .Values.twin }}, command: [/bin/sleep, "100000"]}
"""

POD = "{terminationGracePeriodSeconds: 0, containers: [{name: c, image: {{ .Values.image }}, command: [/bin/sleep, '9999']}]}"
ENDS = "{restartPolicy: Never, containers: [{name: c, image: {{ .Values.image }}, command: [/bin/true]}]}"
KINDS = f"""\
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: kinds-set}}
spec:
  serviceName: kinds
  replicas: 2
  selector: {{matchLabels: {{kind: set}}}}
  template: {{metadata: {{labels: {{kind: set}}}}, spec: {POD}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: kinds-daemon}}
spec:
  selector: {{matchLabels: {{kind: daemon}}}}
  template: {{metadata: {{labels: {{kind: daemon}}}}, spec: {POD}}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {{name: kinds-replicas}}
spec:
  replicas: 2
  selector: {{matchLabels: {{kind: replicas}}}}
  template: {{metadata: {{labels: {{kind: replicas}}}}, spec: {POD}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: kinds-pod}}
spec: {POD}
---
apiVersion: batch/v1
kind: Job
metadata: {{name: kinds-job}}
spec: {{template: {{spec: {ENDS}}}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {{name: kinds-cron}}
spec: {{schedule: "0 0 1 1 *", jobTemplate: {{spec: {{template: {{spec: {ENDS}}}}}}}}}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: kinds-hook
  annotations: {{helm.sh/hook: "post-install,post-upgrade", helm.sh/hook-delete-policy: before-hook-creation}}
spec: {{template: {{spec: {ENDS}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: kinds-test, annotations: {{helm.sh/hook: test}}}}
spec: {ENDS}
"""


@dataclass
class Machine:
    """A site, and a machine that runs what it has."""

    host: Host
    site: Site
    charts: dict[str, bytes]
    version: str = "v1.36.1+k3s1"
    sequence: int = 0

    def drop(self, tag: int, version: str, *, releases: tuple[str, ...] = ("web",), **values: str) -> Drops:
        """A drop of these releases of one chart; the same image has two names in it, with an index of its own each."""
        drops = Drops(self.site.store)
        content = {"bin/": b"", "bin/busybox": components.require("busybox").read_bytes(), "tag": b"%d" % tag}
        root = {**content, "bin/sleep": "busybox", "bin/true": "busybox"}
        drops.image(f"{IMAGE}:{tag}", root, platforms=[AMD64])
        drops.image(f"{TWIN}:{tag}", root, platforms=[AMD64, ARM64])
        self.host.add_k3s(drops, self.version)
        drops.chart("app", version, None, archive=self.charts[version])
        own = {"image": f"{IMAGE}:{tag}", "twin": f"{TWIN}:{tag}", **values}
        for name in releases:
            drops.release("app", namespace=SPACE, release=name, v=json.dumps(own).encode())
        return drops

    def activate(self, drops: Drops) -> None:
        self.sequence += 1
        activate(self.site, drops, sequence=self.sequence)

    def deploy(self, *options: str) -> dict[str, Any]:
        where = ["--site", str(self.site.root), "--platform", "linux/amd64", "--json"]
        done = self.host.airlift("deploy", "k3s", *where, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def status(self, *, code: int = 0, seconds: int = 240) -> tuple[dict[str, dict[str, Any]], str]:
        where = ["--site", str(self.site.root), "--json", "--timeout", str(seconds)]
        done = self.host.airlift("deploy", "status", *where)
        assert done.returncode == code, done.stdout + done.stderr
        return {item["release"]: item for item in json.loads(done.stdout)["releases"]}, done.stderr

    def differences(self) -> set[tuple[str, str]]:
        done = self.host.airlift("deploy", "diff", "--site", self.site.root, "--json")
        assert done.returncode == 0, done.stderr
        return {(item["what"], item["release"]) for item in json.loads(done.stdout)["differences"]}

    def kubectl(self, *arguments: str) -> str:
        done = self.host.run(components.require("kubectl"), "--kubeconfig=/etc/rancher/k3s/k3s.yaml", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def names(self, kind: str, namespace: str = "kube-system") -> set[str]:
        return set(self.kubectl("-n", namespace, "get", kind, "-o", "name").split())

    def pod(self, app: str) -> str:
        """The only pod of a deployment, once those before it are gone."""
        deadline = time.monotonic() + 120
        while len(found := self.kubectl("-n", SPACE, "get", "pods", "-l", f"app={app}", "-o", "name").split()) != 1:
            assert time.monotonic() < deadline, found
            time.sleep(0.5)
        return found[0]

    def helm(self, *arguments: str) -> str:
        done = self.host.run(
            components.require("helm"), "--kubeconfig=/etc/rancher/k3s/k3s.yaml", "-n", SPACE, *arguments
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def place(self, path: Any) -> Path:
        return self.host.lent.home / "root" / path


@pytest.fixture(scope="module")
def machine(k3s: Lent, shared_folder: SharedFolder) -> Iterator[Machine]:
    folder = shared_folder("machine")
    listen = f"{k3s.node().address}:{free_port()}"
    charts = {}
    for version in ("1.0.0", "1.1.0", "1.2.0", "2.0.0"):
        (folder / "app/templates").mkdir(parents=True, exist_ok=True)
        (folder / "app/Chart.yaml").write_text(f"apiVersion: v2\nname: app\nversion: {version}\n")
        (folder / "app/templates/app.yaml").write_text(KINDS if version == "2.0.0" else TEMPLATE)
        helm("package", folder / "app", cwd=folder)
        charts[version] = (folder / f"app-{version}.tgz").read_bytes()
    site = make_site(folder / "s", url=f"http://{listen}")
    with serving(site.root, listen=listen), host(k3s, folder / "host") as here:
        yield Machine(here, site, charts)


def test_a_drop_is_deployed_upgraded_pruned_and_a_release_comes_back(machine: Machine) -> None:
    machine.activate(machine.drop(1, "1.0.0", releases=("web", "extra")))
    made = machine.deploy()
    states, _ = machine.status()

    assert made["changed"]
    assert {name: item["phase"] for name, item in states.items()} == {"web": "ready", "extra": "ready"}
    assert {item["container"] for item in states["web"]["containers"]} == {"first", "app", "twin"}
    assert machine.host.calls.count("install") == 1
    assert not machine.deploy()["changed"]
    assert machine.host.calls.count("install") == 1

    machine.version = "v1.36.2+k3s1"
    machine.activate(machine.drop(2, "1.1.0"))
    before = machine.differences()
    made = machine.deploy()
    states, _ = machine.status()

    assert {what for what in before if what[0] != "image"} == {
        ("chart", f"{SPACE}/web"),
        ("values", f"{SPACE}/web"),
        ("release", f"{SPACE}/extra"),
    }
    assert machine.differences() == {("release", f"{SPACE}/extra")}
    assert made["copies_datastore"]
    assert [line for line in machine.host.calls if line in ("install", "systemctl stop k3s")][-2:] == [
        "systemctl stop k3s",
        "install",
    ]
    (copy,) = machine.place(DATASTORE).glob("airlift-before-*")
    with closing(sqlite3.connect(copy / "state.db")) as database:
        query = "select count(*) from kine where name like '/registry/helm.cattle.io/helmcharts/kube-system/web'"
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        assert database.execute(query).fetchone()[0] > 0
    assert (states["web"]["phase"], states["web"]["version"]) == ("ready", "1.1.0")
    assert f"/{MANIFESTS}/airlift-extra.yaml" in made["kept"]
    assert "deployment.apps/extra" in machine.names("deployments", SPACE)

    made = machine.deploy("--prune")

    assert f"/{MANIFESTS}/airlift-extra.yaml" in made["removed"]
    assert "deployment.apps/extra" not in machine.names("deployments", SPACE)
    assert "helmchart.helm.cattle.io/extra" not in machine.names("helmcharts.helm.cattle.io")
    assert "addon.k3s.cattle.io/airlift-extra" not in machine.names("addons.k3s.cattle.io")
    assert not any(item.name.startswith("app-1.0.0") for item in machine.place(CHARTS).iterdir())

    machine.activate(machine.drop(2, "1.1.0", releases=("web", "extra")))
    machine.deploy()
    states, _ = machine.status()

    assert {name: item["phase"] for name, item in states.items()} == {"web": "ready", "extra": "ready"}


def test_an_aborted_upgrade_waits_for_a_person_and_what_the_docs_say_heals_it(machine: Machine) -> None:
    machine.activate(machine.drop(1, "1.0.0"))
    machine.deploy()
    before = machine.status()[0]["web"]["revision"]
    # The API server refuses a selector that its pods do not have.
    machine.activate(machine.drop(1, "1.1.0", selected="nobody"))
    machine.deploy()

    states, said = machine.status(code=18)

    assert (states["web"]["phase"], states["web"]["revision"]) == ("failed", before + 1)
    assert "docs/deploy-k3s.md says what to do after an abort" in said

    machine.activate(machine.drop(2, "1.2.0"))
    machine.deploy()
    states, said = machine.status(code=18, seconds=20)
    assert (states["web"]["phase"], states["web"]["revision"]) == ("outdated", before + 1)
    assert f"revision {before + 1}, failed, has another chart" in said

    machine.helm("rollback", "web", str(before))
    machine.kubectl("-n", "kube-system", "delete", "job", "helm-install-web")
    states, _ = machine.status()

    assert (states["web"]["phase"], states["web"]["version"]) == ("ready", "1.2.0")


def test_a_container_that_somebody_adds_to_a_pod_is_compared_like_the_others(machine: Machine) -> None:
    machine.activate(machine.drop(1, "1.0.0"))
    machine.deploy()
    machine.status()
    pod = machine.pod("web")
    machine.kubectl("-n", SPACE, "debug", pod, f"--image={IMAGE}:1", "--container=ours", "--", "/bin/sleep", "9")
    states, _ = machine.status()
    assert {item["container"] for item in states["web"]["containers"]} == {"first", "app", "twin", "ours"}

    machine.kubectl("-n", SPACE, "debug", pod, "--image=example.com/theirs:1", "--container=theirs")
    _, said = machine.status(code=18)

    assert "theirs: example.com/theirs:1 is not in the active drops" in said
    machine.kubectl("-n", SPACE, "delete", pod)
    machine.status()


def test_what_somebody_set_by_hand_is_found_and_the_next_drop_takes_it_back(machine: Machine) -> None:
    """With helm 4 fields have owners: without force the upgrade would fail by a conflict and wait for a person."""
    machine.activate(machine.drop(1, "1.0.0"))
    machine.deploy()
    machine.status()
    machine.kubectl("-n", SPACE, "set", "image", "deployment/web", f"app={IMAGE}:77")
    _, said = machine.status(code=18, seconds=15)
    assert f"app: {IMAGE}:77 is not in the active drops" in said

    machine.activate(machine.drop(2, "1.1.0"))
    machine.deploy()
    states, _ = machine.status()

    assert (states["web"]["phase"], states["web"]["version"]) == ("ready", "1.1.0")


def test_a_release_is_waited_for_while_k3s_starts_again(machine: Machine) -> None:
    machine.activate(machine.drop(1, "1.0.0"))
    machine.deploy()
    machine.activate(machine.drop(2, "1.1.0"))
    machine.deploy()
    os.kill(machine.host.lent.process.pid, signal.SIGHUP)

    states, _ = machine.status()

    assert (states["web"]["phase"], states["web"]["version"]) == ("ready", "1.1.0")


def test_every_kind_of_workload_is_waited_for_and_compared(machine: Machine) -> None:
    name = "k" * 50  # the longest that K3s's job has room for
    machine.activate(machine.drop(3, "2.0.0", releases=(name,)))
    machine.deploy()
    states, _ = machine.status()

    pods = {item["pod"].removeprefix(f"{SPACE}/kinds-").partition("-")[0] for item in states[name]["containers"]}
    assert pods == {"set", "daemon", "replicas", "pod", "job", "hook"}
    assert len(states[name]["containers"]) == 8


@pytest.mark.parametrize(
    ("version", "said"),
    [("v1.35.9+k3s1", "wrote the datastore of this machine"), ("v1.38.0+k3s1", "a server goes up one minor version")],
)
def test_another_minor_version_is_judged_by_what_the_server_itself_says(
    machine: Machine, version: str, said: str
) -> None:
    machine.activate(machine.drop(1, "1.0.0"))
    machine.deploy()
    drops = machine.drop(1, "1.0.0")
    machine.host.add_k3s(drops, version)
    machine.activate(drops)

    done = machine.host.airlift("deploy", "k3s", "--site", machine.site.root, "--platform", "linux/amd64")

    assert done.returncode == 18
    assert said in done.stderr
    assert "v1.36.1+k3s1" in done.stderr


def test_status_and_diff_need_no_more_than_to_list(machine: Machine) -> None:
    machine.activate(machine.drop(1, "1.0.0"))
    machine.deploy()
    machine.status()
    lists = (
        ("", "secrets,pods"),
        ("apps", "deployments,replicasets,statefulsets,daemonsets"),
        ("batch", "jobs,cronjobs"),
    )
    rules = [
        {"apiGroups": [group], "resources": names.split(","), "verbs": ["list"]}
        for group, names in (*lists, ("helm.cattle.io", "helmcharts,helmchartconfigs"))
    ]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "lister"}}
    machine.host.folder.joinpath("role.json").write_text(json.dumps({**role, "rules": rules}))
    machine.kubectl("-n", SPACE, "create", "serviceaccount", "lister")
    token = machine.kubectl("-n", SPACE, "create", "token", "lister").strip()
    config = yaml.safe_load(machine.place("etc/rancher/k3s/k3s.yaml").read_text())
    config["users"][0]["user"] = {"token": token}
    own = machine.host.folder / "lister.yaml"
    own.write_text(yaml.safe_dump(config))
    asked = ["--site", machine.site.root, "--kubeconfig", own]

    refused = machine.host.airlift("deploy", "status", *asked, "--timeout", "0")
    machine.kubectl("apply", "-f", str(machine.host.folder / "role.json"))
    machine.kubectl(
        "create", "clusterrolebinding", "lister", "--clusterrole=lister", f"--serviceaccount={SPACE}:lister"
    )
    allowed = [machine.host.airlift("deploy", verb, *asked) for verb in ("status", "diff")]

    assert refused.returncode == 18
    assert "Error from server (Forbidden)" in refused.stderr
    assert [item.returncode for item in allowed] == [0, 0], "".join(item.stderr for item in allowed)

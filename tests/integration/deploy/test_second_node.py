"""Two nodes of a real Kubernetes: a server, and an agent that the same drop makes of a bare machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from airlift.site.deploy.helmchart import MANIFESTS
from airlift.site.deploy.registries import PATH as REGISTRIES
from airlift.site.deploy.tarball import FOLDER
from tests import components
from tests.support.chart_servers import helm
from tests.support.deployable import make_site
from tests.support.drops import AMD64, ARM64, Drops, drops_at
from tests.support.folders import SharedFolder
from tests.support.k3s.host import Host, host
from tests.support.k3s.identities import SECOND
from tests.support.k3s.lent import Lent, second_machine
from tests.support.k3s.machine import SPACE, Machine
from tests.support.k3s.parts import NODE
from tests.support.k3s.server import SERVER
from tests.support.servers import free_port
from tests.support.serving import serving
from tests.support.tarballs import write_tarball

pytestmark = pytest.mark.slow
CARRIED = "registry.example.com/nodes/carried:1"
PULLED = "registry.example.com/nodes/pulled:1"
CHART = f"""\
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: both}}
spec:
  selector: {{matchLabels: {{app: both}}}}
  template:
    metadata: {{labels: {{app: both}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - {{name: carried, image: "{CARRIED}", imagePullPolicy: Never, command: [/bin/sleep, "100000"]}}
        - {{name: pulled, image: "{PULLED}", command: [/bin/sleep, "100000"]}}
"""


@dataclass
class Two:
    """Both machines.

    Attributes:
        first: the server, with the site.
        second: the machine that joins.
        token: the file with the server's token.
    """

    first: Machine
    second: Host
    token: Path

    def drop(self, says: str, version: str = "v1.36.1+k3s1") -> Drops:
        drops = Drops(self.first.site.store)
        for name in (CARRIED, PULLED):
            drops.image(name, files(f"{name} {says}"), platforms=[AMD64, ARM64])
        drops.preload = [CARRIED]
        self.first.host.add_k3s(drops, version)
        drops.chart("app", "1.0.0", None, archive=self.first.charts["1.0.0"])
        drops.release("app", namespace=SPACE, release="both")
        return drops

    def join(self, *options: str) -> tuple[int, str, str]:
        (cluster,) = yaml.safe_load(self.first.host.lent.kubeconfig.read_text())["clusters"]
        url = cluster["cluster"]["server"]
        where = ["--site", self.first.site.root, "--platform", "linux/amd64", "--json"]
        role = ["--role", "agent", "--server", url, "--token-file", self.token]
        done = self.second.airlift("deploy", "k3s", *where, *role, *options)
        return done.returncode, done.stdout, done.stderr

    def status(self, code: int = 0) -> tuple[dict[str, Any], str]:
        states, said = self.first.status(code=code)
        return states["both"], said

    def pods(self) -> dict[str, str]:
        """The pod of each node."""
        text = self.first.kubectl("-n", SPACE, "get", "pods", "-l", "app=both", "-o", "json")
        items = [item for item in json.loads(text)["items"] if "deletionTimestamp" not in item["metadata"]]
        return {item["spec"]["nodeName"]: item["metadata"]["name"] for item in items}


def files(says: str) -> dict[str, bytes | str]:
    program = components.require("busybox").read_bytes()
    return {"bin/": b"", "bin/busybox": program, "bin/sleep": "busybox", "says": says.encode()}


@pytest.fixture(scope="module")
def two(k3s: Lent, shared_folder: SharedFolder) -> Iterator[Two]:
    folder = shared_folder("two")
    (folder / "app/templates").mkdir(parents=True)
    (folder / "app/Chart.yaml").write_text("apiVersion: v2\nname: app\nversion: 1.0.0\n")
    (folder / "app/templates/app.yaml").write_text(CHART)
    helm("package", folder / "app", cwd=folder)
    charts = {"1.0.0": (folder / "app-1.0.0.tgz").read_bytes()}
    listen = f"{k3s.node().address}:{free_port()}"
    site = make_site(folder / "s", url=f"http://{listen}")
    (folder / "second").mkdir()
    with (
        serving(site.root, listen=listen),
        host(k3s, folder / "host") as first,
        second_machine(folder / "second", k3s) as lent,
        host(lent, folder / "other") as second,
    ):
        settings = lent.home / "root/etc/rancher/k3s/config.yaml.d/name.yaml"
        settings.parent.mkdir(parents=True)
        settings.write_text(f"node-name: {SECOND.upper()}\n")
        made = Two(Machine(first, site, charts), second, folder / "token")
        made.token.write_text((k3s.home / "root" / SERVER / "node-token").read_text())
        yield made
        # Others use the server, and wait for all its nodes.
        made.first.kubectl("-n", "kube-system", "delete", "--ignore-not-found", "helmchart", "both")
        made.first.kubectl("delete", "--ignore-not-found", "node", SECOND)
        made.first.place(MANIFESTS / "airlift-both.yaml").unlink(missing_ok=True)


def test_a_bare_machine_joins_as_an_agent_and_pods_run_on_both_from_what_was_shipped(two: Two) -> None:
    two.first.activate(two.drop("as shipped"))
    two.first.deploy()
    code, out, said = two.join()

    assert code == 0, said
    assert f"node {SECOND} is ready" in said
    made = json.loads(out)
    assert (made["role"], made["changed"]) == ("agent", True)
    root = two.second.lent.home / "root"
    assert not (root / MANIFESTS).exists()
    assert yaml.safe_load((root / REGISTRIES).read_text())["mirrors"]
    nodes = json.loads(two.first.kubectl("get", "nodes", "-o", "json"))["items"]
    assert {item["metadata"]["name"] for item in nodes} == {NODE, SECOND}

    release, said = two.status()
    assert release["phase"] == "ready", said
    assert set(two.pods()) == {NODE, SECOND}
    assert len(release["containers"]) == 4
    assert {item["running"] for item in release["containers"]} == set(made["images"].values())

    assert not json.loads(two.join()[1])["changed"]
    assert two.second.calls == ["systemctl daemon-reload", *two.second.calls[1:]]
    assert two.second.calls.count("install") == 1


def test_an_image_that_was_swapped_on_the_agent_alone_is_found(two: Two, tmp_path: Path) -> None:
    other = drops_at(tmp_path / "other")
    swapped = other.image(CARRIED, files("swapped"), platforms=[AMD64])
    write_tarball(tmp_path / "other.tar", other, swapped)
    (tmp_path / "other.tar").rename(two.second.lent.home / "root" / FOLDER / "zz-other.tar")
    pods = two.pods()
    for _ in range(60):
        two.first.kubectl("-n", SPACE, "delete", "pod", two.pods()[SECOND])
        two.first.kubectl("-n", SPACE, "rollout", "status", "daemonset/both", "--timeout=120s")
        done = two.first.kubectl("-n", SPACE, "get", "pod", two.pods()[SECOND], "-o", "json")
        if swapped.root.digest in done:
            break
    release, said = two.status(code=18)

    assert release["phase"] == "differs"
    found = [item for item in release["containers"] if item["problem"]]
    assert [(item["pod"], item["container"]) for item in found] == [(f"{SPACE}/{two.pods()[SECOND]}", "carried")]
    assert two.pods()[NODE] == pods[NODE]
    assert f"{SPACE}/{two.pods()[SECOND]}, carried: {swapped.root.digest} runs, " in said


def test_an_agent_newer_than_its_server_is_refused_by_what_the_server_says(two: Two) -> None:
    two.first.activate(two.drop("as shipped", "v1.37.0+k3s1"))
    before = two.second.calls
    code, _, said = two.join()

    assert code == 18
    assert (
        "version: the drop has v1.37.0+k3s1 and the server runs v1.36.1+k3s1: an agent must not be newer than its server"
    ) in said
    assert two.second.calls == before

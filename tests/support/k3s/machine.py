"""A site, and a machine with K3s that runs releases of one chart from it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airlift.site.config import Site
from tests import components
from tests.support.deployable import activate
from tests.support.drops import AMD64, ARM64, Drops
from tests.support.k3s.host import Host

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
kind: Job
metadata: {{name: kinds-gone}}
spec: {{ttlSecondsAfterFinished: 0, template: {{spec: {ENDS}}}}}
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

"""A site with drops of one release, and the node that runs them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from airlift.artifact import Artifact
from airlift.cli.main import run
from airlift.site.config import Site
from tests import components
from tests.support.deployable import activate
from tests.support.drops import Drops
from tests.support.node import Node
from tests.support.serving import serving

# `app` comes in a tarball, `side` from the site's registry.
TEMPLATE = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata:
      labels: {app: app}
      annotations: {note: {{ .Values.note | quote }}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - {name: app, image: {{ .Values.app }}, command: [/bin/sh, -c, "cat /says; exec sleep 100000"]}
        - name: side
          image: {{ .Values.side }}
          imagePullPolicy: Always
          command: [/bin/sh, -c, "cat /says; exec sleep 100000"]
"""


@dataclass
class Places:
    """A site that a node reaches, and the names that only this run has."""

    node: Node
    site: Site
    listen: str
    folder: Path
    sequences: dict[str, int] = field(default_factory=dict)
    charts: dict[str, Artifact] = field(default_factory=dict)

    def image(self, name: str) -> str:
        """A reference of a registry that nobody has."""
        return f"registry.example.com/{self.node.namespace}/{name}"

    def files(self, says: str) -> dict[str, bytes | str]:
        """A root file system that runs, with content that no other run has."""
        program = components.require("busybox").read_bytes()
        names = ("sh", "sleep", "cat", "wget", "sha256sum", "mkdir", "dirname", "ls", "echo")
        links = {f"bin/{name}": "busybox" for name in names}
        folders = {"bin/": b"", "models/": b""}
        return {**folders, "bin/busybox": program, **links, "says": f"{says} of {self.node.namespace}\n".encode()}

    def values(self, tag: int, note: str) -> bytes:
        """What the release runs."""
        return f"app: {self.image('app')}:{tag}\nside: {self.image('side')}:{tag}\nnote: {note}\n".encode()

    def begin(self) -> Drops:
        """A drop that has what the node itself needs."""
        drops = Drops(self.site.store)
        for name in self.node.preload:
            drops.image(name, self.files("pause"), command=["/bin/sleep", "1000"])
        drops.preload = list(self.node.preload)
        return drops

    def import_as(self, name: str, drops: Drops) -> None:
        self.sequences[name] = len(self.sequences) + 1
        activate(self.site, drops, sequence=self.sequences[name])

    def activate(self, name: str) -> None:
        assert run(["drops", "activate", "--site", str(self.site.root), f"stable/{self.sequences[name]}"]) == 0

    def deploy(self, capsys: pytest.CaptureFixture[str], verb: str = "k3s") -> dict[str, Any]:
        where = ["--site", str(self.site.root), "--root", str(self.node.root), "--platform", "linux/amd64", "--json"]
        capsys.readouterr()
        code = run(["deploy", verb, *where])
        said = capsys.readouterr()
        assert code == 0, said.err
        found: dict[str, Any] = json.loads(said.out)
        if found["restart"]:
            self.node.restart()
        self.node.settle()
        return found

    def status(self, capsys: pytest.CaptureFixture[str], seconds: int = 240) -> tuple[int, dict[str, Any], str]:
        where = ["--site", str(self.site.root), "--kubeconfig", str(self.node.kubeconfig), "--json"]
        capsys.readouterr()
        code = run(["deploy", "status", *where, "--timeout", str(seconds)])
        said = capsys.readouterr()
        assert said.out, said.err
        return code, json.loads(said.out)["releases"][0], said.err

    def recreated(self, phase: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
        """Make the pods again until the release is in a phase: a tarball takes its time to be imported."""
        deadline = time.monotonic() + 240
        while True:
            self.node.settle()
            self.node.recreate_pods()
            code, release, said = self.status(capsys)
            if release["phase"] == phase or time.monotonic() > deadline:
                return code, release, said

    def prints(self, deployment: str, container: str, holds: Callable[[list[str]], bool]) -> None:
        """Wait until a container of a deployment has printed what is expected: one that is ready has just been started."""
        deadline = time.monotonic() + 240
        while not holds(said := self.node.output(deployment, container).splitlines()):
            assert time.monotonic() < deadline, said
            time.sleep(0.2)

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        with serving(self.site.root, listen=self.listen):
            yield


def package(folder: Path, version: str, app: str = "a/b:1", side: str = "a/b:1") -> bytes:
    (folder / "app/templates").mkdir(parents=True, exist_ok=True)
    (folder / "app/Chart.yaml").write_text(f"apiVersion: v2\nname: app\nversion: {version}\n")
    (folder / "app/templates/app.yaml").write_text(TEMPLATE)
    (folder / "app/values.yaml").write_text(f"app: {app}\nside: {side}\nnote: none\n")
    return helm_package(folder / "app", folder, f"app-{version}.tgz")


def helm_package(chart: Path, folder: Path, name: str) -> bytes:
    command = [str(components.require("helm")), "package", str(chart)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    return (folder / name).read_bytes()

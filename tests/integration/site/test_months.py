"""Three monthly drops with the same names and other content, two taken back, one pruned: what the stock clients get."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.components import require
from tests.support.charts import chart
from tests.support.cli import Desk, airlift, desk, ok
from tests.support.folders import SharedFolder
from tests.support.images import Box, layer_tar
from tests.support.indexes import running_index
from tests.support.registry import running_registry
from tests.support.servers import free_port
from tests.support.serving import serving

IMAGE = "registry.example.com/demo/app"
MANIFEST = f"""\
apiVersion: airlift/v1
kind: Drop
metadata: {{name: vision, channel: stable}}
images: [{{ref: "oci-layout:./image:1", as: "{IMAGE}:1.0"}}]
python: [{{name: web, packages: [acme-app], targets: [{{python: "3.12", libc: glibc-2.28}}]}}]
charts: [./app.tgz]
models: [{{path: ./model, name: acme/fraud, licence: MIT}}]
files: [{{path: ./tool, name: tool}}]
"""
MONTHS = (1, 2, 3)


@dataclass(frozen=True)
class Office:
    """The connected side: a desk, a bundle a month, and the digest of each month's image."""

    desk: Desk
    images: dict[int, str]

    def bundle(self, month: int) -> Path:
        return self.desk.home / f"{month}.airlift"


@pytest.fixture(scope="module")
def office(shared_folder: SharedFolder) -> Office:
    made = desk(shared_folder("office"))
    images = {}
    for month in MONTHS:
        folder = made.home / str(month)
        (folder / "model").mkdir(parents=True)
        (folder / "drop.yaml").write_text(MANIFEST)
        # Large enough to stream into a registry, and the same every month beside what is new.
        layers = [layer_tar("base"), os.urandom(5_000_000), b"image of %d" % month]
        images[month] = Box(folder / "image").image("1", layers=layers).digest
        (folder / "app.tgz").write_bytes(chart("app", "1.2.3", more=f"description: chart of {month}\n"))
        (folder / "model" / "config.json").write_text(json.dumps({"month": month}))
        (folder / "tool").write_text(f"tool of {month}")
        with running_index() as index:
            # One version, one file name, another content.
            index.wheel("acme_app", "1.0", requires=["acme-base>=2"], payload=b"wheel of %d" % month)
            index.wheel("acme_base", "2.0")
            env = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index.url}
            ok("resolve", folder / "drop.yaml", "-o", folder / "lock.json", home=made.home, env=env)
            keys = [*made.signers, *made.recipients, "--sequence", str(month)]
            ok("build", folder / "lock.json", "-o", made.home / f"{month}.airlift", *keys, home=made.home, env=env)
    return Office(made, images)


@dataclass(frozen=True)
class Place:
    """A site and where its clients ask."""

    home: Path
    office: Office
    url: str
    registry: str

    def run(self, *arguments: str) -> str:
        return ok(*arguments, "--site", self.home / "site", home=self.home).out

    def check(self) -> None:
        """Nothing differs anywhere."""
        found = airlift("check", "--deep", "--site", self.home / "site", "--json", home=self.home)
        assert (found.code, found.json["findings"]) == (0, [])

    def image(self, reference: str) -> str:
        host = (self.registry or self.url).removeprefix("http://")
        command = [require("skopeo"), "inspect", "--raw", "--tls-verify=false", f"docker://{host}/{IMAGE}{reference}"]
        done = subprocess.run(command, capture_output=True, check=False)
        return "sha256:" + hashlib.sha256(done.stdout).hexdigest() if done.returncode == 0 else "none"

    def client(self, *command: str | Path, **more: str) -> str:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home / "client"), **more}
        done = subprocess.run(
            [str(word) for word in command], env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def month(self, work: Path) -> int:
        """The month that every client sees, which has to be one."""
        seen = {
            "skopeo": next((m for m, digest in self.office.images.items() if digest == self.image(":1.0")), 0),
            "pip": self._pip(work / "pip"),
            "uv": self._uv(work / "uv"),
            "helm": self._helm(work / "helm"),
            "hf": self._model(work / "hf"),
            "curl": int(urllib.request.urlopen(f"{self.url}/files/tool", timeout=60).read().split()[-1]),
        }
        assert len(set(seen.values())) == 1, seen
        return seen["pip"]

    def _pip(self, target: Path) -> int:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-cache-dir", "--disable-pip-version-check"]
        pip += ["--index-url", f"{self.url}/simple/", "--target", str(target)]
        self.client(*pip, "acme-app", PIP_CONFIG_FILE=os.devnull)
        return int((target / "acme_app" / "data.bin").read_text().split()[-1])

    def _uv(self, target: Path) -> int:
        uv = [require("uv"), "pip", "install", "-q", "--no-cache", "--no-config", "--python", sys.executable]
        uv += ["--default-index", f"{self.url}/simple/", "--target", target]
        self.client(*uv, "acme-app", UV_PYTHON_DOWNLOADS="never")
        return int((target / "acme_app" / "data.bin").read_text().split()[-1])

    def _helm(self, target: Path) -> int:
        target.mkdir(parents=True)
        homes = {name: str(target / name) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
        host = (self.registry or self.url).removeprefix("http://")
        command = [require("helm"), "pull", f"oci://{host}/charts/app", "--version", "1.2.3", "--plain-http"]
        self.client(*command, "-d", target, **homes)
        with tarfile.open(target / "app-1.2.3.tgz") as archive:
            text = archive.extractfile("app/Chart.yaml").read().decode()  # type: ignore[union-attr]
        return int(text.rpartition("chart of ")[2])

    def _model(self, target: Path) -> int:
        code = "import sys, huggingface_hub as h; print(h.snapshot_download('acme/fraud'))"
        hub = {"HF_ENDPOINT": f"{self.url}/hf", "HF_HOME": str(target), "HF_HUB_DISABLE_TELEMETRY": "1"}
        folder = Path(self.client(sys.executable, "-c", code, **hub).strip().splitlines()[-1])
        return int(json.loads((folder / "config.json").read_text())["month"])


@pytest.fixture(params=["embedded", "docker-registry"])
def place(request: pytest.FixtureRequest, office: Office, tmp_path: Path) -> Iterator[Place]:
    url = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "client").mkdir()
    with contextlib.ExitStack() as stack:
        registry, more = "", list[str]()
        if request.param == "docker-registry":
            registry = stack.enter_context(running_registry(tmp_path / "registry")).url
            more = ["--registry", registry]
        given = ["--trust", str(office.desk.trust), "--url", url, "--identity", str(office.desk.identity), *more]
        ok("site", "init", tmp_path / "site", *given, home=tmp_path)
        stack.enter_context(serving(tmp_path / "site", listen=url.removeprefix("http://")))
        yield Place(tmp_path, office, url, registry)


def test_clients_get_the_right_month_each_time_and_check_finds_nothing(
    place: Place, office: Office, tmp_path: Path
) -> None:
    for month in MONTHS:
        place.run("import", str(office.bundle(month)))
        assert place.month(tmp_path / f"import {month}") == month
        place.check()
    for month in (2, 1):
        place.run("drops", "rollback")
        assert place.month(tmp_path / f"rollback {month}") == month
        place.check()
    # What runs by digest notices nothing of all this.
    assert [place.image(f"@{digest}") for digest in office.images.values()] == list(office.images.values())

    plan = str(tmp_path / "plan.json")
    place.run("drops", "prune", "--keep", "1", "-o", plan)
    assert "pruned 1 drop and" in place.run("drops", "prune", "--execute", plan)
    kept = json.loads(place.run("drops", "list", "--json"))["drops"]
    assert [(drop["sequence"], drop["active"]) for drop in kept] == [(1, True), (3, False)]
    assert place.month(tmp_path / "pruned") == 1
    place.check()
    for month in (1, 3):
        assert place.image(f"@{office.images[month]}") == office.images[month]

    place.run("drops", "activate", "stable/3")
    assert place.month(tmp_path / "again") == 3
    place.check()
    assert place.image(f"@{office.images[1]}") == office.images[1]

"""What ``airlift status --client`` prints, pasted as it is into stock clients."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components import require
from tests.support.charts import chart
from tests.support.cli import desk, ok
from tests.support.folders import SharedFolder
from tests.support.indexes import running_index
from tests.support.servers import free_port
from tests.support.serving import serving

MANIFEST = """\
apiVersion: airlift/v1
kind: Drop
metadata: {name: vision}
python: [{name: web, packages: [acme-app], targets: [{python: "3.12", libc: glibc-2.28}]}]
charts: [./app.tgz]
models: [{path: ./model, name: acme/fraud, licence: MIT}]
"""


@pytest.fixture(scope="module")
def place(shared_folder: SharedFolder) -> Iterator[Path]:
    """A directory with a served site of wheels, a chart and a model: ``site``."""
    home = shared_folder("clients")
    made = desk(home)
    (home / "drop.yaml").write_text(MANIFEST)
    (home / "app.tgz").write_bytes(chart("app", "1.2.3+4"))
    (home / "model").mkdir()
    (home / "model" / "config.json").write_text("{}\n")
    with running_index() as index:
        index.wheel("acme_app", "1.0", requires=["acme-base>=2"])
        index.wheel("acme_base", "2.0")
        env = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index.url}
        ok("resolve", "drop.yaml", "-o", "drop.lock.json", "--cache", "cache", home=home, env=env)
        keys = [*made.signers, *made.recipients]
        ok(
            "build",
            "drop.lock.json",
            "-o",
            "1.airlift",
            "--sequence",
            "1",
            *keys,
            "--cache",
            "cache",
            home=home,
            env=env,
        )
    url = f"http://127.0.0.1:{free_port()}"
    ok("site", "init", "site", "--trust", made.trust, "--url", url, "--identity", made.identity, home=home)
    ok("import", "1.airlift", "--site", "site", home=home)
    with serving(home / "site", listen=url.removeprefix("http://")):
        yield home


def printed(place: Path, client: str) -> str:
    return ok("status", "--site", "site", "--client", client, home=place).out


def run(home: Path, *command: str | Path, **more: str) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": str(home), **more}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, env=env, check=False, cwd=home
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def installed(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.dist-info")}


def test_pip_reads_what_is_printed_for_it(place: Path, tmp_path: Path) -> None:
    config = tmp_path / ".config" / "pip" / "pip.conf"
    config.parent.mkdir(parents=True)
    config.write_text(printed(place, "pip"))
    pip = [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check"]
    run(tmp_path, *pip, "--target", tmp_path / "t", "acme-app")
    assert installed(tmp_path / "t") == {"acme_app-1.0.dist-info", "acme_base-2.0.dist-info"}


def test_uv_reads_what_is_printed_for_it(place: Path, tmp_path: Path) -> None:
    config = tmp_path / ".config" / "uv" / "uv.toml"
    config.parent.mkdir(parents=True)
    config.write_text(printed(place, "uv"))
    uv: list[str | Path] = [require("uv"), "pip", "install", "--no-cache", "--python", sys.executable]
    run(tmp_path, *uv, "--target", tmp_path / "t", "acme-app", UV_PYTHON_DOWNLOADS="never")
    assert installed(tmp_path / "t") == {"acme_app-1.0.dist-info", "acme_base-2.0.dist-info"}


def test_the_commands_that_are_printed_for_helm_pull_the_chart_both_ways(place: Path, tmp_path: Path) -> None:
    helm = require("helm")
    pulled = 0
    for line in printed(place, "helm").splitlines():
        words = shlex.split(line.replace("NAME", "app").replace("VERSION", "1.2.3+4"), comments=True)
        if words[1:2] == ["pull"]:
            pulled += 1
            words += ["--destination", str(tmp_path / str(pulled))]
            (tmp_path / str(pulled)).mkdir()
        if words:
            assert words[0] == "helm"
            run(tmp_path, helm, *words[1:])
    assert pulled == 2
    archives = [(tmp_path / str(number) / "app-1.2.3+4.tgz").read_bytes() for number in (1, 2)]
    assert archives[0] == archives[1] == (place / "app.tgz").read_bytes()


def test_the_hub_client_finds_the_model_with_the_variable_that_is_printed(place: Path, tmp_path: Path) -> None:
    variables = dict(line.split("=", 1) for line in printed(place, "hf").splitlines() if not line.startswith("#"))
    assert list(variables) == ["HF_ENDPOINT"]
    code = "from huggingface_hub import snapshot_download; print(snapshot_download('acme/fraud'))"
    said = run(tmp_path, sys.executable, "-c", code, HF_HUB_DISABLE_TELEMETRY="1", **variables)
    (folder,) = [Path(line) for line in said.splitlines() if line.startswith(str(tmp_path))]
    assert (folder / "config.json").read_text() == "{}\n"

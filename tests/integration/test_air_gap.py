"""From one manifest to stock clients: connected here, the site installed from the kit in an empty network namespace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.components import require, require_root
from tests.integration.test_main_job import drop
from tests.support.cli import ROOT, Desk, desk, ok
from tests.support.folders import SharedFolder
from tests.support.weights import real_weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def office(shared_folder: SharedFolder) -> Desk:
    require_root()
    made = desk(shared_folder("office"))
    folder = made.home / "drop"
    drop(folder)
    shutil.copy(ROOT / "manifests" / "demo" / "drop.yaml", folder / "drop.yaml")
    text = (folder / "drop.yaml").read_text()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "drop.yaml").write_text(text.replace('python: "3.11"', f'python: "{version}"'))
    (folder / "model" / "model.safetensors").write_bytes(real_weights()["model.safetensors"])
    require("helm")
    ok("resolve", folder / "drop.yaml", home=made.home)
    ok(
        "build",
        folder / "drop.lock.json",
        "-o",
        made.home / "demo.airlift",
        "--sequence",
        "1",
        *made.signers,
        *made.recipients,
        "--reports",
        made.home / "reports",
        home=made.home,
    )
    return made


@pytest.fixture(scope="module")
def kit_python(office: Desk) -> Path:
    """A virtual environment made without an index, from the kit alone."""
    kit = office.home / "kit"
    ok("kit", "make", "-o", kit, "--signer", office.home / "alice.key", home=office.home, timeout=600)
    openssl = require("openssl")
    verify = [openssl, "dgst", "-sha256", "-verify", office.home / "alice.pub", "-signature", "SHA256SUMS.sig"]
    subprocess.run([*verify, "SHA256SUMS"], cwd=kit, check=True, capture_output=True)
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=kit, check=True)
    subprocess.run([sys.executable, "-m", "venv", office.home / "venv"], check=True, capture_output=True)
    python = office.home / "venv" / "bin" / "python"
    wheels = next(path.parent for path in kit.rglob("airlift-*.whl"))
    install = [python, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", wheels, "airlift"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    subprocess.run(
        [require("unshare"), "-n", *install], check=True, env={**env, "PIP_CONFIG_FILE": "/dev/null"}, timeout=600
    )
    return python


@pytest.fixture(scope="module")
def site(office: Desk, kit_python: Path, shared_folder: SharedFolder) -> tuple[Path, dict[str, Any]]:
    for name in ("helm", "skopeo", "uv", "ip"):
        require(name)
    work = shared_folder("site")
    done = subprocess.run(
        [
            require("unshare"),
            "-n",
            sys.executable,
            ROOT / "tests" / "support" / "offline_site.py",
            kit_python,
            office.home / "demo.airlift",
            office.trust,
            office.identity,
            work,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env={**os.environ, "HOME": str(work), "XDG_CACHE_HOME": str(work / "cache")},
    )
    assert done.returncode == 0, done.stderr
    return work, json.loads(done.stdout)


def test_the_import_says_what_the_verification_said(site: tuple[Path, dict[str, Any]]) -> None:
    said = site[1]["import"]
    assert said["verified"] is True
    assert said["signers"] == ["alice", "bob"]
    (one,) = said["drops"]
    assert (one["channel"], one["sequence"], one["active"]) == ("stable", 1, True)
    assert one["artifacts"] == 5
    assert site[1]["status"]["drops"] == said["drops"]


def test_pip_and_uv_install_the_same_from_the_mirror(site: tuple[Path, dict[str, Any]]) -> None:
    assert site[1]["pip"] == site[1]["uv"]
    assert len(site[1]["pip"]) >= 10


def test_helm_pulls_the_same_chart_both_ways(site: tuple[Path, dict[str, Any]]) -> None:
    http, oci = site[1]["helm"]
    assert http == oci


def test_the_model_hub_gives_a_snapshot(site: tuple[Path, dict[str, Any]]) -> None:
    assert site[1]["model"] == ["config.json", "model.safetensors"]
    (weights,) = (site[0] / "hf").rglob("snapshots/*/model.safetensors")
    assert weights.read_bytes() == real_weights()["model.safetensors"]


def test_skopeo_gets_the_digest_that_the_lock_names(office: Desk, site: tuple[Path, dict[str, Any]]) -> None:
    lock = json.loads((office.home / "drop" / "drop.lock.json").read_text())["body"]
    (entry,) = [item for item in lock["entries"] if item["kind"] == "image"]
    assert site[1]["image"] == site[1]["inspected"] == entry["artifacts"][0]["root"]["digest"]


def test_the_file_is_served(site: tuple[Path, dict[str, Any]]) -> None:
    assert site[1]["file"] == (ROOT / "manifests" / "demo" / "motd.txt").read_text()


def test_the_sbom_names_every_kind_and_is_the_same_at_both_ends(
    office: Desk, site: tuple[Path, dict[str, Any]]
) -> None:
    report = (office.home / "reports" / "sbom.cdx.json").read_bytes()
    (kept,) = (site[0] / "site" / "drops").rglob("sbom.cdx.json")
    assert kept.read_bytes() == report
    kinds = {item["purl"].split("/")[0] for item in json.loads(report)["components"]}
    assert {"pkg:oci", "pkg:pypi", "pkg:helm", "pkg:generic"} <= kinds


def test_a_second_deploy_of_the_same_drop_changes_nothing(site: tuple[Path, dict[str, Any]]) -> None:
    first, second = json.loads(site[1]["first"]), json.loads(site[1]["second"])
    assert first != second
    node = site[0] / "node"
    assert list(node.rglob("agent/images/*.tar"))
    assert list(node.rglob("server/static/charts/*.tgz"))
    assert list(node.rglob("server/manifests/*.yaml"))
    assert (node / "etc" / "rancher" / "k3s" / "registries.yaml").is_file()

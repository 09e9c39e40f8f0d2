"""Releases rendered again at the site, by a real helm, before anything is written."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from airlift.cli.main import run
from airlift.site.config import Site
from tests import components
from tests.support.deployable import activate, make_site
from tests.support.drops import Drops
from tests.support.folders import SharedFolder
from tests.support.machine import add_file

APP = "docker.io/library/app:1"
EXTRA = "docker.io/library/extra:2"
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: {{ .Release.Namespace }}}
spec:
  containers: [{name: app, image: docker.io/library/app:1}]
{{- if .Values.extra }}
---
apiVersion: batch/v1
kind: Job
metadata: {name: {{ .Release.Name }}-extra}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: x, image: "extra:2"}]}}}
{{- end }}
"""


@pytest.fixture(scope="module")
def archive(shared_folder: SharedFolder) -> bytes:
    folder = shared_folder("chart")
    (folder / "site/templates").mkdir(parents=True)
    (folder / "site/Chart.yaml").write_text("apiVersion: v2\nname: site\nversion: 1.0.0\n")
    (folder / "site/templates/all.yaml").write_text(POD)
    (folder / "site/values.yaml").write_text("extra: false\n")
    command = [str(components.require("helm")), "package", "site"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    return (folder / "site-1.0.0.tgz").read_bytes()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


@pytest.fixture
def with_helm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/helm").symlink_to(components.require("helm"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.fixture
def without_helm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))


def fill(site: Site, archive: bytes, values: bytes, *, facts: list[str] | None) -> Drops:
    drops = Drops(site.store)
    drops.image(APP, b"app")
    drops.chart("site", "1.0.0", facts, archive=archive)
    drops.release("site", namespace="vision", v=values)
    return drops


def deploy(site: Site, root: Path) -> int:
    command = ["deploy", "k3s", "--site", str(site.root), "--root", str(root), "--platform", "linux/amd64"]
    return run([*command, "--json"])


@pytest.mark.usefixtures("with_helm")
def test_an_image_that_only_the_deployed_values_switch_on_is_refused_before_the_first_write(
    site: Site, archive: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    activate(site, fill(site, archive, b"extra: true\n", facts=[APP]))

    assert deploy(site, tmp_path / "root") == 18

    said = capsys.readouterr().err
    assert "airlift: error: images that are to run are not in the drop" in said
    assert (
        "airlift:   docker.io/library/extra:2 (charts/site:1.0.0 as release site, "
        "Job/site-extra: spec.template.spec.containers[0])" in said
    )
    assert not (tmp_path / "root").exists()


@pytest.mark.usefixtures("with_helm")
def test_it_is_pinned_by_its_digest_when_the_drop_has_it(
    site: Site, archive: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drops = fill(site, archive, b"extra: true\n", facts=None)
    extra = drops.image(EXTRA, b"extra")
    activate(site, drops)

    assert deploy(site, tmp_path / "root") == 0

    found = json.loads(capsys.readouterr().out)
    assert found["images"] == {APP: drops.artifacts[0].root.digest, EXTRA: extra.root.digest}
    assert not [note for note in found["notes"] if "no helm is at the site" in note]


@pytest.mark.usefixtures("without_helm")
def test_without_helm_the_connected_sides_word_counts_and_the_command_says_so(
    site: Site, archive: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    activate(site, fill(site, archive, b"extra: true\n", facts=[APP]))

    assert deploy(site, tmp_path / "root") == 0

    assert "no helm is at the site" in json.loads(capsys.readouterr().out)["notes"][0]


@pytest.mark.usefixtures("without_helm")
def test_the_helm_of_the_drop_is_used_after_its_digest_was_compared(
    site: Site, archive: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drops = fill(site, archive, b"extra: true\n", facts=[APP])
    shim = f'#!/bin/sh\nexec {shlex.quote(str(components.require("helm")))} "$@"\n'.encode()
    place = add_file(drops, "helm", shim)
    activate(site, drops)

    assert deploy(site, tmp_path / "root") == 18
    assert "docker.io/library/extra:2" in capsys.readouterr().err

    place.chmod(0o600)
    place.write_bytes(shim.replace(b"exec", b"EXEC"))
    assert deploy(site, tmp_path / "root") == 12
    assert not (tmp_path / "root").exists()


@pytest.mark.usefixtures("with_helm")
def test_values_that_helm_refuses_end_with_18_in_helms_own_words(
    site: Site, archive: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    shutil.unpack_archive(_write(tmp_path / "c.tgz", archive), broken, "gztar")
    (broken / "site/templates/all.yaml").write_text('{{ required "a name is needed" .Values.name }}')
    command = [str(components.require("helm")), "package", "site"]
    subprocess.run(command, cwd=broken, check=True, capture_output=True, timeout=60)
    activate(site, fill(site, (broken / "site-1.0.0.tgz").read_bytes(), b"extra: true\n", facts=[APP]))

    assert deploy(site, tmp_path / "root") == 18

    assert "error: release site: chart site 1.0.0 cannot be rendered" in capsys.readouterr().err


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path

"""What the node tests do to a K3s that somebody lends: nothing of theirs stays, nothing of the lender's is lost."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from airlift.site.deploy.helmchart import CHARTS, MANIFESTS
from airlift.site.deploy.registries import PATH as REGISTRIES
from airlift.site.deploy.tarball import FOLDER
from tests import components
from tests.support.cluster_api import Api, running_api
from tests.support.machine import DirectoryMachine
from tests.support.real_node import NAMES, real_node
from tests.unit.deploy.conftest import tree


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    components.require("kubectl")
    with running_api(tmp_path) as running:
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        running.put_node("n", {**ready, "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]})
        running.put_service("v1.apps", "True")
        yield running


@pytest.fixture
def lent(tmp_path: Path) -> DirectoryMachine:
    """The files of a K3s that has something of its own."""
    made = DirectoryMachine(tmp_path / "node")
    made.put(f"{REGISTRIES}", "mirrors: {docker.io: {endpoint: ['https://mirror.example.com']}}\n", 0o600)
    made.put(f"{FOLDER}/k3s-airgap-images-amd64.tar", "images")
    made.put(f"{CHARTS}/traefik-1.0.0.tgz", "chart")
    made.put(f"{MANIFESTS}/ccm.yaml", "kind: List\n")
    made.put(f"{MANIFESTS}/airlift-web.yaml", "metadata: {name: web}\nspec: {targetNamespace: production}\n")
    return made


def test_all_that_the_tests_brought_goes_and_the_lenders_files_come_back(
    api: Api, lent: DirectoryMachine, tmp_path: Path
) -> None:
    before = tree(lent.root)
    of_a_killed_run = f"metadata: {{name: {NAMES}abc}}\nspec: {{targetNamespace: {NAMES}abc}}\n"
    count = tmp_path / "restarts"
    with real_node(api.kubeconfig, lent.root, f"echo x >> {count} && true", steady=1) as node:
        assert not (lent.root / REGISTRIES).exists()
        assert node.address == "127.0.0.1"
        lent.put(f"{REGISTRIES}", "ours")
        node.restart()
        lent.put(f"{FOLDER}/{'a' * 64}.tar", "ours")
        lent.put(f"{CHARTS}/app-1.0.0-{'a' * 16}.tgz", "ours")
        lent.put(f"{MANIFESTS}/airlift-{NAMES}abc.yaml", of_a_killed_run)
        release = {"metadata": {"name": node.namespace}, "spec": {"targetNamespace": node.namespace}}
        lent.put(f"{MANIFESTS}/airlift-{node.namespace}.yaml", yaml.safe_dump(release))
        for kind, name in (("HelmChart", node.namespace), ("Addon", f"airlift-{node.namespace}"), ("HelmChart", "web")):
            api.put(kind, name, "kube-system")

    assert tree(lent.root) == before
    assert api.names("HelmChart", "kube-system") == {"web"}
    assert api.names("Addon", "kube-system") == set()
    assert count.read_text() == "x\nx\n"


def test_two_runs_have_no_name_in_common(api: Api, lent: DirectoryMachine) -> None:
    names = []
    for _ in range(2):
        with real_node(api.kubeconfig, lent.root, "true", steady=1) as node:
            names.append(node.namespace)

    assert len(set(names)) == 2


def test_what_a_killed_run_put_aside_is_put_back_by_the_next(api: Api, lent: DirectoryMachine) -> None:
    before = tree(lent.root)
    killed = real_node(api.kubeconfig, lent.root, "true", steady=1)
    killed.__enter__()
    lent.put(f"{REGISTRIES}", "of a run that was killed")
    lent.put(f"{FOLDER}/{'b' * 64}.tar", "of a run that was killed")

    with real_node(api.kubeconfig, lent.root, "true", steady=1):
        pass

    assert tree(lent.root) == before
    with contextlib.suppress(pytest.fail.Exception):
        killed.__exit__(None, None, None)


def test_a_node_without_registries_has_none_afterwards_though_a_run_was_killed(
    api: Api, lent: DirectoryMachine
) -> None:
    (lent.root / REGISTRIES).unlink()
    before = tree(lent.root)
    for _ in range(2):
        with real_node(api.kubeconfig, lent.root, "true", steady=1):
            lent.put(f"{REGISTRIES}", "ours")

    assert tree(lent.root) == before


def test_a_restart_that_leaves_the_server_behind_it_does_not_hold_the_tests(
    api: Api, lent: DirectoryMachine, tmp_path: Path
) -> None:
    with real_node(api.kubeconfig, lent.root, f"sleep 60 & echo $! >> {tmp_path}/pids", steady=1) as node:
        node.restart()
    for pid in (tmp_path / "pids").read_text().split():
        os.kill(int(pid), signal.SIGKILL)


def test_a_service_that_would_keep_every_namespace_is_named_before_the_first_change(
    api: Api, lent: DirectoryMachine
) -> None:
    before = tree(lent.root)
    api.put_service("v1beta1.metrics.k8s.io", "False")

    with (
        pytest.raises(pytest.fail.Exception, match=r"v1beta1\.metrics\.k8s\.io does not answer"),
        real_node(api.kubeconfig, lent.root, "true", steady=1),
    ):
        pass
    assert tree(lent.root) == before


def test_a_restart_that_fails_is_told_with_its_own_words(api: Api, lent: DirectoryMachine) -> None:
    with (
        pytest.raises(pytest.fail.Exception, match="ended with 3: no such unit"),
        real_node(api.kubeconfig, lent.root, "echo no such unit && exit 3", steady=1) as node,
        pytest.raises(AssertionError, match="ended with 3: no such unit"),
    ):
        node.restart()

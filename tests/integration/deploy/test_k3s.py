"""The machine itself, on a real Kubernetes: K3s installed and upgraded by a drop, releases pruned, aborted, taken back."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
import yaml

from airlift.site.deploy.datastore import FOLDER as DATASTORE
from airlift.site.deploy.helmchart import CHARTS, MANIFESTS
from tests.support.chart_servers import helm
from tests.support.deployable import make_site
from tests.support.folders import SharedFolder
from tests.support.k3s.host import host
from tests.support.k3s.lent import Lent
from tests.support.k3s.machine import IMAGE, KINDS, SPACE, TEMPLATE, TWIN, Machine
from tests.support.servers import free_port
from tests.support.serving import serving

pytestmark = pytest.mark.slow


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
    # The same version with other content, as somebody makes it who forgets to count.
    (folder / "app/Chart.yaml").write_text("apiVersion: v2\nname: app\nversion: 1.0.0\n")
    (folder / "app/templates/app.yaml").write_text(TEMPLATE)
    (folder / "app/templates/more.yaml").write_text("{{- /* nothing */ -}}\n")
    (folder / "app/values.yaml").write_text("more: {deep: 1}\n")
    helm("package", folder / "app", cwd=folder)
    charts["1.0.0-other"] = (folder / "app-1.0.0.tgz").read_bytes()
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
    copies = set(machine.place(DATASTORE).glob("airlift-before-*"))
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
    (copy,) = set(machine.place(DATASTORE).glob("airlift-before-*")) - copies
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
    machine.status()
    # Before its manifest is there: a job of helm that loses the API server fails its release, which waits for a person.
    machine.host.stop_k3s()
    machine.activate(machine.drop(2, "1.1.0"))
    done = machine.host.airlift(
        "deploy", "k3s", "--site", machine.site.root, "--root", "/", "--platform", "linux/amd64"
    )
    assert done.returncode == 0, done.stderr
    os.kill(machine.host.lent.process.pid, signal.SIGHUP)

    states, said = machine.status()

    assert "waiting for the cluster: " in said
    assert (states["web"]["phase"], states["web"]["version"]) == ("ready", "1.1.0")


def test_every_kind_of_workload_is_waited_for_and_compared(machine: Machine) -> None:
    name = "k" * 50  # the longest that K3s's job has room for
    machine.activate(machine.drop(3, "2.0.0", releases=(name,)))
    machine.deploy()
    states, _ = machine.status()

    pods = {item["pod"].removeprefix(f"{SPACE}/kinds-").partition("-")[0] for item in states[name]["containers"]}
    assert pods - {"gone"} == {"set", "daemon", "replicas", "pod", "job", "hook"}
    assert len(states[name]["containers"]) - ("gone" in pods) == 8
    machine.kubectl("-n", SPACE, "wait", "--for=delete", "job/kinds-gone", "--timeout=120s")
    machine.status()


def test_what_a_helm_chart_config_puts_over_a_release_is_expected(machine: Machine) -> None:
    machine.activate(machine.drop(1, "1.0.0"))
    machine.deploy()
    before = machine.status()[0]["web"]["revision"]
    spec = {"valuesContent": f'image: "{TWIN}:1"', "failurePolicy": "abort"}
    metadata = {"name": "web", "namespace": "kube-system"}
    config = {"apiVersion": "helm.cattle.io/v1", "kind": "HelmChartConfig", "metadata": metadata, "spec": spec}
    place = machine.host.folder / "config.json"
    place.write_text(json.dumps(config))
    machine.kubectl("apply", "-f", str(place))
    states, _ = machine.status()
    machine.kubectl("delete", "-f", str(place))

    assert (states["web"]["phase"], states["web"]["revision"]) == ("ready", before + 1)
    assert {item["image"] for item in states["web"]["containers"]} == {f"{TWIN}:1"}


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


def test_a_revision_of_another_chart_or_other_values_is_found_in_the_record_that_helm_wrote(machine: Machine) -> None:
    """What helm keeps is compared with the drop, though version, images and pods are the same."""
    machine.activate(machine.drop(1, "1.0.0"))
    machine.deploy()
    states, _ = machine.status()
    revision = states["web"]["revision"]
    types = machine.kubectl(
        "-n", SPACE, "get", "secrets", "-l", "owner=helm,name=web", "-o", "jsonpath={.items[*].type}"
    )
    assert set(types.split()) == {"helm.sh/release.v1"}

    right = machine.charts["1.0.0"]
    try:
        machine.charts["1.0.0"] = machine.charts["1.0.0-other"]
        machine.activate(machine.drop(1, "1.0.0", note="other"))
        _, said = machine.status(code=18, seconds=0)
        assert f"revision {revision}, deployed, has another chart: templates/more.yaml, values.yaml: more" in said
        assert f"revision {revision}, deployed, has other values: note" in said
        assert {what for what in machine.differences() if what[0] != "release"} == {
            ("chart", f"{SPACE}/web"),
            ("values", f"{SPACE}/web"),
        }
        machine.deploy()
        states, _ = machine.status()
        assert (states["web"]["phase"], states["web"]["revision"]) == ("ready", revision + 1)
    finally:
        machine.charts["1.0.0"] = right


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

"""Pods pull from a registry of the site with a private authority and a login, as K3s's containerd does it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import pytest
import trustme
import yaml

from airlift.cli.main import run
from airlift.site.deploy.registries import PATH as REGISTRIES
from airlift.site.site_yaml import RegistryConfig
from tests.support.chart_servers import helm
from tests.support.deployable import make_site
from tests.support.folders import SharedFolder
from tests.support.harbor import ROBOT, SECRET, Harbor, running_harbor
from tests.support.k3s.host import host
from tests.support.k3s.lent import Lent
from tests.support.k3s.machine import IMAGE, SPACE, TEMPLATE, Machine
from tests.support.registry import Registry, running_registry

pytestmark = pytest.mark.slow
PULLER, PULL_SECRET = "robot$pull", "Pu11-s3cret"


@dataclass
class Pulling:
    """A machine whose site keeps images in a registry.

    Attributes:
        registry: where.
        password: the file with what nodes show there.
        account: as whom they ask.
        tag: of the images of the active drop; the node has none of it before.
    """

    machine: Machine
    registry: Harbor | Registry
    password: Path
    account: str
    tag: int

    def fill(self) -> None:
        """Make another drop the active one, whose images are in the registry."""
        self.tag += 1
        self.machine.activate(self.machine.drop(self.tag, "1.0.0"))
        # No bundle brought the drop, so not all that it finds can be mended.
        run(["check", "--site", str(self.machine.site.root), "--repair"])

    def change_password(self, password: str) -> None:
        """Change it at the registry, and then at the site."""
        if isinstance(self.registry, Harbor):
            self.registry.accounts[self.account].password = password
        else:
            hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
            (self.registry.root / "htpasswd").write_text(f"{self.account}:{hashed}\n")
        self.password.write_text(f"{password}\n")

    @property
    def place(self) -> str:
        """Where nodes ask for the images of the drop."""
        below = "edge" if isinstance(self.registry, Harbor) else "registry.example.com"
        return f"{self.registry.url}/v2/{below}"

    def deployed(self) -> None:
        self.machine.deploy()
        states, _ = self.machine.status()
        assert states["web"]["phase"] == "ready"


@pytest.fixture(scope="module", params=["harbor", "registry"])
def pulling(request: pytest.FixtureRequest, k3s: Lent, shared_folder: SharedFolder) -> Iterator[Pulling]:
    folder = shared_folder(f"pulling-{request.param}")
    address = k3s.node().address
    (folder / "app/templates").mkdir(parents=True)
    (folder / "app/Chart.yaml").write_text("apiVersion: v2\nname: app\nversion: 1.0.0\n")
    (folder / "app/templates/app.yaml").write_text(TEMPLATE)
    helm("package", folder / "app", cwd=folder)
    for name, text in (("push", SECRET), ("pull", PULL_SECRET)):
        (folder / name).write_text(f"{text}\n")
    with ExitStack() as stack:
        registry: Harbor | Registry
        if request.param == "harbor":
            behind = stack.enter_context(running_registry(folder / "behind"))
            registry = stack.enter_context(running_harbor(behind, authority=folder / "ca.pem", address=address))
            registry.project("edge")
            registry.robot(PULLER, PULL_SECRET, rights=["repository:pull"])
            config = {
                "kind": "harbor",
                "ca": str(folder / "ca.pem"),
                "username": ROBOT,
                "project": "edge",
                "mapping": "{repository}",
                "depth": 2,
                "pull": {"username": PULLER, "password_file": str(folder / "pull")},
            }
            account, password = PULLER, folder / "pull"
        else:
            registry = stack.enter_context(running_registry(folder / "registry", secure=True, address=address))
            config = {"ca": str(registry.ca), "username": registry.username}
            account, password = registry.username, folder / "push"
        config |= {"url": registry.url, "password_file": str(folder / "push")}
        site = make_site(folder / "s", registry=RegistryConfig.model_validate(config))
        here = stack.enter_context(host(k3s, folder / "host"))
        machine = Machine(here, site, {"1.0.0": (folder / "app-1.0.0.tgz").read_bytes()})
        made = Pulling(machine, registry, password, account, 500 if request.param == "harbor" else 600)
        yield made
        machine.place(REGISTRIES).unlink(missing_ok=True)


def test_pods_run_from_a_registry_with_a_private_authority_and_a_login(pulling: Pulling) -> None:
    pulling.fill()
    pulling.deployed()

    written = yaml.safe_load(pulling.machine.place(REGISTRIES).read_text())
    assert written["configs"][pulling.registry.host]["auth"]["username"] == pulling.account
    if isinstance(pulling.registry, Harbor):
        asked = [f"{item.method} {item.path}" for item in pulling.registry.asked]
        assert f"HEAD /v2/edge/machine/app/manifests/{pulling.tag}?ns=registry.example.com" in asked
        assert any(item.startswith("POST /service/token") for item in asked)  # airlift asks by GET


def test_a_password_that_is_wrong_is_refused_before_anything_is_written(pulling: Pulling) -> None:
    pulling.fill()
    before = pulling.machine.place(REGISTRIES).read_text()
    right = pulling.password.read_text()
    where = ["--site", pulling.machine.site.root, "--platform", "linux/amd64"]
    pulling.password.write_text("wrong\n")
    try:
        done = pulling.machine.host.airlift("deploy", "k3s", *where)
    finally:
        pulling.password.write_text(right)

    assert done.returncode == 18, done.stderr
    said = f"airlift: error: {pulling.registry.host}: nodes cannot pull "
    assert said in done.stderr
    assert f" as {pulling.account} (" in done.stderr
    assert "airlift: hint: mend `pull` of registry in site.yaml" in done.stderr
    assert pulling.machine.place(REGISTRIES).read_text() == before


def test_a_node_that_the_registry_does_not_let_in_says_which_and_why(pulling: Pulling) -> None:
    """The password was changed after K3s read it, and K3s was not restarted."""
    pulling.fill()
    pulling.change_password("An0ther-one")
    where = ["--site", pulling.machine.site.root, "--platform", "linux/amd64", "--root", "/"]
    done = pulling.machine.host.airlift("deploy", "k3s", *where)
    assert "An0ther-one" in pulling.machine.place(REGISTRIES).read_text(), done.stderr
    said = unready(pulling, "401 Unauthorized")

    assert f"{IMAGE}:{pulling.tag} is asked for at {pulling.place} as {pulling.account}" in said
    assert "mend registry in site.yaml, then airlift deploy k3s on every node" in said
    pulling.deployed()


def test_a_node_that_does_not_trust_the_registry_says_which_and_why(pulling: Pulling, tmp_path: Path) -> None:
    pulling.fill()
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    runtime = Path((pulling.machine.host.lent.home / "containerd").read_text()).parent
    known = runtime / "certs.d" / IMAGE.partition("/")[0] / "hosts.toml"
    right = known.read_text()
    known.write_text(re.sub(r"ca = .*", f'ca = ["{tmp_path}/ca.pem"]', right))
    pulling.machine.deploy()
    said = unready(pulling, "x509: certificate signed by unknown authority")
    known.write_text(right)

    assert f"{IMAGE}:{pulling.tag} is asked for at {pulling.place} as {pulling.account}" in said
    pulling.deployed()


def unready(pulling: Pulling, why: str) -> str:
    """Look until a pod of the release cannot pull, and return what is said then."""
    deadline = time.monotonic() + 120
    while True:
        _, said = pulling.machine.status(code=18, seconds=1)
        started = re.search(rf"{SPACE}/web-\S+: \w+ has not started: (ErrImagePull|ImagePullBackOff): .*{why}", said)
        if started or time.monotonic() > deadline:
            assert started, said
            return said

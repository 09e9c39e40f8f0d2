"""docs/enclave.md, command by command: from a bare Debian and a kit to a pod that runs from the drop."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.components import ROOT, require
from tests.integration.enclave.conftest import SignedKit
from tests.support.bare_root import BareMachine, bare_machine, clean
from tests.support.cli import Desk, desk, ok
from tests.support.containerd import containerd
from tests.support.drops import tar_of
from tests.support.folders import SharedFolder
from tests.support.images import Box
from tests.test_docs import blocks

pytestmark = pytest.mark.slow

MEDIUM = "/media/medium"
KIT = f"{MEDIUM}/kit"
SITE = "/var/lib/airlift/site"
SERVE = f"runuser -u airlift -- airlift serve --site {SITE}"
PAUSE = "docker.io/airlift/pause:1"
APP = "registry.example.com/demo/app:1.0"
MANIFEST = f"""\
apiVersion: airlift/v1
kind: Drop
metadata: {{name: enclave, channel: stable}}
images:
  - {{ref: "oci-layout:./image:app", as: "{APP}"}}
  - {{ref: "oci-layout:./image:pause", as: "{PAUSE}"}}
files: [{{path: motd, name: motd}}]
"""
# Written anew by whatever runs, without being a change of the machine.
LOOSE = ("/proc", "/dev", "/tmp", "/run", "/var/log", f"{SITE}/state.db-shm", f"{SITE}/state.db-wal", "/var/cache")


@dataclass(frozen=True)
class Paper:
    """What travels on paper."""

    signer: str
    trust: str

    @property
    def variables(self) -> dict[str, str]:
        return {"SIGNER": self.signer, "TRUST": self.trust}


@dataclass(frozen=True)
class Office:
    desk: Desk
    paper: Paper
    digest: str


def steps() -> list[tuple[str, str]]:
    """The commands of the page, each with the heading that it stands under."""
    page = ROOT / "docs" / "enclave.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    found = []
    for block in blocks(page):
        if block.language == "console":
            heading = next(line for line in reversed(lines[: block.line]) if line.startswith("## "))
            found += [(heading.removeprefix("## "), line) for line in block.text.splitlines()]
    return found


@pytest.fixture(scope="module")
def office(signed_kit: SignedKit, shared_folder: SharedFolder) -> Office:
    """The connected side: a kit, a drop with an image that runs, and two lines of paper."""
    made = desk(shared_folder("office"))
    home = made.home
    program = require("busybox").read_bytes()
    links = {f"bin/{name}": "busybox" for name in ("sh", "sleep", "cat")}
    box = Box(home / "image")
    layer = {"bin/": b"", "bin/busybox": program, **links, "says": b"hello from the drop\n"}
    digest = box.image("app", layers=[tar_of(layer)]).digest
    box.image("pause", layers=[tar_of({"bin/": b"", "bin/busybox": program, **links})], command=["/bin/sleep", "1000"])
    (home / "motd").write_text("welcome\n")
    (home / "drop.yaml").write_text(MANIFEST)
    ok("resolve", "drop.yaml", "-o", "lock.json", home=home)
    ok("build", "lock.json", "-o", "drop.airlift", "--sequence", "1", *made.signers, *made.recipients, home=home)
    shutil.copytree(signed_kit.path, home / "kit")
    return Office(made, Paper(signed_kit.said["fingerprint"], signed_kit.said["trust"]), digest)


@pytest.fixture(scope="module")
def machine(office: Office, shared_folder: SharedFolder) -> Iterator[BareMachine]:
    """A bare machine with the medium in it."""
    for program in ("chroot", "nsenter", "ip", "mount", "unshare"):
        require(program)
    with bare_machine(shared_folder("bare")) as made:
        medium = made.root / MEDIUM.lstrip("/")
        medium.mkdir(parents=True)
        shutil.copytree(office.desk.home / "kit", medium / "kit")
        for name in ("drop.airlift", "site.key"):
            shutil.copy(office.desk.home / name, medium / name)
        # A medium's files are everybody's to read; the identity is root's.
        (medium / "drop.airlift").chmod(0o644)
        yield made


@contextlib.contextmanager
def served(machine: BareMachine) -> Iterator[None]:
    """What provision.sh says is to be started where there is no systemd."""
    log = machine.root / "serve.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            machine.command(f"exec {SERVE}"), env=clean({}), stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        ask = [
            *machine.inside,
            "python3",
            "-c",
            "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz')",
        ]
        for _ in range(150):
            if subprocess.run(ask, capture_output=True, check=False).returncode == 0:
                break
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        else:
            pytest.fail(log.read_text(), pytrace=False)
        yield
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """Every path with mode, owner, time of change, and content."""
    found: dict[str, tuple[object, ...]] = {}
    for at, folders, names in os.walk(root):
        inside = f"/{Path(at).relative_to(root)}".replace("/.", "/")
        folders[:] = [name for name in folders if not f"{inside}/{name}".replace("//", "/").startswith(LOOSE)]
        for name in [*folders, *names]:
            path = Path(at) / name
            shown = f"{inside}/{name}".replace("//", "/")
            if shown.startswith(LOOSE) or shown == "/serve.log":
                continue
            status = path.lstat()
            content = ""
            if path.is_symlink():
                content = str(path.readlink())
            elif path.is_file():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[shown] = (oct(status.st_mode), status.st_uid, status.st_mtime_ns, content)
    return found


def timeless(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """The same without times: a directory in which something came and went has another."""
    return {path: (mode, owner, content) for path, (mode, owner, _, content) in found.items()}


def difference(before: dict[str, tuple[object, ...]], after: dict[str, tuple[object, ...]]) -> list[str]:
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def walk(machine: BareMachine, paper: Paper, *headings: str) -> dict[str, str]:
    """Type the commands under these headings, and return what they said."""
    said = {}
    for heading, line in steps():
        if heading in headings:
            said[line] = machine.ok(line, KIT, **paper.variables)
    assert said, headings
    return said


CHECKING = "On the bare machine: is it the right kit?"


def test_a_kit_of_another_paper_is_found_before_anything_runs(machine: BareMachine, office: Office) -> None:
    (first, second, third) = [line for heading, line in steps() if heading == CHECKING]
    assert machine.run(first, KIT, SIGNER="0" * 64).returncode != 0
    assert machine.ok(second, KIT).strip() == "Verified OK"
    assert machine.ok(third, KIT) == ""


@pytest.mark.parametrize(
    ("damage", "code", "says"),
    [
        ("for f in wheels/click-*; do echo >> $f; done", 12, "a file of the kit is not what SHA256SUMS says"),
        ("echo >> SHA256SUMS", 12, "the signature of SHA256SUMS does not match"),
        ("cp signer.pub wheels/more.whl", 12, "is not listed in SHA256SUMS"),
        ("rm SHA256SUMS.sig", 12, "SHA256SUMS.sig is missing"),
    ],
)
def test_a_changed_kit_is_refused_before_the_first_change(
    machine: BareMachine, office: Office, damage: str, code: int, says: str
) -> None:
    machine.ok(f"rm -rf /media/bad && cp -a {KIT} /media/bad")
    machine.ok(damage, "/media/bad")
    before = listing(machine.root)
    done = machine.run("sh provision.sh --url http://127.0.0.1:8080", "/media/bad")
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert difference(before, listing(machine.root)) == []
    machine.ok("rm -rf /media/bad")


def test_a_trust_file_of_another_paper_is_refused_before_the_first_change(machine: BareMachine) -> None:
    before = listing(machine.root)
    wrong = "0000 " * 16
    done = machine.run(f"sh provision.sh --url http://127.0.0.1:8080 --fingerprint '{wrong}'", KIT)
    assert done.returncode == 14
    assert "the trust file of this kit is not the one of your paper" in done.stderr
    assert difference(before, listing(machine.root)) == []


def test_a_dry_run_changes_nothing(machine: BareMachine, office: Office) -> None:
    before = listing(machine.root)
    (dry,) = [line for heading, line in steps() if heading == "Provisioning" and "--dry-run" in line]
    said = machine.ok(dry, KIT, **office.paper.variables)
    assert "would make the site /var/lib/airlift/site" in said
    assert "nothing was changed" in said
    assert difference(before, listing(machine.root)) == []


def test_a_killed_run_is_finished_by_the_next_and_all_of_it_can_be_taken_back(
    machine: BareMachine, office: Office
) -> None:
    before = listing(machine.root)
    (line,) = [text for heading, text in steps() if heading == "Provisioning" and "--dry-run" not in text]
    for wait in (0.3, 1.0, 2.5, 4.0):
        command = machine.command(line, KIT)
        process = subprocess.Popen(
            command,
            env=clean(office.paper.variables),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(wait)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    machine.ok(line, KIT, **office.paper.variables)
    assert machine.ok("airlift --version").startswith("airlift ")
    again = listing(machine.root)
    assert "everything is in place; nothing was changed" in machine.ok(line, KIT, **office.paper.variables)
    assert difference(again, listing(machine.root)) == []
    machine.ok("sh provision.sh --undo --remove-state", KIT)
    left = difference(timeless(before), timeless(listing(machine.root)))
    # The user database is written anew, without the user, and keeps the last state beside it.
    assert [
        path for path in left if not path.startswith(("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"))
    ] == []
    assert "airlift" not in (machine.root / "etc/passwd").read_text()


def test_the_page_leads_from_the_bare_machine_to_a_running_pod_and_a_second_walk_changes_nothing(
    machine: BareMachine, office: Office
) -> None:
    walk(machine, office.paper, CHECKING)
    said = walk(machine, office.paper, "Provisioning")
    assert f"start the site with: {SERVE}" in list(said.values())[-1]
    with served(machine):
        said = walk(machine, office.paper, "The first drop")
        assert "clean: everything is as the drops say" in list(said.values())[-1]
        (hosts,) = walk(machine, office.paper, "The first pod").values()
        with containerd(pause=PAUSE, prefix=machine.inside) as node:
            for block in hosts.split("# /etc/containerd/certs.d/")[1:]:
                name, _, body = block.partition("\n")
                (node.certs / name).parent.mkdir(parents=True)
                (node.certs / name).write_text(body)
            with node.cri() as cri:
                cri.pull(PAUSE)
                pinned = f"{APP.rpartition(':')[0]}@{office.digest}"
                cri.pull(pinned)
                assert cri.run(pinned, ["/bin/cat", "/says"]) == (0, "hello from the drop")
        before = listing(machine.root)
        headings = (CHECKING, "Provisioning", "The first drop", "The first pod")
        said = walk(machine, office.paper, *headings)
        assert difference(before, listing(machine.root)) == []
    provisioned = [text for line, text in said.items() if line.startswith("sh provision.sh")]
    assert all("nothing was changed" in text for text in provisioned)


def test_what_runs_is_the_users_and_nobody_else_reads_the_identity(machine: BareMachine) -> None:
    assert machine.ok(f"stat -c '%U %a' {SITE} /var/lib/airlift /var/lib/airlift/site.key").split() == [
        "airlift", "755", "airlift", "750", "airlift", "400",
    ]  # fmt: skip
    assert machine.run("runuser -u nobody -- cat /var/lib/airlift/site.key").returncode != 0


def test_undo_keeps_the_site_and_a_new_run_finds_it(machine: BareMachine, office: Office) -> None:
    said = machine.ok("sh provision.sh --undo", KIT)
    assert "/var/lib/airlift and the user airlift stay" in said
    assert machine.run("airlift --version").returncode != 0
    (line,) = [text for heading, text in steps() if heading == "Provisioning" and "--dry-run" not in text]
    machine.ok(line, KIT, **office.paper.variables)
    listed = json.loads(machine.ok(f"runuser -u airlift -- airlift drops list --site {SITE} --json"))
    assert [(drop["sequence"], drop["active"]) for drop in listed["drops"]] == [(1, True)]

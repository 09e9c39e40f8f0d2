"""provision.sh with an identity that has a passphrase: from the bare machine to a drop that is served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.enclave.conftest import SignedKit
from tests.integration.enclave.test_enclave import SITE, difference, listing, served, timeless
from tests.integration.enclave.test_newer_kit import drops, fetched
from tests.support.bare_root import BareMachine, bare_machine
from tests.support.cli import desk, ok
from tests.support.folders import SharedFolder

pytestmark = pytest.mark.slow

KIT = "/media/kit"
PROVISION = "sh provision.sh --url http://127.0.0.1:8080"
PROTECTED = f"{PROVISION} --identity ../protected.key --passphrase-file ../passphrase"
SECRET = "correct horse, battery staple"
STATE = "/var/lib/airlift"
SAME = "everything is in place; nothing was changed"


@pytest.fixture(scope="module")
def media(signed_kit: SignedKit, shared_folder: SharedFolder) -> Path:
    """A kit, a protected identity, its passphrase as an editor of another system writes it, and a drop for it."""
    made = desk(shared_folder("office"))
    home, media = made.home, made.home / "media"
    media.mkdir()
    (media / "passphrase").write_bytes(f"{SECRET}\r\nwhat follows is not read\r\n".encode())
    (media / "wrong").write_text("Tr0ub4dor&3\n")
    shutil.copytree(signed_kit.path, media / "kit")
    given = ["--kind", "identity", "--passphrase-file", media / "passphrase", "--out", media]
    ok("keys", "generate", "protected", *given, home=home)
    shutil.copy(made.identity, media / "open.key")
    (home / "motd").write_text("welcome\n")
    (home / "drop.yaml").write_text(
        "apiVersion: airlift/v1\nkind: Drop\nmetadata: {name: enclave, channel: stable}\n"
        "files: [{path: motd, name: motd}]\n"
    )
    ok("resolve", "drop.yaml", "-o", "lock.json", home=home)
    build = ["-o", media / "drop.airlift", "--sequence", "1", *made.signers, "--recipient", media / "protected.pub"]
    ok("build", "lock.json", *build, home=home)
    (media / "drop.airlift").chmod(0o644)
    return media


@pytest.fixture
def machine(media: Path, tmp_path: Path) -> Iterator[BareMachine]:
    with bare_machine(tmp_path) as made:
        shutil.copytree(media, made.root / "media", dirs_exist_ok=True)
        yield made


def refused(machine: BareMachine, options: str, says: str) -> None:
    before = listing(machine.root)
    done = machine.run(f"{PROVISION} {options}", KIT)
    assert (done.returncode, f"airlift: error: {says}\n" in done.stderr) == (2, True), done.stderr
    assert difference(before, listing(machine.root)) == []


def test_a_bare_machine_serves_a_drop_that_only_the_protected_identity_opens(machine: BareMachine) -> None:
    refused(machine, "--identity ../protected.key --passphrase-file ../wrong",
            "the first line of /media/wrong does not open /media/protected.key")  # fmt: skip
    before = listing(machine.root)
    said = machine.ok(f"{PROTECTED} --dry-run", KIT)
    assert f"airlift: would write {STATE}/passphrase\n" in said
    assert difference(before, listing(machine.root)) == []

    said = machine.ok(PROTECTED, KIT)
    assert SECRET not in said
    facts = machine.ok(f"stat -c '%U %G %a' {STATE}/site.key {STATE}/passphrase").splitlines()
    assert facts == ["airlift airlift 400"] * 2
    for name in ("site.key", "passphrase"):
        assert machine.run(f"runuser -u nobody -- cat {STATE}/{name}").returncode != 0
    assert SECRET not in (machine.root / SITE.lstrip("/") / "site.yaml").read_text()
    assert "ENCRYPTED PRIVATE KEY" in (machine.root / STATE.lstrip("/") / "site.key").read_text()

    # What a person who has neither medium nor passphrase at hand types from now on.
    machine.ok("mv /media/passphrase /media/protected.key /root")
    machine.ok(f"runuser -u airlift -- airlift preflight /media/drop.airlift --site {SITE}")
    with served(machine):
        machine.ok(f"runuser -u airlift -- airlift import /media/drop.airlift --site {SITE}")
        assert fetched(machine) == "welcome"
        assert "clean" in machine.ok(f"runuser -u airlift -- airlift check --site {SITE}")
        before = listing(machine.root)
        assert SAME in machine.ok(PROVISION, KIT)
        assert difference(before, listing(machine.root)) == []
    assert drops(machine) == [(1, True)]

    machine.ok("mv passphrase protected.key /media")
    before = listing(machine.root)
    assert SAME in machine.ok(PROTECTED, KIT)
    assert difference(before, listing(machine.root)) == []
    refused(machine, "--identity ../protected.key --passphrase-file ../wrong",
            "the site has another passphrase than /media/wrong")  # fmt: skip

    kept = timeless(listing(machine.root / STATE.lstrip("/")))
    machine.ok("sh provision.sh --undo", KIT)
    assert difference(kept, timeless(listing(machine.root / STATE.lstrip("/")))) == []
    machine.ok("sh provision.sh --undo --remove-state", KIT)
    assert not (machine.root / STATE.lstrip("/")).exists()


def test_a_site_that_asks_for_the_passphrase_each_time_can_be_told_where_it_is_later(machine: BareMachine) -> None:
    machine.ok(f"{PROVISION} --identity ../protected.key", KIT)
    bring = f"runuser -u airlift -- airlift import /media/drop.airlift --site {SITE}"
    assert "the private key has a passphrase" in machine.run(bring).stderr
    refused(machine, "--identity ../protected.key --passphrase-file ../passphrase",
            "the site does not look for a passphrase")  # fmt: skip
    with (machine.root / SITE.lstrip("/") / "site.yaml").open("a") as stream:
        stream.write(f"passphrase_file: {STATE}/passphrase\n")
    machine.ok(PROTECTED, KIT)
    machine.ok(bring)
    listed = json.loads(machine.ok(f"runuser -u airlift -- airlift drops list --site {SITE} --json"))
    assert [drop["sequence"] for drop in listed["drops"]] == [1]
    assert SAME in machine.ok(PROTECTED, KIT)

"""provision.sh of a newer kit on a machine that is a site already: the older airlift is replaced, the site stays."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.enclave.test_enclave import SITE, difference, listing, served, timeless
from tests.support.bare_root import BareMachine, bare_machine, clean
from tests.support.cli import desk, ok
from tests.support.folders import SharedFolder
from tests.support.newer import newer_airlift

pytestmark = pytest.mark.slow

VERSIONS = ("91.0", "92.0", "93.0")
PROVISION = "sh provision.sh --url http://127.0.0.1:8080"
SAME = "everything is in place; nothing was changed"


def kit(version: str) -> str:
    return f"/media/{version}"


@pytest.fixture(scope="module")
def media(shared_folder: SharedFolder) -> Path:
    """Three kits, one newer than the other, and a drop."""
    made = desk(shared_folder("office"))
    home = made.home
    given = ["--signer", "alice.key", "--trust", made.trust]
    (home / "media").mkdir()
    for version in VERSIONS:
        env = newer_airlift(home / f"source-{version}", version)
        ok("kit", "make", "-o", home / "media" / version, *given, home=home, env=env, timeout=600)
    (home / "motd").write_text("welcome\n")
    (home / "drop.yaml").write_text(
        "apiVersion: airlift/v1\nkind: Drop\nmetadata: {name: enclave, channel: stable}\n"
        "files: [{path: motd, name: motd}]\n"
    )
    ok("resolve", "drop.yaml", "-o", "lock.json", home=home)
    build = ["-o", "media/drop.airlift", "--sequence", "1", *made.signers, *made.recipients]
    ok("build", "lock.json", *build, home=home)
    shutil.copy(made.identity, home / "media" / "site.key")
    (home / "media" / "drop.airlift").chmod(0o644)
    return home / "media"


@pytest.fixture
def machine(media: Path, tmp_path: Path) -> Iterator[BareMachine]:
    """A bare machine that became a site by the oldest kit, and took a drop."""
    with bare_machine(tmp_path) as made:
        shutil.copytree(media, made.root / "media", dirs_exist_ok=True)
        made.ok(f"{PROVISION} --identity ../site.key", kit(VERSIONS[0]))
        made.ok(f"runuser -u airlift -- airlift import /media/drop.airlift --site {SITE}")
        yield made


def installed(machine: BareMachine) -> dict[str, str]:
    """What the links in /opt lead to, by the version that is there; and every directory beside them."""
    opt = machine.root / "opt"
    return {path.name: version_in(machine, path) for path in sorted(opt.iterdir())}


def version_in(machine: BareMachine, path: Path) -> str:
    return machine.ok(f"/opt/{path.name}/bin/airlift --version").split()[1]


def links(machine: BareMachine) -> tuple[str, str | None]:
    """The versions that are current and previous, when nothing else is in /opt."""
    found = installed(machine)
    current, previous = found.pop("airlift"), found.pop("airlift.previous", None)
    assert sorted(found.values()) == sorted({current, previous} - {None})
    return current, previous


def state(machine: BareMachine) -> dict[str, tuple[object, ...]]:
    """The site, its keys and all that it holds; the directory itself may have had a mark in it."""
    found = listing(machine.root)
    return {path: facts for path, facts in found.items() if path.startswith("/var/lib/airlift/")}


def drops(machine: BareMachine) -> list[tuple[int, bool]]:
    listed = json.loads(machine.ok(f"runuser -u airlift -- airlift drops list --site {SITE} --json"))
    return [(drop["sequence"], drop["active"]) for drop in listed["drops"]]


def fetched(machine: BareMachine) -> str:
    """What a client gets from the mirrors."""
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/files/motd').read().decode())"
    return machine.ok(f'python3 -c "{ask}"').strip()


def test_a_newer_kit_replaces_the_older_and_leaves_the_site_alone(machine: BareMachine) -> None:
    assert links(machine) == ("91.0", None)
    before, site = listing(machine.root), timeless(state(machine))
    dry = machine.ok(f"{PROVISION} --dry-run", kit("92.0"))
    assert difference(before, listing(machine.root)) == []
    with served(machine):
        said = machine.ok(PROVISION, kit("92.0"))
        assert "note: what serves the site now goes on as it was; stop it, and start it again" in said
        assert fetched(machine) == "welcome"
    for line in ("install airlift into /opt/airlift-", "let /opt/airlift.previous lead to /opt/airlift-",
                 "let /opt/airlift lead to /opt/airlift-", "write /etc/systemd/system/airlift-serve.service"):  # fmt: skip
        assert f"airlift: would {line}" in dry
        assert f"airlift: {line}" in said
    assert "remove" not in dry + said
    assert links(machine) == ("92.0", "91.0")
    assert difference(site, timeless(state(machine))) == []
    assert drops(machine) == [(1, True)]
    with served(machine):
        assert fetched(machine) == "welcome"
        before = listing(machine.root)
        said = machine.ok(PROVISION, kit("92.0"))
        assert SAME in said
        assert "note:" not in said
        assert difference(before, listing(machine.root)) == []


def test_one_previous_airlift_stays_and_what_is_older_goes(machine: BareMachine) -> None:
    (oldest,) = [path.name for path in (machine.root / "opt").glob("airlift-*")]
    machine.ok(PROVISION, kit("92.0"))
    before, site = listing(machine.root), state(machine)
    assert f"airlift: would remove /opt/{oldest}\n" in machine.ok(f"{PROVISION} --dry-run", kit("93.0"))
    assert difference(before, listing(machine.root)) == []
    assert f"airlift: remove /opt/{oldest}\n" in machine.ok(PROVISION, kit("93.0"))
    assert links(machine) == ("93.0", "92.0")
    assert SAME in machine.ok(PROVISION, kit("93.0"))
    # Going back is provisioning by the kit of before; it is there still.
    said = machine.ok(PROVISION, kit("92.0"))
    assert "install airlift into" not in said
    assert links(machine) == ("92.0", "93.0")
    assert SAME in machine.ok(PROVISION, kit("92.0"))
    # One that is gone is installed again.
    assert "install airlift into" in machine.ok(PROVISION, kit("91.0"))
    assert links(machine) == ("91.0", "92.0")
    assert difference(site, state(machine)) == []


def kill_at(machine: BareMachine, moment: str, cwd: str) -> None:
    """Provision, and kill it when it says that it begins with something."""
    with subprocess.Popen(
        machine.command(PROVISION, cwd),
        env=clean({}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        if any(line.startswith(f"airlift: {moment}") for line in process.stderr):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_a_change_of_kits_that_was_killed_is_finished_by_the_next_run(machine: BareMachine) -> None:
    machine.ok(PROVISION, kit("92.0"))
    site = state(machine)
    for moment in (
        "install airlift",
        "let /opt/airlift.previous",
        "let /opt/airlift lead",
        "write /etc",
        "remove /opt",
    ):
        kill_at(machine, moment, kit("93.0"))
        # Whatever the moment, one whole airlift is there.
        assert machine.ok("airlift --version").split()[1] in ("92.0", "93.0")
    machine.ok(PROVISION, kit("93.0"))
    assert links(machine) == ("93.0", "92.0")
    assert SAME in machine.ok(PROVISION, kit("93.0"))
    assert difference(site, state(machine)) == []


def test_undo_of_any_kit_removes_what_all_of_them_installed(machine: BareMachine) -> None:
    site = timeless(state(machine))
    for version in VERSIONS[1:]:
        machine.ok(PROVISION, kit(version))
    before = listing(machine.root)
    dry = machine.ok("sh provision.sh --undo --dry-run", kit("91.0"))
    assert "airlift: would remove /opt/airlift.previous\n" in dry
    assert dry.count("would remove /opt/airlift-") == 2
    assert difference(before, listing(machine.root)) == []
    machine.ok("sh provision.sh --undo", kit("91.0"))
    assert list((machine.root / "opt").iterdir()) == []
    assert not list((machine.root / "etc/systemd/system").glob("airlift*"))
    assert difference(site, timeless(state(machine))) == []
    machine.ok(PROVISION, kit("93.0"))
    assert links(machine) == ("93.0", None)
    assert drops(machine) == [(1, True)]

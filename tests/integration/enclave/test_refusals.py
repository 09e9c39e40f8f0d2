"""What provision.sh refuses before its first change: on a bare machine, and on one that is a site already."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest
import trustme

from tests.integration.enclave.conftest import SignedKit
from tests.integration.enclave.test_enclave import difference, listing
from tests.support.bare_root import BareMachine, bare_machine
from tests.support.cli import Desk, desk, ok
from tests.support.folders import SharedFolder

pytestmark = pytest.mark.slow

KIT = "/media/kit"
URL = "--url http://10.0.0.1:8080"


@pytest.fixture(scope="module")
def office(signed_kit: SignedKit, shared_folder: SharedFolder) -> Desk:
    made = desk(shared_folder("office"))
    shutil.copytree(signed_kit.path, made.home / "kit")
    alone = ["--channel", "stable", "--signer", f"alice={made.home}/alice.pub"]
    ok("trust", "init", "-o", made.home / "alone.json", *alone, home=made.home)
    signer = ["--signer", made.home / "alice.key", "--trust", made.home / "alone.json"]
    ok("kit", "make", "-o", made.home / "other", *signer, home=made.home, timeout=600)
    ok("kit", "make", "-o", made.home / "without", *signer[:2], home=made.home, timeout=600)
    return made


@pytest.fixture(scope="module")
def bare(office: Desk, shared_folder: SharedFolder) -> Iterator[BareMachine]:
    with bare_machine(shared_folder("bare")) as made:
        media = made.root / "media"
        for name in ("kit", "other", "without"):
            shutil.copytree(office.home / name, media / name)
        for name in ("site.key", "other.key"):
            shutil.copy(office.home / name, media)
        for name in ("one", "two"):
            issued = trustme.CA().issue_cert("10.0.0.1")
            (media / f"{name}.pem").write_bytes(issued.cert_chain_pems[0].bytes())
            issued.private_key_pem.write_to_path(media / f"{name}.key")
        yield made


def test_nothing_of_this_machine_is_seen_in_a_bare_root_but_by_what_runs_in_it(bare: BareMachine) -> None:
    """Else removing the root of a run that was killed would remove this machine's devices."""
    with subprocess.Popen(
        bare.command("test -c /dev/null && echo ready && exec cat"), stdin=PIPE, stdout=PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert f"{bare.root}/" not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture(scope="module")
def site(bare: BareMachine) -> BareMachine:
    """The same machine when it has become a site."""
    bare.ok(f"sh provision.sh {URL} --identity /media/site.key", KIT)
    return bare


def refused(machine: BareMachine, options: str, code: int, says: str, kit: str = KIT) -> None:
    before = listing(machine.root)
    done = machine.run(f"sh provision.sh {options}", kit)
    assert (done.returncode, f"airlift: error: {says}\n" in done.stderr) == (code, True), done.stderr
    assert difference(before, listing(machine.root)) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("", "--url is missing"),
        ("--url mirror:80", "--url mirror:80: expected http://HOST:PORT or https://HOST:PORT"),
        ("--url", "--url needs a value"),
        ("--frob", "--frob is no option"),
        (f"{URL} --listen 10.0.0.1:80800", "--listen 10.0.0.1:80800: expected ADDRESS:PORT, such as 0.0.0.0:8080"),
        (f"{URL} --listen localhost:80", "--listen localhost:80: expected ADDRESS:PORT, such as 0.0.0.0:8080"),
        (f"{URL} --listen ::1:80", "--listen ::1:80: expected ADDRESS:PORT, such as 0.0.0.0:8080"),
        (f"{URL} --identity /absent", "/absent: no such file"),
        (f"{URL} --passphrase-file /etc/passwd", "--passphrase-file without --identity"),
        (f"{URL} --tls-cert /media/one.pem", "expected both --tls-cert and --tls-key, got one"),
        (f"{URL} --tls-cert /etc/passwd --tls-key /media/one.key", "/etc/passwd: expected a certificate in PEM"),
        (
            f"{URL} --tls-cert /media/one.pem --tls-key /media/two.key",
            "/media/two.key is not the key of /media/one.pem",
        ),
        (f"{URL} --remove-state", "--remove-state belongs to --undo"),
    ],
)
def test_what_is_typed_wrong(bare: BareMachine, options: str, says: str) -> None:
    refused(bare, options, 2, says)


def test_a_kit_without_a_trust_file(bare: BareMachine) -> None:
    refused(bare, URL, 2, "this kit has no trust.json", "/media/without")


def test_a_machine_with_another_python(bare: BareMachine) -> None:
    bare.ok("printf '#!/bin/sh\\necho 2.7\\n' >/media/python && chmod +x /media/python")
    done = bare.run(f"sh provision.sh {URL} --python /media/python", KIT)
    assert done.returncode == 18
    assert "error: /media/python is of another version than 3." in done.stderr


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("opt/airlift", "/opt/airlift is there and no link"),
        ("opt/airlift.previous", "/opt/airlift.previous is there and no link"),
        ("usr/local/bin/airlift", "/usr/local/bin/airlift is there and leads elsewhere"),
        ("var/lib/airlift/site", "/var/lib/airlift/site is there and has no site.yaml"),
    ],
)
def test_a_place_that_somebody_else_has_taken(bare: BareMachine, place: str, says: str) -> None:
    taken = bare.root / place
    missing = [path for path in (taken, *taken.parents) if not path.exists()]
    was = missing[-1].parent.stat()
    taken.mkdir(parents=True)
    try:
        refused(bare, URL, 18, says)
    finally:
        for path in missing:
            path.rmdir()
        os.utime(missing[-1].parent, ns=(was.st_atime_ns, was.st_mtime_ns))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--url http://m:1", "the site's url is http://10.0.0.1:8080, not http://m:1"),
        ("--listen 10.0.0.1:1", "the site listens on 127.0.0.1:8080, not 10.0.0.1:1"),
        ("--identity /media/other.key", "the site has another identity than /media/other.key"),
        ("--tls-cert /media/one.pem --tls-key /media/one.key", "the site answers without TLS"),
    ],
)
def test_a_site_is_not_changed_by_other_words(site: BareMachine, options: str, says: str) -> None:
    refused(site, options, 2, says)


def test_a_sites_trust_is_not_exchanged_by_a_kit_but_by_the_command_that_it_names(site: BareMachine) -> None:
    says = "the site pinned another trust file than this kit carries"
    refused(site, URL, 14, says, "/media/other")
    hint = site.run(f"sh provision.sh {URL}", "/media/other").stderr.splitlines()[-1]
    command = hint.partition("then run this again: ")[2]
    assert command.endswith("--site /var/lib/airlift/site --trust /media/other/trust.json --fingerprint HEX")
    for kit in ("/media/other", KIT):
        fingerprint = (site.root / kit.lstrip("/") / "trust.fingerprint").read_text().strip()
        site.ok(command.replace("/media/other", kit).replace("HEX", f"'{fingerprint}'"))
        assert says not in site.run(f"sh provision.sh {URL} --dry-run", kit).stderr


def test_a_site_is_left_as_it_is_by_the_words_that_made_it(site: BareMachine) -> None:
    assert (site.root / "var/lib/airlift/site.key").read_bytes() == (site.root / "media/site.key").read_bytes()
    before = listing(site.root)
    for words in (f"{URL} --identity /media/site.key", ""):
        assert "everything is in place; nothing was changed" in site.ok(f"sh provision.sh {words}", KIT)
    assert difference(before, listing(site.root)) == []


def test_a_running_provision_keeps_a_second_one_out(site: BareMachine) -> None:
    done = site.run(f"flock /usr sh provision.sh {URL}", KIT)
    assert done.returncode == 1
    assert "airlift: error: another provision.sh is running\n" in done.stderr

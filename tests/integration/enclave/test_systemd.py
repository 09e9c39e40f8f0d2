"""provision.sh on a machine whose systemd runs: the unit serves in its sandbox, and takes what changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.bare_root import PACKAGES, root_tar
from tests.support.cli import desk, ok
from tests.support.dockerd import running_dockerd
from tests.support.folders import SharedFolder
from tests.support.newer import newer_airlift

pytestmark = pytest.mark.slow

IMAGE = "airlift/bare-with-systemd:1"
KIT = "/media/medium/kit"
NEWER = "/media/medium/newer"
URL = "https://127.0.0.1:8443"
PROVISION = f"sh provision.sh --url {URL} --listen 127.0.0.1:8443 --tls-cert ../chain.pem --tls-key ../key.pem"
ASK = (
    "python3 -c \"import ssl, urllib.request as u; print(u.urlopen('https://127.0.0.1:8443/healthz', "
    "context=ssl.create_default_context(cafile='/etc/ssl/certs/ca-certificates.crt')).read().decode())\""
)


@dataclass(frozen=True)
class Machine:
    """A container in which systemd is the first process, without a network."""

    container: Any
    medium: Path

    def run(self, line: str, cwd: str = KIT) -> tuple[int, str]:
        done = self.container.exec_run(["/bin/sh", "-c", f"cd {cwd} && {line}"])
        return int(done.exit_code), done.output.decode()

    def ok(self, line: str, cwd: str = KIT) -> str:
        code, said = self.run(line, cwd)
        assert code == 0, f"{line}: exit {code}\n{said}\n{self.run('journalctl -n 40 --no-pager -u airlift-serve')[1]}"
        return said

    def state(self) -> list[str]:
        return self.run("systemctl is-active airlift-serve.service airlift-serve.socket")[1].split()


def certificate(authority: trustme.CA, folder: Path) -> None:
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "chain.pem").write_bytes(b"".join(item.bytes() for item in issued.cert_chain_pems))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def machine(authority: trustme.CA, shared_folder: SharedFolder) -> Iterator[Machine]:
    made = desk(shared_folder("office"))
    medium = shared_folder("medium")
    certificate(authority, medium)
    authority.cert_pem.write_to_path(str(medium / "ca.pem"))
    given = ["--signer", "alice.key", "--trust", made.trust, "--ca", medium / "ca.pem"]
    ok("kit", "make", "-o", medium / "kit", *given, home=made.home)
    env = newer_airlift(made.home / "source", "92.0")
    ok("kit", "make", "-o", medium / "newer", *given, home=made.home, env=env)
    tar = root_tar(f"{PACKAGES},ca-certificates,systemd,systemd-sysv,dbus")
    with running_dockerd() as daemon:
        client = daemon.client()
        client.api.import_image_from_file(str(tar), *IMAGE.split(":"))
        container = client.containers.run(
            IMAGE,
            ["/lib/systemd/systemd"],
            detach=True,
            network_mode="none",
            cap_add=["SYS_ADMIN"],
            security_opt=["seccomp=unconfined", "apparmor=unconfined"],
            tmpfs={"/run": "", "/run/lock": "", "/tmp": "exec"},
            volumes={
                "/sys/fs/cgroup": {"bind": "/sys/fs/cgroup", "mode": "ro"},
                str(medium): {"bind": "/media/medium", "mode": "rw"},
            },
            environment={"container": "docker"},
        )
        try:
            found = Machine(container, medium)
            for _ in range(120):
                if found.run("systemctl is-system-running", "/")[1].strip() in ("running", "degraded"):
                    break
                time.sleep(0.5)
            else:
                pytest.skip("systemd does not come up in a container here")
            yield found
        finally:
            container.kill()
            container.remove()


def test_the_site_is_served_in_its_sandbox_and_a_second_run_changes_nothing(machine: Machine) -> None:
    said = machine.ok(PROVISION)
    assert "BEGIN PUBLIC KEY" in said
    assert '"status":"ok"' in machine.ok(ASK)
    assert machine.state() == ["active", "active"]
    status = machine.ok("cat /proc/$(systemctl show -p MainPID --value airlift-serve)/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (facts["NoNewPrivs"], facts["Seccomp"], int(facts["CapEff"], 16)) == ("1", "2", 0)
    assert facts["Uid"].split()[0] != "0"
    assert "everything is in place; nothing was changed" in machine.ok(PROVISION)


def test_a_restart_and_a_reload_lose_no_client(machine: Machine) -> None:
    machine.ok("systemctl restart airlift-serve && systemctl reload airlift-serve")
    assert '"status":"ok"' in machine.ok(ASK)
    assert machine.state() == ["active", "active"]


def test_another_certificate_is_taken_without_a_restart(machine: Machine, authority: trustme.CA) -> None:
    before = machine.ok("systemctl show -p MainPID --value airlift-serve")
    shown = "openssl s_client -connect 127.0.0.1:8443 </dev/null 2>/dev/null | openssl x509 -noout -serial"
    old = machine.ok(shown)
    certificate(authority, machine.medium)
    assert "let airlift-serve read the certificate" in machine.ok(PROVISION)
    assert machine.ok("systemctl show -p MainPID --value airlift-serve") == before
    assert machine.ok(shown) != old


def test_a_newer_kit_is_served_by_a_restart_and_the_older_one_stays_beside_it(machine: Machine) -> None:
    runs = "tr '\\0' ' ' </proc/$(systemctl show -p MainPID --value airlift-serve)/cmdline"
    before, state = machine.ok(runs), "find /var/lib/airlift -type f ! -name 'state.db*' -exec sha256sum {} + | sort"
    held = machine.ok(state)
    dry = machine.ok(f"{PROVISION} --dry-run", NEWER)
    assert "airlift: would stop what runs of an earlier kit\n" in dry
    assert machine.ok(runs) == before
    said = machine.ok(PROVISION, NEWER)
    assert "airlift: stop what runs of an earlier kit\n" in said
    assert "airlift: start airlift-serve\n" in said
    after = machine.ok(runs)
    assert after != before
    assert machine.ok("readlink /opt/airlift").strip() + "/" in after
    assert machine.ok("readlink /opt/airlift.previous").strip() + "/" in before
    assert machine.ok("airlift --version").startswith("airlift 92.0 ")
    assert machine.ok("head -1 /etc/systemd/system/airlift-serve.service") == "# of 92.0\n"
    assert '"status":"ok"' in machine.ok(ASK)
    assert machine.state() == ["active", "active"]
    assert machine.ok(state) == held
    pid = machine.ok("systemctl show -p MainPID --value airlift-serve")
    assert "everything is in place; nothing was changed" in machine.ok(PROVISION, NEWER)
    assert machine.ok("systemctl show -p MainPID --value airlift-serve") == pid


def test_undo_stops_it_and_removes_all_that_was_made(machine: Machine) -> None:
    machine.ok("sh provision.sh --undo")
    assert machine.state() == ["inactive", "inactive"]
    assert machine.run("ls /usr/local/share/ca-certificates /etc/ssl/certs | grep -q airlift")[0] != 0
    assert machine.run(ASK)[0] != 0
    assert machine.ok("ls /var/lib/airlift").split() == ["site", "site.key", "site.pub", "tls", "trust.json"]
    machine.ok(PROVISION)
    assert '"status":"ok"' in machine.ok(ASK)
    machine.ok("sh provision.sh --undo --remove-state")
    assert machine.ok(
        "ls /opt; ls -d /var/lib/airlift /etc/systemd/system/airlift* 2>/dev/null; id airlift 2>&1 || true"
    ) == ("id: 'airlift': no such user\n")

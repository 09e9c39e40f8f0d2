"""`airlift serve` is told to stop while clients are served."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import trustme

from airlift.site.config import Site
from airlift.site.server.app import GRACE_S
from tests.support.cli import ROOT, environment
from tests.support.servers import wait_until_closed
from tests.support.site_bundles import Cargo, make_site, ship, take

# More than the kernel's buffers of both ends take.
CONTENT = bytes(range(256)) * (128 * 1024)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = make_site(tmp_path / "site")
    cargo = Cargo()
    cargo.file("large", CONTENT)
    take(made, ship(cargo, tmp_path / "b.airlift"))
    return made


@dataclass
class Server:
    process: subprocess.Popen[str]
    address: tuple[str, int]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> list[str]:
        """Wait for its end, and return the last lines that it said."""
        assert self.process.stderr is not None
        said = self.process.stderr.read()
        assert self.process.wait(60) == 0, said
        assert "Traceback" not in said
        return said.splitlines()


@contextlib.contextmanager
def server(site: Site, *options: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "airlift", "serve", "--site", str(site.root), "--listen", "127.0.0.1:0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(site.root.parent))
    try:
        assert process.stderr is not None
        found = re.search(r"at https?://(\S+):(\d+)", process.stderr.readline())
        assert found
        yield Server(process, (found[1], int(found[2])))
    finally:
        process.kill()
        process.wait(60)
        assert process.stderr is not None
        process.stderr.close()


@contextlib.contextmanager
def download(of: Server, tls: ssl.SSLContext | None = None) -> Iterator[socket.socket]:
    """A client in the middle of a download, which waits."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(socket.create_connection(of.address, 60))
        if tls is not None:
            client = stack.enter_context(tls.wrap_socket(client, server_hostname="127.0.0.1"))
        client.sendall(b"GET /files/large HTTP/1.1\r\nHost: mirror\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
        yield client


def rest(client: socket.socket) -> bytes:
    got = bytearray()
    with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
        while chunk := client.recv(1 << 20):
            got += chunk
    return bytes(got).partition(b"\r\n\r\n")[2]


def test_what_is_under_way_is_finished_and_nothing_new_is_taken(site: Site) -> None:
    with server(site) as running, requests.Session() as idle:
        assert idle.get("http://{}:{}/healthz".format(*running.address), timeout=60).status_code == 200
        with download(running) as client:
            running.stop()
            wait_until_closed(running.address)
            assert running.process.poll() is None
            # A connection that is kept alive is closed too.
            with pytest.raises(requests.ConnectionError):
                idle.get("http://{}:{}/healthz".format(*running.address), timeout=60)
            assert rest(client) == CONTENT
        assert running.ended()[-1] == "airlift: stopped"


def test_what_takes_longer_than_the_grace_is_cut_and_counted(site: Site) -> None:
    with server(site, "--grace", "1") as running, download(running) as one, download(running) as two:
        running.stop()
        assert running.ended()[-2:] == [
            "airlift: warning: 2 transfers went on for longer than --grace and had to be cut",
            "airlift: stopped",
        ]
        for client in (one, two):
            assert len(rest(client)) < len(CONTENT)


def test_with_tls_it_is_the_same(site: Site, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    (tmp_path / "cert.pem").write_bytes(b"".join(item.bytes() for item in issued.cert_chain_pems))
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    options = ["--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem")]
    with server(site, *options) as running, download(running, tls) as client:
        running.stop()
        wait_until_closed(running.address)
        assert rest(client) == CONTENT
        assert running.ended()[-1] == "airlift: stopped"
    with server(site, *options, "--grace", "1") as running, download(running, tls) as client:
        running.stop()
        assert running.ended()[-2:] == [
            "airlift: warning: 1 transfer went on for longer than --grace and had to be cut",
            "airlift: stopped",
        ]
        assert len(rest(client)) < len(CONTENT)


def test_a_second_signal_ends_the_waiting(site: Site) -> None:
    with server(site, "--grace", "3600") as running, download(running):
        running.stop()
        wait_until_closed(running.address)
        running.stop()
        assert running.ended()[-1] == "airlift: stopped"


def test_systemd_waits_for_longer_than_the_server_does() -> None:
    unit = (ROOT / "appliance/airlift-serve.service").read_text()
    timeout = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    command = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert timeout
    assert command
    assert "--grace" not in command[1]
    assert int(timeout[1]) >= GRACE_S + 10


def test_the_grace_is_a_number_of_seconds(site: Site) -> None:
    command = [sys.executable, "-m", "airlift", "serve", "--site", str(site.root), "--grace", "-1"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(site.root.parent), check=False)
    assert ran.returncode == 2
    assert "--grace" in ran.stderr

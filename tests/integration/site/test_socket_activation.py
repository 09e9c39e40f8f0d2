"""`airlift serve` on a socket that systemd opened; it needs no network of its own then."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import requests
import trustme

from airlift.site.config import Site
from tests import components
from tests.support.cli import environment
from tests.support.servers import free_port, wait_for
from tests.support.site_bundles import make_site

# What RestrictAddressFamilies=AF_UNIX of the unit does, by the same means: socket(2) of another family is refused.
ONLY_UNIX = """
import ctypes, platform, runpy, socket, struct
number = {"x86_64": 41, "aarch64": 198}[platform.machine()]
steps = [
    (0x20, 0, 0, 0),                      # load the number of the call
    (0x15, 0, 3, number),                 # not socket: go on
    (0x20, 0, 0, 16),                     # load the family
    (0x15, 1, 0, socket.AF_UNIX),         # AF_UNIX: go on
    (0x06, 0, 0, 0x00050000 | 97),        # EAFNOSUPPORT
    (0x06, 0, 0, 0x7FFF0000),             # allowed
]
code = b"".join(struct.pack("HBBI", *step) for step in steps)
held = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(held)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, ctypes.get_errno()
try:
    socket.socket(socket.AF_INET)
except OSError:
    runpy.run_module("airlift", run_name="__main__")
"""


@contextlib.contextmanager
def activated(
    site: Site,
    *listen: str,
    wrap: Sequence[str] = (),
    python: Sequence[str] = ("-m", "airlift"),
    serve: Sequence[str] = (),
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The server as systemd starts it when the first connection comes."""
    log = site.root.parent / "log"
    command = [str(components.require("systemd-socket-activate")), *(f"--listen={item}" for item in listen)]
    # It passes no variables on but its own and those that are named.
    named = [f"--setenv={name}={value}" for name, value in environment(site.root.parent).items()]
    command += [*named, *wrap, sys.executable, *python, "serve", "--site", str(site.root), *serve]
    with log.open("w") as stream:
        process = subprocess.Popen(command, stderr=stream, text=True, env={**os.environ, "SYSTEMD_LOG_LEVEL": "info"})
    try:
        wait_for(log, "Listening on")
        yield process, log
    finally:
        process.terminate()
        process.wait(60)
    assert "Traceback" not in log.read_text()


def connect(port: int) -> None:
    """Come as the first client, whose connection starts the server; it may end before it answers."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 20):
        pass


def test_it_answers_on_the_socket_that_it_was_given_and_stops_when_it_is_told(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    port = free_port()
    with activated(site, f"127.0.0.1:{port}") as (process, log):
        assert requests.get(f"http://127.0.0.1:{port}/healthz", timeout=60).json()["status"] == "ok"
        assert f"serving {site.root} at http://127.0.0.1:{port}" in log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert log.read_text().endswith("airlift: stopped\n")


def test_it_answers_with_tls_on_the_socket_that_it_was_given(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    made = authority.issue_cert("127.0.0.1")
    (site.root / "cert.pem").write_bytes(made.cert_chain_pems[0].bytes())
    made.private_key_pem.write_to_path(site.root / "key.pem")
    with (site.root / "site.yaml").open("a") as config:
        config.write("tls: {certificate: cert.pem, key: key.pem}\n")
    port = free_port()
    with activated(site, f"127.0.0.1:{port}") as (_, log):
        answer = requests.get(f"https://127.0.0.1:{port}/healthz", verify=str(tmp_path / "ca.pem"), timeout=60)
        assert answer.json()["status"] == "ok"
        assert f"at https://127.0.0.1:{port}" in log.read_text()


def test_it_needs_neither_a_network_nor_a_socket_of_its_own(tmp_path: Path) -> None:
    """PrivateNetwork=yes and RestrictAddressFamilies=AF_UNIX of the unit."""
    components.require_root()
    site = make_site(tmp_path / "site")
    port = free_port()
    alone = [str(components.require("unshare")), "-n"]
    with activated(site, f"127.0.0.1:{port}", wrap=alone, python=("-c", ONLY_UNIX)):
        for place in ("healthz", "v2/", "simple/", "charts/index.yaml", "hf/api/models"):
            assert requests.get(f"http://127.0.0.1:{port}/{place}", timeout=60).status_code == 200, place


def test_two_sockets_are_one_too_many(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    port = free_port()
    with activated(site, f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}") as (process, log):
        connect(port)
        assert process.wait(60) == 2
        assert "airlift: error: systemd passed 2 sockets, expected one\n" in log.read_text()


def test_another_address_than_the_sockets_is_refused(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    port = free_port()
    with activated(site, f"127.0.0.1:{port}", serve=["--listen", "127.0.0.1:1"]) as (process, log):
        connect(port)
        assert process.wait(60) == 2
        assert "systemd passed a socket, and --listen names another address\n" in log.read_text()


def test_a_socket_of_another_kind_is_refused(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    place = tmp_path / "s"
    with activated(site, str(place)) as (process, log):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(place))
        assert process.wait(60) == 2
        assert "systemd passed a socket that is not a listening one of TCP\n" in log.read_text()


def test_what_was_passed_to_another_process_is_not_taken(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    command = [sys.executable, "-m", "airlift", "serve", "--site", str(site.root), "--listen", "127.0.0.1:0"]
    passed = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(tmp_path, passed))
    assert process.stderr is not None
    assert "serving" in process.stderr.readline()
    process.terminate()
    assert process.wait(60) == 0
    process.stderr.close()

"""`airlift serve` with a certificate: exchanged under connections that go on, and a stop that lets downloads end."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import trustme

from airlift.site.listing import Held, Listing, Name, Service
from airlift.site.server.tls import Certificate
from tests.support.cli import airlift, environment
from tests.support.servers import wait_for, wait_until_closed
from tests.support.site_bundles import Cargo, make_site, ship
from tests.support.sites import publish

SIZE = 24_000_000


def issue(authority: trustme.CA, folder: Path, name: str) -> str:
    made = authority.issue_cert("127.0.0.1", common_name=name)
    (folder / "cert.pem").write_bytes(made.cert_chain_pems[0].bytes())
    made.private_key_pem.write_to_path(folder / "key.pem")
    return name


def name_of(port: int, context: ssl.SSLContext) -> bytes:
    plain = socket.create_connection(("127.0.0.1", port), 60)
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
        found = wrapped.getpeercert(binary_form=True)
    assert found
    return found


def test_a_certificate_is_exchanged_and_a_stop_lets_a_download_end(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    data = bytes(SIZE)
    digest = site.store.put_bytes(data)
    held = Held(Service.FILES, "big", digest, SIZE, "application/octet-stream")
    publish(site.journal_path, [Listing((Name(Service.FILES, "big", {"digest": digest, "size": SIZE}),), (held,))])
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issue(authority, site.root, "first.example")
    with (site.root / "site.yaml").open("a") as config:
        config.write("tls: {certificate: cert.pem, key: key.pem}\n")
    log = tmp_path / "log"
    with log.open("w") as stream:
        command = [sys.executable, "-m", "airlift", "serve", "--site", str(site.root), "--listen", "127.0.0.1:0"]
        server = subprocess.Popen(command, stderr=stream, env=environment(tmp_path))
    try:
        port = int(wait_for(log, r"at https://127\.0\.0\.1:(\d+)")[1])
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        first = name_of(port, context)
        used = Certificate(site.root / "cert.pem", site.root / "key.pem").context
        assert used.minimum_version == ssl.TLSVersion.TLSv1_2
        running = requests.get(
            f"https://127.0.0.1:{port}/files/big", verify=str(tmp_path / "ca.pem"), stream=True, timeout=60
        )
        pieces = running.iter_content(65536)
        got = len(next(pieces))
        issue(authority, site.root, "second.example")
        server.send_signal(signal.SIGHUP)
        wait_for(log, r"certificate was read again")
        second = name_of(port, context)
        assert second != first
        (site.root / "key.pem").write_text("half")
        server.send_signal(signal.SIGHUP)
        wait_for(log, r"read before stays")
        assert name_of(port, context) == second
        server.send_signal(signal.SIGTERM)
        wait_until_closed(("127.0.0.1", port))
        got += sum(map(len, pieces))
        assert got == SIZE
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.wait()


def test_half_a_pair_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    (tmp_path / "c").write_text("")
    half = airlift("serve", "--site", site.root, "--tls-cert", tmp_path / "c", home=tmp_path)
    assert "expected both --tls-cert and --tls-key, got one" in half.err
    absent = airlift(
        "serve", "--site", site.root, "--tls-cert", tmp_path / "c", "--tls-key", tmp_path / "k", home=tmp_path
    )
    assert (absent.code, f"--tls-key {tmp_path}/k: no such file" in absent.err) == (2, True)


@pytest.mark.parametrize(("key", "file"), [("certificate", "cert.pem"), ("key", "key.pem")])
def test_a_file_of_site_yaml_that_is_missing_is_named(tmp_path: Path, key: str, file: str) -> None:
    site = make_site(tmp_path / "site")
    issue(trustme.CA(), site.root, "first.example")
    with (site.root / "site.yaml").open("a") as config:
        config.write("tls: {certificate: cert.pem, key: key.pem}\n")
    bundle = ship(Cargo(), tmp_path / "1.airlift")
    looked = airlift("preflight", bundle, "--site", site.root, home=tmp_path)
    assert (looked.code, looked.err) == (0, "")
    assert "ok       tls: certificate and key of tls in site.yaml can be read and belong together\n" in looked.out

    (site.root / file).unlink()
    said = f"{key} of tls in site.yaml: {site.root}/{file}: no such file"
    todo = f"mend {key} of tls in site.yaml, or put the file there"
    ran = airlift("serve", "--site", site.root, "--listen", "127.0.0.1:0", home=tmp_path)
    assert (ran.code, ran.err) == (16, f"airlift: error: {said}\nairlift: hint: {todo}\n")
    looked = airlift("preflight", bundle, "--site", site.root, home=tmp_path)
    assert looked.code == 0, looked.out
    assert f"warning  tls: {said}\n         do: {todo}\n" in looked.out
    assert looked.out.endswith("ready to import, 1 warning\n")


def test_a_pair_of_site_yaml_that_does_not_belong_together_is_seen_before_an_import(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    issue(trustme.CA(), site.root, "first.example")
    certificate = (site.root / "cert.pem").read_bytes()
    issue(trustme.CA(), site.root, "second.example")
    (site.root / "cert.pem").write_bytes(certificate)
    with (site.root / "site.yaml").open("a") as config:
        config.write("tls: {certificate: cert.pem, key: key.pem}\n")
    looked = airlift("preflight", ship(Cargo(), tmp_path / "1.airlift"), "--site", site.root, home=tmp_path)
    assert f"warning  tls: certificate {site.root}/cert.pem with key {site.root}/key.pem: " in looked.out

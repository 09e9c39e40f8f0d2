"""A server whose certificate nobody here vouches for: what is said depends on where its authority is to be named."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from airlift.errors import StoreError
from airlift.site.site_yaml import IndexConfig, RegistryConfig
from airlift.transport.settings import HttpSettings
from tests.components import require, require_root
from tests.support.cli import airlift, ok
from tests.support.indexes import running_index
from tests.support.registry import Registry, running_registry
from tests.support.site_bundles import Cargo, make_site, ship

UNTRUSTED = "the certificate is not trusted: unable to get local issuer certificate"
HINT = "airlift: hint: if a private certificate authority signed it, name its certificate in"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with running_registry(tmp_path / "registry", secure=True) as running:
        yield running


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    cargo = Cargo()
    cargo.image("docker.io/library/app:1", b"layer")
    return ship(cargo, tmp_path / "drop.airlift")


def test_a_site_names_it_in_site_yaml(tmp_path: Path, registry: Registry, bundle: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    config = RegistryConfig(url=registry.url, username="alice", password_file=str(tmp_path / "password"))
    site = make_site(tmp_path / "site", registry=config)
    ran = airlift("import", bundle, "--site", site.root, home=tmp_path)
    assert ran.code == 17
    error, hint = ran.err.splitlines()[-2:]
    assert error.endswith(UNTRUSTED)
    assert hint == f"{HINT} ca of registry in site.yaml"
    found = airlift("preflight", bundle, "--site", site.root, home=tmp_path)
    assert "name its certificate in ca of registry in site.yaml" in found.out
    path = site.root / "site.yaml"
    path.write_text(path.read_text().replace("registry:\n", f"registry:\n  ca: {registry.ca}\n"))
    ok("import", bundle, "--site", site.root, home=tmp_path)


def test_a_directory_of_authorities_is_taken_as_well(tmp_path: Path, registry: Registry, bundle: Path) -> None:
    assert registry.ca is not None
    folder, password = tmp_path / "authorities", tmp_path / "password"
    folder.mkdir()
    password.write_text("s3cret\n")
    config = RegistryConfig(url=registry.url, ca=str(folder), username="alice", password_file=str(password))
    site = make_site(tmp_path / "site", registry=config)
    ran = airlift("import", bundle, "--site", site.root, home=tmp_path)
    assert ran.code == 17
    assert UNTRUSTED in ran.err
    (folder / "ca.crt").write_bytes(registry.ca.read_bytes())
    subprocess.run([require("openssl"), "rehash", folder], check=True, timeout=60)
    ok("import", bundle, "--site", site.root, home=tmp_path)
    assert ok("check", "--site", site.root, home=tmp_path).out == "clean: everything is as the drops say\n"


def test_an_authority_that_is_not_there_or_may_not_be_looked_at_is_said_to_be_so(tmp_path: Path) -> None:
    require_root()
    config = RegistryConfig(url="https://registry.example", ca=str(tmp_path / "closed" / "ca.crt"))
    site = make_site(tmp_path / "site", registry=config)
    with pytest.raises(StoreError) as missing:
        site.reaching(config, HttpSettings())
    assert missing.value.message == f"ca of registry in site.yaml: {tmp_path}/closed/ca.crt: no such file"
    (tmp_path / "closed").mkdir(mode=0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(StoreError) as closed:
            site.reaching(config, HttpSettings())
    finally:
        os.seteuid(0)
    assert closed.value.message.startswith("ca of registry in site.yaml: reading ")
    assert closed.value.message.endswith("/ca.crt: Permission denied")


def test_a_site_names_that_of_its_package_index_there_too(tmp_path: Path, bundle: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with running_index(tls=context) as index:
        site = make_site(tmp_path / "site", python=IndexConfig(upload=index.url, index=index.url))
        ran = airlift("import", bundle, "--site", site.root, home=tmp_path)
    assert ran.code == 17
    error, hint = ran.err.splitlines()[-2:]
    assert error.endswith(UNTRUSTED)
    assert hint == f"{HINT} ca of python in site.yaml"


def test_the_connected_side_names_it_in_a_variable(tmp_path: Path, registry: Registry, bundle: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text(json.dumps(registry.docker_config()))
    target = f"oci://{registry.host}/drops/vision:1"
    ran = airlift("push", bundle, target, home=tmp_path)
    assert ran.code == 17
    error, hint = ran.err.splitlines()[-2:]
    assert error.endswith(UNTRUSTED)
    assert hint == f"{HINT} SSL_CERT_FILE"
    ok("push", bundle, target, home=tmp_path, env={"SSL_CERT_FILE": str(registry.ca)})

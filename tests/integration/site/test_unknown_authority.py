"""A server whose certificate nobody here vouches for: what is said depends on where its authority is to be named."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from airlift.site.config import IndexConfig, RegistryConfig
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

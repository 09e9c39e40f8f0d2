"""Private certificate authorities, client certificates and trusted hosts of the user's pip configuration."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from airlift.errors import AirliftError
from airlift.store import Store
from tests.support.indexes import FakeIndex, running_index
from tests.support.package_site import carry
from tests.support.wheel_source import Bench, pins


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    made.issue_cert("me@example.com").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
    return made


@pytest.fixture
def index(authority: trustme.CA) -> Iterator[FakeIndex]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with running_index(tls=context) as running:
        running.wheel("app", "1.0")
        yield running


def test_certificates_of_the_pip_configuration_are_used_by_the_worker_and_by_us(
    tmp_path: Path, index: FakeIndex
) -> None:
    given = {"PIP_CERT": str(tmp_path / "ca.pem"), "PIP_CLIENT_CERT": str(tmp_path / "client.pem")}
    bench = Bench(tmp_path, index.url, environment=given)
    entry = bench.resolve("app")
    assert list(pins(entry).values()) == [["app-1.0-py3-none-any.whl"]]
    carry(entry, bench.source(), Store(tmp_path / "s").create(), None)


@pytest.mark.parametrize("given", ["ca.pem", "client.pem"])
def test_without_one_of_them_the_index_is_not_reached(tmp_path: Path, index: FakeIndex, given: str) -> None:
    option = {"ca.pem": "PIP_CERT", "client.pem": "PIP_CLIENT_CERT"}[given]
    with pytest.raises(AirliftError) as caught:
        Bench(tmp_path, index.url, environment={option: str(tmp_path / given), "PIP_RETRIES": "0"}).resolve("app")
    assert "127.0.0.1" in caught.value.message
    assert index.requests == []

"""A registry that testcontainers runs in a daemon of our own, from an image that is put together here."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests import components
from tests.support.dockerd import Dockerd, running_dockerd
from tests.support.servers import free_port

CONFIG = """\
version: 0.1
log: {level: info}
storage: {filesystem: {rootdirectory: /var/lib/registry}}
http: {addr: "127.0.0.1:5000"}
"""


@pytest.fixture(scope="module")
def dockerd() -> Iterator[Dockerd]:
    with running_dockerd() as daemon:
        yield daemon


def registry_image() -> bytes:
    """The root directory of a registry: the program, the libraries that it names, and a configuration."""
    program = components.require("docker-registry")
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", dereference=True) as tar:
        tar.add(program, "registry")
        for path in re.findall(r"(/\S+) \(0x", listed):
            tar.add(path, path.lstrip("/"))
        for name, data in (("config.yml", CONFIG.encode()), ("tmp/.keep", b"")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def test_an_image_goes_from_a_daemon_into_a_registry_that_testcontainers_runs(
    dockerd: Dockerd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    components.require("skopeo")
    for name, value in dockerd.environment.items():
        monkeypatch.setenv(name, value)
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - it reads the environment at import
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy  # noqa: PLC0415

    client = dockerd.client()
    client.api.import_image_from_data(
        registry_image(),
        repository="airlift/registry",
        tag="1",
        changes=['ENTRYPOINT ["/registry", "serve", "/config.yml"]'],
    )
    port = free_port()
    container = (
        DockerContainer("airlift/registry:1")
        .with_kwargs(network_mode="host")
        .with_env("REGISTRY_HTTP_ADDR", f"127.0.0.1:{port}")
        .waiting_for(LogMessageWaitStrategy("listening on"))
    )
    with container:
        assert requests.get(f"http://127.0.0.1:{port}/v2/", timeout=10).status_code == 200
        name = f"127.0.0.1:{port}/tool"
        assert client.images.get("airlift/registry:1").tag(name, "3")
        assert "error" not in client.images.push(name, "3")
        found = subprocess.run(
            ["skopeo", "inspect", "--tls-verify=false", f"docker://{name}:3"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert '"Architecture": "amd64"' in found.stdout or '"Architecture": "arm64"' in found.stdout
    client.close()

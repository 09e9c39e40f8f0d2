"""A devpi-server on loopback with one index that takes uploads."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.components import TOOLS, require
from tests.support.servers import free_port, listening

USER, PASSWORD = "importer", "s3cret"


@dataclass(frozen=True)
class Devpi:
    """A running devpi-server.

    Attributes:
        upload: where twine would upload to.
        index: what pip reads.
        log: what it wrote.
    """

    upload: str
    index: str
    log: Path

    @property
    def host(self) -> str:
        return urlsplit(self.upload).netloc

    def files(self, project: str) -> dict[str, str]:
        """File name to sha256, as the index says it."""
        headers = {"Accept": "application/vnd.pypi.simple.v1+json"}
        page = requests.get(f"{self.index}{project}/", headers=headers, timeout=30)
        if page.status_code == 404:
            return {}
        page.raise_for_status()
        return {item["filename"]: item["hashes"].get("sha256", "") for item in page.json()["files"]}

    def remove(self, project: str) -> None:
        requests.delete(f"{self.upload}{project}", auth=(USER, PASSWORD), timeout=30).raise_for_status()


@contextlib.contextmanager
def running_devpi(folder: Path) -> Iterator[Devpi]:
    """Run devpi-server until the block ends."""
    require(str(TOOLS / "devpi" / "bin" / "devpi-server"))
    folder.mkdir()
    programs = TOOLS / "devpi" / "bin"
    data = ["--serverdir", str(folder / "data")]
    subprocess.run([programs / "devpi-init", *data, "--no-root-pypi"], check=True, capture_output=True)
    port = free_port()
    log = folder / "log"
    command = [programs / "devpi-server", *data, "--listen", f"127.0.0.1:{port}", "--offline-mode"]
    with listening(command, port, log):
        url = f"http://127.0.0.1:{port}"
        _make_index(url)
        yield Devpi(f"{url}/{USER}/site/", f"{url}/{USER}/site/+simple/", log)


@pytest.fixture(scope="session")
def devpi_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devpi]:
    """One for all tests, which takes long to start; each removes the projects that it made."""
    with running_devpi(tmp_path_factory.mktemp("devpi") / "devpi") as running:
        yield running


def _make_index(url: str) -> None:
    with requests.Session() as session:
        session.put(f"{url}/{USER}", json={"password": PASSWORD}, timeout=30).raise_for_status()
        # A volatile index lets files be removed and replaced.
        settings = {"type": "stage", "bases": [], "volatile": True}
        login = session.post(f"{url}/+login", json={"user": USER, "password": PASSWORD}, timeout=30)
        token = login.json()["result"]["password"]
        session.put(f"{url}/{USER}/site", json=settings, auth=(USER, token), timeout=30).raise_for_status()

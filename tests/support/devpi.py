"""A devpi-server on loopback with one index that takes uploads."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

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
def running_devpi(folder: Path, *, is_volatile: bool = True) -> Iterator[Devpi]:
    """Run devpi-server until the block ends; a volatile index lets files be removed and replaced."""
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
        _make_index(url, is_volatile=is_volatile)
        yield Devpi(f"{url}/{USER}/site/", f"{url}/{USER}/site/+simple/", log)


def _make_index(url: str, *, is_volatile: bool) -> None:
    with requests.Session() as session:
        session.put(f"{url}/{USER}", json={"password": PASSWORD}, timeout=30).raise_for_status()
        settings = {"type": "stage", "bases": [], "volatile": is_volatile}
        login = session.post(f"{url}/+login", json={"user": USER, "password": PASSWORD}, timeout=30)
        token = login.json()["result"]["password"]
        session.put(f"{url}/{USER}/site", json=settings, auth=(USER, token), timeout=30).raise_for_status()

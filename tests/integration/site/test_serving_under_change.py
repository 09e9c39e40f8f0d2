"""Readers of a served site while drops are activated in turn: no failed answer, and no page whose file is another's."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import requests

from airlift import digest as digests
from airlift.site.journal import Journal
from airlift.site.listing import Held, Listing, Name, Service
from tests.support.cli import environment
from tests.support.site_bundles import make_site
from tests.support.sites import drop, publish


def test_no_answer_fails_or_mixes_two_drops_while_they_are_activated_in_turn(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    drops = []
    for number in (1, 2):
        names, held = [], []
        for project in ("a", "b"):
            digest = site.store.put_bytes(f"{project}{number}".encode())
            file = f"{project}-{number}-py3-none-any.whl"
            value = {"digest": digest, "filename": file, "version": str(number), "size": 2, "metadata": digest}
            names.append(Name(Service.SIMPLE, project, value))
            facts = {"filename": file, "metadata": digest}
            held.append(Held(Service.SIMPLE, project, digest, 2, "application/zip", facts=facts))
        drops.append(publish(site.journal_path, [Listing(tuple(names), tuple(held))], drop(number)))
    stop, wrong, seen = threading.Event(), list[str](), set[str]()

    def read(url: str, project: str) -> None:
        session = requests.Session()
        headers = {"Accept": "application/vnd.pypi.simple.v1+json"}
        while not stop.is_set():
            page = session.get(f"{url}/simple/{project}/", headers=headers, timeout=10)
            files = page.json()["files"] if page.ok else []
            if len(files) != 1:
                wrong.append(f"{page.status_code} {files}")
                return
            file = session.get(f"{url}/simple/{project}/{files[0]['url']}", timeout=10)
            if not file.ok or digests.hex_of(digests.of(file.content)) != files[0]["hashes"]["sha256"]:
                wrong.append(f"{file.status_code} {files[0]['url']}")
                return
            seen.add(file.text)

    # Without a log: nobody reads the server's pipe here, and a full one would hold the server.
    with quiet_server(site.root) as url:
        readers = [threading.Thread(target=read, args=(url, project)) for project in "abab"]
        for reader in readers:
            reader.start()
        for turn in range(400):
            with Journal(site.journal_path) as journal, journal.transaction():
                journal.activate(drops[turn % 2])
        stop.set()
        for reader in readers:
            reader.join(20)
    assert wrong == []
    assert seen == {"a1", "a2", "b1", "b2"}


@contextlib.contextmanager
def quiet_server(root: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "airlift", "serve", "--quiet", "--site", str(root), "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(root.parent))
    assert server.stderr is not None
    try:
        found = re.search(r"at (http://\S+)", server.stderr.readline())
        assert found
        yield found[1]
    finally:
        server.terminate()
        _, rest = server.communicate(timeout=40)
    assert (server.returncode, rest) == (0, "airlift: stopped\n")

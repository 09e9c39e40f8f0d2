"""Imports that are killed at a chosen system call, and what a site is like then.

usage: killed_imports.py WORK BUNDLE EARLIER COUNT [REGISTRY_URL]

Prints one JSON object: what an undisturbed import leaves, and for each kill what was seen after it and after a re-run.
It runs by itself so that it can fork without the threads of whoever wants to know.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from airlift.progress import Silent
from airlift.site.config import RegistryConfig, Site, load_site
from airlift.transport.http import HttpClient
from airlift.transport.registry import RegistryClient
from airlift.transport.settings import HttpSettings
from tests.support.site_bundles import make_site, take

CALLS = frozenset({"execute", "executemany", "fsync", "replace", "rename", "mkdir", "open", "fchmod", "write", "send"})


def snapshot(site: Site, registry: str) -> dict[str, Any]:
    """What is seen of a site, and what lies in it."""
    with contextlib.closing(sqlite3.connect(site.journal_path)) as db:
        seen = {
            "names": db.execute(
                "SELECT service, key, part, digest FROM names JOIN channels ON active = names.release ORDER BY 1, 2, 3"
            ).fetchall(),
            "held": db.execute("SELECT service, scope, digest, release FROM held ORDER BY 1, 2, 3, 4").fetchall(),
            "channels": db.execute("SELECT * FROM channels").fetchall(),
            "releases": db.execute("SELECT * FROM releases ORDER BY sequence").fetchall(),
        }
    seen["blobs"] = sorted(path.name for path in (site.root / "store" / "blobs" / "sha256").iterdir())
    seen["ingest"] = len(list((site.root / "store" / "ingest").iterdir()))
    seen["attest"] = sorted(str(path.relative_to(site.root)) for path in site.drops_dir.rglob("*.json"))
    seen["tags"] = tags(site, registry)
    return seen


def tags(site: Site, registry: str) -> dict[str, str | None]:
    config = site.config.registry
    if config is None:
        return {}
    client = RegistryClient(registry, http=HttpClient(HttpSettings(retries=0), Silent()), plain_http=True)
    found = {}
    for name in ("app:1", "app:2"):
        path, tag = name.split(":")
        head = client.head(config.repository(f"docker.io/library/{path}"), tag)
        found[name] = None if head is None else head.digest
    return found


def in_child(work: Callable[[], None]) -> int:
    """Run in a process of its own and return how it ended."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def counted(site: Site, bundle: Path, kill_at: int, report: Path | None = None) -> Callable[[], None]:
    """An import that kills itself at its nth call, or tells how many there were."""

    def work() -> None:
        lock = threading.Lock()
        count = 0

        def watch(_: FrameType, event: str, function: Any) -> None:
            nonlocal count
            if event == "c_call" and getattr(function, "__name__", "") in CALLS:
                with lock:
                    count += 1
                    if count == kill_at:
                        os.kill(os.getpid(), signal.SIGKILL)

        threading.setprofile(watch)
        sys.setprofile(watch)
        take(site, bundle)
        sys.setprofile(None)
        if report is not None:
            report.write_text(str(count))

    return work


def main() -> None:
    work, bundle, earlier, count = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    url = sys.argv[5] if len(sys.argv) > 5 else ""
    registry = url.removeprefix("http://")

    def new_site(name: str) -> Site:
        config = RegistryConfig(url=f"{url}/{name}") if url else None
        site = make_site(work / name, registry=config)
        assert in_child(lambda: take(site, earlier) and None) == 0
        return load_site(site.root)

    whole = new_site("whole")
    before = snapshot(whole, registry)
    assert in_child(counted(whole, bundle, 0, work / "count")) == 0
    after = snapshot(whole, registry)
    total = int((work / "count").read_text())
    chance = random.Random(7)
    runs = []
    for number in range(count):
        at = 1 + number * total // count + chance.randrange(max(1, total // count))
        site = new_site(f"site{number}")
        code = in_child(counted(site, bundle, at))
        seen = snapshot(site, registry)
        again = in_child(lambda site=site: take(site, bundle) and None)  # type: ignore[misc]
        runs.append({"at": at, "code": code, "seen": seen, "again": again, "after": snapshot(site, registry)})
        shutil.rmtree(site.root)
    print(json.dumps({"total": total, "before": before, "after": after, "runs": runs}))


if __name__ == "__main__":
    main()

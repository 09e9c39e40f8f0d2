"""Imports and activations that are killed at a chosen system call, and what a site is like then.

usage: killed_imports.py WORK KILLS SEED [deactivation]

WORK has `bundles/*` in their order, of which the first is imported already, and two sites with the same content: `whole`
is never disturbed, and `killed` has to be like it after one re-run of each command that was killed. Prints one JSON
object: how many imports and activations were killed, and every difference. With `deactivation` nothing is imported: the
channel is deactivated, and its drop activated again. It runs by itself so that it can fork
without the threads of whoever wants to know.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from airlift.progress import Silent
from airlift.site import drops
from airlift.site.config import Site, load_site
from airlift.transport.http import HttpClient, HttpStatusError
from airlift.transport.registry import RegistryClient
from airlift.transport.settings import HttpSettings
from tests.support.site_bundles import take

CALLS = frozenset({"execute", "executemany", "fsync", "replace", "rename", "mkdir", "open", "fchmod", "write", "send"})
IMAGES = ("app:1", "app:2", "app:3", "app:4")
TORN = "torn"
"""A tag that a docker-registry was writing when its client was killed: it answers 500 until the re-run puts it again."""
_INTERNAL = 500

Snapshot = dict[str, Any]


def snapshot(site: Site) -> Snapshot:
    """What is seen of a site, and what lies in it."""
    with contextlib.closing(sqlite3.connect(site.journal_path)) as db:
        seen: Snapshot = {
            "names": db.execute(
                "SELECT service, key, part, digest FROM names JOIN channels ON active = names.release ORDER BY 1, 2, 3"
            ).fetchall(),
            "held": db.execute("SELECT service, scope, digest, release FROM held ORDER BY 1, 2, 3, 4").fetchall(),
            "channels": db.execute("SELECT * FROM channels").fetchall(),
            "releases": db.execute("SELECT * FROM releases ORDER BY sequence").fetchall(),
        }
    seen["blobs"] = sorted(path.name for path in (site.root / "store" / "blobs" / "sha256").iterdir())
    seen["ingest"] = len(list((site.root / "store" / "ingest").iterdir()))
    seen["reports"] = sorted(str(path.relative_to(site.root)) for path in site.drops_dir.rglob("*.json"))
    seen["tags"] = tags(site)
    return seen


def tags(site: Site) -> dict[str, str | None]:
    config = site.config.registry
    if config is None:
        return {}
    client = RegistryClient(config.host, http=HttpClient(HttpSettings(retries=0), Silent()), plain_http=True)
    found = {}
    for name in IMAGES:
        path, tag = name.split(":")
        try:
            head = client.head(config.repository(f"docker.io/library/{path}"), tag)
        except HttpStatusError as error:
            if error.status != _INTERNAL:
                raise
            found[name] = TORN
        else:
            found[name] = None if head is None else head.digest
    return found


def half_done(before: Snapshot, seen: Snapshot, after: Snapshot) -> str | None:
    """What a client could have seen half of, after a kill."""
    for part in ("names", "held"):
        if seen[part] not in (before[part], after[part]):
            return f"{part} are neither those of before nor those of after"
    if seen["names"] == after["names"] != before["names"] and seen["held"] != after["held"]:
        return "names are there before what they name"
    if not seen["tags"]:
        lost = {row[2].removeprefix("sha256:") for row in seen["held"]} - set(seen["blobs"])
        if lost:
            return f"blobs are named and are not there: {sorted(lost)}"
    wrong = {
        name: digest
        for name, digest in seen["tags"].items()
        if digest not in (before["tags"][name], after["tags"][name], TORN)
    }
    return f"tags are of no drop: {wrong}" if wrong else None


def in_child(work: Callable[[], object]) -> int:
    """Run in a process of its own and return how it ended."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def counted(work: Callable[[], object], kill_at: int, report: Path) -> Callable[[], None]:
    """Work that kills itself at its nth call, or tells how many there were."""

    def watched() -> None:
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
        work()
        sys.setprofile(None)
        report.write_text(str(count))

    return watched


class Trial:
    """The two sites, and what was found wrong so far."""

    def __init__(self, work: Path, kills: int, chance: random.Random) -> None:
        self.kills = Counter[str]()
        self.problems: list[str] = []
        self._wanted = kills
        self._work = work
        self._chance = chance
        self.whole, self.killed = load_site(work / "whole"), load_site(work / "killed")

    def run(self) -> None:
        for bundle in sorted((self._work / "bundles").iterdir())[1:]:
            earlier = drops.list_drops(self.killed)[-1].release
            self._disturb(f"import of {bundle.name}", lambda site, bundle=bundle: take(site, bundle))  # type: ignore[misc]
            newest = drops.list_drops(self.killed)[-1].release
            self._disturb("activation", lambda site, release=earlier: drops.activate(site, release))  # type: ignore[misc]
            self._disturb("activation", lambda site, release=newest: drops.activate(site, release))  # type: ignore[misc]
            if self.kills.total() >= self._wanted or self.problems:
                return

    def run_deactivations(self) -> None:
        (release,) = [drop.release for drop in drops.list_drops(self.killed) if drop.active]
        while self.kills.total() < self._wanted and not self.problems:
            self._disturb("deactivation", lambda site: drops.deactivate(site, "stable"))
            self._disturb("activation", lambda site: drops.activate(site, release))

    def _disturb(self, what: str, work: Callable[[Site], object]) -> None:
        report = self._work / "count"
        before = snapshot(self.killed)
        assert in_child(counted(lambda: work(self.whole), 0, report)) == 0, what
        at = self._chance.randint(1, int(report.read_text()))
        after = snapshot(self.whole)
        end = in_child(counted(lambda: work(self.killed), at, report))
        # Threads make the number of calls vary a little; what came to its end before is no kill.
        self.kills[what.partition(" ")[0]] += end == -signal.SIGKILL
        wrong = half_done(before, snapshot(self.killed), after)
        if wrong:
            self.problems.append(f"{what}, killed at call {at}: {wrong}")
        if (again := in_child(lambda: work(self.killed))) != 0:
            self.problems.append(f"{what}, killed at call {at}: the re-run ended with {again}")
        found = snapshot(self.killed)
        self.problems += [
            f"{what}, killed at call {at}: {part} differ from an undisturbed run"
            for part in after
            if found[part] != after[part]
        ]


def main() -> None:
    work, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    trial = Trial(work, kills, random.Random(seed))
    if sys.argv[4:] == ["deactivation"]:
        trial.run_deactivations()
    else:
        trial.run()
    print(json.dumps({"kills": trial.kills, "problems": trial.problems}))


if __name__ == "__main__":
    main()

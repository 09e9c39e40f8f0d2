"""A source that says nothing: a signal ends resolve and build, and nothing half is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Desk, desk, environment, ok
from tests.support.images import Box
from tests.support.registry import Fault, Front, FrontHandler, running_front, running_registry

WAIT_S = 25
"""Less than what one request waits for a silent server."""


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with running_registry(tmp_path / "registry") as registry, running_front(registry) as made:
        box = Box(tmp_path / "box")
        box.image("1.0", layers=[os.urandom(9_000_000) for _ in range(3)], compress=False)
        box.push(registry, "team/app", "1.0")
        yield made


@pytest.fixture
def office(tmp_path: Path) -> Desk:
    (tmp_path / "office").mkdir()
    return desk(tmp_path / "office")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("verb", ["resolve", "build", "build --no-cache"])
def test_a_signal_ends_what_waits_for_a_silent_source(
    tmp_path: Path, front: Front, office: Desk, verb: str, number: signal.Signals
) -> None:
    held, gone = threading.Semaphore(0), threading.Event()

    def hold(handler: FrontHandler) -> None:
        """Send the beginning of a large blob, or nothing at all."""
        if "/blobs/" in handler.path:
            status, headers, data = handler.ask_behind()
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(data[:100_000])
            handler.wfile.flush()
        held.release()
        gone.wait(120)
        handler.close_connection = True

    folder = tmp_path / "drop"
    folder.mkdir()
    image = f"{front.host}/team/app:1.0"
    (folder / "drop.yaml").write_text(
        json.dumps({"apiVersion": "airlift/v1", "kind": "Drop", "metadata": {"name": "x"}, "images": [image]})
    )
    command = ["resolve", "drop.yaml", "-o", "x.lock.json"]
    if verb.startswith("build"):
        ok(*command, home=office.home, cwd=folder)
        (office.home / "cache").rename(office.home / "cache.of.resolve")
        command = ["build", "x.lock.json", "-o", "x.airlift", "--sequence", "1", *verb.split()[1:]]
        command += [*office.signers, *office.recipients]
    before = sorted(path.name for path in folder.iterdir())
    front.faults.append(Fault(hold, match="/manifests/" if verb == "resolve" else "/blobs/", method="GET"))
    process = subprocess.Popen(
        [sys.executable, "-m", "airlift", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment(office.home),
    )
    try:
        assert held.acquire(timeout=60)
        process.send_signal(number)
        out, said = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
        process.wait()
        gone.set()
    assert (process.returncode, out) == (130, ""), said
    assert said.splitlines()[-1] == "airlift: interrupted; run the same command again to go on"
    assert "Traceback" not in said
    assert sorted(path.name for path in folder.iterdir()) == before
    front.faults.clear()
    ok(*command, home=office.home, cwd=folder)

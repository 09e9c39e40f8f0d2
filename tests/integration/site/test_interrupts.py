"""A registry that says nothing: a signal breaks the wait off, and without one it ends by itself, with the reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airlift.errors import DeliveryError
from airlift.progress import Silent
from airlift.site import drops
from airlift.site.config import Site
from airlift.site.importer import import_bundle
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.settings import HttpSettings
from tests.support.bundles import NOW
from tests.support.cli import environment
from tests.support.registry import Fault, Front, FrontHandler, running_front, running_registry
from tests.support.site_bundles import Cargo, make_site, ship, take

SIZE = 20_000_000
"""Of a layer: more than the kernel takes for a server that does not read."""
WAIT_S = 25
"""Less than what one request waits for a silent server."""


class Hold:
    """Reads some of what is sent, and answers nothing until it is let go."""

    def __init__(self, **when: str) -> None:
        self.held = threading.Semaphore(0)
        self.gone = threading.Event()
        self.count = 0
        self.fault = Fault(self._act, match=when.get("match", ""), method=when.get("method", ""))

    def _act(self, handler: FrontHandler) -> None:
        handler.rfile.read(min(100_000, int(handler.headers.get("Content-Length") or 0)))
        self.count += 1
        self.held.release()
        self.gone.wait(120)
        handler.close_connection = True


PLACES = {
    "at the first question": {"match": "/v2/"},
    "in the middle of a blob": {"match": "/blobs/uploads/", "method": "PUT"},
    "at a manifest": {"match": "/manifests/", "method": "PUT"},
    "at a tag": {"match": "/manifests/1", "method": "PUT"},
}


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with running_registry(tmp_path / "registry") as registry, running_front(registry) as made:
        yield made


@pytest.fixture
def hold(front: Front) -> Iterator[Callable[[str], Hold]]:
    made: list[Hold] = []

    def begin(place: str) -> Hold:
        made.append(Hold(**PLACES[place]))
        front.faults.append(made[-1].fault)
        return made[-1]

    yield begin
    for one in made:
        one.gone.set()


def drop_of(tmp_path: Path) -> Path:
    cargo = Cargo()
    for number in range(3):
        cargo.image(f"docker.io/acme/app{number}:1", os.urandom(SIZE))
    cargo.file("tool", b"tool")
    return ship(cargo, tmp_path / "drop.airlift")


def site_of(tmp_path: Path, front: Front) -> Site:
    return make_site(tmp_path / "site", registry=RegistryConfig(url=front.url))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_ends_an_import_whose_request_nobody_answers(
    tmp_path: Path, front: Front, hold: Callable[[str], Hold], place: str, number: signal.Signals
) -> None:
    site, drop = site_of(tmp_path, front), drop_of(tmp_path)
    silent = hold(place)
    command = [sys.executable, "-m", "airlift", "import", drop, "--site", site.root]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(tmp_path)
    )
    try:
        assert silent.held.acquire(timeout=60)
        process.send_signal(number)
        out, said = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (130, ""), said
    assert said.splitlines()[-1] == "airlift: interrupted; run the same command again to go on"
    assert "Traceback" not in said
    assert not any(found.active for found in drops.list_drops(site))
    assert list((site.root / "store" / "ingest").iterdir()) == []
    front.faults.clear()
    silent.gone.set()
    assert take(site, drop).drop.active


@pytest.mark.parametrize(("ignored", "number"), [("INT", signal.SIGINT), ("TERM", signal.SIGTERM)])
def test_a_signal_that_whoever_started_the_command_ignores_stays_ignored(
    tmp_path: Path, front: Front, hold: Callable[[str], Hold], ignored: str, number: signal.Signals
) -> None:
    """As a shell ignores Ctrl-C for a job in the background."""
    site, drop = site_of(tmp_path, front), drop_of(tmp_path)
    silent = hold("at a tag")
    command = [sys.executable, "-m", "airlift", "import", drop, "--site", site.root]
    process = subprocess.Popen(["sh", "-c", f'trap "" {ignored}; exec "$@"', "sh", *command], env=environment(tmp_path))
    try:
        assert silent.held.acquire(timeout=60)
        process.send_signal(number)
        front.faults.clear()
        silent.gone.set()
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
    assert [found.active for found in drops.list_drops(site)] == [True]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("at the first question", r"GET http://127\.0\.0\.1:\d+/v2/: no answer within 0\.5 s"),
        ("in the middle of a blob", r"PUT http://\S+/blobs/uploads/\S+: nothing of what is sent was taken for 0\.5 s"),
        ("at a manifest", r"PUT http://\S+/manifests/sha256:\w+: no answer within 0\.5 s"),
        (
            "at a tag",
            r"PUT http://\S+/manifests/1: no answer within 0\.5 s; \d of the drop's 3 tags have moved already",
        ),
    ],
)
def test_a_registry_that_says_nothing_is_asked_twice_and_ends_the_import_with_the_reason(
    tmp_path: Path, front: Front, hold: Callable[[str], Hold], place: str, reason: str
) -> None:
    site, drop = site_of(tmp_path, front), drop_of(tmp_path)
    silent = hold(place)
    with pytest.raises(DeliveryError, match=reason) as caught:
        import_bundle(
            site,
            drop,
            now=NOW,
            passphrase=b"",
            progress=Silent(),
            http=HttpSettings(timeout_s=0.5),
        )
    assert caught.value.hint == (
        "the server takes connections and then neither answers nor reads; see to it, and run this command again"
    )
    # Twice in each of the lanes at most, where the settings allow five more attempts.
    assert 2 <= silent.count <= 8
    front.faults.clear()
    silent.gone.set()
    assert take(site, drop).drop.active


def test_one_silence_is_no_reason_to_end(tmp_path: Path, front: Front) -> None:
    held = threading.Event()

    def pause(handler: FrontHandler) -> None:
        held.wait(1)
        handler.close_connection = True

    front.faults += [
        Fault(pause, match="/blobs/uploads/", method="PUT", times=1),
        Fault(pause, match="/manifests/", method="HEAD", times=1),
    ]
    imported = import_bundle(
        site_of(tmp_path, front),
        drop_of(tmp_path),
        now=NOW,
        passphrase=b"",
        progress=Silent(),
        http=HttpSettings(timeout_s=0.5),
    )
    held.set()
    assert imported.drop.active


SCRIPT = """
import sys, time
from airlift.cli import interrupt
interrupt.watch()
try:
    print("ready", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    while True:
        try:
            # Here, since the second signal may come as soon as this is read.
            print("cleaning up", flush=True)
            time.sleep(600)
        except KeyboardInterrupt:
            pass
"""


@pytest.mark.parametrize("signals", [1, 2])
def test_what_does_not_end_in_time_is_ended(tmp_path: Path, signals: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "cleaning up\n"
        if signals == 2:
            process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, said) == (130, "airlift: interrupted; run the same command again to go on\n")


def test_a_program_that_a_thread_waits_for_ends_with_the_command(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, threading, time\n"
        "from airlift.cli import interrupt\n"
        "interrupt.watch()\n"
        "threading.Thread(target=lambda: subprocess.run(['sleep', '600'])).start()\n"
        "try:\n"
        "    time.sleep(600)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(130)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, env=environment(tmp_path))
    try:
        child = _child_of(process.pid)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    for _ in range(200):
        if not Path(f"/proc/{child}/cmdline").exists() or not Path(f"/proc/{child}/cmdline").read_bytes():
            return
        time.sleep(0.05)
    raise AssertionError("the program still runs")


def _child_of(parent: int) -> int:
    for _ in range(400):
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            for child in path.read_text().split():
                if b"sleep" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        time.sleep(0.05)
    raise AssertionError("no program was started")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_result_leaves_the_exit_code_alone(tmp_path: Path, number: signal.Signals) -> None:
    site = make_site(tmp_path / "site")
    last = (
        "import atexit, os, sys\n"
        f"atexit.register(lambda: os.kill(os.getpid(), {int(number)}))\n"
        "from airlift.cli.main import main\n"
        f"sys.argv = ['airlift', 'status', '--site', {str(site.root)!r}]\n"
        "main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", last], capture_output=True, text=True, env=environment(tmp_path), check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "interrupt" not in ended.stderr.lower()

"""Blobs on their way from a bundle into a registry: side by side, checked, begun anew where that helps."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airlift.cli.exit import code_of
from airlift.errors import DeliveryError, IntegrityError, PartialDeliveryError
from airlift.progress import Silent
from airlift.site import drops, repair
from airlift.site.config import Site
from airlift.site.importer import import_bundle
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.settings import HttpSettings
from tests.components import require_root
from tests.support.bundles import NOW, archive, craft
from tests.support.cli import airlift, environment
from tests.support.registry import Fault, Front, FrontHandler, Registry, refuse, running_front, running_registry
from tests.support.site_bundles import Cargo, make_site, ship, take

SIZE = 6_000_000
"""Of a layer: more than what waits in the store for the end."""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with running_registry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def front(registry: Registry) -> Iterator[Front]:
    with running_front(registry) as running:
        yield running


def site_of(tmp_path: Path, front: Front) -> Site:
    return make_site(tmp_path / "site", registry=RegistryConfig(url=front.url))


def bundle(tmp_path: Path, layers: int = 4) -> Path:
    cargo = Cargo()
    for number in range(layers):
        cargo.image(f"docker.io/acme/app{number}:1", os.urandom(SIZE))
    return ship(cargo, tmp_path / "drop.airlift")


def uploads(front: Front) -> list[str]:
    return [path for path in front.paths("/blobs/uploads/") if path.startswith("PUT")]


def after_two_layers(act: Callable[[FrontHandler], object]) -> Fault:
    """Take two layers, and do `act` with the others when these have landed."""
    coming = itertools.count()
    ended: list[int] = []
    landed = threading.Event()

    def judge(handler: FrontHandler) -> None:
        if (number := next(coming)) < 2:
            handler.pass_on()
            ended.append(number)
            if len(ended) == 2:
                landed.set()
            return
        assert landed.wait(60)
        act(handler)

    return Fault(judge, match="/blobs/uploads/", method="PUT")


def test_the_next_blob_is_on_its_way_while_the_registry_settles_the_one_before(tmp_path: Path, front: Front) -> None:
    both = threading.Barrier(2)

    def meet(handler: FrontHandler) -> None:
        answer = handler.ask_behind()
        # Broken for ever when nobody else comes, and then the import fails.
        both.wait(60)
        handler.answer(answer[0], answer[2], answer[1])

    front.faults.append(Fault(meet, match="/blobs/uploads/", method="PUT", times=2))
    assert take(site_of(tmp_path, front), bundle(tmp_path)).drop.active
    assert not both.broken


def test_a_blob_that_was_delivered_is_not_asked_for_again(tmp_path: Path, front: Front) -> None:
    take(site_of(tmp_path, front), bundle(tmp_path))
    large = {path.partition("digest=")[2].replace("%3A", ":") for path in uploads(front)}
    heads = [path.rpartition("/")[2] for path in front.paths("/blobs/sha256:") if path.startswith("HEAD")]
    assert len([digest for digest in heads if digest in large]) == len(large) == len(uploads(front))


def test_a_login_that_ends_while_a_blob_is_sent_is_renewed_and_the_blob_begun_anew(
    tmp_path: Path, front: Front
) -> None:
    front.tokens = {}
    seen: list[str | None] = []

    def expire(handler: FrontHandler) -> None:
        seen.append(handler.headers.get("Authorization"))
        with front.lock:
            front.tokens = {}
        handler.challenge()

    front.faults.append(Fault(expire, match="/blobs/uploads/", method="PUT", times=2))
    assert take(site_of(tmp_path, front), bundle(tmp_path)).drop.active
    assert len(seen) == 2
    assert all(value and value.startswith("Bearer ") for value in seen)


def test_an_account_that_is_revoked_half_way_is_said_and_the_same_command_goes_on_when_it_is_back(
    tmp_path: Path, front: Front, registry: Registry
) -> None:
    front.tokens = {}
    (tmp_path / "password").write_text("s3cret\n")
    config = RegistryConfig(url=front.url, username="importer", password_file=str(tmp_path / "password"))
    site, drop = make_site(tmp_path / "site", registry=config), bundle(tmp_path)

    def revoke(handler: FrontHandler) -> None:
        """From now on no token counts, and none is given."""
        with front.lock:
            front.tokens = {}
            front.token_status = 401
        handler.challenge()

    front.faults.append(after_two_layers(revoke))
    ran = airlift("import", drop, "--site", site.root, home=tmp_path)
    assert ran.code == 17
    error, hint = ran.err.splitlines()[-2:]
    assert error.startswith(f"airlift: error: {front.host}: login: GET {front.url}/token")
    assert error.endswith("answered 401 Unauthorized: incorrect username or password (the login is refused)")
    assert hint == (
        "airlift: hint: mend username and password_file of registry in site.yaml, or the account; then run it again"
    )
    assert "s3cret" not in ran.err
    assert not any(item.active for item in drops.list_drops(site))
    assert not [line for line in registry.log if line.startswith("PUT") and "/manifests/" in line]
    front.faults.clear()
    front.token_status = 200
    before = len(uploads(front))
    assert take(site, drop).drop.active
    # Four layers and four configs; the layers that have landed do not come again.
    assert len(uploads(front)[before:]) == 4 + 4 - 2
    assert repair.check(site, progress=Silent(), http=HttpSettings(), is_deep=True) == []


def test_an_overburdened_registry_gets_one_blob_at_a_time_and_the_import_succeeds(
    tmp_path: Path, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airlift.transport.http._backoff", lambda _failures: 0.0)
    at_once, seen = 0, []

    def press(handler: FrontHandler) -> bool:
        """Refuse until each lane has failed as often as it tries beside others."""
        nonlocal at_once
        with front.lock:
            at_once += 1
            seen.append(at_once)
            is_over = len(seen) > 8 * 6
        try:
            if is_over:
                handler.pass_on()
            else:
                handler.body()
                handler.answer(503, b"slow down")
        finally:
            with front.lock:
                at_once -= 1
        return True

    front.faults.append(Fault(press, match="/blobs/uploads/", method="PUT"))
    assert take(site_of(tmp_path, front), bundle(tmp_path, layers=8)).drop.active
    assert max(seen) > 1
    # What was under way already comes to its end; the rest goes one by one.
    assert max(seen[-10:]) == 1


def test_a_refusal_in_the_midst_ends_the_import_under_no_name_and_the_same_command_goes_on(
    tmp_path: Path, front: Front, registry: Registry
) -> None:
    site, drop = site_of(tmp_path, front), bundle(tmp_path)
    full = b'{"errors":[{"code":"DENIED","message":"requested access is denied"}]}'
    front.faults.append(after_two_layers(refuse(403, full)))
    with pytest.raises(DeliveryError, match="answered 403 Forbidden: DENIED requested access is denied") as caught:
        take(site, drop)
    assert not isinstance(caught.value, PartialDeliveryError)
    assert not [line for line in registry.log if line.startswith("PUT") and "/manifests/" in line]
    front.faults.clear()
    before = len(uploads(front))
    assert take(site, drop).drop.active
    # Four layers and what is small; the layers that are there already do not come again.
    assert len(uploads(front)[before:]) == 4 + 4 - 2


def test_a_damaged_frame_of_a_blob_on_its_way_is_never_committed(
    tmp_path: Path, front: Front, registry: Registry
) -> None:
    drop = bundle(tmp_path)
    data = bytearray(drop.read_bytes())
    data[-10_000_000] ^= 1
    drop.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"frame \d+ of"):
        take(site_of(tmp_path, front), drop)
    stored = sum(path.stat().st_size for path in (registry.root / "data").rglob("blobs/sha256/*/*/data"))
    assert stored < 4 * SIZE
    assert not [line for line in registry.log if line.startswith("PUT") and "/manifests/" in line]


@pytest.mark.parametrize("careless", [False, True])
def test_a_blob_that_is_not_what_its_digest_says_is_refused_whoever_compares_it(
    tmp_path: Path, front: Front, registry: Registry, careless: bool
) -> None:
    """A registry that compares digests finds it; with one that does not it is found here, before its last bytes."""
    front.compares = refuse(201) if careless else None
    cargo = Cargo()
    cargo.image("docker.io/acme/app:1", os.urandom(SIZE))
    [named] = cargo.large
    cargo.large[named] = os.urandom(SIZE)
    # Only a careless signer ships this.
    drop = tmp_path / "drop.airlift"
    craft(drop, archive(list(cargo.members().items())))
    site = make_site(tmp_path / "site", registry=RegistryConfig(url=front.url), allow_plain=True)
    with pytest.raises(
        IntegrityError, match=rf"^blob in blobs/sha256/{named[7:]} of {drop}: expected {named}, got sha256:"
    ):
        take(site, drop)
    sent = [line for line in registry.log if line.startswith("PUT") and named[7:] in line]
    assert sent == [] if careless else sent[0].endswith(" 400")
    assert not list((registry.root / "data").rglob("blobs/sha256/*/*/data"))


def test_a_blob_that_the_registry_has_is_checked_all_the_same(tmp_path: Path, front: Front) -> None:
    drop = bundle(tmp_path)
    take(site_of(tmp_path, front), drop)
    data = bytearray(drop.read_bytes())
    data[-10_000_000] ^= 1
    drop.write_bytes(data)
    other = make_site(tmp_path / "other", registry=RegistryConfig(url=front.url))
    with pytest.raises(IntegrityError, match=r"frame \d+ of"):
        take(other, drop)


def test_a_registry_whose_disk_is_full_ends_the_import_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    require_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=14m", "tmpfs", disk], check=True)
    try:
        with running_registry(disk / "registry") as registry:
            site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url))
            drop = bundle(tmp_path)
            with pytest.raises(DeliveryError, match="answered 500") as caught:
                import_bundle(site, drop, now=NOW, passphrase=b"", progress=Silent(), http=HttpSettings(retries=0))
            assert code_of(caught.value) == 17
            assert not any(item.active for item in drops.list_drops(site))
            assert not [line for line in registry.log if line.startswith("PUT") and "/manifests/" in line]
            subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            assert take(site, drop).drop.active
            assert repair.check(site, progress=Silent(), http=HttpSettings(), is_deep=True) == []
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


class _Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize(("room", "layer"), [("1400k", 700_000), ("14m", SIZE)], ids=["from the store", "on the way"])
def test_a_full_disk_of_the_registry_is_told_and_nothing_waits_for_it(tmp_path: Path, room: str, layer: int) -> None:
    require_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", disk], check=True)
    try:
        (tmp_path / "registry").mkdir()
        (tmp_path / "registry/data").symlink_to(disk)
        with running_registry(tmp_path / "registry") as registry:
            site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url))
            cargo = Cargo()
            for number in range(5):
                cargo.image(f"docker.io/acme/app{number}:1", os.urandom(layer))
            drop = ship(cargo, tmp_path / "drop.airlift")
            notes = _Notes()
            with pytest.raises(DeliveryError, match=r"answered 500 .*no space left on device") as caught:
                take(site, drop, progress=notes)
            assert not caught.value.temporary
            assert caught.value.hint == (
                "the server's disk says: no space left on device; make room there, or make it writable, and run the "
                "same command again"
            )
            assert notes.said == []
            subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            assert take(site, drop).drop.active
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


def test_a_registry_that_goes_on_failing_is_asked_side_by_side_once_then_alone_and_ends_for_all(
    tmp_path: Path, front: Front
) -> None:
    front.faults.append(refuse(500, b"out of order", match="/blobs/uploads/", method="POST"))
    with pytest.raises(DeliveryError, match="answered 500") as caught:
        import_bundle(
            site_of(tmp_path, front),
            bundle(tmp_path, layers=6),
            now=NOW,
            passphrase=b"",
            progress=Silent(),
            http=HttpSettings(retries=1),
        )
    assert caught.value.hint == (
        "see the registry's log: its disk may be full, or its storage away; then run the same command again"
    )
    # Four lanes once, then one of them three times; each call is a request and its one repetition. Before all of them
    # it was asked once whether it compares digests.
    assert len([path for path in front.paths("/blobs/uploads/") if path.startswith("POST")]) <= (4 + 3) * 2 + 1


@pytest.mark.parametrize("layer", [SIZE, 1000], ids=["on the way", "from the store"])
def test_a_signal_ends_an_import_whose_lanes_wait_for_a_failing_registry(
    tmp_path: Path, front: Front, layer: int
) -> None:
    front.faults.append(refuse(503, b"starting", {"Retry-After": "100"}, match="/blobs/uploads/", method="POST"))
    site = site_of(tmp_path, front)
    cargo = Cargo()
    for number in range(6):
        cargo.image(f"docker.io/acme/app{number}:1", os.urandom(layer))
    drop = ship(cargo, tmp_path / "drop.airlift")
    command = [sys.executable, "-m", "airlift", "import", drop, "--site", site.root]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(tmp_path))
    try:
        while len([path for path in front.paths("/blobs/uploads/") if path.startswith("POST")]) < 4:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        # Half of what the lanes were told to wait.
        _, said = process.communicate(timeout=50)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "airlift: interrupted; run the same command again to go on"
    front.faults.clear()
    assert take(site, drop).drop.active

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airlift.bundle import assembly, frames, layout
from airlift.bundle.layout import Member, PayloadPlan
from airlift.bundle.reader import BundleReader
from airlift.bundle.writer import MAX_BUFFERS, BundleWriter, check_request
from airlift.digest import Digest
from airlift.errors import BundleError, FetchError, IntegrityError, StoreError, UsageError
from airlift.trust import suites
from tests.components import ROOT, require, require_root
from tests.support.bundles import (
    ANN,
    BOB,
    NOW,
    SITE,
    Recipe,
    accept,
    blob_name,
    members,
    plan,
    trust,
)

PLAIN_OK = trust(allow_plain=True)


def noise(name: str, size: int) -> bytes:
    return hashlib.shake_128(name.encode()).digest(size)


BLOBS = [noise("a", 100), b"", noise("b", 5 * 1024 * 1024), noise("c", 3000), noise("d", 9 * 1024 * 1024 + 17)]
CONTENT = members(BLOBS)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("encrypted", [True, False])
def test_what_is_written_is_read(tmp_path: Path, encrypted: bool) -> None:
    path = tmp_path / "drop.airlift"
    released = Recipe(blobs=BLOBS, encrypted=encrypted).write(path)
    found = accept(path, PLAIN_OK, SITE if encrypted else None)
    assert found["content"] == CONTENT
    assert found["release"] == released
    assert names(tmp_path) == ["drop.airlift"]
    assert path.stat().st_mode & 0o777 == 0o644


def _in_pieces(path: Path, seed: int, *, encrypted: bool) -> None:
    """Write with four threads, members in order, in pieces of any size."""
    recipe = Recipe(blobs=BLOBS, encrypted=encrypted)
    with BundleWriter(path, plan(CONTENT), encrypted=encrypted, workers=1 + seed % 3) as writer:

        def one(name: str) -> None:
            rng = random.Random(f"{seed} {name}")
            view = memoryview(CONTENT[name])
            with writer.member(name) as sink:
                while view:
                    size = rng.choice([1, 511, 4096, 10**6, 5 * 10**6])
                    sink.write(view[:size])
                    view = view[size:]
                    assert sink.written == len(CONTENT[name]) - len(view)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, CONTENT))
        recipe.finish(writer)
        assert set(writer.seal_counts) == {1}
        assert writer.sealed == writer.frames == len(writer.seal_counts)


def test_a_plain_bundle_is_the_same_file_however_it_was_written(tmp_path: Path) -> None:
    Recipe(blobs=BLOBS, encrypted=False).write(tmp_path / "one")
    first = (tmp_path / "one").read_bytes()
    for seed in range(4):
        path = tmp_path / f"seed{seed}"
        _in_pieces(path, seed, encrypted=False)
        assert path.read_bytes() == first


def test_two_encrypted_bundles_share_their_content_and_no_frame(tmp_path: Path) -> None:
    _in_pieces(tmp_path / "one", 1, encrypted=True)
    _in_pieces(tmp_path / "two", 2, encrypted=True)
    one, two = accept(tmp_path / "one"), accept(tmp_path / "two")
    assert one["content"] == two["content"] == CONTENT
    assert one["content_id"] == two["content_id"]
    assert one["release"].commitment != two["release"].commitment
    with BundleReader(tmp_path / "one") as reader:
        start = layout.Container.of(reader.release, digest_size=32).offset_of("payload")
        size = reader.release.payload_size
    first, second = ((tmp_path / name).read_bytes()[start : start + size] for name in ("one", "two"))
    assert sum(a == b for a, b in zip(first, second, strict=True)) < size / 200


def test_a_small_member_that_was_wrong_can_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with BundleWriter(path, plan(CONTENT), encrypted=True) as writer:
        for name, data in CONTENT.items():
            if 0 < len(data) < 4096:
                with pytest.raises(IntegrityError), writer.member(name) as sink:
                    sink.write(bytes(len(data)) if name.startswith("blobs") else data[1:])
                with pytest.raises(FetchError), writer.member(name) as sink:  # noqa: PT012
                    sink.write(data[:10])
                    raise FetchError("the line was cut")
            with writer.member(name) as sink:
                sink.write(data)
        Recipe().finish(writer)
    assert accept(path)["content"] == CONTENT


def _sized(size: int) -> tuple[dict[str, bytes], str]:
    content = members([noise("large", size)])
    return content, list(content)[-1]


def test_a_large_member_whose_head_only_waits_in_a_border_frame_can_be_tried_again(tmp_path: Path) -> None:
    content, last = _sized(6 * 1024 * 1024)
    path = tmp_path / "x"
    with BundleWriter(path, plan(content), encrypted=True) as writer:
        with pytest.raises(FetchError), writer.member(last) as sink:  # noqa: PT012
            sink.write(content[last][: 3 * 1024 * 1024])
            raise FetchError("the line was cut")
        for name, data in content.items():
            with writer.member(name) as sink:
                sink.write(data)
        Recipe().finish(writer)
    assert accept(path)["content"] == content


def test_a_wrong_digest_after_a_sealed_frame_ends_the_build(tmp_path: Path) -> None:
    content, last = _sized(13 * 1024 * 1024)
    lie = bytearray(content[last])
    lie[10 * 1024 * 1024] ^= 1
    counts = b""
    with (  # noqa: PT012
        pytest.raises(IntegrityError) as caught,
        BundleWriter(tmp_path / "x", plan(content), encrypted=True) as writer,
    ):
        for name, data in list(content.items())[:-1]:
            with writer.member(name) as sink:
                sink.write(data)
        try:
            # A server that cuts, and answers the resumed request with other bytes.
            with writer.member(last) as sink:
                sink.write(content[last][: 9 * 1024 * 1024])
                assert sink.written == 9 * 1024 * 1024
                sink.write(lie[9 * 1024 * 1024 :])
        finally:
            deadline = time.monotonic() + 60
            while writer.sealed < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            counts = writer.seal_counts
            with pytest.raises(IntegrityError):
                writer.member(last)
            with pytest.raises(IntegrityError):
                Recipe().finish(writer)
    assert caught.value.expected == f"sha256:{last.rsplit('/', maxsplit=1)[-1]}"
    assert sum(counts) >= 2
    assert max(counts) == 1
    assert names(tmp_path) == []


def test_a_transfer_that_gives_up_after_a_sealed_frame_ends_the_build_with_its_error(tmp_path: Path) -> None:
    content, last = _sized(13 * 1024 * 1024)
    with BundleWriter(tmp_path / "x", plan(content), encrypted=True) as writer:
        with writer.member("oci-layout") as sink:
            sink.write(content["oci-layout"])
        with writer.member("index.json") as sink:
            sink.write(content["index.json"])
        with pytest.raises(FetchError, match="the line was cut"), writer.member(last) as sink:  # noqa: PT012
            sink.write(content[last][: 9 * 1024 * 1024])
            raise FetchError("the line was cut")
        with pytest.raises(FetchError, match="the line was cut"):
            writer.member(last)
    assert names(tmp_path) == []


def test_no_index_is_sealed_twice(tmp_path: Path) -> None:
    sealer = frames.Sealer(frames.DataKey.draw(suites.get("default")).cipher("payload"), 2)
    out = memoryview(bytearray(64))
    sealer.seal_into(0, memoryview(b"x"), out)
    with pytest.raises(BundleError, match="frame 0 would be sealed a second time under one key"):
        sealer.seal_into(0, memoryview(b"x"), out)
    assert sealer.sealed == 1


def test_a_second_sealing_ends_the_build(tmp_path: Path) -> None:
    content, _ = _sized(9 * 1024 * 1024)
    with BundleWriter(tmp_path / "x", plan(content), encrypted=True) as writer:
        for name, data in content.items():
            with writer.member(name) as sink:
                sink.write(data)
        parts = writer._assembly
        with parts._state:
            parts._begin(0)
            parts._hand_on(0)
        with pytest.raises(BundleError, match="frame 0 would be sealed a second time"):
            Recipe().finish(writer)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"1234", "oci-layout: expected 30 bytes, got 4 bytes"), (b"x" * 31, "oci-layout: expected 30 bytes, got more")],
)
def test_a_member_of_another_size_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with BundleWriter(tmp_path / "x", plan(CONTENT), encrypted=True) as writer:
        with pytest.raises(IntegrityError) as caught, writer.member("oci-layout") as sink:
            sink.write(data)
        assert caught.value.message == message


def test_calls_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "x", plan(CONTENT), encrypted=True) as writer:
        with pytest.raises(UsageError, match="nothing is not in the plan of this bundle"):
            writer.member("nothing")
        with pytest.raises(UsageError, match="cannot have the digest"):
            writer.member(blob_name(BLOBS[0]), Digest("sha256:" + "0" * 64))
        sink = writer.member("oci-layout")
        with pytest.raises(UsageError, match="oci-layout is written already"):
            writer.member("oci-layout")
        sink.write(CONTENT["oci-layout"])
        sink.close()
        sink.close()
        with pytest.raises(UsageError, match="oci-layout is closed"):
            sink.write(b"")
        with pytest.raises(UsageError, match="oci-layout is written already"):
            writer.member("oci-layout")
        with pytest.raises(UsageError, match=r"6 members of the payload were not written, the first is index.json"):
            Recipe().finish(writer)
        writer.abort()
        writer.abort()
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signers": []}, "a bundle needs at least one signer"),
        ({"signers": [ANN, ANN]}, "one key was given as a signer twice"),
        ({"recipients": []}, "an encrypted bundle needs at least one recipient"),
        ({"recipients": [SITE.recipient] * 2}, f"recipient {SITE.key_id} was given twice"),
        ({"recipients": [SITE.recipient] * 101}, "101 recipients were given, at most 100 can be"),
        ({"encrypted": False}, "a plain bundle has no recipients"),
        ({"channel": "a/b"}, "channel 'a/b' is not 1 to 64 of a-z"),
        ({"sequence": 0}, "sequence 0 is not between 1 and 2^53-1"),
        ({"issued": NOW, "expires": NOW}, "the bundle would expire at 2026-11-25T12:00:00Z, before it is issued"),
    ],
)
def test_a_request_that_cannot_be_fulfilled_is_found_before_the_first_byte(
    change: dict[str, object], message: str
) -> None:
    fields: dict[str, object] = {
        "encrypted": True,
        "channel": "stable",
        "sequence": 1,
        "signers": [ANN, BOB],
        "recipients": [SITE.recipient],
    }
    check_request(**fields)  # type: ignore[arg-type]
    with pytest.raises(UsageError) as caught:
        check_request(**fields | change)  # type: ignore[arg-type]
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_first_member_makes_the_others_wait_and_not_stop(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small frames, so that sixteen of them are soon in memory."""
    monkeypatch.setattr(assembly, "MAX_BUFFERS", 5)
    rng = random.Random(seed)
    blobs = [noise(f"{seed} {index}", rng.choice([10, 4000, 3 * 2**20, 9 * 2**20])) for index in range(24)]
    content = members(blobs)
    most = 0
    with BundleWriter(tmp_path / "x", plan(content), encrypted=True) as writer:

        def one(item: tuple[int, tuple[str, bytes]]) -> None:
            nonlocal most
            index, (name, data) = item
            with writer.member(name) as sink:
                for start in range(0, len(data), 700_000):
                    if index % 7 == 2:
                        time.sleep(0.05)
                    sink.write(data[start : start + 700_000])
                    most = max(most, writer.frames_in_memory)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, enumerate(content.items())))
        Recipe().finish(writer)
    assert accept(tmp_path / "x")["content"] == content
    assert most <= 5


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["a member fails", "abort"])
def test_who_waits_for_memory_hears_of_the_end(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "MAX_BUFFERS", 4)
    content = members([noise("slow", 20 * 2**20), *(noise(f"w{index}", 2 * 2**20) for index in range(40))])
    slow = list(content)[2]
    heard: list[BaseException] = []
    ended = threading.Event()
    with BundleWriter(tmp_path / "x", plan(content), encrypted=True) as writer:

        def one(item: tuple[str, bytes]) -> None:
            name, data = item
            with writer.member(name) as sink:
                sink.write(data)

        def first() -> None:
            with writer.member(slow) as sink:
                sink.write(content[slow][: 9 * 2**20])
                ended.wait(1)
                raise FetchError("the line was cut")

        rest = [item for item in content.items() if item[0] != slow]
        for item in rest[:2]:
            one(item)
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(first), *(pool.submit(one, item) for item in rest[2:])]
            if how == "abort":
                time.sleep(0.5)
                writer.abort()
                ended.set()
            for future in futures:
                try:
                    future.result()
                except (FetchError, BundleError) as error:
                    heard.append(error)
    assert heard
    assert names(tmp_path) == []


def test_never_more_frames_in_memory_than_promised(tmp_path: Path) -> None:
    blobs = [noise(f"m{index}", 5 * 2**20) for index in range(30)]
    content = members(blobs)
    gate = threading.Event()
    most = 0
    with BundleWriter(tmp_path / "x", plan(content), encrypted=True) as writer:

        def one(item: tuple[str, bytes]) -> None:
            nonlocal most
            name, data = item
            with writer.member(name) as sink:
                if name == "oci-layout":
                    gate.wait(1)
                sink.write(data)
                most = max(most, writer.frames_in_memory)

        with ThreadPoolExecutor(24) as pool:
            list(pool.map(one, content.items()))
        Recipe().finish(writer)
    assert 1 < most <= MAX_BUFFERS


# The disk.

SCRIPT = textwrap.dedent("""
    import hashlib, json, os, resource, signal, sys
    from pathlib import Path
    from airlift.bundle.layout import Member, PayloadPlan
    from airlift.bundle.writer import BundleWriter
    from airlift.errors import AirliftError
    from tests.support.bundles import ANN, SITE, INDEX, OCI_LAYOUT, Recipe, accept

    mode, path, megabytes = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    chunk = bytes(range(256)) * 4096
    running = hashlib.sha256()
    for _ in range(megabytes):
        running.update(chunk)
    name = "blobs/sha256/" + running.hexdigest()
    plan = PayloadPlan([Member("oci-layout", len(OCI_LAYOUT)), Member("index.json", len(INDEX)),
                        Member(name, megabytes << 20)])
    if mode == "small files":
        resource.setrlimit(resource.RLIMIT_FSIZE, (10 << 20, 10 << 20))
    try:
        with BundleWriter(path, plan, encrypted=True) as writer:
            for small, data in (("oci-layout", OCI_LAYOUT), ("index.json", INDEX)):
                with writer.member(small) as sink:
                    sink.write(data)
            if mode == "disk fills up":
                with open(path.parent / "filler", "wb") as filler:
                    try:
                        while True:
                            filler.write(chunk)
                            filler.flush()
                    except OSError:
                        pass
            with writer.member(name) as sink:
                for number in range(megabytes):
                    if mode == "killed" and number == megabytes // 2:
                        os.kill(os.getpid(), signal.SIGKILL)
                    sink.write(chunk)
            Recipe().finish(writer)
    except AirliftError as error:
        print(json.dumps({"class": type(error).__name__, "message": error.message, "hint": error.hint}))
        sys.exit(9)
    # Not ru_maxrss: a child inherits the peak of the process that started it, across exec.
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0])
    print(json.dumps({"peak_kib": peak}))
""")


def run(mode: str, path: Path, megabytes: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, mode, path, str(megabytes)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_killed_build_leaves_a_part_file_and_the_next_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "drop.airlift"
    path.write_bytes(b"last month's")
    assert run("killed", path, 20).returncode == -signal.SIGKILL
    assert names(tmp_path) == [".drop.airlift.partial", "drop.airlift"]
    assert path.read_bytes() == b"last month's"
    Recipe().write(path)
    assert names(tmp_path) == ["drop.airlift"]
    assert accept(path)["signers"] == ("ann",)


def test_a_medium_that_takes_only_small_files_is_named_with_the_remedy(tmp_path: Path) -> None:
    result = run("small files", tmp_path / "x", 20)
    error = json.loads(result.stdout)
    assert result.returncode == 9, result.stderr
    assert error["class"] == "StoreError"
    assert error["message"] == f"writing {tmp_path / 'x'}: File too large"
    assert "--volume-size" in error["hint"]
    assert names(tmp_path) == []


def test_a_medium_of_four_gigabytes_a_file_is_found_before_the_first_byte(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from airlift.bundle.layout import Member, PayloadPlan
        from airlift.bundle.writer import BundleWriter
        from airlift.errors import StoreError
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**32 - 1, 2**32 - 1))
        plan = PayloadPlan([Member("oci-layout", 1), Member("index.json", 1), Member("blobs/sha256/" + "0" * 64, 2**32)])
        try:
            BundleWriter(Path(sys.argv[1]), plan, encrypted=True)
        except StoreError as error:
            print(error.message, "|", error.hint)
    """)
    shown = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "x"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert shown.startswith(f"writing {tmp_path / 'x'}: File too large | ")
    assert "--volume-size" in shown
    assert names(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> object:
    require_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        [require("mount"), "-t", "tmpfs", "-o", "size=100m", "none", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    yield disk
    subprocess.run([require("umount"), disk], check=True)


def test_a_disk_without_room_is_found_before_the_first_byte(small_disk: Path) -> None:
    error = json.loads(run("", small_disk / "x", 110).stdout)
    assert error["class"] == "StoreError"
    assert error["message"].startswith(f"writing {small_disk / 'x'}: 11")
    assert " bytes are needed, " in error["message"]
    assert error["hint"] == "free some space on that disk and run the same command again"
    assert names(small_disk) == []


def test_a_disk_that_fills_up_ends_the_build_and_nothing_stays(small_disk: Path) -> None:
    result = run("disk fills up", small_disk / "x", 20)
    error = json.loads(result.stdout)
    assert error["class"] == "StoreError", result.stderr
    assert error["message"] == f"writing {small_disk / 'x'}: No space left on device"
    assert names(small_disk) == ["filler"]


def test_a_read_only_disk_is_named(small_disk: Path) -> None:
    subprocess.run([require("mount"), "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreError) as caught:
        Recipe().write(small_disk / "x")
    assert caught.value.hint == "the disk is mounted read-only; mount it writable"


def test_a_name_that_leaves_no_room_for_the_part_is_named_as_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    with pytest.raises(StoreError, match=rf"^writing {path}: File name too long$"):
        Recipe().write(path)
    assert names(tmp_path) == []


def test_two_builds_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with BundleWriter(path, plan(CONTENT), encrypted=True):
        with pytest.raises(StoreError, match="another build is writing it"):
            BundleWriter(path, plan(CONTENT), encrypted=True)
        assert names(tmp_path) == [".x.partial"]
    assert names(tmp_path) == []


def test_a_build_that_ended_between_our_open_and_our_lock_is_not_destroyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    lock = fcntl.flock

    def late(handle: int, operation: int) -> None:
        (tmp_path / ".x.partial").rename(path)
        path.write_bytes(b"the other build's")
        lock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(StoreError, match="another build is writing it"):
        BundleWriter(path, plan(CONTENT), encrypted=True)
    assert path.read_bytes() == b"the other build's"


def test_a_directory_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="that is a directory"):
        Recipe().write(tmp_path)


def test_a_symbolic_link_as_part_file_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / ".x.partial").symlink_to(target)
    with pytest.raises(StoreError):
        Recipe().write(tmp_path / "x")
    assert target.read_text() == "mine"


@pytest.mark.slow
def test_a_blob_of_two_gigabytes_takes_less_than_200_megabytes_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "x"
    result = run("", path, 2048)
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads(result.stdout)["peak_kib"] < 200 * 1000
    reading = textwrap.dedent("""
        import sys
        from pathlib import Path
        from airlift.bundle.reader import BundleReader
        from airlift.trust.gate import Gate
        from tests.support.bundles import SITE, trust
        with BundleReader(Path(sys.argv[1])) as reader:
            verified = Gate(trust(), now=None).admit(reader.envelope, reader.roots)
            reader.verify(verified)
            print(sum(len(chunk) for member in reader.unlock(verified, SITE).payload() for chunk in member.chunks))
        print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    """)
    shown = subprocess.run(
        [sys.executable, "-c", reading, path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert int(shown[0]) > 2048 << 20
    assert int(shown[1]) < 200 * 1000


def test_a_plan_outside_of_the_format_is_refused() -> None:
    good = [Member("oci-layout", 1), Member("index.json", 1)]
    for bad, message in (
        ([], "a payload begins with oci-layout and index.json"),
        (list(reversed(good)), "a payload begins with"),
        ([*good, Member("blobs/sha256/../x", 1)], "is no name of a blob"),
        ([*good, Member(blob_name(b""), -1)], "has a negative size"),
        ([*good, Member(blob_name(b""), 0), Member(blob_name(b""), 0)], "is planned twice"),
        ([*good, Member(blob_name(b""), 2**43)], "more than a bundle can hold"),
    ):
        with pytest.raises(UsageError, match=message):
            PayloadPlan(bad)

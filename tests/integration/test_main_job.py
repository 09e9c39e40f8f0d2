"""The main job on what lies beside a manifest: same bytes everywhere, nothing half done."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tests.components import require
from tests.support.cli import ROOT, Desk, airlift, desk, environment, ok
from tests.support.folders import SharedFolder

SEQUENCE = ["--sequence", "7"]


def drop(folder: Path) -> Path:
    """Write a manifest with a local image, chart, model and file; return the manifest."""
    shutil.copytree(ROOT / "manifests" / "demo", folder, dirs_exist_ok=True)
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_image.py", ROOT / "README.md", folder / "image", "1.0"],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (folder / "model" / "config.json").write_text("{}\n")
    text = (folder / "drop.yaml").read_text()
    head, _, tail = text.partition("python:\n")
    (folder / "drop.yaml").write_text(head + tail[tail.index("charts:") :])
    return folder / "drop.yaml"


@pytest.fixture(scope="module")
def office(shared_folder: SharedFolder) -> Desk:
    made = desk(shared_folder("office"))
    manifest = drop(made.home / "drop")
    ok("resolve", manifest, "-o", made.home / "drop.lock.json", home=made.home)
    return made


def build(office: Desk, where: Path, *extra: str, **options: object) -> Path:
    where.mkdir(exist_ok=True)
    bundle = where / "x.airlift"
    lock = office.home / "drop.lock.json"
    ok("build", lock, "-o", bundle, *SEQUENCE, *office.signers, *extra, home=office.home, **options)
    return bundle


def opened(office: Desk, bundle: Path) -> bytes:
    target = bundle.with_suffix(".tar")
    ok("open", bundle, "--trust", office.trust, "--identity", office.identity, "-o", target, home=office.home)
    return target.read_bytes()


def payload(bundle: Path) -> bytes:
    with tarfile.open(bundle) as archive:
        member = archive.extractfile("payload")
        assert member is not None
        return member.read()


def test_a_second_resolve_writes_the_same_lock(office: Desk) -> None:
    first = (office.home / "drop.lock.json").read_bytes()
    other = office.home / "elsewhere.lock.json"
    ran = ok("resolve", office.home / "drop" / "drop.yaml", "-o", other, "--json", home=office.home)
    assert other.read_bytes() == first
    assert ran.json["content_id"].startswith("sha256:")
    again = ok("resolve", office.home / "drop" / "drop.yaml", "-o", other, "--json", home=office.home)
    assert again.json["changed"] is False
    assert str(office.home) not in first.decode()


def test_two_builds_of_one_lock_open_to_the_same_bytes_and_share_no_payload_byte_run(
    office: Desk, tmp_path: Path
) -> None:
    here = build(office, tmp_path / "a", *office.recipients, env={"TZ": "Asia/Tokyo", "LC_ALL": "C"})
    there = build(
        office,
        tmp_path / "b",
        *office.recipients,
        "--no-cache",
        env={"TZ": "America/Lima", "LC_ALL": "C.UTF-8"},
        prefix=["sh", "-c", 'umask 077; exec "$@"', "sh"],
        cwd=tmp_path,
    )
    assert opened(office, here) == opened(office, there)
    one, two = payload(here), payload(there)
    assert len(one) == len(two)
    same = sum(a == b for a, b in zip(one, two, strict=True))
    assert same < len(one) / 100, "random bytes are the same in one of 256 places"


def test_two_plain_builds_are_the_same_file(office: Desk, tmp_path: Path) -> None:
    here = build(office, tmp_path / "a", "--plain", env={"TZ": "Asia/Tokyo"})
    there = build(office, tmp_path / "b", "--plain", prefix=["sh", "-c", 'umask 077; exec "$@"', "sh"])
    assert hashlib.sha256(here.read_bytes()).digest() == hashlib.sha256(there.read_bytes()).digest()


def test_a_copy_of_lock_and_sources_builds_the_same_without_the_cache(office: Desk, tmp_path: Path) -> None:
    here = build(office, tmp_path / "a", "--plain")
    shutil.copytree(office.home / "drop", tmp_path / "moved")
    lock = tmp_path / "moved" / "drop.lock.json"
    shutil.copy(office.home / "drop.lock.json", lock)
    bundle = tmp_path / "moved.airlift"
    ok("build", lock, "-o", bundle, *SEQUENCE, *office.signers, "--plain", "--no-cache", home=office.home)
    assert bundle.read_bytes() == here.read_bytes()


def python_3_12() -> str:
    """Return a Python 3.12 that starts; version managers put names on the path that do not."""
    managed = Path.home().glob(".pyenv/versions/3.12*/bin/python3.12")
    for candidate in (shutil.which("python3.12"), *map(str, managed)):
        if (
            candidate
            and subprocess.run([candidate, "-c", "import venv"], capture_output=True, check=False).returncode == 0
        ):
            return candidate
    pytest.skip("there is no Python 3.12 beside the one that runs the tests")


@pytest.mark.slow
def test_another_python_builds_the_same_file(office: Desk, tmp_path: Path) -> None:
    python = python_3_12()
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True, capture_output=True)
    other = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [other, "-m", "pip", "install", "--quiet", f"{ROOT}[build]"], check=True, capture_output=True, timeout=600
    )
    here = build(office, tmp_path / "a", "--plain")
    there = build(office, tmp_path / "b", "--plain", python=other)
    assert here.read_bytes() == there.read_bytes()


def test_skopeo_reads_what_open_writes(office: Desk, tmp_path: Path) -> None:
    skopeo = require("skopeo")
    bundle = build(office, tmp_path / "a", *office.recipients)
    opened(office, bundle)
    name = "registry.example.com/demo/kubectl:1.0"
    archive = f"oci-archive:{bundle.with_suffix('.tar')}:{name}"
    subprocess.run([skopeo, "inspect", "--raw", archive], check=True, capture_output=True)
    subprocess.run([skopeo, "copy", archive, f"oci:{tmp_path / 'copy'}:x"], check=True, capture_output=True)
    ok(
        "open",
        bundle,
        "--trust",
        office.trust,
        "--identity",
        office.identity,
        "-o",
        tmp_path / "layout",
        home=office.home,
    )
    subprocess.run([skopeo, "inspect", f"oci:{tmp_path / 'layout'}:{name}"], check=True, capture_output=True)


def test_verify_and_inspect_speak_json(office: Desk, tmp_path: Path) -> None:
    bundle = build(office, tmp_path / "a", *office.recipients)
    good = ok("verify", bundle, "--trust", office.trust, "--json", home=office.home).json
    assert (good["verified"], good["signers"], good["sequence"], good["channel"], good["suite"]) == (
        True,
        ["alice", "bob"],
        7,
        "stable",
        "default",
    )
    assert good["size"] == bundle.stat().st_size
    assert good["frames"] >= 1
    claim = ok("inspect", bundle, "--identity", office.identity, "--json", home=office.home).json
    assert claim["verified"] is False
    assert claim["release"] == good["release"]
    assert claim["content_id"].startswith("sha256:")


def test_a_build_killed_half_way_leaves_no_bundle_and_the_next_run_cleans_up(office: Desk, tmp_path: Path) -> None:
    big = tmp_path / "drop"
    big.mkdir()
    with (big / "blob").open("wb") as stream:
        for _ in range(64):
            stream.write(os.urandom(4_000_000))
    (big / "drop.yaml").write_text(
        "apiVersion: airlift/v1\nkind: Drop\nmetadata: {name: big}\nfiles:\n  - {path: blob, name: blob}\n"
    )
    ok("resolve", big / "drop.yaml", "--no-cache", home=office.home)
    command = ["build", big / "drop.lock.json", "-o", tmp_path / "x.airlift", *SEQUENCE, *office.signers, "--no-cache"]
    arguments = [sys.executable, "-m", "airlift", *map(str, command), *office.recipients]
    partial = tmp_path / ".x.airlift.partial"
    process = subprocess.Popen(arguments, env=environment(office.home), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "x.airlift").exists()
    assert partial.exists()
    ok(*command, *office.recipients, home=office.home)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drop", "x.airlift"]
    ok("verify", tmp_path / "x.airlift", "--trust", office.trust, home=office.home)


def test_a_lock_edited_by_hand_is_noticed(office: Desk, tmp_path: Path) -> None:
    lock = tmp_path / "edited.lock.json"
    lock.write_bytes((office.home / "drop.lock.json").read_bytes().replace(b'"stable"', b'"edge"', 1))
    ran = airlift("build", lock, "-o", tmp_path / "x", *SEQUENCE, *office.signers, "--plain", home=office.home)
    assert ran.code == 11
    assert "the lock was changed after it was resolved" in ran.err
    assert not (tmp_path / "x").exists()


def test_check_tells_a_stale_lock(office: Desk, tmp_path: Path) -> None:
    manifest = drop(tmp_path / "drop")
    ok("resolve", manifest, home=office.home)
    ok("resolve", manifest, "--check", home=office.home)
    manifest.write_text(manifest.read_text().replace("name: motd.txt}", "name: welcome.txt}"))
    ran = airlift("resolve", manifest, "--check", home=office.home)
    assert ran.code == 11
    assert "files[welcome.txt]: not in the lock" in ran.err
    assert "motd.txt: in the lock, not in the manifest" in ran.err


def test_a_source_that_changed_after_the_lock_ends_the_build_with_12(office: Desk, tmp_path: Path) -> None:
    manifest = drop(tmp_path / "drop")
    ok("resolve", manifest, "--no-cache", home=office.home)
    (tmp_path / "drop" / "motd.txt").write_text("Welcome to the other side of the gaq.\n")
    lock = tmp_path / "drop" / "drop.lock.json"
    ran = airlift(
        "build", lock, "-o", tmp_path / "x", *SEQUENCE, *office.signers, "--plain", "--no-cache", home=office.home
    )
    assert ran.code == 12, ran.err
    assert "motd.txt" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["drop"]


def test_a_full_disk_ends_the_build_with_16_and_leaves_nothing(office: Desk, tmp_path: Path) -> None:
    mount = require("mount")
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        lock = office.home / "drop.lock.json"
        ran = airlift("build", lock, "-o", small / "x", *SEQUENCE, *office.signers, "--plain", home=office.home)
        assert ran.code == 16, ran.err
        assert "bytes are needed, 1048576 are free" in ran.err
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plain", "--recipient", "site.pub"], "a plain bundle has no recipients"),
        ([], "an encrypted bundle needs recipients"),
        (["--recipient", "alice.pub"], "signer"),
    ],
)
def test_contradicting_build_arguments_are_usage_errors(office: Desk, arguments: list[str], message: str) -> None:
    ran = airlift(
        "build", "drop.lock.json", "-o", "never.airlift", *SEQUENCE, *office.signers, *arguments, home=office.home
    )
    assert ran.code == 2, ran.err
    assert message in ran.err
    assert not (office.home / "never.airlift").exists()

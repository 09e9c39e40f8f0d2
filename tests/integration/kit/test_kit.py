"""The kit, made with real pip, checked with the tools of a bare machine and installed without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from airlift.connected import own_wheel
from airlift.connected.kit import Kit, make_kit
from airlift.errors import FetchError, IntegrityError, StoreError, UsageError
from airlift.progress import Silent
from airlift.trust import keys
from tests import components
from tests.support.folders import SharedFolder

SIGNER = keys.generate_signer()


def run(*command: str | Path, cwd: Path | None = None, **more: object) -> subprocess.CompletedProcess[str]:
    options = {"capture_output": True, "text": True, "timeout": 300, **more}
    return subprocess.run([str(item) for item in command], check=False, cwd=cwd, **options)  # type: ignore[call-overload,no-any-return]


def ok(*command: str | Path, cwd: Path | None = None, **more: object) -> str:
    done = run(*command, cwd=cwd, **more)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def kit(shared_folder: SharedFolder) -> Kit:
    target = shared_folder("kit") / "kit"
    return make_kit(target, SIGNER, environment=dict(os.environ), progress=Silent())


@pytest.fixture(scope="module")
def installed(kit: Kit, shared_folder: SharedFolder) -> Iterator[Path]:
    """A virtual environment made from the kit alone, in a network namespace that has not even a loopback."""
    components.require_root()
    unshare = components.require("unshare")
    home = shared_folder("bare") / "airlift"
    pip = next((kit.path / "wheels").glob("pip-*.whl"))
    ok(unshare, "-n", sys.executable, "-m", "venv", "--without-pip", home)
    command = [home / "bin/python", pip / "pip", "install", "--no-index", "--find-links", "wheels", "airlift", "pip"]
    ok(unshare, "-n", *command, cwd=kit.path, env=bare())
    yield home
    shutil.rmtree(home, ignore_errors=True)


def bare(**more: str) -> dict[str, str]:
    """The environment of a machine on which nobody configured anything."""
    return {"PATH": "/usr/bin:/bin", "PIP_CONFIG_FILE": os.devnull, "LC_ALL": "C.UTF-8", **more}


def test_openssl_and_sha256sum_of_a_bare_machine_check_it(kit: Kit) -> None:
    openssl = components.require("openssl")
    verify = ["dgst", "-sha256", "-verify", "signer.pub", "-signature", "SHA256SUMS.sig", "SHA256SUMS"]

    assert ok(openssl, *verify, cwd=kit.path) == "Verified OK\n"
    assert ok("sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS", cwd=kit.path) == ""
    der = subprocess.run(
        [str(openssl), "pkey", "-pubin", "-in", "signer.pub", "-outform", "DER"],
        cwd=kit.path,
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    assert ok("sha256sum", input=der, text=None).split()[0].decode() == kit.fingerprint  # type: ignore[union-attr]


def test_sums_are_sorted_and_list_every_other_file(kit: Kit) -> None:
    lines = (kit.path / "SHA256SUMS").read_text().splitlines()
    names = [line[66:] for line in lines]
    there = {path.relative_to(kit.path).as_posix() for path in kit.path.rglob("*") if path.is_file()}

    assert names == sorted(names)
    assert set(names) == there - {"SHA256SUMS", "SHA256SUMS.sig"}
    assert all(line[64:66] == "  " for line in lines)


def test_a_changed_file_and_changed_sums_are_both_found(kit: Kit, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(kit.path, copy)
    wheel = next((copy / "wheels").glob("airlift-*.whl"))
    wheel.write_bytes(wheel.read_bytes() + b"x")
    assert run("sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS", cwd=copy).returncode != 0

    (copy / "SHA256SUMS").write_text(ok("sha256sum", *sorted(str(p) for p in copy.rglob("*.whl"))))
    verify = ["dgst", "-sha256", "-verify", "signer.pub", "-signature", "SHA256SUMS.sig", "SHA256SUMS"]
    assert run(components.require("openssl"), *verify, cwd=copy).returncode != 0


def test_a_wheel_that_is_built_of_the_source_tree_has_what_our_own_has(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(components.ROOT / "airlift", tree / "airlift", symlinks=True, ignore=left_out)
    shutil.copytree(components.ROOT / "appliance", tree / "appliance")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(components.ROOT / name, tree)
    ok(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, tree, env=dict(os.environ))
    (built,) = tmp_path.glob("*.whl")
    (tmp_path / "own.zip").write_bytes(own_wheel.own_wheel()[1])
    with zipfile.ZipFile(built) as one, zipfile.ZipFile(tmp_path / "own.zip") as other:
        contents = [
            {name: item.read(name) for name in item.namelist() if name.startswith("airlift/")} for item in (one, other)
        ]
    assert "airlift/appliance/provision.sh" in contents[0]
    assert contents[0] == contents[1]


def test_modes_are_for_everybody_to_read_whatever_the_umask(kit: Kit) -> None:
    for path in [kit.path, *kit.path.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_the_note_has_the_commands_for_this_kit(kit: Kit) -> None:
    note = (kit.path / "INSTALL.txt").read_text()

    assert f"for Python {sys.version_info.major}.{sys.version_info.minor} on linux" in note
    assert next((kit.path / "wheels").glob("pip-*.whl")).name in note


@pytest.mark.slow
def test_a_bare_machine_without_a_network_runs_airlift_from_it(installed: Path) -> None:
    unshare = components.require("unshare")

    assert ok(unshare, "-n", installed / "bin/airlift", "--version", env=bare()).startswith("airlift ")
    code = "import airlift.site.deploy.k3s, airlift.site.catalog, airlift.bundle.reader, airlift.trust.keys, aiohttp"
    ok(unshare, "-n", installed / "bin/python", "-I", "-c", code, env=bare())
    assert "airlift" in ok(unshare, "-n", installed / "bin/python", "-I", "-m", "airlift", "--version", env=bare())


@pytest.mark.slow
def test_an_airlift_that_was_installed_from_a_kit_makes_the_same_kit(installed: Path, kit: Kit, tmp_path: Path) -> None:
    keys.write_key(tmp_path, "release", SIGNER, passphrase=b"secret")
    (tmp_path / "passphrase").write_text("secret\n")
    command = [installed / "bin/airlift", "kit", "make", "-o", tmp_path / "again", "--signer", tmp_path / "release.key"]
    command += ["--passphrase-file", tmp_path / "passphrase"]
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(kit.path / "wheels")}

    said = ok(*command, env=bare(**pip))

    assert said == f"{kit.fingerprint}\n"
    assert (tmp_path / "again/SHA256SUMS").read_bytes() == (kit.path / "SHA256SUMS").read_bytes()
    assert (tmp_path / "again/SHA256SUMS.sig").read_bytes() == (kit.path / "SHA256SUMS.sig").read_bytes()


@pytest.mark.slow
def test_an_installed_file_that_was_changed_does_not_get_into_a_kit(installed: Path) -> None:
    changed = next(installed.glob("lib/python3*/site-packages/airlift/limits.py"))
    before = changed.read_bytes()
    code = "from airlift.connected.own_wheel import own_wheel; own_wheel()"
    try:
        changed.write_bytes(before + b"\n")
        done = run(installed / "bin/python", "-I", "-c", code, env=bare())
    finally:
        changed.write_bytes(before)

    assert done.returncode != 0
    assert "IntegrityError: the installed file airlift/limits.py: expected sha256=" in done.stderr
    ok(installed / "bin/python", "-I", "-c", code, env=bare())


def test_an_existing_directory_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit/mine").write_text("x")

    with pytest.raises(UsageError) as caught:
        make_kit(tmp_path / "kit", SIGNER, environment=dict(os.environ), progress=Silent())

    assert str(caught.value) == f"{tmp_path / 'kit'} exists already and is not overwritten"
    assert [path.name for path in tmp_path.iterdir()] == ["kit"]


def test_when_pip_fails_its_reason_is_given_and_nothing_is_left(tmp_path: Path) -> None:
    nothing = bare(PIP_NO_INDEX="1", PATH=os.environ["PATH"])

    with pytest.raises(FetchError) as caught:
        make_kit(tmp_path / "kit", SIGNER, environment=nothing, progress=Silent())

    assert str(caught.value).startswith("pip did not get the wheels of the site side\n  ERROR: ")
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_that_pip_left_out_is_missed(tmp_path: Path) -> None:
    """A user's configuration may say anything, for example not to follow dependencies."""
    with pytest.raises(IntegrityError) as caught:
        make_kit(tmp_path / "kit", SIGNER, environment={**os.environ, "PIP_NO_DEPS": "1"}, progress=Silent())

    assert str(caught.value).startswith("aiohappyeyeballs in the kit: expected ")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_a_matter_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="writing the kit"):
        make_kit(tmp_path / "absent" / "kit", SIGNER, environment=dict(os.environ), progress=Silent())


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / f".kit.{os.getpid()}.0.part" / "wheels"
    left.mkdir(parents=True)
    (left / "old.whl").write_bytes(b"x")

    with pytest.raises(FetchError):
        make_kit(tmp_path / "kit", SIGNER, environment=bare(PIP_NO_INDEX="1"), progress=Silent())

    assert list(tmp_path.iterdir()) == []


def test_the_own_wheel_is_the_same_each_time_and_has_what_a_wheel_needs(tmp_path: Path) -> None:
    name, data = own_wheel.own_wheel()
    (tmp_path / name).write_bytes(data)

    assert own_wheel.own_wheel() == (name, data)
    with zipfile.ZipFile(tmp_path / name) as archive:
        names = archive.namelist()
        info = name.removesuffix("-py3-none-any.whl") + ".dist-info"
        assert {"airlift/__init__.py", "airlift/py.typed", f"{info}/METADATA", f"{info}/entry_points.txt"} <= set(names)
        assert names[-1] == f"{info}/RECORD"
        assert not [item for item in names if "__pycache__" in item]
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}


def test_a_file_that_vanished_from_the_installation_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = own_wheel._recorded

    def one_more(distribution: object) -> dict[str, str]:
        return {"airlift/gone.py": "sha256=x", **recorded(distribution)}  # type: ignore[arg-type]

    monkeypatch.setattr(own_wheel, "_recorded", one_more)
    monkeypatch.setattr(own_wheel, "_checked", lambda _name, data, _recorded: data)

    with pytest.raises(IntegrityError) as caught:
        own_wheel.own_wheel()

    assert str(caught.value) == "the installed airlift: expected airlift/gone.py, got no such file"

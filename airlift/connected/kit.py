"""The kit: what a machine without a network needs to become a site. Its files, their digests, and a signature.

``SHA256SUMS`` is what sha256sum writes, ``SHA256SUMS.sig`` an ECDSA P-256 signature in DER over its bytes: a bare
machine checks both with its own openssl and sha256sum. See docs/kit.md.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess  # noqa: TID251 - pip is driven here, as the user would
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, NormalizedName, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from airlift import fs, limits
from airlift.connected.kit_cargo import NOTHING, PROVISION, Cargo, write_cargo
from airlift.connected.own_wheel import NAME, own_distribution, own_wheel
from airlift.errors import FetchError, IntegrityError, UsageError
from airlift.progress import Progress
from airlift.trust import suites
from airlift.trust.keys import Signer

WHEELS: Final = "wheels"
SUMS: Final = "SHA256SUMS"
SIGNATURE: Final = "SHA256SUMS.sig"
PUBLIC_KEY: Final = "signer.pub"
NOTE: Final = "INSTALL.txt"
PINS: Final = "requirements.txt"
_TIMEOUT_S: Final = 1800
_NOTE: Final = """\
airlift {version}, for Python {python} on {system}

On the machine without a network, as root, in this directory:

1. Compare the signer's key with the fingerprint that came to you on paper:

     openssl pkey -pubin -in {key} -outform DER | sha256sum

2. Check the signature and then every file:

     openssl dgst -sha256 -verify {key} -signature {signature} {sums}
     sha256sum --check --strict --quiet {sums}

   The first prints "Verified OK", the second prints nothing. Stop if they do not.

3. Install, make the site, and serve it:

     sh {provision} --url http://mirror.example:8080 --fingerprint HEX

   HEX is the trust file's fingerprint on paper. --dry-run says what would change, --help what else there is.

To install without a site:

     python{python} -m venv --without-pip /opt/airlift
     /opt/airlift/bin/python {wheels}/{pip}/pip install --no-index --find-links {wheels} --require-hashes -r {pins}
     /opt/airlift/bin/airlift --version
"""


@dataclass(frozen=True, slots=True)
class Kit:
    """A finished kit.

    Attributes:
        path: its directory.
        files: name (relative), size and bare hex SHA-256 of everything that ``SHA256SUMS`` lists.
        fingerprint: SHA-256 of the signer's public key (DER), for paper.
    """

    path: Path
    files: tuple[tuple[str, int, str], ...]
    fingerprint: str


def make_kit(
    target: Path,
    signer: Signer,
    *,
    environment: Mapping[str, str],
    progress: Progress,
    cargo: Cargo = NOTHING,
) -> Kit:
    """Write a kit for the running Python and platform; the directory appears whole or not at all.

    Args:
        target: the directory; it must not exist or be empty.
        signer: a P-256 key.
        environment: the process environment, which pip reads its configuration from.
        progress: listener.
        cargo: what it carries beside what every kit has.

    Raises:
        UsageError: the directory is taken, the key is of another suite, or pip or airlift itself is not installed.
        FetchError: pip did not find or get a wheel.
        IntegrityError: the installed airlift was changed, or the store is damaged.
        StoreError: the disk refuses.
    """
    if signer.suite != suites.DEFAULT:
        raise UsageError(
            f"key {signer.key_id} is of suite {signer.suite}; a bare machine's openssl checks {suites.DEFAULT} (P-256)",
            hint="make one with: airlift keys generate NAME --kind signer",
        )
    if importlib.util.find_spec("pip") is None:
        raise UsageError("this Python has no pip, which gets the wheels", hint="install airlift[build]")
    name, wheel = own_wheel()
    target = target.absolute()
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise UsageError(f"{target} exists already and is not overwritten", hint="name a new directory with -o")
    with fs.whole_directory(target, "writing the kit") as part:
        wheels = part / WHEELS
        work = part / "work"
        fs.make_folder(wheels)
        work.mkdir(mode=0o700)
        (work / name).write_bytes(wheel)
        progress.note(f"getting the wheels for Python {_python()} on {_system()}")
        pins = {**_pins(), canonicalize_name("pip"): Version(metadata.version("pip"))}
        _download(work, wheels, work / name, pins, environment)
        _check_wheels(wheels, pins)
        if (wheels / name).read_bytes() != wheel:
            raise IntegrityError(name, expected="the wheel of the running airlift", actual="another")
        shutil.rmtree(work)
        write_cargo(part, cargo, progress)
        fs.write(part / NOTE, _note(wheels).encode())
        fs.write(part / PINS, _requirements(wheels).encode())
        fs.write(part / PUBLIC_KEY, signer.public_pem)
        files = _sums(part)
        sums = "".join(f"{digest}  {path}\n" for path, _, digest in files).encode()
        fs.write(part / SUMS, sums)
        fs.write(part / SIGNATURE, signer.sign(sums))
    return Kit(target, files, hashlib.sha256(signer.public.spki).hexdigest())


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _system() -> str:
    libc = " ".join(platform.libc_ver()).strip()
    return f"{platform.system().lower()} {platform.machine()}{f' ({libc} or newer)' if libc else ''}"


def _pins() -> dict[NormalizedName, Version]:
    """Return the versions of airlift's dependencies, and of theirs, that run here: the kit brings the same."""
    found: dict[NormalizedName, Version] = {}
    seen: set[str] = set()
    waiting = [Requirement(NAME)]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = f"{name}[{','.join(sorted(requirement.extras))}]"
        if key in seen:
            continue
        seen.add(key)
        try:
            distribution = own_distribution() if name == NAME else metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise UsageError(
                f"{requirement.name} is not installed here, though airlift needs it", hint="install airlift again"
            ) from None
        found[name] = Version(distribution.version)
        for text in distribution.requires or ():
            needed = Requirement(text)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return found


def _download(
    work: Path, wheels: Path, own: Path, pins: Mapping[NormalizedName, Version], environment: Mapping[str, str]
) -> None:
    constraints = work / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in sorted(pins.items()) if name != NAME))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--only-binary", ":all:", "--constraint", str(constraints), "--dest", str(wheels), str(own), "pip"]
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments; the configuration of pip is the user's
            command,
            env={**environment, "TMPDIR": str(work)},
            cwd=work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise FetchError(f"pip did not get the wheels within {_TIMEOUT_S} seconds", temporary=True) from None
    except OSError as error:
        raise fs.store_error("starting pip", error) from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        errors = [line for line in said if line.startswith("ERROR:")] or said[-3:]
        raise FetchError(
            "\n".join(["pip did not get the wheels of the site side", *(f"  {line}" for line in errors)]),
            hint="pip uses your own configuration (pip config list); it has to find the versions that run here",
        )


def _check_wheels(wheels: Path, pins: Mapping[NormalizedName, Version]) -> None:
    """Accept exactly the pinned versions, each in a wheel that installs here."""
    usable = set(sys_tags())
    found: dict[NormalizedName, Version] = {}
    for path in sorted(wheels.iterdir()):
        try:
            name, version, _, tags = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            raise IntegrityError(path.name, expected="a wheel", actual="another file") from None
        if not tags & usable:
            raise IntegrityError(path.name, expected="a wheel for this Python", actual="one for another")
        found[name] = version
        path.chmod(0o644)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    for name in sorted({*pins, *found}):
        if pins.get(name) != found.get(name):
            raise IntegrityError(
                f"{name} in the kit",
                expected=str(pins.get(name, "nothing")),
                actual=str(found.get(name, "nothing")),
                hint="the kit takes what runs here; look for what pip's configuration changes (pip config list)",
            )


def _note(wheels: Path) -> str:
    pip = next(path.name for path in sorted(wheels.iterdir()) if path.name.startswith("pip-"))
    return _NOTE.format(
        version=own_distribution().version,
        python=_python(),
        system=_system(),
        key=PUBLIC_KEY,
        signature=SIGNATURE,
        sums=SUMS,
        wheels=WHEELS,
        pip=pip,
        provision=PROVISION,
        pins=PINS,
    )


def _requirements(wheels: Path) -> str:
    """Return what pip is to install, each by its digest: a wheel that somebody put beside them is not taken."""
    lines = []
    for path in sorted(wheels.iterdir()):
        name, version, _, _ = parse_wheel_filename(path.name)
        if name != "pip":
            lines.append(f"{name}=={version} --hash=sha256:{_digest(path)}\n")
    return "".join(lines)


def _sums(part: Path) -> tuple[tuple[str, int, str], ...]:
    files = (path for path in part.rglob("*") if path.is_file())
    return tuple(sorted((path.relative_to(part).as_posix(), path.stat().st_size, _digest(path)) for path in files))


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with fs.guarded("reading"), path.open("rb") as stream:
        while chunk := stream.read(limits.CHUNK):
            digest.update(chunk)
    return digest.hexdigest()

"""What a kit carries beside wheels: how the machine is provisioned, whom it trusts, and K3s where it is asked for."""

from __future__ import annotations

import hashlib
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import airlift
from airlift import fs, limits
from airlift import lock as locks
from airlift.artifact import Kind
from airlift.digest import Digest
from airlift.errors import ResolveError, UsageError
from airlift.progress import Progress
from airlift.store import Store
from airlift.trust.roots import Trust, load_trust

PROVISION: Final = "provision.sh"
TRUST: Final = "trust.json"
FINGERPRINT: Final = "trust.fingerprint"
CA: Final = "ca"
K3S: Final = "k3s"
_APPLIANCE: Final = (PROVISION, "airlift-serve.service", "airlift-serve.socket")
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
# The names under which K3s's releases offer their files.
_K3S_NAMES: Final = re.compile(r"k3s(-[a-z0-9]+)?|(k3s-)?install\.sh|k3s-airgap-images-[a-z0-9]+\.tar(\.zst|\.gz)?")


@dataclass(frozen=True, slots=True)
class K3sFile:
    """A file of K3s that lies in a store."""

    name: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Cargo:
    """What was asked for.

    Attributes:
        trust: whom the site is to believe, or None.
        trust_document: the bytes of its file.
        ca: certificates that the machine is to trust: a name each, which its digest makes, and PEM.
        k3s: files of K3s.
        store: where they lie.
    """

    trust: Trust | None = None
    trust_document: bytes = b""
    ca: tuple[tuple[str, bytes], ...] = ()
    k3s: tuple[K3sFile, ...] = ()
    store: Store | None = None


NOTHING: Final = Cargo()


def load_cargo(trust: Path | None, ca: Path | None, lock: Path | None, store: Store) -> Cargo:
    """Return what these files ask for, after a look at each of them.

    Args:
        trust: a trust file.
        ca: a file of PEM certificates.
        lock: a lock with K3s among its files.
        store: the cache, which has the content.

    Raises:
        ManifestError: the trust file is wrong.
        UsageError: the file of certificates holds none.
        ResolveError: the lock is none, has no K3s, or the store lacks a file of it.
        StoreError: a file cannot be read.
    """
    return Cargo(
        None if trust is None else load_trust(trust),
        b"" if trust is None else fs.read_bounded(trust, limits.DOCUMENT),
        () if ca is None else _certificates(ca),
        () if lock is None else _k3s_of(lock, store),
        store,
    )


def write_cargo(folder: Path, cargo: Cargo, progress: Progress) -> None:
    """Write it into a kit that is being made.

    Raises:
        IntegrityError: a blob of the store is not what its name says.
        StoreError: the disk refuses.
    """
    for name in _APPLIANCE:
        data = fs.read_bounded(Path(airlift.__file__).parent / "appliance" / name, limits.DOCUMENT)
        fs.write(folder / name, data)
    if cargo.trust is not None:
        fs.write(folder / TRUST, cargo.trust_document)
        fs.write(folder / FINGERPRINT, f"{cargo.trust.fingerprint}\n".encode())
    if cargo.ca:
        with fs.guarded("creating"):
            fs.make_folder(folder / CA)
        for name, data in cargo.ca:
            fs.write(folder / CA / name, data)
    if cargo.k3s and cargo.store is not None:
        with fs.guarded("creating"):
            fs.make_folder(folder / K3S)
        for file in cargo.k3s:
            progress.note(f"copying {file.name}")
            with fs.atomic(folder / K3S / file.name) as stream:
                for chunk in cargo.store.chunks(file.digest, file.size):
                    stream.write(chunk)


def _certificates(path: Path) -> tuple[tuple[str, bytes], ...]:
    text = fs.read_bounded(path, limits.DOCUMENT).decode("utf-8", "replace")
    found = {}
    try:
        for block in _PEM.findall(text):
            der = ssl.PEM_cert_to_DER_cert(block)
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=der)
            name = f"airlift-{hashlib.sha256(der).hexdigest()[:12]}.crt"
            found[name] = ssl.DER_cert_to_PEM_cert(der).encode()
    except (ValueError, ssl.SSLError) as error:
        raise UsageError(f"{path}: a certificate is malformed: {error}") from None
    if not found:
        raise UsageError(f"{path}: expected certificates in PEM")
    return tuple(sorted(found.items()))


def _k3s_of(lock: Path, store: Store) -> tuple[K3sFile, ...]:
    found: dict[str, K3sFile] = {}
    for entry in locks.load(lock).entries:
        name = entry.name.rsplit("/", 1)[-1]
        if entry.kind is Kind.FILE and _K3S_NAMES.fullmatch(name):
            (blob,) = entry.artifacts[0].large
            found[name] = K3sFile(name, blob.digest, blob.size)
    if not found:
        raise ResolveError(
            f"{lock} has no K3s among its files",
            hint="list k3s, install.sh and k3s-airgap-images-ARCH.tar.zst under `files:`, or leave out --lock",
        )
    missing = [file.name for file in found.values() if not store.has(file.digest)]
    if missing:
        raise ResolveError(
            f"the cache {store.root} does not have {', '.join(sorted(missing))}",
            hint="build the lock first, with the cache; it keeps a copy of what it gets",
        )
    return tuple(found[name] for name in sorted(found))

"""`build`: a lock becomes a bundle, in one pass.

source -> digest -> seal -> bundle, with a copy into the cache on the way. What is small comes first; then transfers
run side by side, each filling frames at its own offset. Nothing but the lock decides what is in the payload.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from airlift import __version__, digest, fs, limits, oci
from airlift.bundle import attest
from airlift.bundle.layout import Member, PayloadPlan, is_blob
from airlift.bundle.writer import BundleWriter, MemberSink, check_request
from airlift.connected.resolver import SOURCES
from airlift.connected.source import Settings, Source
from airlift.digest import Digest
from airlift.errors import AirliftError, BundleError, IntegrityError, ResolveError, StoreError, UsageError
from airlift.evidence.sbom import sbom
from airlift.lock import Lock, LockedBlob
from airlift.store import BlobWriter, Store
from airlift.trust.keys import Recipient, Signer
from airlift.trust.signing import Release

_PARALLEL = 4


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made.

    Attributes:
        release: the signed fields and their digest.
        content_id: digest of the drop's ``index.json``.
        size: bytes of the bundle.
        blobs: how many blobs it carries.
    """

    release: Release
    content_id: Digest
    size: int
    blobs: int


@dataclass(frozen=True, slots=True)
class Share:
    """How much of a drop one kind is.

    Attributes:
        kind: the kind's name, or ``deploy`` for values files.
        artifacts, size: count and bytes; a blob counts for the first artifact that has it.
        new: bytes that the previous lock does not have, or None without one.
    """

    kind: str
    artifacts: int
    size: int
    new: int | None


def shares(lock: Lock, previous: Lock | None) -> tuple[Share, ...]:
    """Return the size per kind, and what of it is new, before anything is downloaded."""
    old = {blob.digest for blob in previous.blobs()} if previous else None
    seen: set[Digest] = set()
    found = []
    groups: dict[str, list[Sequence[LockedBlob]]] = {}
    for item in lock.artifacts():
        groups.setdefault(item.artifact.kind.value, []).append((*item.small, *item.large))
    if lock.values:
        groups["deploy"] = [lock.values]
    for kind, artifacts in groups.items():
        blobs = {b.digest: b for blobs in artifacts for b in blobs if b.digest not in seen}
        seen |= set(blobs)
        new = None if old is None else sum(b.size for b in blobs.values() if b.digest not in old)
        found.append(Share(kind, len(artifacts), sum(b.size for b in blobs.values()), new))
    return tuple(found)


def build(
    lock: Lock,
    output: Path,
    settings: Settings,
    *,
    sequence: int,
    signers: Sequence[Signer],
    recipients: Sequence[Recipient],
    is_plain: bool = False,
    issued: datetime | None = None,
    expires: datetime | None = None,
    reports: Path | None = None,
) -> Built:
    """Seal everything that a lock names into a bundle.

    Args:
        lock: what to carry.
        output: the bundle; it appears whole or not at all.
        settings: what sources know of the machine.
        sequence: the drop's number in its channel, higher than every earlier one.
        signers: who signs; at least one.
        recipients: who can open it; none if and only if `is_plain`.
        is_plain: leave the payload readable.
        issued: signed time of issue, or None.
        expires: signed time after which no site takes it, or None.
        reports: directory for a copy of the SBOM, or None. It lists what the encryption hides.

    Raises:
        UsageError: no signer; no recipient for an encrypted bundle, or one for a plain bundle.
        ResolveError: what only resolve could make is missing.
        FetchError: a source did not answer.
        IntegrityError: a source gave other bytes than the lock says.
        StoreError: the disk refuses.
    """
    if not signers:
        raise UsageError("a bundle needs a signature", hint="give at least one --signer KEY")
    if bool(recipients) == is_plain:
        raise UsageError(
            "a plain bundle has no recipients" if is_plain else "an encrypted bundle needs recipients",
            hint="give --recipient PUB for each site, or --plain for a bundle that anybody can read",
        )
    check_request(
        encrypted=not is_plain,
        channel=lock.channel,
        sequence=sequence,
        issued=issued,
        expires=expires,
        signers=signers,
        recipients=recipients,
    )
    layout = lock.layout()
    blobs = lock.blobs()
    members = [Member("oci-layout", len(oci.LAYOUT_FILE)), Member("index.json", len(layout.index))]
    plan = PayloadPlan([*members, *(Member(_member(blob.digest), blob.size) for blob in blobs)])
    report = sbom(lock, issued=issued, tool_version=__version__)
    build_ = _Build(lock, settings)
    small = build_.fetch_small()
    with BundleWriter(output, plan, encrypted=not is_plain, progress=settings.progress) as writer:
        settings.progress.start("building", sum(blob.size for blob in blobs))
        for name, data in (("oci-layout", oci.LAYOUT_FILE), ("index.json", layout.index)):
            with writer.member(name, None) as sink:
                sink.write(data)
        build_.transfer(writer, blobs, small)
        settings.progress.finish()
        release = writer.finish(
            channel=lock.channel,
            sequence=sequence,
            issued=issued,
            expires=expires,
            attest_files={attest.SBOM: report},
            signers=signers,
            recipients=recipients,
        )
    if reports is not None:
        with fs.guarded("creating"):
            reports.mkdir(parents=True, exist_ok=True)
        fs.write(reports / attest.SBOM, report)
    return Built(release, layout.content_id, output.stat().st_size, len(blobs))


def _member(blob: Digest) -> str:
    return f"blobs/sha256/{digest.hex_of(blob)}"


class _Tee:
    """Gives each byte to the bundle and to the cache."""

    def __init__(self, sink: MemberSink, copy: BlobWriter | None, settings: Settings) -> None:
        self._sink = sink
        self._copy = copy
        self._progress = settings.progress

    @property
    def written(self) -> int:
        return self._sink.written

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._sink.write(data)
        if self._copy is not None:
            self._copy.write(data)
        self._progress.advance(len(data))


class _Build:
    """One run: where each blob comes from, and getting it."""

    def __init__(self, lock: Lock, settings: Settings) -> None:
        self._lock = lock
        self._settings = settings
        self._entries = lock.entry_of()
        kinds = {entry.kind for entry in lock.entries}
        self._sources: Mapping[Any, Source[Any]] = {kind: SOURCES[kind](settings) for kind in kinds}
        self._values = {blob.digest: blob for blob in lock.values}
        self._guard = threading.Lock()
        self._named_errors: list[AirliftError] = []

    def fetch_small(self) -> dict[Digest, bytes]:
        """Return every index, manifest and config that is not in the lock itself."""
        wanted = {b.digest: b for item in self._lock.artifacts() for b in item.small if b.text is None}
        self._settings.progress.start("fetching manifests", len(wanted), unit="documents")
        with ThreadPoolExecutor(_PARALLEL) as pool:
            found = dict(zip(wanted, pool.map(self._named_small, wanted.values()), strict=True))
        self._settings.progress.finish()
        return found

    def _named_small(self, blob: LockedBlob) -> bytes:
        with self._naming(blob):
            return self._small(blob)

    def _small(self, blob: LockedBlob) -> bytes:
        if blob.size > limits.SMALL_BLOB:
            raise ResolveError(
                f"{blob.digest}: a manifest of {blob.size} bytes, at most {limits.SMALL_BLOB} are carried"
            )
        cache = self._settings.cache
        if cache is not None and cache.has(blob.digest):
            return _cached(cache, blob)
        sink = digest.Collector(blob.digest, blob.size)
        self._fetch(blob, sink)
        data = sink.finish()
        if cache is not None:
            cache.put_bytes(data)
        self._settings.progress.advance(1)
        return data

    def transfer(self, writer: BundleWriter, blobs: Sequence[LockedBlob], small: Mapping[Digest, bytes]) -> None:
        """Write every blob into the bundle; the first that fails ends the rest."""
        pool = ThreadPoolExecutor(_PARALLEL)
        futures: list[Future[None]] = []
        try:
            futures = [pool.submit(self._named, writer, blob, small.get(blob.digest)) for blob in blobs]
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future.done():
                    future.result()
        except BaseException:
            writer.abort()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _named(self, writer: BundleWriter, blob: LockedBlob, data: bytes | None) -> None:
        try:
            with self._naming(blob):
                self._one(writer, blob, data)
        except IntegrityError as error:
            # The thread of that other member says it, in better words.
            if not _is_of_another(error, blob):
                raise

    @contextlib.contextmanager
    def _naming(self, blob: LockedBlob) -> Iterator[None]:
        """Let every error say which entry it is about: a digest tells a person nothing.

        The first error reaches every other blob's thread too, and the disk's errors are about no entry.
        """
        try:
            yield
        except (StoreError, BundleError):
            raise
        except AirliftError as error:
            if not _is_of_another(error, blob):
                with self._guard:
                    is_new = all(error is not other for other in self._named_errors)
                    self._named_errors.append(error)
                entry = self._entries.get(blob.digest)
                if is_new and entry is not None:
                    if not _names(error.message, entry.name):
                        error.message = f"{entry.name}: {error.message}"
                    if error.hint is None and "path" in blob.origin:
                        error.hint = f"did {blob.origin['path']} change? put it back, or run airlift resolve"
            raise

    def _one(self, writer: BundleWriter, blob: LockedBlob, data: bytes | None) -> None:
        cache = self._settings.cache
        if data is None and blob.text is not None:
            data = blob.text.encode()
        if data is not None:
            with writer.member(_member(blob.digest), blob.digest) as sink:
                sink.write(data)
            self._settings.progress.advance(len(data))
        elif cache is not None and cache.has(blob.digest):
            self._from_cache(writer, blob, cache)
        else:
            with ExitStack() as stack:
                copy = None
                if cache is not None:
                    copy = cache.writer(blob.digest, blob.size)
                    stack.callback(copy.discard)
                # The name is given inside of the sink, which hands the error on to all the others.
                with writer.member(_member(blob.digest), blob.digest) as sink, self._naming(blob):
                    self._fetch(blob, _Tee(sink, copy, self._settings))
                if copy is not None:
                    # The sink has compared the digest.
                    copy.commit()

    def _from_cache(self, writer: BundleWriter, blob: LockedBlob, cache: Store) -> None:
        try:
            with writer.member(_member(blob.digest), blob.digest) as sink:
                tee = _Tee(sink, None, self._settings)
                with cache.open(blob.digest) as stream, fs.guarded("reading"):
                    while chunk := stream.read(limits.CHUNK):
                        tee.write(chunk)
        except IntegrityError as error:
            if error.subject != _member(blob.digest):
                raise
            raise _damaged(cache, blob, error) from None

    def _fetch(self, blob: LockedBlob, sink: digest.Collector | _Tee) -> None:
        if blob.digest in self._values:
            data = fs.read_bounded(self._settings.base / self._values[blob.digest].origin["path"], limits.DOCUMENT)
            sink.write(digest.check(data, blob.digest, subject=self._values[blob.digest].origin["path"]))
            return
        entry = self._entries[blob.digest]
        self._sources[entry.kind].fetch(entry, blob, sink)


def _is_of_another(error: AirliftError, blob: LockedBlob) -> bool:
    """Tell whether an error is about another member of the payload, heard of here since it ends the whole build."""
    return isinstance(error, IntegrityError) and is_blob(error.subject) and error.subject != _member(blob.digest)


def _names(message: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message) is not None


def _cached(cache: Store, blob: LockedBlob) -> bytes:
    try:
        return cache.read(blob.digest)
    except IntegrityError as error:
        raise _damaged(cache, blob, error) from None


def _damaged(cache: Store, blob: LockedBlob, error: IntegrityError) -> IntegrityError:
    cache.delete(blob.digest)
    return IntegrityError(
        f"the cached copy of {blob.digest}",
        expected=error.expected,
        actual=error.actual,
        hint="it was removed from the cache; run the same command again",
    )

"""What can be known before an import begins: each finding with what to do. Nothing is written.

Signatures, sequence and dates are those of the gate; space, credentials, certificates and clock are this machine's.
Only the payload's beginning is read, so a damaged byte behind it is not found here: `airlift verify` reads everything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from airlift import fs, limits
from airlift.bundle.reader import BundleReader, Opened
from airlift.digest import Digest
from airlift.errors import AirliftError, BundleError, DeliveryError, StoreError, TrustError
from airlift.progress import Progress
from airlift.site import certificates, clock, contents, kept, pace
from airlift.site.clashes import listing_of
from airlift.site.completeness import is_whole
from airlift.site.config import Site
from airlift.site.contents import Contents, Payload
from airlift.site.journal import READY, Drop, Journal
from airlift.site.mirrors import images, wheels
from airlift.site.preflight_findings import Finding, Severity, failed, ok
from airlift.transport.settings import HttpSettings
from airlift.trust.fields import format_time
from airlift.trust.gate import CLOCK_HINT, GAP_HINT, Gate
from airlift.trust.keys import Passphrase, load_identity
from airlift.trust.roots import Channel, Trust

MARGIN: Final = 64 * limits.MIB
"""What the journal and the file system may need beside the blobs; an import does not ask for it."""


@dataclass(frozen=True, slots=True)
class Cargo:
    """What the bundle brings: the drop, and the manifests that it was read from."""

    drop: Contents
    payload: Payload


@dataclass(slots=True)
class Flight:
    """What is to be looked at, and with what.

    Attributes:
        site, bundle: where to, and the file.
        now: the time, with its zone.
        passphrase: opens the site's identity.
        http: how to reach the registry of site.yaml.
        progress: hears of waits.
        clock: seconds that only grow, for the estimate.
    """

    site: Site
    bundle: Path
    now: datetime
    passphrase: Passphrase
    http: HttpSettings
    progress: Progress
    clock: Callable[[], float]
    is_late: bool = field(default=False, init=False)
    """Whether the import would only complete an older drop (`airlift.site.kept.is_late`): then no name moves."""

    is_pinned: bool = field(default=True, init=False)
    """Whether trust.json could be compared with the pin in the journal: by another one nothing is opened."""

    def run(self) -> list[Finding]:
        """Look at everything, and return what was found; the gravest is the first error.

        Raises:
            StoreError: the bundle cannot be read.
            BundleError: it is no bundle, truncated, or for a newer reader.
        """
        with BundleReader(self.bundle) as reader:
            found = [ok("version", "the format is one that this airlift reads, and the file is as long as it says")]
            found += self._gate(reader)
            found += self._clock(reader)
            opened, about = self._identity(reader)
            found += about
            cargo, about = self._cargo(opened)
            found += about
            found += self._names(cargo)
            found += self._space(reader, cargo)
        found += self._lock()
        found += self._registry(cargo)
        found += self._package_index()
        found += certificates.look(self.site, self.now)
        return [*found, ok("time", pace.estimate(self.bundle, self.clock))]

    def _gate(self, reader: BundleReader) -> Iterator[Finding]:
        """Take the gate's steps one reason at a time, so that two reasons are both told."""
        try:
            with self.site.journal() as journal:
                kept.refuse_older_journal(self.site, journal)
                seen = journal.seen()
                known = journal.drop(reader.release.digest)
                self.is_late = kept.is_late(self.site, journal, reader.release)
                here = list(self._here(journal, known))
        except StoreError as error:
            self.is_pinned = False
            yield failed("journal", error)
            return
        trust = self.site.trust
        try:
            verified = Gate(_any_sequence(trust), now=None).admit(reader.envelope, reader.roots)
        except (TrustError, BundleError) as error:
            yield failed("signatures", error)
            return
        yield ok("signatures", f"signed by {', '.join(verified.signers)}")
        for key_id in verified.unknown_signers:
            yield Finding(
                "signatures",
                Severity.WARNING,
                f"a signature by {key_id} counts for nothing: the trust file does not list this key",
            )
        if self.is_late:
            yield ok("sequence", "the drop was here and is not complete; its bundle completes it, however old it is")
            return
        try:
            Gate(_any_sequence(trust), now=self.now).admit(reader.envelope, reader.roots)
            yield ok("expiry", "not expired")
        except TrustError as error:
            yield failed("expiry", error)
        try:
            verified = Gate(trust, now=None, seen=seen).admit(reader.envelope, reader.roots)
            yield ok("sequence", f"{reader.release.channel}/{reader.release.sequence} may be imported")
            if verified.gap:
                yield Finding("sequence", Severity.WARNING, verified.gap, GAP_HINT)
        except TrustError as error:
            yield failed("sequence", error)
            return
        yield from here

    def _here(self, journal: Journal, known: Drop | None) -> Iterator[Finding]:
        """Yield what an import of a drop that is here has to do."""
        if known is None or known.state != READY:
            return
        if not is_whole(self.site, journal, known):
            remedy = "nothing has to be done: the import brings them again"
            message = "the drop is here already, but something of it is missing or damaged"
            yield Finding("sequence", Severity.WARNING, message, remedy)
        elif not journal.elsewhere.has_all(known.release, self.site.mirrors):
            remedy = "airlift check --site DIR --repair fills it, where the import itself does not"
            message = "the drop is here already, but a registry or index of site.yaml does not have all of it yet"
            yield Finding("sequence", Severity.WARNING, message, remedy)
        else:
            yield ok("sequence", "the drop is here already and complete")

    def _clock(self, reader: BundleReader) -> Iterator[Finding]:
        """Compare the clock with what was signed and done: neither is in the future."""
        last = None
        with contextlib.suppress(StoreError), self.site.journal() as journal:
            last = journal.history.last()
        if said := clock.behind(self.site, reader.release, last, self.now):
            yield Finding("clock", Severity.WARNING, said, CLOCK_HINT)
        else:
            message = f"it is {format_time(self.now)} here, later than everything that was signed, or done to the site"
            yield ok("clock", message)
        expires = reader.release.expires
        if expires is not None and self.now < expires < self.now + timedelta(days=1):
            yield Finding("expiry", Severity.WARNING, f"expires at {format_time(expires)}", "import it before")

    def _identity(self, reader: BundleReader) -> tuple[Opened | None, list[Finding]]:
        path = self.site.identity
        if not self.is_pinned:
            return None, []
        try:
            verified = Gate(_any_sequence(self.site.trust), now=None).admit(reader.envelope, reader.roots)
        except AirliftError:
            # Told already; what nobody vouches for is not opened.
            return None, []
        try:
            identity = None if path is None else load_identity(path, self.passphrase)
            return reader.unlock(verified, identity), [ok("identity", "the site's identity opens the bundle")]
        except AirliftError as error:
            return None, [failed("identity", error)]

    def _cargo(self, opened: Opened | None) -> tuple[Cargo | None, list[Finding]]:
        """Read the manifests, which stand before the first blob that is content."""
        if opened is None:
            return None, []
        payload = Payload(self.site.store)
        index = b""
        try:
            with contextlib.closing(opened.payload()) as members:
                for member in members:
                    if member.digest is None:
                        index = member.read()
                        continue
                    is_large = member.size > limits.SMALL_BLOB and len(payload.sizes) >= contents.OWN
                    if is_large or payload.is_content(member.digest):
                        break
                    payload.keep(member.digest, member.read())
                    payload.sizes[member.digest] = member.size
            return Cargo(contents.read(index, payload), payload), []
        except AirliftError as error:
            return None, [failed("payload", error)]

    def _names(self, cargo: Cargo | None) -> Iterator[Finding]:
        """Compare the names with those of other channels."""
        if cargo is None:
            return
        try:
            with self.site.journal() as journal:
                names = listing_of(self.site, journal, cargo.drop, cargo.payload, is_named=not self.is_late).names
        except AirliftError as error:
            yield failed("names", error)
        else:
            names_told = f"{len(names)} name{'' if len(names) == 1 else 's'}"
            yield ok("names", f"{names_told}, none of which another channel gives to another content")

    def _space(self, reader: BundleReader, cargo: Cargo | None) -> Iterator[Finding]:
        needed, note = reader.release.payload_size, "at most, as if nothing of it were here"
        if cargo is not None:
            try:
                needed, note = self._missing_bytes(cargo), "exactly, by the manifests"
            except AirliftError as error:
                yield failed("payload", error)
        try:
            with fs.guarded("asking for the free space of"):
                disk = os.statvfs(self.site.store.root)
        except StoreError as error:
            yield failed("space", error)
            return
        free = disk.f_bavail * disk.f_frsize
        room, most, beside = (f"{amount / limits.MIB:.1f} MiB" for amount in (free, needed, MARGIN))
        root = self.site.store.root
        where = f"{root}: {room} free, the import needs {most} ({needed} bytes {note}) and {beside} beside"
        if disk.f_flag & os.ST_RDONLY or not os.access(self.site.store.root, os.W_OK):
            message = f"{self.site.store.root} cannot be written"
            yield failed("space", StoreError(message, hint="mount it writable, and check owner and mode"))
        if free >= needed + MARGIN:
            yield ok("space", where)
            return
        remedy = "free space there, or let drops go with airlift drops prune"
        if cargo is None or free >= needed:
            # It is a bound: what is here already would not be written again, and an import asks for no margin.
            yield Finding("space", Severity.WARNING, where, remedy)
        else:
            yield failed("space", StoreError(where, hint=remedy))

    def _missing_bytes(self, cargo: Cargo) -> int:
        """Return how much the store does not have yet."""
        drop, payload = cargo.drop, cargo.payload
        is_embedded = self.site.config.registry is None
        wanted: dict[Digest, int] = {}
        for item in (drop.artifact, *drop.config.artifacts):
            is_here = is_embedded or item.kind not in contents.REGISTRY_KINDS
            for blob, is_optional in contents.tree(item, payload):
                if is_optional and blob.digest not in payload.sizes:
                    continue
                if is_here or blob.size <= limits.SMALL_BLOB:
                    wanted[blob.digest] = blob.size
        store = self.site.store
        return sum(size for digest, size in wanted.items() if not (store.has(digest) and store.size(digest) == size))

    def _lock(self) -> Iterator[Finding]:
        if self.site.is_busy():
            remedy = "nothing has to be done: an import waits until it has ended"
            yield Finding("lock", Severity.WARNING, "another command works on the site", remedy)
        else:
            yield ok("lock", "no other command works on the site")

    def _registry(self, cargo: Cargo | None) -> Iterator[Finding]:
        """Ask the registry as an import does before its first byte."""
        registry = self.site.config.registry
        if registry is None:
            return
        try:
            client = images.connect(self.site, self.http, self.progress)
            target = images.RegistryTarget(client, registry.repository)
            target.check()
            room = "its free space is not told"
            if cargo is not None:
                artifacts = cargo.drop.config.artifacts
                filling = [item for item in artifacts if item.kind in contents.REGISTRY_KINDS]
                target.expect(filling, cargo.payload, is_named=not self.is_late)
                if registry.kind == "harbor":
                    room = "names, quotas and tags have room for the drop, as far as the account may see them"
            yield ok("registry", f"{registry.url} answers and lets us in; {room}")
        except (StoreError, DeliveryError) as error:
            yield failed("registry", error)
        except AirliftError as error:
            yield failed("payload", error)

    def _package_index(self) -> Iterator[Finding]:
        python = self.site.config.python
        if python is None:
            return
        try:
            wheels.IndexTarget(wheels.connect(self.site, self.http, self.progress)).check()
            yield ok("python", f"{python.index} answers; whether {python.upload} takes the login shows at the upload")
        except (StoreError, DeliveryError) as error:
            yield failed("python", error)


def _any_sequence(trust: Trust) -> Trust:
    """Return the trust as it would be without a lowest sequence, which is told by itself."""
    return replace(trust, channels={name: Channel(min_sequence=1) for name in trust.channels})

"""Importing a bundle: verified whole before anything of it is seen, in one pass over its bytes.

The order fails closed: signatures, channel, expiry and sequence by the gate; data key and commitment; every frame;
every blob's digest; attest; completeness; names. Only then do digests become visible, and then names, in one
transaction. Whatever ends it earlier leaves at most unnamed blobs, and the same command goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from airlift import artifact
from airlift.bundle.reader import BundleReader
from airlift.digest import Digest
from airlift.errors import (
    AirliftError,
    BundleError,
    IntegrityError,
    ManifestError,
    PolicyError,
    StoreError,
    TrustError,
    UsageError,
)
from airlift.progress import Progress
from airlift.site import clock, kept
from airlift.site.changes import Change, changes
from airlift.site.clashes import listing_of, refuse_clashes
from airlift.site.completeness import is_shown, is_whole
from airlift.site.config import Site
from airlift.site.contents import Contents
from airlift.site.intake import Damaged, Intake
from airlift.site.journal import READY, STAGING, VERIFIED, Drop, Journal
from airlift.site.left_behind import Left, names_left, warn_of_tags, wheels_after_move, with_older
from airlift.site.listing import Listing
from airlift.site.mirror import Several, Target
from airlift.site.mirrors import images, wheels
from airlift.site.reserve import keep_reserve
from airlift.transport.settings import HttpSettings
from airlift.trust.fields import format_time
from airlift.trust.gate import CLOCK_HINT, GAP_HINT, Gate, Verified
from airlift.trust.keys import Passphrase, load_identity

_REFUSALS: Final = (BundleError, IntegrityError, ManifestError, PolicyError, TrustError, UsageError)
"""What no re-run of the same command changes; what such an import brought is taken back."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did, or in a dry run would do.

    Attributes:
        drop: the release, as it is now known to the site.
        summary: what the signers say of the bundle, with the content-id.
        was_here: whether the release was complete before.
        switched: whether it was complete but not the active one, so that this import activated it.
        changes: name by name, sorted; empty when the release was complete before.
        new_blobs, new_bytes: what was not in the store yet.
        left: see `activate`.
        skipped: the sequences between the highest that was accepted before and this one.
    """

    drop: Drop
    summary: Mapping[str, Any]
    was_here: bool
    switched: bool = False
    changes: tuple[Change, ...] = ()
    new_blobs: int = 0
    new_bytes: int = 0
    left: Left = field(default_factory=Left)
    skipped: range = range(0)

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` says of it."""
        return {
            **self.summary,
            "already_imported": self.was_here,
            "switched": self.switched,
            "new_blobs": self.new_blobs,
            "new_bytes": self.new_bytes,
            "changes": [item.to_json() for item in self.changes],
            "drops": [self.drop.to_json()],
            **self.left.to_json(),
            # The two ends: there may be any number between them.
            "skipped": {"first": self.skipped[0], "last": self.skipped[-1]} if self.skipped else None,
        }


def import_bundle(
    site: Site,
    bundle: Path,
    *,
    now: datetime | None,
    passphrase: Passphrase,
    progress: Progress,
    http: HttpSettings | None = None,
    dry_run: bool = False,
    mend: frozenset[Digest] | None = None,
) -> Imported:
    """Verify a bundle, take it in and activate it, once no other process changes the site.

    Args:
        site: where to.
        bundle: the file.
        now: the time, with its zone; None where there is no clock, then nothing expires.
        passphrase: opens the site's identity, if it has one.
        progress: hears of the bytes.
        http: how to reach the registry that site.yaml names.
        dry_run: verify everything, say what would change, and write nothing.
        mend: take a release in once more that the site has, although others came after it; these blobs of the store
            are damaged and are replaced. What clients see does not change.

    Raises:
        BundleError, IntegrityError: the bundle is malformed, damaged, or not for this site.
        TrustError: the site does not accept it.
        PolicyError: a name of it belongs to another channel.
        UsageError: see `Site.refuse_foreign_root`.
        StoreError: the disk refuses.
        DeliveryError: the external registry refuses.
    """
    importing = _Import(site, bundle, now, passphrase, progress, http or HttpSettings(), mend)
    if dry_run:
        with site.journal() as journal:
            kept.refuse_older_journal(site, journal)
            return importing.run(journal, is_dry=True)
    site.refuse_foreign_root()
    with kept.changing(site, f"importing {bundle}", progress, is_written=True, now=now) as journal:
        site.store.create().clear_ingest()
        try:
            done = importing.run(journal, is_dry=False)
        except (BundleError, IntegrityError, PolicyError, TrustError) as error:
            _note_refusal(journal, error, importing.gate)
            raise
    keep_reserve(site.root)
    return done


def _note_refusal(journal: Journal, error: AirliftError, gate: Gate | None) -> None:
    """Note a refusal, with nothing of what nobody signed; where that cannot be written, the refusal is all the same."""
    kind = type(error).__name__
    signed = None if gate is None else gate.signed
    with contextlib.suppress(StoreError), journal.transaction():
        if signed is None:
            journal.history.refuse(kind)
        else:
            journal.history.refuse(
                kind, error.message, channel=signed.channel, sequence=signed.sequence, release=signed.digest
            )


@dataclass(slots=True)
class _Import:
    site: Site
    bundle: Path
    now: datetime | None
    passphrase: Passphrase
    progress: Progress
    http: HttpSettings
    mend: frozenset[Digest] | None = None
    target: Target | None = field(default=None, init=False)
    gate: Gate | None = field(default=None, init=False)
    is_late: bool = field(default=False, init=False)
    """Whether the release comes back after a later one (`airlift.site.kept.is_late`): it is not activated then."""

    def run(self, journal: Journal, *, is_dry: bool) -> Imported:
        with BundleReader(self.bundle) as reader:
            verified = self._admitted(journal, reader)
            for key_id in verified.unknown_signers:
                self.progress.warn(f"a signature by {key_id} counts for nothing: the trust file does not list this key")
            if verified.gap:
                self.progress.warn(f"{verified.gap}; {GAP_HINT}")
            last = journal.history.last()
            if self.now and (said := clock.behind(self.site, verified.release, last, self.now)):
                self.progress.warn(f"{said}; {CLOCK_HINT}")
            known = journal.drop(verified.release.digest)
            if self.mend is None and known is not None and known.state == READY and is_whole(self.site, journal, known):
                return self._again(journal, known, reader.summary(verified), is_dry=is_dry)
            return self._take(journal, reader, verified, is_dry=is_dry)

    def _admitted(self, journal: Journal, reader: BundleReader) -> Verified:
        """Let the gate decide; a release that was accepted before is not too old to mend or complete itself with."""
        self.is_late = self.mend is None and kept.is_late(self.site, journal, reader.release)
        if self.mend is None and not self.is_late:
            self.gate = Gate(self.site.trust, now=self.now, seen=journal.seen())
        else:
            self.gate = Gate(self.site.trust, now=None)
        verified = self.gate.admit(reader.envelope, reader.roots)
        if self.mend is None:
            return verified
        known = journal.drop(verified.release.digest)
        if known is None or known.state != READY:
            raise UsageError(
                f"{self.bundle} is release {verified.release.digest}, which is no complete drop of {self.site.root}",
                hint="take it in with airlift import; to mend, give the bundle of a drop that airlift drops list shows",
            )
        return verified

    def _again(self, journal: Journal, drop: Drop, summary: Mapping[str, Any], *, is_dry: bool) -> Imported:
        is_settled = is_shown(self.site, journal, drop)
        left = Left()
        if not is_settled:
            # Another channel may have taken one of its names since it was active.
            names = journal.names_of(drop.release)
            refuse_clashes(journal, drop.channel, names)
            target = self._target()
            if target is not None:
                target.check()
                target.check_names(names)
            if not is_dry:
                left = activate(self.site, journal, drop, target, self.progress)
        after = journal.drop(drop.release) or drop
        said = {**summary, "content_id": drop.content_id}
        return Imported(after, said, was_here=True, switched=not is_settled, left=left)

    def _target(self) -> Target | None:
        if self.target is None:
            self.target = target_of(self.site, self.http, self.progress)
        return self.target

    def _take(self, journal: Journal, reader: BundleReader, verified: Verified, *, is_dry: bool) -> Imported:
        path = self.site.identity
        identity = None if path is None else load_identity(path, self.passphrase)
        opened = reader.unlock(verified, identity)
        release = verified.release
        drop = Drop(
            release=release.digest,
            channel=release.channel,
            sequence=release.sequence,
            state=STAGING,
            content_id=opened.content_id,
            name="",
            config=Digest(""),
            artifacts=len(artifact.drop_entry(opened.index())[1]),
            imported="" if self.now is None else format_time(self.now),
            active=False,
        )
        target = self._target()
        if target is not None:
            target.check()
        known = journal.drop(drop.release)
        is_mending = known is not None and known.state == READY
        was_whole = known is not None and (is_mending or kept.is_proven(self.site, drop.release))
        distrusted: Container[Digest] = self.mend or frozenset()
        if self.mend is None and known is not None and known.state != VERIFIED and was_whole:
            # Something of it was found missing or damaged, by recovery or just now.
            distrusted = Damaged(self.site.store)
        if not is_dry and not is_mending:
            journal.stage(drop)
        is_named = not self._is_quiet(known)
        summary = {**reader.summary(verified), "content_id": drop.content_id}
        self.progress.start("importing", opened.payload_size)
        with Intake(
            self.site.store,
            target,
            self.progress,
            lambda early, payload: listing_of(self.site, journal, early, payload, is_named=is_named),
            is_dry=is_dry,
            distrusted=distrusted,
            is_named=is_named,
        ) as intake:
            try:
                found = intake.run(opened)
                attest = opened.attest()
                self.progress.finish()
                drop, listing = self._checked(journal, drop, found, intake, is_named=is_named)
                before = journal.active_names(drop.channel)
                changed = () if self.is_late else tuple(changes(before, listing.names))
            except _REFUSALS:
                if not is_dry and not was_whole:
                    intake.discard()
                    with journal.transaction():
                        journal.forget(drop.release)
                raise
        result = Imported(
            drop,
            summary,
            was_here=False,
            changes=changed,
            new_blobs=len(intake.new),
            new_bytes=sum(intake.new.values()),
            skipped=verified.skipped,
        )
        if is_dry:
            return result
        kept.write(self.site, drop.release, attest, envelope=reader.envelope, index=opened.index())
        said = f"signed by {', '.join(verified.signers)}"
        left = self._publish(journal, drop, listing, target, said)
        return replace(result, drop=journal.drop(drop.release) or drop, left=left)

    def _is_quiet(self, known: Drop | None) -> bool:
        """Say whether no name moves: what is mended or comes late, and is not the active one, is completed only."""
        return (self.mend is not None or self.is_late) and known is not None and not known.active

    def _checked(
        self, journal: Journal, drop: Drop, found: Contents, intake: Intake, *, is_named: bool
    ) -> tuple[Drop, Listing]:
        if found.config.channel != drop.channel:
            raise BundleError(f"the drop is made for channel {found.config.channel}, the bundle for {drop.channel}")
        listing = listing_of(self.site, journal, found, intake.payload, is_named=is_named)
        return replace(drop, name=found.config.name, config=found.config_digest), listing

    def _publish(self, journal: Journal, drop: Drop, listing: Listing, target: Target | None, said: str) -> Left:
        known = journal.drop(drop.release)
        with journal.transaction():
            journal.elsewhere.give([drop.release], self.site.mirrors)
        if self._is_quiet(known):
            if target is not None:
                target.publish(self.site.store, self.progress)
            with journal.transaction():
                journal.accept(drop)
                journal.publish(drop, listing.names, listing.held, detail=said)
            return Left()
        if target is None:
            with journal.transaction():
                journal.accept(drop)
                journal.publish(drop, listing.names, listing.held, detail=said)
                journal.activate(drop)
            return Left()
        with journal.transaction():
            journal.accept(drop)
        target.publish(self.site.store, self.progress)
        with journal.transaction():
            journal.publish(drop, listing.names, listing.held, detail=said)
        return activate(self.site, journal, drop, target, self.progress)


def activate(site: Site, journal: Journal, drop: Drop, target: Target | None, progress: Progress) -> Left:
    """Let clients see a ready drop's names in place of those of its channel's present one.

    Returns:
        The tags and wheels that external mirrors keep although no active drop has them any more.

    Raises:
        StoreError: the journal cannot be written.
        DeliveryError: the external registry refuses; the journal knows that the tags are on their way.
    """
    stay = Left()
    if target is not None:
        before = [d for d in journal.drops() if d.channel == drop.channel and (d.active or d.pending)]
        left = names_left(journal, drop.channel, drop, before)
        if not any(d.active and d.release == drop.release for d in before):
            # Else a move that was cut short is taken back, and has to stay known until its tags are gone.
            with journal.transaction():
                journal.announce(drop)
        target.activate(journal.names_of(drop.release), site.store, progress)
        is_back = any(d.sequence > drop.sequence for d in before)
        # Forward, an external registry only gains: somebody may still pull what an older drop named.
        moved = target.withdraw(left) if is_back else target.shown(left)
        tags = with_older(target, journal, drop.channel, drop, left=left, moved=moved, progress=progress)
        if site.config.registry is not None:
            which = f"{drop.channel}/{drop.sequence} does not have"
            warn_of_tags(site.config.registry.url, which, tags, progress)
        stay = Left(tags, wheels_after_move(site, target, journal, drop.channel, drop=drop, progress=progress))
    with journal.transaction():
        journal.activate(drop)
        journal.elsewhere.give([drop.release], site.mirrors, whole=True)
    return stay


def target_of(site: Site, http: HttpSettings, progress: Progress) -> Target | None:
    """Return the external mirrors that site.yaml names, or None.

    Raises:
        StoreError: the file with a password cannot be read.
    """
    targets: list[Target] = []
    if site.config.python is not None:
        # First, since it may refuse a name before anything has moved.
        targets.append(wheels.IndexTarget(wheels.connect(site, http, progress)))
    if site.config.registry is not None:
        targets.append(images.RegistryTarget(images.connect(site, http, progress), site.config.registry.repository))
    return Several(targets) if targets else None

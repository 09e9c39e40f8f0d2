"""Makes a lost journal again, from the store and from what each import keeps in ``drops/<release>/``.

The signatures over each release are verified against the pinned trust, and every blob is compared with its digest.
What no file here can tell is how high the sequences were: a person says so, twice.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from airlift import digest as digests
from airlift import fs, limits
from airlift.digest import Digest
from airlift.errors import AirliftError, BundleError, NotAcceptedError, StoreError, UsageError
from airlift.progress import Progress
from airlift.site import contents, history, kept
from airlift.site.config import Site
from airlift.site.contents import Contents
from airlift.site.journal import READY, STAGING, Drop, Journal
from airlift.site.listing import Listing
from airlift.trust.signing import CHANNEL

_ENTRIES: Final = {history.RECOVERED, history.PINNED, history.FOUND}
"""What a recovery notes."""

_IMPORT: Final = "import its bundle again"
_ACCEPT: Final = (
    "where clients need it, pin a trust file that accepts it too (airlift site trust), move state.db with its -wal and"
    " -shm files away and recover once more"
)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was made again.

    Attributes:
        drops: those that are complete; none is active.
        left_out: release to the reason why it could not be taken, and what to do. Where its signatures are good, the
            journal knows it as not complete, and an import of its bundle completes it, however old it is.
        sequences: per channel the lowest sequence that is accepted from now on.
    """

    drops: tuple[Drop, ...]
    left_out: Mapping[str, str]
    sequences: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` says of it."""
        return {
            "drops": [drop.to_json() for drop in self.drops],
            "left_out": dict(self.left_out),
            "min_sequences": dict(self.sequences),
        }


def channels(site: Site) -> set[str]:
    """Return the channels whose lowest sequence a person has to say: those of the trust file and of what is kept.

    One that has left the trust file may come back in a later one, and nothing older may be accepted then.

    Raises:
        StoreError: ``drops/`` cannot be read.
    """
    found = set(site.trust.channels)
    for folder in _folders(site):
        with contextlib.suppress(AirliftError):
            found.add(kept.claimed(site, folder.name)[1].channel)
    return found


def minimums(given: Sequence[str], channels: Iterable[str]) -> dict[str, int]:
    """Read ``CHANNEL=N`` of the command line, where each has to stand twice.

    Args:
        given: what was typed. It may name channels that the site knows nothing of any more.
        channels: those that may not be missing.

    Raises:
        UsageError: a channel is missing, or was not given twice with the same number.
    """
    found: dict[str, list[int]] = {channel: [] for channel in sorted(channels)}
    for text in given:
        channel, equals, number = text.partition("=")
        if (
            not equals
            or CHANNEL.fullmatch(channel) is None
            # As long as 2^53 is: Python reads no more than 4,300 digits.
            or re.fullmatch(r"[0-9]{1,16}", number) is None
            or not 1 <= int(number) < 2**53
        ):
            raise UsageError(f"--min-sequence {text[:100]!r}: expected CHANNEL=N with N of 1 or more")
        found.setdefault(channel, []).append(int(number))
    for channel, numbers in found.items():
        if len(numbers) != 2 or numbers[0] != numbers[1]:  # noqa: PLR2004 - typed twice
            got = " and ".join(map(str, numbers)) or "nothing"
            raise UsageError(
                f"--min-sequence of channel {channel}: expected the same number twice, got {got}",
                hint=f"--min-sequence {channel}=N --min-sequence {channel}=N; no bundle below N is accepted afterwards,"
                " so take the highest sequence that the paper records say was imported, and 1 where none was;"
                f" channels of this site: {', '.join(sorted(channels))}",
            )
    return {channel: numbers[0] for channel, numbers in found.items()}


def recover(site: Site, wanted: Mapping[str, int], progress: Progress, *, now: datetime | None = None) -> Recovered:
    """Make ``state.db`` again. No drop is active afterwards. Repeated with the same numbers, it says what was done.

    Args:
        site: its journal has to be missing; a damaged one is moved away first.
        wanted: channel to the lowest sequence that is accepted from now on; see `minimums`.
        progress: hears of the blobs.
        now: the time, with its zone, for the history; None where there is no clock.

    Raises:
        UsageError: there is a journal of something else, or see `Site.refuse_foreign_root`.
        StoreError: the disk refuses.
        IntegrityError: there is a journal, and its history was changed.
    """
    site.refuse_foreign_root()
    with site.locked("recovering", progress):
        if site.journal_path.exists():
            return _done_before(site, wanted, progress)
        part = site.root / "state.db.part"
        with fs.guarded("removing"):
            for name in ("state.db.part", "state.db.part-wal", "state.db.part-shm", "state.db-wal", "state.db-shm"):
                (site.root / name).unlink(missing_ok=True)
        Journal.create(part)
        with Journal(part) as journal:
            journal.history.now = now
            with journal.transaction():
                journal.history.note(history.RECOVERED, detail=_said(wanted))
            journal.pin(site.trust.fingerprint)
            drops, left_out = _take_all(site, journal, progress)
            lowest = _bound(journal, wanted)
            with journal.transaction():
                # Nothing here tells of others that site.yaml named before.
                journal.elsewhere.give((drop.release for drop in drops), site.mirrors)
        if (site.root / "state.db.part-wal").exists():
            raise StoreError(f"{part}: its write-ahead log could not be closed", hint="run the same command again")
        with fs.guarded("renaming"):
            part.replace(site.journal_path)
            fs.sync_directory(site.root)
    return Recovered(tuple(drops), left_out, lowest)


def _done_before(site: Site, wanted: Mapping[str, int], progress: Progress) -> Recovered:
    """Return what the very same recovery made, to whose end nothing but its answer may have been missing.

    Raises:
        UsageError: the journal was not made so, or something was done to the site since.
        StoreError: it cannot be read.
        IntegrityError: its history was changed.
    """
    with site.journal() as journal:
        entries = journal.history.entries()
        begun = [entry.detail for entry in entries if entry.what == history.RECOVERED]
        if begun != [_said(wanted)] or any(entry.what not in _ENTRIES for entry in entries):
            raise UsageError(
                f"{site.journal_path} is there; recovering never replaces a journal",
                hint="if it is damaged, move it away together with its -wal and -shm files; if it was recovered"
                " already, airlift site log says so first of all",
            )
        drops = [drop for drop in journal.drops() if drop.state == READY]
        seen = journal.seen()
    left_out, hashed = {}, set[str]()
    complete = {drop.release for drop in drops}
    for folder in _folders(site):
        if folder.name in complete:
            continue
        left_out[folder.name] = f"it is not complete; {_IMPORT}"
        try:
            _, gate = kept.proven(site, folder.name)
            gate.acceptance()
            _read(site, folder.name, hashed)
        except AirliftError as error:
            left_out[folder.name] = _reason(error)
    progress.note(f"{site.journal_path} was recovered already, by the same command: nothing was done now")
    return Recovered(tuple(drops), left_out, {one: max(low, seen[one][0]) for one, low in wanted.items()})


def _said(wanted: Mapping[str, int]) -> str:
    given = ", ".join(f"{channel}={number}" for channel, number in sorted(wanted.items()))
    return f"lowest sequences {given}"


def _folders(site: Site) -> list[Path]:
    with fs.guarded("reading"):
        return sorted(path for path in site.drops_dir.iterdir() if path.is_dir())


def _take_all(site: Site, journal: Journal, progress: Progress) -> tuple[list[Drop], dict[str, str]]:
    folders = _folders(site)
    drops: list[Drop] = []
    left_out: dict[str, str] = {}
    hashed: set[str] = set()
    progress.start("reading the drops again", len(folders), unit="drops")
    for folder in folders:
        try:
            drops.append(_take(site, journal, folder, hashed))
        except AirliftError as error:
            left_out[folder.name] = _reason(error)
        progress.advance(1)
    progress.finish()
    known = [journal.drop(drop.release) or drop for drop in drops]
    return sorted(known, key=lambda drop: (drop.channel, drop.sequence)), left_out


def _reason(error: AirliftError) -> str:
    return f"{error.message}; {_ACCEPT if isinstance(error, NotAcceptedError) else _IMPORT}"


def _take(site: Site, journal: Journal, folder: Path, hashed: set[str]) -> Drop:
    release, gate = kept.proven(site, folder.name)
    drop = Drop(
        release=release.digest,
        channel=release.channel,
        sequence=release.sequence,
        state=STAGING,
        content_id=Digest(""),
        name="",
        config=Digest(""),
        artifacts=0,
        imported="",
        active=False,
    )
    with journal.transaction():
        journal.bound(drop.channel, drop.sequence, drop.release)
    gate.acceptance()
    # Where it cannot be published, it stays staged.
    journal.stage(drop)
    content_id, found, listing = _read(site, drop.release, hashed)
    if found.config.channel != drop.channel:
        raise BundleError(f"the drop is made for channel {found.config.channel}, the release for {drop.channel}")
    drop = replace(
        drop,
        content_id=content_id,
        name=found.config.name,
        config=found.config_digest,
        artifacts=len(found.config.artifacts),
    )
    journal.stage(drop)
    with journal.transaction():
        journal.accept(drop)
        said = f"signed by {', '.join(gate.signers)}"
        journal.publish(drop, listing.names, listing.held, how=history.FOUND, detail=said)
    return drop


def _read(site: Site, release: str, hashed: set[str]) -> tuple[Digest, Contents, Listing]:
    """Read what a signed drop has and shows, and compare its blobs.

    Raises:
        StoreError, BundleError, IntegrityError: something is missing or damaged.
    """
    index = fs.read_bounded(site.index_path(release), limits.INDEX_DOCUMENT)
    found = contents.read(index, site.store)
    listing = contents.list_all(found.config, site.store, is_embedded=site.config.registry is None)
    _compare_blobs(
        site, found, [*(value.digest for value in found.values), *(one.digest for one in listing.held)], hashed
    )
    return digests.of(index), found, listing


def _compare_blobs(site: Site, found: Contents, held: Iterable[digests.Digest], hashed: set[str]) -> None:
    """Hash what a drop serves and what says so, each blob once for all drops."""
    for digest in {found.config_digest, *(item.root.digest for item in found.config.artifacts), *held} - hashed:
        site.store.verify(digests.parse(digest))
        hashed.add(digest)


def _bound(journal: Journal, wanted: Mapping[str, int]) -> dict[str, int]:
    """Let no sequence below what the person says, or below what was found, be accepted."""
    seen = journal.seen()
    bounds = {}
    with journal.transaction():
        for channel, lowest in wanted.items():
            highest, _ = seen.get(channel, (0, ""))
            if lowest > highest + 1 or channel not in seen:
                # One below, of no release: the bundle with exactly this sequence may come once more.
                journal.bound(channel, lowest - 1)
            bounds[channel] = max(lowest, highest)
    return bounds

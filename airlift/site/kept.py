"""What a site keeps of each bundle in ``drops/<release>/``: the signed envelope, the index, and the files of attest.

A lost journal is made again from it (`airlift.site.recovery`), and it says which releases the site had whole: it is
written after the last byte was found right.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Final

from airlift import fs
from airlift.errors import BundleError, IntegrityError, StoreError, TrustError
from airlift.site.config import Site
from airlift.site.journal import READY, Journal
from airlift.trust.gate import Gate
from airlift.trust.signing import MAX_ENVELOPE, Release, parse_envelope, parse_release

ENVELOPE: Final = "airlift.json"
INDEX: Final = "index.json"
OLDER_JOURNAL: Final = (
    "move state.db with its -wal and -shm files away and run airlift site recover, with the highest sequence of the"
    " paper records as --min-sequence"
)
"""What to do when `newer` finds something."""


def write(site: Site, release: str, files: Mapping[str, bytes]) -> None:
    """Keep files of a release.

    Raises:
        StoreError: the disk refuses.
    """
    folder = site.drops_dir / release
    with fs.guarded("creating"):
        folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        fs.write(folder / name, data)
    with fs.guarded("syncing"):
        fs.sync_directory(site.drops_dir)


def verified(site: Site, release: str) -> Release:
    """Verify a kept envelope as the gate does for what was accepted before: neither age nor order count.

    Raises:
        StoreError: it is missing or cannot be read.
        BundleError, TrustError: the pinned trust does not accept it.
        IntegrityError: it is that of another release.
    """
    envelope = fs.read_bounded(site.drops_dir / release / ENVELOPE, MAX_ENVELOPE)
    gate = Gate(site.trust, now=None)
    gate.envelope(envelope)
    gate.roots(b"[]")
    gate.signatures()
    gate.acceptance()
    found = parse_release(parse_envelope(envelope).body)
    if found.digest != release:
        raise IntegrityError(f"{release}/{ENVELOPE}", expected=release, actual=found.digest)
    return found


def is_proven(site: Site, release: str) -> bool:
    """Say whether a kept and signed envelope proves that the site had this release whole once."""
    with contextlib.suppress(BundleError, IntegrityError, StoreError, TrustError):
        verified(site, release)
        return True
    return False


def is_late(site: Site, journal: Journal, release: Release) -> bool:
    """Say whether a bundle may complete a release that is older than what was accepted since.

    It may where the site had the very same release whole, and the journal knows that something of it is missing.

    Raises:
        StoreError: the journal cannot be read.
    """
    known = journal.drop(release.digest)
    highest, _ = journal.seen().get(release.channel, (0, ""))
    is_left = known is not None and known.state != READY and release.sequence < highest
    return is_left and is_proven(site, release.digest)


def newer(site: Site, journal: Journal) -> list[Release]:
    """Return what was signed, had whole and is unknown to the journal although it is higher than all it accepted.

    An import notes a release in the journal before it keeps anything of it, so the journal is then an older one.

    Raises:
        StoreError: the journal, or a kept envelope, cannot be read.
    """
    seen, known = journal.seen(), {drop.release for drop in journal.drops()}
    found = []
    with fs.guarded("reading"):
        names = sorted(path.parent.name for path in site.drops_dir.glob(f"*/{ENVELOPE}"))
    for name in names:
        if name in known:
            continue
        with contextlib.suppress(BundleError, IntegrityError, TrustError):
            release = verified(site, name)
            if release.sequence > seen.get(release.channel, (0, ""))[0]:
                found.append(release)
    return found


def refuse_older_journal(site: Site, journal: Journal) -> None:
    """Refuse to judge sequences by a journal that was restored from a backup of before.

    Raises:
        StoreError: it is one, or cannot be read.
    """
    for release in newer(site, journal):
        raise StoreError(f"the journal {site.journal_path} is {older_than(release)}", hint=OLDER_JOURNAL)


def older_than(release: Release) -> str:
    """Say what a release of `newer` makes of the journal."""
    return (
        f"older than drops/: {release.channel}/{release.sequence} ({release.digest}) was imported here,"
        " and the journal knows neither it nor a later one"
    )

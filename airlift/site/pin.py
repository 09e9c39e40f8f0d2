"""Another trust file for a site: compared with paper by its fingerprint, and pinned in place of the one before.

This is how keys are exchanged: the new file has the old keys beside the new ones until no kept drop needs the old ones.
What was accepted stays accepted, and sequences are remembered.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from airlift import fs, limits
from airlift.errors import ManifestError
from airlift.progress import Progress
from airlift.site import kept
from airlift.site.config import Site, load_site
from airlift.site.journal import READY, Drop, Journal
from airlift.trust.roots import load_trust


@dataclass(frozen=True, slots=True)
class Pinned:
    """What was pinned.

    Attributes:
        before: the fingerprint of what was pinned before; None where that was never noted.
        fingerprint: of what is pinned now.
        unproven: the kept drops that it would not accept. They stay as they are while the journal is there; a recovery
            would leave them out.
    """

    before: str | None
    fingerprint: str
    unproven: tuple[Drop, ...]


def pin(root: Path, trust_file: Path, fingerprint: str, progress: Progress, *, now: datetime | None = None) -> Pinned:
    """Let a site believe another trust file; killed in between, the same call finishes it.

    Args:
        root: the site's directory; its trust.json may be any, or damaged.
        trust_file: the new one.
        fingerprint: what the paper says of it.
        progress: hears that there is somebody to wait for.
        now: the time, with its zone, for the history; None where there is no clock.

    Raises:
        ManifestError: the file, or site.yaml, is wrong.
        TrustError: it has another fingerprint.
        UsageError: this is no site, or see `Site.refuse_foreign_root`.
        StoreError: the disk refuses and nothing has changed; there is no journal, or it is older than the site.
    """
    trust = load_trust(trust_file)
    trust.check_fingerprint(fingerprint)
    data = fs.read_bounded(trust_file, limits.DOCUMENT)
    site = load_site(root, believing=trust)
    site.refuse_foreign_root()
    place = root / "trust.json"
    with site.locked("pinning a trust file", progress), site.journal() as journal:
        _refuse_older_journal(site, journal, place)
        journal.history.now = now
        before = journal.pinned()
        # The file is on the disk, and has its name once the journal is: what refuses, refuses before anything changed.
        with fs.atomic(place) as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
            if before != trust.fingerprint:
                # From here until the file has its name no other command works.
                journal.pin(trust.fingerprint)
        drops = [drop for drop in journal.drops() if drop.state == READY]
    unproven = tuple(drop for drop in drops if not kept.is_proven(site, drop.release))
    return Pinned(before, trust.fingerprint, unproven)


def _refuse_older_journal(site: Site, journal: Journal, place: Path) -> None:
    """Refuse by both files: what only the old one proves would be forgotten with it, and its sequences too.

    Raises:
        StoreError: the journal is older than the site.
    """
    kept.refuse_older_journal(site, journal)
    try:
        old = load_trust(place)
    except ManifestError:
        # It is missing or damaged, and this mends it.
        return
    kept.refuse_older_journal(replace(site, trust=old), journal)

"""Another trust file for a site: compared with paper by its fingerprint, and pinned in place of the one before.

This is how keys are exchanged: the new file has the old keys beside the new ones until no kept drop needs the old ones.
What was accepted stays accepted, and sequences are remembered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from airlift import fs, limits
from airlift.progress import Progress
from airlift.site import kept
from airlift.site.config import Site
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


def pin(site: Site, trust_file: Path, fingerprint: str, progress: Progress) -> Pinned:
    """Let a site believe another trust file; killed in between, the same call finishes it.

    Args:
        site: which; its trust.json may be any.
        trust_file: the new one.
        fingerprint: what the paper says of it.
        progress: hears that there is somebody to wait for.

    Raises:
        ManifestError: the file is wrong.
        TrustError: it has another fingerprint.
        UsageError: see `Site.refuse_foreign_root`.
        StoreError: the disk refuses, or there is no journal.
    """
    trust = load_trust(trust_file)
    trust.check_fingerprint(fingerprint)
    data = fs.read_bounded(trust_file, limits.DOCUMENT)
    site.refuse_foreign_root()
    with site.locked("pinning a trust file", progress), Journal(site.journal_path) as journal:
        before = journal.pinned()
        # From here until the end no command works: the file is not the one that is pinned.
        fs.write(site.root / "trust.json", data)
        journal.pin(trust.fingerprint)
        changed = replace(site, trust=trust)
        drops = [drop for drop in journal.drops() if drop.state == READY]
    unproven = tuple(drop for drop in drops if not kept.is_proven(changed, drop.release))
    return Pinned(before, trust.fingerprint, unproven)

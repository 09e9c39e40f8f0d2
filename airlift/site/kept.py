"""What a site keeps of each bundle in ``drops/<release>/``: the signed envelope, the index, and the files of attest.

A lost journal is made again from it (`airlift.site.recovery`), and it says which releases the site had whole: it is
written after the last byte was found right.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from airlift import canonical, fs, limits
from airlift import digest as digests
from airlift.errors import AirliftError, BundleError, IntegrityError, NotAcceptedError, StoreError, TrustError
from airlift.progress import Progress
from airlift.site.config import Site
from airlift.site.journal import READY, Drop, Journal
from airlift.trust.gate import Gate
from airlift.trust.signing import MAX_ENVELOPE, Release, parse_envelope, parse_release

ENVELOPE: Final = "airlift.json"
INDEX: Final = "index.json"
ATTEST: Final = "attest.json"
"""The digests of the files of attest, by name."""

_OWN: Final = (ENVELOPE, INDEX, ATTEST)
OLDER_JOURNAL: Final = (
    "move state.db with its -wal and -shm files away and run airlift site recover, with the highest sequence of the"
    " paper records as --min-sequence, and the fingerprint of the paper as --fingerprint"
)
"""What to do when `newer` finds something."""


def write(site: Site, release: str, attest: Mapping[str, bytes], *, envelope: bytes, index: bytes) -> None:
    """Keep what belongs to a release, and the digests of its attest: what was signed of that is its sealed bytes.

    Raises:
        StoreError: the disk refuses.
    """
    folder = site.drops_dir / release
    files = {name: data for name, data in attest.items() if name not in _OWN}
    listed = canonical.encode({name: digests.of(data) for name, data in files.items()})
    files |= {ENVELOPE: envelope, INDEX: index, ATTEST: listed}
    with fs.guarded("creating"):
        fs.make_folder(site.drops_dir)
        fs.make_folder(folder)
    for name, data in files.items():
        fs.write(folder / name, data)
    with fs.guarded("syncing"):
        fs.sync_directory(site.drops_dir)


def verified(site: Site, release: str) -> Release:
    """Verify a kept envelope as the gate does for what was accepted before: neither age nor order count.

    Raises:
        StoreError: it is missing or cannot be read.
        BundleError, TrustError: it is damaged.
        NotAcceptedError: it is what was imported, but the trust that is pinned now does not accept it.
        IntegrityError: it is that of another release.
    """
    return signed(site, release)[0]


def signed(site: Site, release: str) -> tuple[Release, tuple[str, ...]]:
    """Return what `verified` does, and the persons who signed it, sorted.

    Raises:
        StoreError, BundleError, TrustError, NotAcceptedError, IntegrityError: see `verified`.
    """
    found, gate = proven(site, release)
    gate.acceptance()
    return found, gate.signers


def proven(site: Site, release: str) -> tuple[Release, Gate]:
    """Return what was signed by enough persons, in whatever channel, and the gate before its step of acceptance.

    The site had it whole: its sequence counts also after the channel has left the trust file.

    Raises:
        StoreError, BundleError, TrustError, NotAcceptedError, IntegrityError: see `verified`.
    """
    envelope, found = claimed(site, release)
    gate = Gate(site.trust, now=None)
    gate.envelope(envelope)
    gate.roots(b"[]")
    gate.signatures()
    return found, gate


def claimed(site: Site, release: str) -> tuple[bytes, Release]:
    """Return a kept envelope and what it says, by whomever it is signed.

    Raises:
        StoreError: it is missing or cannot be read.
        BundleError: it is damaged.
        IntegrityError: it is that of another release.
    """
    envelope = fs.read_bounded(site.drops_dir / release / ENVELOPE, MAX_ENVELOPE)
    found = parse_release(parse_envelope(envelope).body)
    if found.digest != release:
        raise IntegrityError(f"{release}/{ENVELOPE}", expected=release, actual=found.digest)
    return envelope, found


def problems(site: Site, drop: Drop) -> dict[str, str]:
    """Compare what is kept of a complete drop: the envelope with its signatures, the rest with digests.

    Returns:
        File name to what is wrong with it, sorted.
    """
    folder = site.drops_dir / drop.release
    found = {name: "missing" for name in _OWN if not (folder / name).is_file()}
    wanted: dict[str, Any] = {INDEX: drop.content_id}
    try:
        if ENVELOPE not in found:
            verified(site, drop.release)
    except NotAcceptedError:
        pass  # It is whole; see `refusal`.
    except AirliftError as error:
        found[ENVELOPE] = f"damaged: {error.message}"
    try:
        if ATTEST not in found:
            wanted = _listed(folder) | wanted
    except AirliftError as error:
        found[ATTEST] = f"damaged: {error.message}"
    for name, digest in wanted.items():
        if name not in found and (problem := _problem(folder / name, digest)) is not None:
            found[name] = problem
    return dict(sorted(found.items()))


def refusal(site: Site, drop: Drop) -> str | None:
    """Return why the trust that is pinned now would not accept a kept drop whose envelope is whole, or None."""
    try:
        verified(site, drop.release)
    except NotAcceptedError as error:
        return error.message
    except AirliftError:  # see `problems`
        return None
    return None


def attested(site: Site, release: str, name: str) -> bytes:
    """Return a file of attest, compared with the digest that the import noted.

    Raises:
        StoreError: it was not in the bundle, or cannot be read.
        BundleError: the list of digests is damaged.
        IntegrityError: the file is another than came with the bundle.
    """
    folder = site.drops_dir / release
    digest = _listed(folder).get(name)
    if digest is None:
        raise StoreError(f"the bundle of {release} brought no {name}", hint="ask who signed it; airlift build adds one")
    data = fs.read_bounded(folder / name, limits.INDEX_DOCUMENT)
    if (actual := digests.of(data)) != digest:
        raise IntegrityError(f"{folder / name}", expected=str(digest), actual=actual)
    return data


def _listed(folder: Path) -> dict[str, Any]:
    listed = canonical.decode(fs.read_bounded(folder / ATTEST, limits.DOCUMENT), limit=limits.DOCUMENT, subject=ATTEST)
    if not isinstance(listed, dict) or not all(Path(name).name == name for name in listed):
        raise BundleError(f"{ATTEST}: expected digests by file name")
    return listed


def _problem(path: Path, digest: object) -> str | None:
    if not path.is_file():
        return "missing"
    try:
        is_same = digests.of(fs.read_bounded(path, limits.INDEX_DOCUMENT)) == digest
    except StoreError as error:
        return f"damaged: {error.message}"
    return None if is_same else f"damaged: its digest is not {digest}"


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
            # Also of a channel that has left the trust file: its sequence counts when the channel comes back.
            release, _ = proven(site, name)
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


def warn_of_older_journal(site: Site, progress: Progress) -> list[Release]:
    """Say that what is read from the journal is that of before; so nobody takes it for the present.

    Returns:
        See `newer`; nothing where ``drops/`` cannot be read, of which a warning tells too.

    Raises:
        StoreError: the journal cannot be read.
    """
    with site.journal() as journal:
        try:
            found = sorted(newer(site, journal), key=lambda release: (release.channel, release.sequence))
        except StoreError as error:
            progress.warn(f"whether the journal is older than drops/ is not known: {error.message}")
            return []
    for release in {one.channel: one for one in found}.values():
        progress.warn(f"the journal {site.journal_path} is {older_than(release)}; {OLDER_JOURNAL}")
    return found


@contextlib.contextmanager
def changing(
    site: Site, doing: str, progress: Progress, *, is_written: bool = False, now: datetime | None = None
) -> Iterator[Journal]:
    """Open the journal to change something by it, alone.

    Args:
        site: which.
        doing: what is to be done, for the message to who waits.
        progress: hears that there is somebody to wait for.
        is_written: whether the journal changes too; one of before then notes whom the site believes. Else it may be on
            a disk that is mounted read-only.
        now: the time, with its zone, for the history; None where there is no clock.

    Raises:
        TrustError: another trust file was pinned while this waited.
        StoreError: it is one of before (`refuse_older_journal`), or cannot be opened.
    """
    with site.locked(doing, progress), site.journal() as journal:
        journal.history.now = now
        pinned = journal.pinned()
        site.refuse_other_pin(pinned)
        refuse_older_journal(site, journal)
        if is_written and pinned is None:
            journal.pin(site.trust.fingerprint)
        yield journal


@contextlib.contextmanager
def noting(journal: Journal, progress: Progress) -> Iterator[None]:
    """Write down what was done elsewhere: where that is not possible it was done all the same, and is a warning.

    A site on a disk that is mounted read-only can mend what it fills.
    """
    try:
        with journal.transaction():
            yield
    except StoreError as error:
        progress.warn(f"what was done is not noted: {error.message}")


def told(release: Release) -> dict[str, Any]:
    """Return what ``--json`` says of a release of `newer`."""
    return {"channel": release.channel, "sequence": release.sequence, "release": release.digest}


def older_than(release: Release) -> str:
    """Say what a release of `newer` makes of the journal."""
    return (
        f"older than drops/: {release.channel}/{release.sequence} ({release.digest}) was imported here,"
        " and the journal knows neither it nor a later one"
    )

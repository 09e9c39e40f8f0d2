"""A site on disk: ``DIR/{site.yaml, trust.json, state.db, store/, drops/<release>/}``.

``site.yaml`` is written by `init_site` and may be edited; ``trust.json`` says whose bundles the site accepts. Its
fingerprint is pinned in the journal: no command works with another one but that which pins it (`airlift.site.pin`).
See docs/site.md and ``airlift schema site``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import yaml

from airlift import fs, limits, yamldoc
from airlift.errors import ManifestError, StoreError, TrustError, UsageError
from airlift.progress import Progress
from airlift.site.journal import Journal
from airlift.site.listing import Service
from airlift.site.reserve import spare
from airlift.site.site_yaml import IndexConfig, PullAccount, RegistryConfig, SiteConfig
from airlift.store import Store
from airlift.transport.settings import HttpSettings
from airlift.trust.roots import Trust, load_trust

_MAKING: Final = ".airlift-making"
"""The name that site.yaml has until the site is whole."""
_UNMADE: Final = re.compile(r"\.airlift-making|drops|state\.db(-\w+)?|store|trust\.json|\..+\.part")
_MENDING: Final = "airlift check --site DIR says what is damaged, and --repair BUNDLE mends it from the drop's bundle"


@dataclass(frozen=True, slots=True)
class Site:
    """A site that `load_site` found.

    Attributes:
        root: its directory.
        config: what site.yaml says.
        trust: what trust.json says.
    """

    root: Path
    config: SiteConfig
    trust: Trust

    @property
    def journal_path(self) -> Path:
        """The journal's file."""
        return self.root / "state.db"

    @property
    def store(self) -> Store:
        """The store of all embedded mirrors."""
        return Store(self.root / "store", remedy=_MENDING)

    @property
    def drops_dir(self) -> Path:
        """Where each release's SBOM and what else came in attest lies."""
        return self.root / "drops"

    def index_path(self, release: str) -> Path:
        """Where the index of a release's bundle is kept, from which a lost journal is made again."""
        return self.drops_dir / release / "index.json"

    @property
    def identity(self) -> Path | None:
        """The identity's file."""
        return self.at(self.config.identity)

    @property
    def passphrase_file(self) -> Path | None:
        """The file with the identity's passphrase."""
        return self.at(self.config.passphrase_file)

    def at(self, path: str | None) -> Path | None:
        """Return a path of site.yaml."""
        return None if path is None else self.root / path

    @property
    def mirrors(self) -> tuple[tuple[Service, str], ...]:
        """The external mirrors that site.yaml names: what each is for, and where it is."""
        python, registry = self.config.python, self.config.registry
        return (
            *([] if python is None else [(Service.SIMPLE, python.upload)]),
            *([] if registry is None else [(Service.OCI, registry.place)]),
        )

    def password(self, config: RegistryConfig | IndexConfig | PullAccount) -> str:
        """Return the password of an account at an external mirror, or nothing.

        Raises:
            StoreError: its file cannot be read.
        """
        path = self.at(config.password_file)
        return "" if path is None else fs.first_line(path, limits.ERROR_BODY)

    def reaching(self, config: RegistryConfig | IndexConfig, http: HttpSettings) -> HttpSettings:
        """Return how to reach an external mirror: with its certificates, and in the words of site.yaml.

        Raises:
            StoreError: what has its certificates is not there, or may not be looked at.
        """
        key = "registry" if isinstance(config, RegistryConfig) else "python"
        ca = self.at(config.ca)
        with fs.guarded(f"ca of {key} in site.yaml: reading"):
            is_missing = ca is not None and not ca.exists()
        if is_missing:
            raise StoreError(f"ca of {key} in site.yaml: {ca}: no such file", hint=f"mend ca of {key} in site.yaml")
        return replace(
            http,
            ca_bundle=ca or http.ca_bundle,
            ca_hint=f"if a private certificate authority signed it, name its certificate in ca of {key} in site.yaml",
            login_hint=f"mend username and password_file of {key} in site.yaml, or the account; then run it again",
        )

    @contextlib.contextmanager
    def journal(self) -> Iterator[Journal]:
        """Open the journal, on a full disk with the space that was set aside for it.

        Raises:
            StoreError: it cannot be opened.
        """
        with spare(self.root), Journal(self.journal_path) as journal:
            yield journal

    @contextlib.contextmanager
    def locked(self, doing: str, progress: Progress) -> Iterator[None]:
        """Keep every other process from changing the site; wait until none does.

        Args:
            doing: what is to be done, for the message.
            progress: hears that there is somebody to wait for.

        Raises:
            StoreError: the site cannot be read.
        """
        with fs.alone(
            self.store.root, lambda: progress.note(f"{doing}: waiting for another command that works on {self.root}")
        ):
            yield

    def refuse_foreign_root(self) -> None:
        """Refuse to make files as root where another user has to work with them afterwards.

        Raises:
            UsageError: this process is root, and the site belongs to somebody else.
            StoreError: the site cannot be read.
        """
        with fs.guarded("reading"):
            owner = self.root.stat().st_uid
        if os.geteuid() != 0 or owner == 0:
            return
        try:
            name = pwd.getpwuid(owner).pw_name
            remedy = f"sudo -u {name} airlift ..., or runuser -u {name} -- airlift ..."
        except KeyError:
            name = f"the user {owner}"
            remedy = f"setpriv --reuid {owner} --clear-groups airlift ..."
        raise UsageError(
            f"{self.root} belongs to {name}, who could not work any more with what root makes there",
            hint=f"run it as that user: {remedy}",
        )

    def refuse_other_pin(self, pinned: str | None) -> None:
        """Refuse to work by another trust file than the journal says was pinned.

        Args:
            pinned: its fingerprint; None where that was never noted.

        Raises:
            TrustError: it is another.
        """
        if pinned is not None and pinned != self.trust.fingerprint:
            raise TrustError(
                f"{self.root / 'trust.json'} has the fingerprint {self.trust.fingerprint}, the site pinned {pinned}",
                hint="somebody replaced it: put the pinned file back from a backup; or state.db is from an older"
                " backup: then pin the file that the paper names with airlift site trust",
            )

    def is_busy(self) -> bool:
        """Say whether another process is changing the site right now.

        Raises:
            StoreError: the site cannot be read.
        """
        with fs.guarded("opening"):
            handle = os.open(self.store.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False


def load_site(root: Path, *, believing: Trust | None = None) -> Site:
    """Read a site.

    Args:
        root: its directory.
        believing: what it is to believe in place of trust.json, which is not read then.

    Raises:
        UsageError: there is no site in this directory.
        ManifestError: site.yaml or trust.json is wrong.
        TrustError: trust.json is not the file that was pinned.
        StoreError: a file cannot be read.
    """
    path = root / "site.yaml"
    with fs.guarded("reading"):
        is_there = path.is_file()
    if not is_there:
        raise UsageError(
            f"{root} is no site: there is no site.yaml",
            hint=_without_config(root) or "make one with: airlift site init DIR",
        )
    config = yamldoc.validate(SiteConfig, yamldoc.load(path))
    if believing is not None:
        return Site(root, config, believing)
    site = Site(root, config, _pinned_file(root / "trust.json"))
    pinned = None
    # Of a journal that is lost or cannot be read hears who needs it; the way back from that begins here too.
    with contextlib.suppress(StoreError), site.journal() as journal:
        pinned = journal.pinned()
    site.refuse_other_pin(pinned)
    return site


def _pinned_file(path: Path) -> Trust:
    with fs.guarded("reading"):
        is_there = path.exists()
    if not is_there:
        raise ManifestError(
            f"{path}: no such file",
            hint="put the pinned file back from a backup, or pin it again with airlift site trust",
        )
    return load_trust(path)


def _without_config(root: Path) -> str | None:
    """Say what to do about a directory that was a site, and has no site.yaml any more."""
    if not (root / "state.db").exists():
        return None
    return "state.db is there: put site.yaml back from a backup, or write it again; airlift schema site says how"


def init_site(root: Path, trust_file: Path, config: SiteConfig, *, now: datetime | None = None) -> Site:
    """Make a site: pin the trust file, write site.yaml, make an empty journal and store. `now` is for its history.

    Its site.yaml has another name until it is whole: what a killed run left of a site is made anew.

    Raises:
        UsageError: the directory is not empty.
        ManifestError: the trust file is wrong.
        StoreError: the disk refuses.
    """
    trust = load_trust(trust_file)
    with fs.guarded("creating"):
        is_new = not root.exists()
        if not is_new and not root.is_dir():
            raise _taken(root)
        root.mkdir(parents=True, exist_ok=True)
    with fs.alone(root, lambda: None):
        with fs.guarded("creating"):
            _clear_unmade(root)
        try:
            _make(Site(root, config, trust), fs.read_bounded(trust_file, limits.DOCUMENT), now)
            # What was pinned is what is shown: read it again.
            return load_site(root)
        except BaseException:
            _clear(root)
            if is_new:
                root.rmdir()
            raise


def _clear_unmade(root: Path) -> None:
    """Leave an empty directory: take away what a run left that was killed before site.yaml had its name.

    Raises:
        UsageError: there is something else.
    """
    names = {path.name for path in root.iterdir()}
    if names and (_MAKING not in names or not all(map(_UNMADE.fullmatch, names))):
        raise _taken(root)
    _clear(root)


def _taken(root: Path) -> UsageError:
    lost = None if (root / "site.yaml").exists() else _without_config(root)
    return UsageError(
        f"{root} exists and is not empty",
        hint=lost or "a site is never overwritten; choose another directory, or edit its site.yaml",
    )


def _clear(root: Path) -> None:
    """Empty a directory, the mark of an unmade site last."""
    for item in sorted(root.iterdir(), key=lambda path: path.name == _MAKING):
        shutil.rmtree(item, ignore_errors=True) if item.is_dir() else item.unlink(missing_ok=True)


def _make(site: Site, trust: bytes, now: datetime | None) -> None:
    mark = site.root / _MAKING
    with fs.guarded("creating"):
        mark.touch()
        fs.sync_directory(site.root)
    site.store.create()
    with fs.guarded("creating"):
        fs.make_folder(site.drops_dir)
    Journal.create(site.journal_path)
    with Journal(site.journal_path) as journal:
        journal.history.now = now
        journal.pin(site.trust.fingerprint)
    fs.write(site.root / "trust.json", trust)
    fs.write(mark, _document(site.config))
    with fs.guarded("creating"):
        mark.rename(site.root / "site.yaml")
        fs.sync_directory(site.root)


def _document(config: SiteConfig) -> bytes:
    text = yaml.safe_dump(config.model_dump(exclude_none=True), sort_keys=False, allow_unicode=True, width=1000)
    return f"# An airlift site. `airlift schema site` says what may stand here.\n{text}".encode()

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
from typing import Annotated, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from airlift import fs, limits, yamldoc
from airlift.errors import StoreError, TrustError, UsageError
from airlift.progress import Progress
from airlift.site.journal import Journal
from airlift.site.reserve import spare
from airlift.store import Store
from airlift.transport.settings import HttpSettings
from airlift.trust.roots import Trust, load_trust

DEFAULT_LISTEN = "127.0.0.1:8080"
MAPPING = "{registry}/{repository}"
_CA = "file with the certificates that it is checked against, or directory of them as openssl rehash makes it"


def _address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"expected a URL such as http://mirror.example:8080, got {value[:100]!r}")
    if "@" in parts.netloc:
        raise ValueError("a URL must not carry credentials; use username and password_file")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f"expected a port below 65536 in {value[:100]!r}") from None
    return value


def _url(value: str) -> str:
    return _address(value).rstrip("/")


def _listen(value: str) -> str:
    split_listen(value)
    return value


def split_listen(value: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` or ``[IPv6]:PORT``; port 0 lets the system choose.

    Raises:
        ValueError: it has another form.
    """
    host, colon, port = value.rpartition(":")
    is_v6 = host.startswith("[") and host.endswith("]")
    number = int(port) if port.isascii() and port.isdecimal() else -1
    if not colon or not host or (":" in host and not is_v6) or not 0 <= number <= 65535:  # noqa: PLR2004 - TCP's bound
        raise ValueError(f"expected HOST:PORT such as {DEFAULT_LISTEN}, got {value[:100]!r}")
    return host.strip("[]"), number


Text = Annotated[str, StringConstraints(min_length=1, max_length=limits.NAME, pattern=r"^[^\x00-\x1f\x7f]+$")]


def _mapping(value: str) -> str:
    rest = value.replace("{registry}", "r", 1).removesuffix("{repository}")
    if not value.endswith("{repository}") or not re.fullmatch(r"(?:[a-z0-9]+(?:[._-]+[a-z0-9]+)*/)*", rest):
        raise ValueError(f"expected a path such as {MAPPING} that ends with {{repository}}, got {value[:100]!r}")
    return value


Mapping = Annotated[Text, AfterValidator(_mapping), Field(examples=[MAPPING])]
Url = Annotated[Text, AfterValidator(_url), Field(examples=["http://mirror.example:8080"])]
Address = Annotated[Text, AfterValidator(_address)]
"""A URL as it is written: some indexes tell ``/legacy`` and ``/legacy/`` apart."""

Listen = Annotated[Text, AfterValidator(_listen), Field(examples=[DEFAULT_LISTEN])]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RegistryConfig(_Strict):
    """A registry that takes the images and charts in place of the embedded one."""

    url: Url = Field(description="its address; a path behind it is put before every repository")
    ca: Text | None = Field(default=None, description=_CA)
    username: Text | None = None
    password_file: Text | None = Field(default=None, description="file whose first line is the password")

    kind: Literal["oci", "harbor"] = Field(default="oci", description="harbor: its projects, quotas and rules are used")
    mapping: Mapping = Field(default=MAPPING, description="the repository of an image")
    depth: int | None = Field(
        default=None, ge=1, le=60, description="most parts of {repository}; the last takes the rest, joined with -"
    )
    project: Text | None = Field(
        default=None, pattern=r"^[a-z0-9]+(?:[._-][a-z0-9]+)*$", description="one project that takes everything"
    )
    public: bool = Field(default=False, description="whether projects that are made may be pulled from by everybody")
    storage_limit: int = Field(
        default=-1, ge=-1, le=2**50, description="bytes for a project that is made; -1: no bound; 0: as Harbor has it"
    )

    @model_validator(mode="after")
    def _has_account(self) -> RegistryConfig:
        if self.kind == "harbor" and (self.username is None or self.password_file is None):
            raise ValueError("kind: harbor needs username and password_file")
        return self

    @property
    def host(self) -> str:
        """``host[:port]``."""
        return urlsplit(self.url).netloc

    def repository(self, path: str) -> str:
        """Return the repository of a mirror path, such as ``docker.io/library/redis``, in this registry.

        A path without a slash is a source registry; what is returned is before all its repositories.
        """
        registry, _, rest = path.partition("/")
        parts = rest.split("/")
        if self.depth is not None and len(parts) > self.depth:
            parts[self.depth - 1 :] = ["-".join(parts[self.depth - 1 :])]
        mapped = self.mapping.replace("{registry}", registry).replace("{repository}", "/".join(parts))
        prefix = urlsplit(self.url).path.strip("/")
        return "/".join(part for part in (prefix, self.project, mapped.strip("/")) if part)


class IndexConfig(_Strict):
    """A Python package index that gets the wheels beside the embedded one."""

    upload: Address = Field(description="where twine would upload to", examples=["https://devpi.example/ops/site/"])
    index: Address = Field(description="what pip reads", examples=["https://devpi.example/ops/site/+simple/"])
    ca: Text | None = Field(default=None, description=_CA)
    username: Text | None = None
    password_file: Text | None = Field(default=None, description="file whose first line is the password")


class TlsConfig(_Strict):
    """The certificate that `airlift serve` answers with."""

    certificate: Text = Field(description="file with the PEM chain, the site's own certificate first")
    key: Text = Field(description="file with its PEM key, without a passphrase")


class SiteConfig(_Strict):
    """site.yaml. Relative paths are relative to its directory."""

    url: Url = Field(description="where clients reach the site")
    listen: Listen = Field(default=DEFAULT_LISTEN, description="where `airlift serve` listens")
    identity: Text | None = Field(default=None, description="the site's private key, which opens its bundles")
    passphrase_file: Text | None = Field(default=None, description="file whose first line opens the identity")
    registry: RegistryConfig | None = None
    python: IndexConfig | None = None
    tls: TlsConfig | None = None


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
        return Store(self.root / "store")

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

    def password(self, config: RegistryConfig | IndexConfig) -> str:
        """Return the password of an external mirror, or nothing.

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
        raise UsageError(f"{root} is no site: there is no site.yaml", hint="make one with: airlift site init DIR")
    config = yamldoc.validate(SiteConfig, yamldoc.load(path))
    if believing is not None:
        return Site(root, config, believing)
    site = Site(root, config, load_trust(root / "trust.json"))
    pinned = None
    # Of a journal that is lost or cannot be read hears who needs it; the way back from that begins here too.
    with contextlib.suppress(StoreError), site.journal() as journal:
        pinned = journal.pinned()
    site.refuse_other_pin(pinned)
    return site


def init_site(root: Path, trust_file: Path, config: SiteConfig, *, now: datetime | None = None) -> Site:
    """Make a site: pin the trust file, write site.yaml, make an empty journal and store. `now` is for its history.

    Raises:
        UsageError: the directory is not empty.
        ManifestError: the trust file is wrong.
        StoreError: the disk refuses.
    """
    trust = load_trust(trust_file)
    with fs.guarded("creating"):
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise UsageError(
                f"{root} exists and is not empty",
                hint="a site is never overwritten; choose another directory, or edit its site.yaml",
            )
        is_new = not root.exists()
        root.mkdir(parents=True, exist_ok=True)
    try:
        site = Site(root, config, trust)
        site.store.create()
        with fs.guarded("creating"):
            site.drops_dir.mkdir()
        Journal.create(site.journal_path)
        with Journal(site.journal_path) as journal:
            journal.history.now = now
            journal.pin(trust.fingerprint)
        fs.write(root / "trust.json", fs.read_bounded(trust_file, limits.DOCUMENT))
        fs.write(root / "site.yaml", _document(config))
        # What was pinned is what is shown: read it again.
        return load_site(root)
    except BaseException:
        for item in root.iterdir():
            shutil.rmtree(item, ignore_errors=True) if item.is_dir() else item.unlink(missing_ok=True)
        if is_new:
            root.rmdir()
        raise


def _document(config: SiteConfig) -> bytes:
    text = yaml.safe_dump(config.model_dump(exclude_none=True), sort_keys=False, allow_unicode=True, width=1000)
    return f"# An airlift site. `airlift schema site` says what may stand here.\n{text}".encode()

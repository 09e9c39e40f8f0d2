"""What the command line reads of the machine: variables, clock, files in the home directory. Nothing else does."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from airlift import fs, limits
from airlift.errors import UsageError
from airlift.progress import Progress
from airlift.store import Store
from airlift.transport import credentials
from airlift.transport.http import HttpClient, HttpSettings
from airlift.transport.registry import RegistryClient

_FIRST_PASSED: Final = 3
"""The number of the first file that systemd passes."""

_DOCKER_CERTS: Final = Path("/etc/docker/certs.d")
"""Where docker has a registry's own certificates: ``HOST[:PORT]/*.crt``, ``*.cert`` with ``*.key``."""

_AUTHORITIES: Final = tuple(
    Path(name)
    for name in (
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    )
)
"""Where systems keep the certificates that they trust: Debian, Fedora and RHEL, SUSE, Alpine. As docker looks there."""


def variables() -> Mapping[str, str]:
    """Return the process environment, for programs that sources start."""
    return dict(os.environ)


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def passed_socket() -> socket.socket | None:
    """Return the socket that systemd listens on for us (LISTEN_PID, LISTEN_FDS), or None.

    Raises:
        UsageError: it passed several, or something else than a listening TCP socket.
    """
    # For somebody else: systemd names the process that it started, and the variables are inherited.
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = os.environ.get("LISTEN_FDS", "")
    if count != "1":
        raise UsageError(
            f"systemd passed {count or 'no'} sockets, expected one",
            hint="name one ListenStream= in the socket unit; an empty ListenStream= before it forgets the others",
        )
    try:
        found = socket.socket(fileno=_FIRST_PASSED)
        is_listening = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    except OSError as error:
        raise UsageError(f"the file that systemd passed is no socket: {error.strerror}") from None
    if not is_listening or found.family not in (socket.AF_INET, socket.AF_INET6) or found.type != socket.SOCK_STREAM:
        raise UsageError(
            "systemd passed a socket that is not a listening one of TCP",
            hint="the socket unit needs ListenStream=HOST:PORT and Accept=no",
        )
    found.set_inheritable(False)
    return found


def tell_systemd_ready() -> None:
    """Tell the service manager that waits for it that the service answers (NOTIFY_SOCKET, sd_notify(3))."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if place.startswith(("/", "@")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, contextlib.suppress(OSError):
            manager.connect(place.replace("@", "\0", 1) if place.startswith("@") else place)
            manager.sendall(b"READY=1")


def source_date() -> datetime | None:
    """Return SOURCE_DATE_EPOCH as a time, or None.

    Raises:
        UsageError: it is not a number of seconds.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if text is None:
        return None
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"SOURCE_DATE_EPOCH is {text!r}, expected seconds since 1970") from None


def moment(text: str, option: str) -> datetime:
    """Return a time given on the command line, such as 2026-12-31 or 2026-12-31T12:00:00Z.

    Raises:
        UsageError: it is not one.
    """
    try:
        value = datetime.fromisoformat(text)
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{option} {text!r}: expected a time such as 2026-12-31T12:00:00Z") from None


def passphrase(path: Path | None) -> Callable[[], bytes]:
    """Return what reads the passphrase when a key needs it: the first line of the file.

    Raises:
        UsageError: (when called) there is no file, or it cannot be read or is empty.
    """

    def read() -> bytes:
        if path is None:
            raise UsageError("the private key has a passphrase", hint="give it with --passphrase-file FILE")
        try:
            with path.open("rb") as stream:
                line = stream.readline(limits.ERROR_BODY).rstrip(b"\r\n")
        except OSError as error:
            raise UsageError(f"reading {path}: {error.strerror}") from None
        if not line:
            raise UsageError(f"{path}: the first line is empty, expected the passphrase")
        return line

    return read


def http_settings() -> HttpSettings:
    """Return proxies, NO_PROXY and the CA bundle, as curl and requests name them, and docker's directory of these.

    Without a CA bundle it is what the system trusts, and where the system has none, what came with airlift.

    Raises:
        UsageError: the CA bundle does not exist.
    """
    proxies = {}
    for scheme in ("http", "https"):
        value = os.environ.get(f"{scheme}_proxy") or (scheme == "https" and os.environ.get("HTTPS_PROXY")) or None
        value = value or os.environ.get("ALL_PROXY")
        if value:
            proxies[scheme] = value
    ca = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or os.environ.get("CURL_CA_BUNDLE")
    if ca and not Path(ca).exists():
        raise UsageError(f"the CA bundle {ca} does not exist", hint="see REQUESTS_CA_BUNDLE and SSL_CERT_FILE")
    return HttpSettings(
        ca_bundle=Path(ca)
        if ca
        else next((path for path in _AUTHORITIES if path.is_file() and path.stat().st_size), None),
        proxies=proxies,
        no_proxy=os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "",
        certs_dir=_DOCKER_CERTS if os.access(_DOCKER_CERTS, os.R_OK | os.X_OK) else None,
    )


def docker_config() -> dict[str, Any]:
    """Return docker's config.json, or {} without one.

    Raises:
        UsageError: it is not JSON.
    """
    folder = os.environ.get("DOCKER_CONFIG")
    path = Path(folder) / "config.json" if folder else Path.home() / ".docker" / "config.json"
    if not path.is_file():
        return {}
    try:
        value = json.loads(fs.read_bounded(path, limits.DOCUMENT))
    except ValueError as error:
        raise UsageError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path}: expected an object")
    return value


def registry(name: str, progress: Progress) -> RegistryClient:
    """Return the client of a registry, with docker's login.

    Raises:
        UsageError: docker's configuration is not JSON.
        FetchError: it is malformed, or its helper program fails.
    """
    login = credentials.find(docker_config(), name, variables())
    return RegistryClient(name, http=HttpClient(http_settings(), progress), credentials=login)


def cache_folder(folder: Path | None) -> Path:
    """Return the given folder, else ``$XDG_CACHE_HOME/airlift``, else ``~/.cache/airlift``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return folder or (Path(base) if base else Path.home() / ".cache") / "airlift"


def cache(folder: Path | None, *, disabled: bool) -> Store | None:
    """Return the cache's store (see `cache_folder`), or None when it is switched off.

    Raises:
        UsageError: a folder is given and the cache is switched off.
        StoreError: it cannot be made.
    """
    if disabled:
        if folder is not None:
            raise UsageError("--cache and --no-cache exclude each other")
        return None
    store = Store(cache_folder(folder)).create()
    store.clear_ingest()
    return store

"""Starting pip's worker: the user's pip configuration comes in by name, and goes on to an isolated process.

What is taken from pip's configuration (files and ``PIP_*``): index-url, extra-index-url, no-index, trusted-host, cert,
client-cert, proxy, timeout. ``find-links`` is not used, since its files have no index that a lock could name; that is
said once. Certificates are always verified: ``trusted-host`` allows plain HTTP to that host, nothing else. Credentials
are those in the index URLs; netrc and keyrings are not asked.
"""

from __future__ import annotations

import json
import os
import subprocess  # noqa: TID251 - starts pip's worker
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from airlift.connected.requirement_files import Requirements
from airlift.connected.source import Settings
from airlift.errors import ResolveError
from airlift.kinds.wheel_targets import WheelTarget
from airlift.transport import urls
from airlift.transport.http import HttpSettings

_WORKER: Final = Path(__file__).with_name("pip_worker.py")
_SHOWN: Final = 2000
_NO_ADDRESS: Final = "a dependency that is given by its address (name @ https://...) cannot be carried"


@dataclass(frozen=True, slots=True)
class Index:
    """One package index.

    Attributes:
        name: what the lock calls it: ``index``, ``extra-1``, ``extra-2`` ...
        url: its simple URL with a slash at the end, without credentials.
        auth: Authorization value, or None.
        plain_http: whether http is allowed to it.
    """

    name: str
    url: str
    auth: str | None = field(default=None, repr=False)
    plain_http: bool = False


@dataclass(frozen=True, slots=True)
class PipSettings:
    """What the user's pip configuration says, ready for use.

    Attributes:
        indexes: in pip's order.
        http: the machine's HTTP settings with pip's certificate, proxy and time-out.
        worker: the same in the worker's words, with secrets.
        secrets: passwords of index URLs, which no message may contain.
        ignored: ``find-links`` entries, which are not used.
    """

    indexes: tuple[Index, ...]
    http: HttpSettings
    worker: Mapping[str, Any] = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pin:
    """What pip chose: a file of a project; `local` when it is one that was built here."""

    project: str
    filename: str
    url: str = field(repr=False)
    sha256: str | None
    local: bool


@dataclass(frozen=True, slots=True)
class Unmet:
    """A requirement that pip could not satisfy together with the others.

    Attributes:
        project: normalised; without meaning where `is_python`.
        specifier: versions that are wanted.
        wanted: the requirement as text.
        by: who asks (``numpy 2.1``), or None for the user.
        is_python: whether it is a Requires-Python.
    """

    project: str
    specifier: str
    wanted: str
    by: str | None
    is_python: bool = False


class NoAnswerError(ResolveError):
    """pip found no set of versions. Never leaves `airlift.connected.sources.wheels`, which says why."""

    def __init__(self, message: str, unmet: Sequence[Unmet]) -> None:
        super().__init__(message)
        self.unmet = tuple(unmet)


def load_settings(settings: Settings) -> PipSettings:
    """Ask pip what its configuration says.

    Raises:
        ResolveError: the configuration cannot be read, or names no index or one that is not http(s).
    """
    said = _run({"task": "configuration"}, dict(settings.environment))
    if said["index_url"] is None:
        raise ResolveError(
            "pip's configuration says no-index, and there is no other place to take wheels from",
            hint="unset PIP_NO_INDEX, or remove no-index from pip.conf",
        )
    hosts = frozenset(host.lower() for host in said["trusted_hosts"])
    urls_ = [said["index_url"], *said["extra_index_urls"]]
    names = ["index", *(f"extra-{number}" for number in range(1, len(urls_)))]
    indexes = tuple(_index(name, url, hosts) for name, url in zip(names, urls_, strict=True))
    http = settings.http
    if said["cert"]:
        http = replace(http, ca_bundle=Path(said["cert"]).expanduser())
    if said["client_cert"]:
        http = replace(http, client_cert=Path(said["client_cert"]).expanduser())
    if said["proxy"]:
        http = replace(http, proxies={"http": said["proxy"], "https": said["proxy"]})
    http = replace(http, timeout_s=said["timeout"])
    cert = said["cert"] or (str(http.ca_bundle) if http.ca_bundle else None)
    passwords = {unquote(urlsplit(url).password or "") for url in urls_}
    passwords |= {quote(word, safe="") for word in passwords}
    secrets = tuple(sorted(passwords - {""}, key=len, reverse=True))
    return PipSettings(
        indexes, http, {**said, "cert": cert, "retries": http.retries}, secrets, tuple(said["find_links"])
    )


def _index(name: str, url: str, trusted: frozenset[str]) -> Index:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ResolveError(
            f"pip's {name}-url has the scheme {parts.scheme or 'none'!r}; only http and https are supported"
            if name == "index"
            else f"pip's extra-index-url ({name}) has the scheme {parts.scheme or 'none'!r}; http or https is expected"
        )
    auth = urls.without_user(url)[1]
    plain = parts.hostname in trusted or f"{parts.hostname}:{parts.port}" in trusted
    return Index(name, without_credentials(url).rstrip("/") + "/", auth, plain)


def without_credentials(url: str) -> str:
    """Return a URL without user, password and fragment."""
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[2]
    return urlunsplit(SplitResult(parts.scheme, netloc, parts.path, parts.query, ""))


def resolve(
    settings: Settings,
    pip: PipSettings,
    target: WheelTarget,
    requirements: Requirements,
    *,
    work: Path,
    built: Path | None,
) -> list[Pin]:
    """Pin requirements for one target, in a process of its own.

    Args:
        settings: the machine.
        pip: the user's pip configuration.
        target: the environment.
        requirements: what is asked for.
        work: directory for pip's own cache.
        built: directory of wheels that were built here, or None.

    Raises:
        NoAnswerError: there is no such set.
        ResolveError: pip failed in another way.
    """
    task = {
        "task": "resolve",
        "indexes": pip.worker,
        "cache": str(work / "pip"),
        "built": None if built is None else str(built),
        "pre": requirements.pre,
        "target": {"version": target.version, "platforms": target.platforms(), "markers": target.markers()},
        "lines": [
            {"text": line.text, "place": line.place, "constraint": line.constraint, "hashes": line.hashes}
            for line in requirements.lines
        ],
    }
    found = _run(task, _isolated(settings), secrets=pip.secrets)
    return [Pin(**item) for item in found["pins"]]


def build(settings: Settings, pip: PipSettings, sdist: Path, *, out: Path) -> Path:
    """Build a wheel of a source distribution and return it.

    Raises:
        ResolveError: it does not build.
    """
    task = {"task": "build", "indexes": pip.worker, "sdist": str(sdist), "out": str(out)}
    # The time inside the archive is fixed, so that the same sdist gives the same wheel where its build allows it.
    environment = {**_isolated(settings), "SOURCE_DATE_EPOCH": "315532800"}
    return out / str(_run(task, environment, secrets=pip.secrets)["wheel"])


def _isolated(settings: Settings) -> dict[str, str]:
    kept = {key: value for key, value in settings.environment.items() if not key.startswith(("PIP_", "PYTHONHOME"))}
    return {**kept, "PIP_CONFIG_FILE": os.devnull, "NETRC": os.devnull}


def _run(task: Mapping[str, Any], environment: Mapping[str, str], *, secrets: Sequence[str] = ()) -> dict[str, Any]:
    # -P: the worker's own directory must not come before the installed packages. Secrets go through stdin, never argv.
    done = subprocess.run(  # noqa: S603 - our own worker, by its path
        [sys.executable, "-P", str(_WORKER)],
        input=json.dumps(task).encode(),
        capture_output=True,
        env=dict(environment),
        check=False,
    )
    said = _hide(done.stderr.decode(errors="replace").strip(), secrets)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        doing = {"configuration": "reading pip's configuration"}.get(task["task"], f"pip ({task['task']})")
        raise ResolveError(
            f"{doing} failed with status {done.returncode}: {said[-_SHOWN:] or 'nothing was said'}",
            hint="pip and pip-tools come with airlift[build]" if "ModuleNotFoundError" in said else None,
        ) from None
    if "error" in answer:
        error = {**answer["error"], "message": _hide(answer["error"]["message"], secrets)}
        raise _error(task["task"], error, said)
    return dict(answer["result"])


def _hide(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "****")
    return text


def _error(task: str, error: Mapping[str, Any], said: str) -> ResolveError:
    if task == "resolve" and error["projects"]:
        return NoAnswerError(error["message"], [Unmet(**item) for item in error["projects"]])
    tail = f"\n{said[-_SHOWN:]}" if task == "build" and said else ""
    hint = _NO_ADDRESS if " is asked for by address " in error["message"] else None
    return ResolveError(f"pip: {error['message']}{tail}", hint=hint)

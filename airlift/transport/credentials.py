"""Logins for registries, as docker's ``config.json`` has them: ``auths``, ``credHelpers``, ``credsStore``."""

from __future__ import annotations

import base64
import binascii
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from airlift import limits
from airlift.errors import FetchError
from airlift.reference import DEFAULT_REGISTRY

_DOCKER_KEYS: Final = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")
_HELPER_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NO_USER: Final = "<token>"
"""What a helper gives as the user of an identity token."""
_TIMEOUT_S: Final = 60
_ABSENT: Final = "credentials not found"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login. `identity_token` is what OAuth2 calls a refresh token; with it there is no password."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


def find(config: Mapping[str, Any], registry: str, environment: Mapping[str, str]) -> Credentials | None:
    """Return the login that docker would use for a registry, or None.

    Args:
        config: content of ``config.json``.
        registry: ``host[:port]``; ``docker.io`` for Docker Hub.
        environment: for the helper program, which is looked up on its PATH.

    Raises:
        FetchError: the configuration is malformed, or its helper program fails.
    """
    helper = _section(config, "credHelpers").get(registry) or config.get("credsStore")
    if helper:
        found = _ask(str(helper), registry, environment)
        if found is not None:
            return found
    auths = _section(config, "auths")
    keys = {_host(key): key for key in auths}
    for name in _names(registry):
        key = name if name in auths else keys.get(name)
        if key is not None and isinstance(auths[key], dict) and (login := _login(auths[key], registry)) is not None:
            return login
    return None


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FetchError(f"docker's configuration: {name} is {type(value).__name__}, expected an object")
    return value


def _names(registry: str) -> tuple[str, ...]:
    return _DOCKER_KEYS if registry == DEFAULT_REGISTRY else (registry,)


def _host(key: str) -> str:
    """Return the registry of an ``auths`` key, which older clients wrote as a URL."""
    return re.sub(r"^https?://", "", key).partition("/")[0]


def _login(entry: Mapping[str, Any], registry: str) -> Credentials | None:
    token = entry.get("identitytoken")
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            text = base64.b64decode(str(entry["auth"]), validate=True).decode()
        except (binascii.Error, ValueError):
            raise FetchError(
                f"docker's configuration: auth of {registry} is not base64", hint=f"run docker login {registry} again"
            ) from None
        username, _, password = text.partition(":")
        password = password.rstrip("\0")
    if token:
        return Credentials(username, "", str(token))
    return Credentials(username, password) if username else None


def _ask(helper: str, registry: str, environment: Mapping[str, str]) -> Credentials | None:
    """Run ``docker-credential-HELPER get``; the protocol is docker-credential-helpers' README."""
    if _HELPER_NAME.fullmatch(helper) is None:
        raise FetchError(f"docker's configuration: {helper[:64]!r} is not a name of a credential helper")
    name = f"docker-credential-{helper}"
    program = shutil.which(name, path=environment.get("PATH", ""))
    if program is None:
        raise FetchError(
            f"docker's configuration wants {name} for {registry}, which is not on the PATH",
            hint="install it, or take it out of docker's config.json",
        )
    key = _DOCKER_KEYS[0] if registry == DEFAULT_REGISTRY else registry
    try:
        done = subprocess.run(  # noqa: S603 - the user's own helper, its name checked
            [program, "get"], input=key.encode(), capture_output=True, timeout=_TIMEOUT_S, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"{name} for {registry}: {type(error).__name__}") from None
    output = done.stdout[: limits.ERROR_BODY]
    if done.returncode != 0:
        text = (output or done.stderr[: limits.ERROR_BODY]).decode("utf-8", "replace").strip()
        if _ABSENT in text:
            return None
        raise FetchError(f"{name} for {registry} failed: {text[:200]}")
    try:
        value = json.loads(output)
        username, secret = str(value["Username"]), str(value["Secret"])
    except (ValueError, KeyError, TypeError):
        # What it said may be half a secret.
        raise FetchError(f"{name} for {registry}: expected a JSON object with Username and Secret") from None
    if username == _NO_USER:
        return Credentials("", "", secret)
    return Credentials(username, secret)

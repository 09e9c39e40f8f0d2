"""What a URL says about trust: its origin, whether it stays on this machine, how it is shown."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

from airlift.errors import FetchError

_PORTS = {"http": 80, "https": 443}


def split(url: str) -> SplitResult:
    """Return the parts of an http(s) URL.

    Raises:
        FetchError: it is no such URL.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise FetchError(f"not a URL: {url[:100]!r}") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise FetchError(f"not an http or https URL: {shown(url)!r}")
    return parts


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port: the party that credentials are meant for.

    Raises:
        FetchError: it is no http(s) URL.
    """
    parts = split(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS[parts.scheme]


def joined(url: str, place: str) -> str:
    """Return where a server says that something is, who was asked at `url`; the place may be relative.

    Raises:
        FetchError: it is no URL.
    """
    try:
        return urljoin(url, place)
    except ValueError:
        raise FetchError(f"{shown(url)} names a place that is no URL") from None


def shown(url: str) -> str:
    """Return the URL for messages: without user, password, query and fragment, all of which may be secret."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(a malformed URL)"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))[:500]


def without_user(url: str) -> tuple[str, str | None]:
    """Return the URL without user and password, and those as an Authorization value (or None).

    Raises:
        FetchError: it is no http(s) URL.
    """
    parts = split(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    name, _, password = user.partition(":")
    return urlunsplit(parts._replace(netloc=host)), basic(unquote(name), unquote(password))


def basic(username: str, password: str) -> str:
    """Return the Authorization value of a user and password."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


def address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a host name literally is, or None."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Say whether a host name (without a port) is this machine, judged by the name alone."""
    ip = address(host)
    return ip.is_loopback if ip else host.lower() == "localhost"


def proxies_for(url: str, proxies: Mapping[str, str], no_proxy: str) -> dict[str, str]:
    """Return the proxies that a request to `url` goes through; loopback never does.

    Raises:
        FetchError: it is no http(s) URL.
    """
    scheme, host, port = origin(url)
    if is_loopback(host) or scheme not in proxies or _is_exempt(host, port, no_proxy):
        return {}
    return {scheme: proxies[scheme]}


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    ip = address(host)
    for item in no_proxy.replace(" ", "").lower().split(","):
        if not item:
            continue
        if item in {"*", f"{host}:{port}"}:
            return True
        if ip is not None:
            try:
                if ip in ipaddress.ip_network(item, strict=False):
                    return True
            except ValueError:
                pass
            continue
        name = item.removeprefix("*").removeprefix(".")
        if host == name or host.endswith(f".{name}"):
            return True
    return False

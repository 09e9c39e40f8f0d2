"""The certificates of a site compared with the clock: those of its mirrors' authorities, and its own."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from airlift import fs, limits
from airlift.errors import DeliveryError, StoreError, UsageError
from airlift.site.config import Site
from airlift.site.preflight_findings import Finding, Severity, failed, ok
from airlift.site.server import tls
from airlift.trust.fields import format_time

_SOON: Final = timedelta(days=30)
_REHASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")


def look(site: Site, now: datetime) -> Iterator[Finding]:
    """Yield what was found about them.

    Args:
        site: where.
        now: the time, with its zone.
    """
    yield from _dates(site, now)
    yield from _tls(site)


def _dates(site: Site, now: datetime) -> Iterator[Finding]:
    """Compare the dates of the external mirrors' authorities with the clock."""
    configs = (site.config.registry, site.config.python)
    for path in dict.fromkeys(site.at(config.ca) for config in configs if config is not None):
        if path is not None:
            yield from _authorities(path, now)


def _authorities(path: Path, now: datetime) -> Iterator[Finding]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        with fs.guarded("reading"):
            # Of a directory OpenSSL reads what openssl rehash made, and nothing else.
            files = [f for f in sorted(path.iterdir()) if _REHASHED.fullmatch(f.name)] if path.is_dir() else [path]
        texts = [fs.read_bounded(file, limits.DOCUMENT).decode("ascii", "replace") for file in files]
        context.load_verify_locations(cadata="\n".join(texts))
    except StoreError as error:
        yield failed("certificates", error)
        return
    except (ssl.SSLError, ValueError) as error:
        message = f"{path}: no certificates: {error}"
        yield failed("certificates", DeliveryError(message, hint="give a PEM file in site.yaml"))
        return
    for one in context.get_ca_certs():
        ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(one["notAfter"])), UTC)
        when = f"{path}: the certificate with serial {one['serialNumber']} is good until {format_time(ends)}"
        if ends <= now:
            remedy = "get the present authority from the administrator of that server"
            yield failed("certificates", DeliveryError(when, hint=remedy))
        elif ends <= now + _SOON:
            yield Finding("certificates", Severity.WARNING, when, "ask for its successor now")
        else:
            yield ok("certificates", when)


def _tls(site: Site) -> Iterator[Finding]:
    """Load what `airlift serve` answers with; an import does without, so what is wrong with it is a warning."""
    try:
        certificate = tls.of_site(site)
    except (StoreError, UsageError) as error:
        yield Finding("tls", Severity.WARNING, error.message, error.hint or "")
        return
    if certificate is not None:
        yield ok("tls", "certificate and key of tls in site.yaml can be read and belong together")

"""The certificate that a site answers with, and its exchange while connections go on."""

from __future__ import annotations

import ssl
from pathlib import Path

from airlift import fs
from airlift.errors import StoreError, UsageError
from airlift.site.config import Site


class Certificate:
    """A server certificate with its key, TLS 1.2 and later."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read it.

        Raises:
            UsageError: a file cannot be read, or the two do not belong together.
        """
        self._certificate = certificate
        self._key = key
        self.context = self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def reload(self) -> None:
        """Read both files again, for connections that come later; those that are there keep theirs.

        Raises:
            UsageError: as for the first time; what was read before stays.
        """
        # Into a context that nobody uses first: a half-written pair must not take away the one that works.
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self._load(self.context)

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # An empty passphrase: OpenSSL would else ask on the terminal.
            context.load_cert_chain(self._certificate, self._key, password="")
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise UsageError(
                f"certificate {self._certificate} with key {self._key}: {reason}",
                hint="expected a PEM chain, the site's own certificate first, and its PEM key without a passphrase",
            ) from None
        return context


def of_site(site: Site) -> Certificate | None:
    """Return the certificate that site.yaml names, or None.

    Raises:
        StoreError: a file of it is not there, or may not be looked at.
        UsageError: see `Certificate`.
    """
    if site.config.tls is None:
        return None
    paths = {"certificate": site.root / site.config.tls.certificate, "key": site.root / site.config.tls.key}
    for key, path in paths.items():
        what = f"{key} of tls in site.yaml"
        with fs.guarded(f"{what}: reading"):
            is_there = path.exists()
        if not is_there:
            raise StoreError(f"{what}: {path}: no such file", hint=f"mend {what}, or put the file there")
    return Certificate(**paths)

"""How to reach servers, as the command line reads it from the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from airlift import __version__


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """How to reach servers; the command line reads it from the machine.

    Attributes:
        ca_bundle: certificates to trust, a file or a directory; None for those that come with `certifi`.
        proxies: proxy URL for ``http`` and for ``https``.
        no_proxy: hosts, domains and networks that are reached directly, separated by commas.
        timeout_s: for connecting, and for silence in the middle of an answer.
        retries: further attempts after a fault that may pass; a transfer that went on counts afresh.
        user_agent: what servers see.
        certs_dir: directory like docker's ``certs.d``: ``HOST[:PORT]/*.crt`` are trusted beside the others, ``*.cert``
            with ``*.key`` are shown to that server; or None.
        client_cert: PEM file with a certificate and its key, for every server that asks and has none there; or None.
        ca_hint: what to do where a server's certificate is not trusted, in the words of who made these settings.
        login_hint: what to do where a token service refuses the login; None where it is docker's.
    """

    ca_bundle: Path | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)
    no_proxy: str = ""
    timeout_s: float = 30
    retries: int = 5
    user_agent: str = f"airlift/{__version__}"
    certs_dir: Path | None = None
    client_cert: Path | None = None
    ca_hint: str = "if a private certificate authority signed it, name its certificate in SSL_CERT_FILE"
    login_hint: str | None = None

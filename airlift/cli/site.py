"""``airlift site``: make the directory that a site lives in."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
from pydantic import ValidationError

from airlift.cli import console, environment, options, site_log, site_recover, site_robot, site_trust
from airlift.errors import UsageError
from airlift.site.config import init_site
from airlift.site.site_yaml import DEFAULT_LISTEN, RegistryConfig, SiteConfig, TlsConfig
from airlift.trust import keys
from airlift.trust.roots import load_trust

_LOOPBACK: Final = {"127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "::1": "[::1]"}


@click.group()
def command() -> None:
    """Make the directory that a site lives in."""


@command.command()
@click.argument("folder", metavar="DIR", type=options.FOLDER)
@click.option("--trust", "trust_file", type=options.EXISTING, required=True, help="Whom to believe; it is pinned.")
@click.option("--url", required=True, help="Where clients reach the site, such as http://mirror.example:8080.")
@click.option("--identity", type=options.EXISTING, help="The site's private key; not needed for plain bundles.")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help=f"For airlift serve. Default: what a loopback --url says, else {DEFAULT_LISTEN}.",
)
@click.option("--tls-cert", type=options.EXISTING, help="PEM chain that airlift serve answers with.")
@click.option("--tls-key", type=options.EXISTING, help="Its PEM key, without a passphrase.")
@click.option("--fingerprint", metavar="HEX", help="Of the trust file, from paper; no site is made for another.")
@click.option("--registry", help="A registry that takes images and charts in place of the embedded one.")
@click.option("--registry-ca", type=options.EXISTING, help="Certificates that the registry is checked against.")
@click.option("--registry-username")
@click.option("--registry-password-file", type=options.EXISTING, help="Its first line is the password.")
@options.passphrase
def init(
    folder: Path,
    trust_file: Path,
    url: str,
    identity: Path | None,
    listen: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    fingerprint: str | None,
    registry: str | None,
    registry_ca: Path | None,
    registry_username: str | None,
    registry_password_file: Path | None,
    passphrase_file: Path | None,
) -> None:
    """Make a site in DIR and print the fingerprint of whom it believes.

    Compare the fingerprint with the one on paper. The key and the other files stay where they are.
    """
    for given in (registry_ca, registry_username, registry_password_file):
        if given is not None and registry is None:
            raise UsageError("an option for the registry was given without --registry URL")
    if (tls_cert is None) != (tls_key is None):
        raise UsageError("expected both --tls-cert and --tls-key, got one")
    if fingerprint is not None:
        load_trust(trust_file).check_fingerprint(fingerprint)
    if identity is not None and (passphrase_file is not None or not keys.needs_passphrase(identity)):
        keys.load_identity(identity, environment.passphrase(passphrase_file))
    try:
        config = SiteConfig(
            url=url,
            listen=_listen_for(url) if listen is None else listen,
            identity=_absolute(identity),
            passphrase_file=_absolute(passphrase_file),
            tls=TlsConfig(certificate=str(tls_cert.absolute()), key=str(tls_key.absolute()))
            if tls_cert and tls_key
            else None,
            registry=None
            if registry is None
            else RegistryConfig(
                url=registry,
                ca=_absolute(registry_ca),
                username=registry_username,
                password_file=_absolute(registry_password_file),
            ),
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = "--registry" if first["loc"] == ("url",) and first["input"] == registry else f"--{first['loc'][-1]}"
        raise UsageError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
    site = init_site(folder, trust_file, config, now=environment.now())
    console.say(f"site {folder} for {console.channels(sorted(site.trust.channels))}; compare with paper:")
    console.answer(f"fingerprint {site.trust.fingerprint}")


def _listen_for(url: str) -> str:
    """Return where to listen: a URL of the loopback says it; any other may be that of a proxy in front."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.port and parts.hostname in _LOOPBACK:
            return f"{_LOOPBACK[parts.hostname]}:{parts.port}"
    return DEFAULT_LISTEN


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


command.add_command(site_log.log)
command.add_command(site_recover.recover)
command.add_command(site_robot.robot)
command.add_command(site_trust.trust)

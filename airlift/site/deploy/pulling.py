"""Whether nodes may pull from the registry that site.yaml names: asked before anything is written for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from airlift.artifact import Artifact, DropConfig, Kind
from airlift.errors import DeployError, FetchError
from airlift.progress import Progress
from airlift.site.config import Site
from airlift.site.deploy.k3s import preloaded
from airlift.site.deploy.registries import Endpoint
from airlift.site.mirror import place_of
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.credentials import Credentials
from airlift.transport.http import HttpClient, HttpStatusError
from airlift.transport.registry import RegistryClient
from airlift.transport.settings import HttpSettings

_MEND: Final = (
    "mend `pull` of registry in site.yaml, or its username and password_file where there is no `pull`, or the "
    "account's rights at the registry; then run the same command again"
)


def check(
    site: Site, endpoint: Endpoint, drops: Sequence[DropConfig], http: HttpSettings, progress: Progress
) -> str | None:
    """Ask for an image of each source registry that no tarball brings, with the account and certificates of nodes.

    Args:
        site: the site.
        endpoint: what nodes are told.
        drops: what they are to run.
        http: how to reach the registry.
        progress: listener.

    Returns:
        What could not be found out, or None.

    Raises:
        DeployError: the registry refuses the account, or is not who its certificate says.
        StoreError: what has its certificates cannot be read.
    """
    config = site.config.registry
    if config is None:
        return None
    settings = replace(site.reaching(config, http), retries=0)
    login = None if endpoint.username is None else Credentials(endpoint.username, endpoint.password or "")
    is_plain = config.url.startswith("http://")
    client = RegistryClient(config.host, http=HttpClient(settings, progress), credentials=login, plain_http=is_plain)
    for item in _one_of_each(drops).values():
        try:
            client.head(config.repository(place_of(item)[0]), item.root.digest)
        except FetchError as error:
            if error.temporary:
                return f"{config.host} was not asked whether nodes may pull: {error.message}"
            raise DeployError(
                f"{config.host}: nodes cannot pull {item.name} {_account(endpoint, config)}: {error.message}",
                hint=_MEND if isinstance(error, HttpStatusError) else error.hint,
            ) from None
    return None


def _one_of_each(drops: Sequence[DropConfig]) -> Mapping[str, Artifact]:
    brought = {name for drop in drops for name in preloaded(drop)}
    images = [item for drop in drops for item in drop.artifacts if item.kind is Kind.IMAGE and item.name not in brought]
    return {place_of(item)[0].partition("/")[0]: item for item in images}


def _account(endpoint: Endpoint, config: RegistryConfig) -> str:
    if endpoint.username is None:
        return "without an account"
    where = "username" if config.pull is None else "pull"
    return f"as {endpoint.username} ({where} in site.yaml)"

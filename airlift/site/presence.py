"""Asks an external registry, a few questions at a time, for manifests and for what its tags point at."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from airlift.digest import Digest
from airlift.errors import DeliveryError, IntegrityError
from airlift.transport.http import HttpStatusError
from airlift.transport.refusals import delivering
from airlift.transport.registry import RegistryClient

_WORKERS: Final = 4


def point_there(client: RegistryClient, tags: Iterable[tuple[str, str, Digest]]) -> list[bool]:
    """Say of each tag whether it points at a digest.

    Args:
        client: the registry.
        tags: repository, tag and digest of each.

    Raises:
        DeliveryError: the registry does not answer.
    """

    def is_so(one: tuple[str, str, Digest]) -> bool:
        repository, tag, digest = one
        with delivering(client.registry):
            found = client.head(repository, tag)
        return found is not None and found.digest == digest

    with ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="registry") as pool:
        return list(pool.map(is_so, tags))


def require_manifests(client: RegistryClient, wanted: Iterable[tuple[str, Digest]]) -> None:
    """Refuse where the registry does not have a manifest: it would take no tag for it, and others had moved by then.

    One that it has damaged is not refused: the tag brings the manifest again.

    Args:
        client: the registry.
        wanted: repository and digest of each.

    Raises:
        DeliveryError: one is not there, or the registry does not answer.
    """

    def is_there(item: tuple[str, Digest]) -> bool:
        with delivering(client.registry):
            try:
                return client.head(*item) is not None
            except (HttpStatusError, IntegrityError):
                return True

    items = sorted(set(wanted))
    with ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="registry") as pool:
        lacking = [item for item, found in zip(items, pool.map(is_there, items), strict=True) if not found]
    if lacking:
        raise DeliveryError(
            f"{client.registry} does not have {len(lacking)} of {len(items)} manifests that tags are to point at, the"
            f" first is {client.name(*lacking[0])}",
            mirror=client.registry,
            hint="airlift check --site DIR --repair sends what kept drops have there; then run the same command again",
        )

"""The list of a site's files, as the server and the static tree give it; addresses in it are relative to ``files/``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airlift import digest as digests


def index_of(names: Iterable[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return one entry per file, sorted by name.

    Args:
        names: file name, and what `airlift.site.mirrors.files` says about it.
    """
    return [
        {"name": name, "size": value["size"], "sha256": digests.hex_of(value["digest"]), "url": name}
        for name, value in sorted(names, key=lambda pair: pair[0])
    ]

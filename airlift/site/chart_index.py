"""The index of a chart repository, as the server and the static tree give it.

It is JSON, which every YAML parser reads and none takes for something else; all addresses in it are relative.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from airlift import digest
from airlift.kinds import semver

# Helm wants times; what the drop holds has none, and the site's clock would make two sites differ.
_CREATED: Final = "1970-01-01T00:00:00Z"


def index_of(names: list[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return a chart repository's index.

    Args:
        names: chart name, and what `airlift.site.mirrors.charts` says about each version.
    """
    entries: dict[str, list[dict[str, Any]]] = {}
    newest_first = sorted(names, key=lambda item: (semver.parse_version(item[1]["version"]), item[1]["digest"]))
    for name, value in reversed(newest_first):
        hex_digits = digest.hex_of(digest.parse(value["digest"]))
        entries.setdefault(name, []).append(
            {
                **value["chart"],
                "created": _CREATED,
                "digest": hex_digits,
                "urls": [f"{hex_digits}/{name}-{value['version']}.tgz"],
            }
        )
    return {"apiVersion": "v1", "entries": entries, "generated": _CREATED}

"""A chart repository's ``index.yaml``: what it says about one chart.

Indexes of many megabytes are common, and reading one whole takes a minute; so the chart's own lines are cut out where
the document has the form that Helm writes, and the whole is read where it does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from airlift import limits
from airlift.errors import IntegrityError, ResolveError
from airlift.kinds import chart_yaml

_SHOWN: Final = 5
_ENTRIES = re.compile(rb"^entries:[ \t]*\r?\n", re.MULTILINE)
_TOP = re.compile(rb"^[^\s#]", re.MULTILINE)


def releases(data: bytes, name: str, *, subject: str) -> dict[str, Mapping[str, Any]]:
    """Return a chart's releases by version; where a version is there twice, its first counts, as for Helm.

    Args:
        data: the index.
        name: the chart's name.
        subject: whose index it is, for messages.

    Raises:
        IntegrityError: it is no index.
        ResolveError: the chart is not in it.
    """
    entries = _cut(data, name)
    if entries is None:
        entries = _whole(data, name, subject)
    found: dict[str, Mapping[str, Any]] = {}
    for item in entries:
        if isinstance(item, dict) and isinstance(item.get("version"), str | int | float):
            found.setdefault(str(item["version"]), item)
    return found


def _whole(data: bytes, name: str, subject: str) -> list[Any]:
    value = chart_yaml.load(data, subject=f"index of {subject}", limit=limits.INDEX_DOCUMENT)
    entries = value.get("entries") if isinstance(value, dict) else None
    if not isinstance(value, dict) or "apiVersion" not in value or not isinstance(entries, dict | None):
        raise IntegrityError(f"index of {subject}", expected="a chart repository's index", actual=repr(value)[:100])
    found = (entries or {}).get(name)
    if not isinstance(found, list):
        close = sorted(str(key) for key in entries or () if name.lower() in str(key).lower())[:_SHOWN]
        raise ResolveError(
            f"{subject}: no chart is called {name!r}", hint=f"there are {', '.join(close)}" if close else None
        )
    return found


def _cut(data: bytes, name: str) -> list[Any] | None:
    """Return the chart's entries from its own lines, or None where that is not certain."""
    start = _ENTRIES.search(data)
    if start is None or len(_ENTRIES.findall(data)) != 1 or not re.search(rb"^apiVersion:", data, re.MULTILINE):
        return None
    after = _TOP.search(data, start.end())
    end = after.start() if after else len(data)
    key = re.compile(rb"^( +)" + re.escape(name.encode()) + rb":[ \t]*\r?\n", re.MULTILINE)
    found = key.search(data, start.end(), end)
    indent = re.compile(rb" *").match(data, start.end())
    if found is None or indent is None or found[1] != indent[0]:
        return None
    following = re.compile(rb"^ {0,%d}[^\s#-]" % len(found[1]), re.MULTILINE).search(data, found.end(), end)
    block = data[found.start() : following.start() if following else end]
    try:
        value = chart_yaml.load(block, subject="", limit=limits.INDEX_DOCUMENT)
    except IntegrityError:
        return None
    entries = value.get(name) if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(entries, list) or not all(isinstance(e, dict) and e.get("name") == name for e in entries):
        return None
    return entries

"""Harbor's rules of immutability: which tag one is about. Harbor stores rules that select nothing, too."""

from __future__ import annotations

import re

from airlift import limits


def covers(rule: object, repository: str, tag: str) -> bool:
    """Say whether a rule is about a tag.

    Args:
        rule: as the API gives it.
        repository: without its project.
        tag: which.
    """
    if not isinstance(rule, dict) or rule.get("disabled"):
        return False
    scopes = rule.get("scope_selectors")
    repositories = scopes.get("repository") if isinstance(scopes, dict) else None
    return _selected(rule.get("tag_selectors"), tag, "matches", "excludes") and _selected(
        repositories, repository, "repoMatches", "repoExcludes"
    )


def _selected(selectors: object, name: str, within: str, without: str) -> bool:
    if not isinstance(selectors, list) or not selectors:
        return False
    for item in selectors:
        if not isinstance(item, dict) or item.get("kind") != "doublestar":
            return False
        is_match = _pattern(str(item.get("pattern", ""))[: limits.NAME]).fullmatch(name) is not None
        if item.get("decoration") != (within if is_match else without):
            return False
    return True


def _pattern(glob: str) -> re.Pattern[str]:
    """Return the expression of a doublestar pattern: ``**``, ``*``, ``?`` and ``{a,b}``."""
    out, depth = [], 0
    is_balanced = glob.count("{") == glob.count("}")
    for part in re.findall(r"\*+|.", glob, re.DOTALL):
        if part[0] == "*":
            out.append(".*" if len(part) > 1 else "[^/]*")
        elif part == "?":
            out.append("[^/]")
        elif part == "{" and is_balanced:
            depth += 1
            out.append("(?:")
        elif part == "}" and depth:
            depth -= 1
            out.append(")")
        elif part == "," and depth:
            out.append("|")
        else:
            out.append(re.escape(part))
    return re.compile("".join(out) + ")" * depth)

"""Harbor's rules of immutability: which tag one is about. Harbor stores rules that select nothing, too."""

from __future__ import annotations

import re
from typing import Final

from airlift import limits

_MAX_ALTERNATIVES: Final = 256
_SIGNS: Final = re.compile(r"\*+|\[\^?(?:\\.|[^\]\\])+\]|\\.|.", re.DOTALL)
_MEMBERS: Final = re.compile(r"(\\.|.)(?:-(\\.|.))?", re.DOTALL)
"""What is in a class: single characters, and the first and last of each range."""


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
        is_match = _matches(str(item.get("pattern", ""))[: limits.NAME], name)
        if item.get("decoration") != (within if is_match else without):
            return False
    return True


def _matches(glob: str, name: str) -> bool:
    """Say whether a doublestar pattern (``**``, ``*``, ``?``, ``[a-z]``, ``{a,b}``) fits a whole name, in bounded time.

    Of doublestar 1, as Harbor has it: ``^`` negates a class, ``!`` does not.
    """
    return any(_fits(one, name) for one in _alternatives(glob))


def _alternatives(glob: str) -> list[str]:
    """Return the patterns without braces that one stands for; of too many only the first."""
    done: list[str] = []
    waiting = [glob]
    while waiting and len(done) < _MAX_ALTERNATIVES:
        one = waiting.pop()
        start = one.find("{")
        parts, end = _split(one, start)
        if start < 0 or not parts:
            done.append(one)
        else:
            waiting += [one[:start] + part + one[end + 1 :] for part in parts]
    return done


def _split(glob: str, start: int) -> tuple[list[str], int]:
    """Return what is between the brace at `start` and its end, split at its commas; nothing when it has no end."""
    depth, parts, since = 0, [], start + 1
    for at in range(max(start, 0), len(glob)):
        if glob[at] == "{":
            depth += 1
        elif glob[at] in ",}" and depth == 1:
            parts.append(glob[since:at])
            since = at + 1
        if glob[at] == "}":
            depth -= 1
            if depth == 0:
                return parts, at
    return [], 0


def _fits(glob: str, name: str) -> bool:
    """Follow all ways at once, so that no pattern takes longer than its length times the name's."""
    places = {0}
    for sign in _SIGNS.findall(glob):
        if sign[0] == "*":
            places = _spread(places, name, stops="" if len(sign) > 1 else "/")
        else:
            places = {at + 1 for at in places if name[at : at + 1] and _is_one(sign, name[at])}
    return len(name) in places


def _is_one(sign: str, character: str) -> bool:
    """Say whether a sign that stands for one character stands for this one."""
    if sign == "?":
        return character != "/"
    if len(sign) == 1:
        return sign == character
    if sign[0] == "\\":
        return sign[1] == character
    is_without = sign[1] == "^"
    parts = _MEMBERS.findall(sign[2 if is_without else 1 : -1])
    is_in = any(first[-1] <= character <= (last or first)[-1] for first, last in parts)
    return character != "/" and is_in is not is_without


def _spread(places: set[int], name: str, *, stops: str) -> set[int]:
    """Return where stars lead from these places: on, until a character of `stops`."""
    found, is_on = set(), False
    for at in range(len(name) + 1):
        is_on = is_on or at in places
        if is_on:
            found.add(at)
        if at < len(name) and name[at] in stops:
            is_on = False
    return found

"""``.helmignore``: which files of a chart directory do not belong to the chart, by Helm's own rules.

They are not git's: no ``**``; a pattern with a slash matches the whole path; after ``!`` everything that does *not*
match is ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from airlift.errors import ResolveError

_MAX_RULES = 10_000


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    is_negated: bool
    folders_only: bool
    whole_path: bool

    def matches(self, path: str) -> bool:
        return self.pattern.fullmatch(path if self.whole_path else path.rpartition("/")[2]) is not None


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one chart."""

    rules: tuple[_Rule, ...]

    def ignores(self, path: str, *, is_folder: bool) -> bool:
        """Say whether a path below the chart's directory is left out; a folder takes with it what it holds."""
        for rule in self.rules:
            if rule.is_negated:
                if (rule.folders_only and not is_folder) or not rule.matches(path):
                    return True
            elif (is_folder or not rule.folders_only) and rule.matches(path):
                return True
        return False


def parse(text: str, *, subject: str) -> Rules:
    """Read the file's lines; Helm's own rule (hidden files among the templates) comes last.

    Raises:
        ResolveError: a line is not a rule.
    """
    lines = [line.strip() for line in [*text.splitlines()[:_MAX_RULES], "templates/.?*"]]
    return Rules(tuple(_rule(line, subject) for line in lines if line and not line.startswith("#")))


def _rule(line: str, subject: str) -> _Rule:
    text = line.removeprefix("!")
    folders_only = text.endswith("/")
    text = text.removesuffix("/")
    if "**" in text:
        raise ResolveError(f"{subject}: {line!r}: Helm does not know **", hint="name each level by one *")
    whole_path = "/" in text
    try:
        pattern = re.compile(_translate(text.removeprefix("/")), re.DOTALL)
    except (re.error, ValueError):
        raise ResolveError(f"{subject}: {line!r} is not a pattern") from None
    return _Rule(pattern, line.startswith("!"), folders_only, whole_path)


def _translate(glob: str) -> str:
    """Return Go's ``filepath.Match`` pattern as a regular expression."""
    out: list[str] = []
    position = 0
    while position < len(glob):
        char = glob[position]
        position += 1
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "\\":
            out.append(re.escape(glob[position : position + 1]))
            position += 1
        elif char == "[":
            end = _class_end(glob, position)
            out.append(_class(glob[position:end]))
            position = end + 1
        else:
            out.append(re.escape(char))
    # A possessive star would be wrong, a backtracking one is bounded: names are short.
    return "".join(out)


def _class_end(glob: str, start: int) -> int:
    position = start + glob[start : start + 1].count("^")
    while position < len(glob) and (glob[position] != "]" or position == start):
        position += 2 if glob[position] == "\\" else 1
    if position >= len(glob):
        raise ValueError("unclosed [")
    return position


def _class(inner: str) -> str:
    negated = inner.startswith("^")
    out: list[str] = []
    position = int(negated)
    while position < len(inner):
        char = inner[position]
        if char == "\\":
            position += 1
            char = inner[position]
        elif char == "-" and out and position + 1 < len(inner):
            out.append("-")
            position += 1
            continue
        out.append(re.escape(char))
        position += 1
    if not out:
        raise ValueError("empty []")
    return f"(?!/)[{'^' if negated else ''}{''.join(out)}]"

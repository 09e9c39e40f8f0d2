"""A document that was read, places in it, and what is wrong there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from airlift.errors import ManifestError

Where = tuple[str | int, ...]
"""A place in a document, such as ``("images", 3, "ref")``."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a document; `line` only where the place alone does not give it."""

    where: Where
    message: str
    hint: str | None = None
    line: int | None = None


@dataclass(slots=True)
class Mark:
    """A node of a document: its line, how many nodes it is when its aliases are expanded, and what is in it."""

    line: int
    nodes: int = 1
    children: dict[str | int, Mark] = field(default_factory=dict)
    key_lines: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was read.

    Attributes:
        name: the file as the user named it.
        value: dicts, lists, text, whole numbers, truth values and None.
        mark: where it stands.
    """

    name: str
    value: Any
    mark: Mark = field(repr=False)

    def line_of(self, path: Where) -> int | None:
        """Return the 1-based line of a place, or None where the document has no such place."""
        mark, line = self.mark, self.mark.line
        for step in path:
            child = mark.children.get(step)
            if child is None:
                return None
            line = mark.key_lines.get(step, child.line) if isinstance(step, str) else child.line
            mark = child
        return line


def refusal(document: Document, problems: Sequence[Problem]) -> ManifestError:
    """Return one error for all problems, a line each, in the document's order; the first one's place is the error's."""
    placed = [(problem.line or _nearest_line(document, problem.where), problem) for problem in problems]
    placed.sort(key=lambda item: item[0])
    line, first = placed[0]
    rest = "".join(f"\n{document.name}:{number}: {_prefixed(problem)}" for number, problem in placed[1:])
    hints = dict.fromkeys(problem.hint for _, problem in placed if problem.hint)
    return ManifestError(
        first.message + rest,
        file=document.name,
        line=line,
        where=show(first.where),
        hint="\n".join(hints) or None,
    )


def _nearest_line(document: Document, where: Where) -> int:
    """The line of a place or, where a key is missing, of what should have it."""
    while (line := document.line_of(where)) is None:
        where = where[:-1]
    return line


def _prefixed(problem: Problem) -> str:
    where = show(problem.where)
    return f"{where}: {problem.message}" if where else problem.message


def show(path: Where) -> str:
    """Return a place as people write it: ``images[3].ref``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text

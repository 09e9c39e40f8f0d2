"""Reads YAML that a person wrote, strictly, and says where in it something is wrong.

YAML guesses what unquoted text means, and readers guess differently: ``3.10`` is 3.1, ``010`` is 8, ``no`` is false and
``2026-01-01`` is a date to some of them. Nothing is guessed here: what looks like a number, a truth value or a date
without being exactly one of ``12``, ``true``, ``false``, ``null`` has to be quoted. JSON is a subset.

Always true of a `Document`: keys are text and come once, there are no tags, nesting and alias expansion are bounded.
"""

from airlift.yamldoc.document import Document, Problem, Where, refusal, show
from airlift.yamldoc.reader import check_version, load, parse
from airlift.yamldoc.validation import refusals, validate

__all__ = [
    "Document",
    "Problem",
    "Where",
    "check_version",
    "load",
    "parse",
    "refusal",
    "refusals",
    "show",
    "validate",
]

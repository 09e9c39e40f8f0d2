"""Values as Helm has them once it read them, so that they can be compared with its record of a release.

Helm turns YAML into JSON by the rules of YAML 1.1 as Go's library has them: ``yes`` is true, ``010`` is 8, ``1:30`` and
dates stay text, and every key becomes text. Python's reader differs in each of these.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from airlift.errors import DeployError

_STEPS: Final = 100_000
_WORDS: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **{form: True for word in ("y", "yes", "true", "on") for form in (word, word.capitalize(), word.upper())},
    **{form: False for word in ("n", "no", "false", "off") for form in (word, word.capitalize(), word.upper())},
}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BASES: Final = (
    (re.compile(r"[-+]?0[xX][0-9a-fA-F]{1,16}"), 16),
    (re.compile(r"[-+]?0[bB][01]{1,64}"), 2),
    (re.compile(r"[-+]?0[oO]?[0-7]{1,22}"), 8),
    (re.compile(r"[-+]?(0|[1-9][0-9]{0,19})"), 10),
)
_BETWEEN = re.compile(r"(?<=[0-9])_(?=[0-9])")
_INTEGERS: Final = range(-(2**63), 2**64)
_DEPTH: Final = 100
_WHOLE: Final = 1e21
"""From here on Go writes a number with an exponent."""
_MERGE: Final = "tag:yaml.org,2002:merge"
_PREFIX: Final = "tag:yaml.org,2002:"
_TYPED: Final = frozenset(f"{_PREFIX}{name}" for name in ("int", "float", "bool", "null"))


def read(text: str, *, subject: str) -> dict[str, Any]:
    """Return the values of a document: mappings, lists, text, numbers, booleans and None.

    Raises:
        DeployError: it is no YAML mapping, or it adds up to too much.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise DeployError(f"{subject}: not YAML: {' '.join(str(error).split())[:200]}") from None
    value = None if node is None else _Reader(subject).value(node, 0)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DeployError(f"{subject}: not a mapping")
    return value


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``helm -f base -f over`` makes of two documents: mappings are merged, all else is replaced."""
    found = dict(base)
    for key, value in over.items():
        before = found.get(key)
        both = isinstance(before, dict) and isinstance(value, dict)
        found[key] = merged(before, value) if both else value  # type: ignore[arg-type]  # `both` says so
    return found


def differing(one: object, other: object, path: str = "") -> Iterator[str]:
    """Yield the paths at which two values differ. A null is not nothing: it takes a default of the chart away."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}):
            below = f"{path}.{key}" if path else str(key)
            if key in one and key in other:
                yield from differing(one[key], other[key], below)
            else:
                yield below
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from differing(*pair, path=f"{path}[{number}]")
    elif not _is_same(one, other):
        yield path


def _is_same(one: object, other: object) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other or float(one) == float(other)  # Helm's record has every number as a float
    return one == other


class _Reader:
    """Turns nodes into values; counts steps, because an alias is read wherever it is named."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._left = _STEPS

    def value(self, node: Node, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth > _DEPTH:
            raise DeployError(f"{self._subject}: the values are nested too deeply, or add up to too much")
        if isinstance(node, ScalarNode):
            return _scalar(node)
        if isinstance(node, SequenceNode):
            return [self.value(item, depth + 1) for item in node.value]
        found: dict[str, Any] = {}
        for key, item in node.value:
            if key.tag == _MERGE:
                # What is merged in wins over what stands before it, the first of several over the others.
                for part in reversed(self._merged(item, depth + 1)):
                    found |= part
            else:
                found[_key(key, self._subject)] = self.value(item, depth + 1)
        return found

    def _merged(self, node: Node, depth: int) -> list[dict[str, Any]]:
        nodes = node.value if isinstance(node, SequenceNode) else [node]
        if not all(isinstance(item, MappingNode) for item in nodes):
            raise DeployError(f"{self._subject}: << merges something that is no mapping")
        return [self.value(item, depth) for item in nodes]


def _key(node: Node, subject: str) -> str:
    if not isinstance(node, ScalarNode):
        raise DeployError(f"{subject}: a key is not plain text")
    value = _scalar(node)
    if value is None:
        raise DeployError(f"{subject}: a key is null")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE else str(value)


def _scalar(node: ScalarNode) -> str | int | float | bool | None:
    text = str(node.value)
    begin, end = node.start_mark, node.end_mark
    tagged = begin.buffer is not None and begin.buffer[begin.pointer : end.pointer].startswith("!")
    if node.tag == f"{_PREFIX}binary":
        return _decoded(text)
    if tagged:
        return _plain(text) if node.tag in _TYPED else text
    return _plain(text) if node.style is None else text


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text).decode("utf-8", "replace")
    except ValueError:
        return text


def _plain(text: str) -> str | int | float | bool | None:
    if text in _WORDS:
        return _WORDS[text]
    number = text if text.startswith("_") else text.replace("_", "")
    if text.startswith("."):
        number = _BETWEEN.sub("", text)  # Go's rules and not YAML's
    for pattern, base in _BASES:
        if pattern.fullmatch(number) and (found := int(number, base)) in _INTEGERS:
            return found
    value = float(number) if _FLOAT.fullmatch(number) else math.inf
    return text if math.isinf(value) else value

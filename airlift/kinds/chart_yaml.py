"""Reads YAML that others published (Chart.yaml, index.yaml, rendered templates): safe types only, bounded.

Unlike `airlift.yamldoc`, which reads what our users write, this takes what Helm takes: duplicate keys,
unquoted versions. A date stays text, as it does for Helm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from airlift.errors import IntegrityError

_ALIASES: Final = 1000
_MERGED: Final = 10_000
_DOCUMENTS: Final = 20_000
# An anchor without which there can be no alias; text that looks like one only costs a second pass.
_ANCHOR = re.compile(rb"(?:^|[\s\[{,:\-?])&[^\s,\[\]{}]")


class _Loader(yaml.CSafeLoader):
    """Safe, without timestamps, and with a bound on what merge keys may add up to."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        before = len(node.value)
        super().flatten_mapping(node)
        if len(node.value) > before + _MERGED:
            raise yaml.constructor.ConstructorError(None, None, "merge keys add up to too much", node.start_mark)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if not tag.endswith(":timestamp")]
    for first, pairs in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def load(data: bytes, *, subject: str, limit: int) -> Any:
    """Return the value of one document without aliases; JSON is read as JSON.

    Raises:
        IntegrityError: too large, not YAML, nested too deeply, or with an alias.
    """
    _check_size(data, subject, limit)
    if data[:1] == b"{":
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            pass  # a flow mapping in YAML starts alike
    _check_aliases(data, subject, 0)
    try:
        return _Loader(data).get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _not_yaml(subject, error) from None


def load_all(data: bytes, *, subject: str, limit: int) -> Iterator[Any]:
    """Yield the values of several documents. Aliases are allowed: a value may be the same object in many places.

    Raises:
        IntegrityError: too large, not YAML, nested too deeply, or with too many documents or aliases.
    """
    _check_size(data, subject, limit)
    _check_aliases(data, subject, _ALIASES)
    try:
        loader: Any = _Loader(data)
        for _ in range(_DOCUMENTS):
            if not loader.check_data():
                return
            yield loader.get_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _not_yaml(subject, error) from None
    raise IntegrityError(subject, expected=f"at most {_DOCUMENTS} documents", actual="more")


def _check_size(data: bytes, subject: str, limit: int) -> None:
    if len(data) > limit:
        raise IntegrityError(subject, expected=f"at most {limit} bytes", actual=f"{len(data)} bytes")


def _check_aliases(data: bytes, subject: str, allowed: int) -> None:
    if _ANCHOR.search(data) is None:
        return
    seen = 0
    try:
        event: Any
        for event in yaml.parse(data, Loader=yaml.CSafeLoader):
            seen += isinstance(event, yaml.AliasEvent)
            if seen > allowed:
                expected = f"at most {allowed} aliases" if allowed else "YAML without aliases"
                raise IntegrityError(subject, expected=expected, actual=f"*{event.anchor}")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _not_yaml(subject, error) from None


def _not_yaml(subject: str, error: Exception) -> IntegrityError:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        return IntegrityError(subject, expected="YAML", actual=f"{line}{error.problem or error.context}")
    return IntegrityError(
        subject, expected="YAML", actual=str(error).splitlines()[0][:200] if str(error) else "nothing"
    )

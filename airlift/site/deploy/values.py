"""The values of a release: one file as it is, several merged as ``helm -f a -f b`` merges them.

A release without any value gets one default of its chart, said again: an upgrade with no values, ``{}`` included, keeps
those of the revision before, and K3s has no other way to tell Helm to forget them.

Merging works on YAML's nodes, not on Python's values: what a person wrote as ``1:30``, ``010`` or ``yes`` stays as it
is written and is read by Helm alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from airlift.errors import DeployError

LIMIT: Final = 1_000_000
"""Bytes. helm-controller puts the values into a Secret, and Kubernetes takes at most 1 MiB in one."""
_STEPS: Final = 100_000
_DEPTH: Final = 100
_NULL: Final = "tag:yaml.org,2002:null"
_MERGE: Final = "tag:yaml.org,2002:merge"
_SAID_AGAIN: Final = """\
# The drop has no values. Helm would then keep those of the revision before: this is a default of the chart.
"""


def combine(files: Sequence[tuple[str, bytes]], *, release: str) -> str:
    """Return the content for ``valuesContent``.

    Args:
        files: name and content, later ones win.
        release: whose values they are, for messages.

    Returns:
        The content; empty when there is no value in any file.

    Raises:
        DeployError: a file is no YAML mapping, or it is too much.
    """
    nodes = [(name, _read(name, data, release), data) for name, data in files]
    filled = [(name, node, data) for name, node, data in nodes if node is not None and node.value]
    if not filled:
        return ""
    if len(filled) == 1:
        text = filled[0][2].decode()
    else:
        merged = filled[0][1]
        budget = [_STEPS]
        for name, node, _ in filled[1:]:
            merged = _merge(merged, node, budget, f"{release}: {name}")
        text = yaml.serialize(merged, Dumper=yaml.SafeDumper, allow_unicode=True, width=1 << 20)
    if len(text.encode()) > LIMIT:
        raise DeployError(f"{release}: the values have {len(text.encode())} bytes, at most {LIMIT} fit into a release")
    return text


def said_again(defaults: bytes, *, release: str) -> str:
    """Return one default of a chart as values, which changes nothing but that Helm forgets earlier values.

    Args:
        defaults: the chart's values.yaml.
        release: whose values they are, for messages.

    Returns:
        The content for ``valuesContent``; empty when the chart has no default.

    Raises:
        DeployError: the defaults are no YAML mapping, or it is too much.
    """
    node = _read("values.yaml", defaults, release)
    found = None if node is None else _first(node, [_STEPS], f"{release}: values.yaml", 0)
    return "" if found is None else _SAID_AGAIN + yaml.serialize(found, Dumper=yaml.SafeDumper, allow_unicode=True)


def _first(node: MappingNode, budget: list[int], subject: str, depth: int) -> MappingNode | None:
    """Return a mapping with the first scalar of a mapping, at its path, else with its first list or empty mapping."""
    if any(key.tag == _MERGE for key, _ in node.value):
        return None  # what is merged in may win over what stands beside it
    entries = {_key(key, subject): (key, value) for key, value in node.value}
    rest = None
    for key, value in entries.values():
        budget[0] -= 1
        if budget[0] < 0:
            raise DeployError(f"{subject} takes more than {_STEPS} steps to read")
        inner: Node | None = value
        if isinstance(value, MappingNode) and value.value:
            inner = _first(value, budget, subject, depth + 1) if depth < _DEPTH else None
        if inner is None or inner.tag == _NULL:
            continue
        found = MappingNode(node.tag, [(key, inner)], flow_style=False)
        if isinstance(value, ScalarNode):
            return found
        rest = rest or found
    return rest


def _read(name: str, data: bytes, release: str) -> MappingNode | None:
    try:
        text = data.decode()
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DeployError(f"{release}: values file {name} is not YAML: {_one_line(error)}") from None
    if node is None or (isinstance(node, ScalarNode) and node.tag == _NULL):
        return None
    if not isinstance(node, MappingNode):
        raise DeployError(f"{release}: values file {name} is not a mapping")
    return node


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _merge(base: MappingNode, over: MappingNode, budget: list[int], subject: str, depth: int = 0) -> MappingNode:
    """Return a new node: mappings are merged, all else (lists, null) is replaced."""
    if depth > _DEPTH:
        raise DeployError(f"{subject} is nested too deeply")
    entries: dict[str, tuple[Node, Node]] = {}
    for key, value in base.value:
        entries[_key(key, subject)] = (key, value)
    for key, value in over.value:
        budget[0] -= 1
        if budget[0] < 0:
            raise DeployError(f"{subject} takes more than {_STEPS} steps to merge")
        name = _key(key, subject)
        before = entries.get(name)
        if before is not None and isinstance(before[1], MappingNode) and isinstance(value, MappingNode):
            value = _merge(before[1], value, budget, subject, depth + 1)  # noqa: PLW2901 - the merged one takes its place
        entries[name] = (key, value)
    return MappingNode(base.tag, list(entries.values()), flow_style=False)


def _key(node: Node, subject: str) -> str:
    if not isinstance(node, ScalarNode):
        raise DeployError(f"{subject}: a key is not plain text")
    return str(node.value)

"""Reads a document's bytes, strictly; see `airlift.yamldoc`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import yaml

from airlift import fs, limits
from airlift.errors import ManifestError, StoreError, UnsupportedVersionError
from airlift.yamldoc.document import Document, Mark, Problem, Where, refusal, show

_DEPTH: Final = 32
_NODES: Final = 500_000
_ALIASED: Final = 10_000

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
# YAML 1.2's numbers; PyYAML's resolver knows those of 1.1, and both must agree that text is text.
_NUMBER_1_2 = re.compile(
    r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+|[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
)
_TAG: Final = "tag:yaml.org,2002:"
_MEANINGS: Final = {
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "timestamp": "a date",
    "null": "nothing",
    "merge": "a merge key",
    "value": "a default value",
}


def load(path: Path) -> Document:
    """Read a file.

    Raises:
        ManifestError: it cannot be read, is too large, or is not YAML as this module wants it.
    """
    try:
        data = fs.read_bounded(path, limits.DOCUMENT)
    except StoreError as error:
        raise ManifestError(error.message, hint=error.hint) from None
    return parse(data, str(path))


def parse(text: bytes, name: str) -> Document:
    """Read a document's bytes.

    Args:
        text: UTF-8.
        name: the file's name, for messages.

    Raises:
        ManifestError: too large, not UTF-8, not YAML, more than one document, a key twice, a tag, a merge key, unquoted
            text that some reader takes for something else (all of those at once), or nesting or aliases out of bounds.
    """
    if len(text) > limits.DOCUMENT:
        raise ManifestError(f"{len(text)} bytes, at most {limits.DOCUMENT} are accepted", file=name)
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ManifestError("not UTF-8", file=name, line=line, hint="save the file as UTF-8") from None
    try:
        return _Reader(name).read(yaml.parse(decoded, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _syntax(name, mark.line + 1 if mark else None, error.problem or "malformed") from None
    except yaml.reader.ReaderError as error:
        line = decoded.count("\n", 0, error.position) + 1
        raise _syntax(name, line, f"character U+{int(error.character):04X} is not allowed") from None


def check_version(document: Document, *, api_version: str, kind: str) -> None:
    """Compare ``apiVersion`` and ``kind`` before anything else is looked at.

    Raises:
        UnsupportedVersionError: they are there and are others. (Where they are missing, `validate` says so.)
    """
    if not isinstance(document.value, dict):
        return
    for key, wanted in (("apiVersion", api_version), ("kind", kind)):
        got = document.value.get(key)
        if isinstance(got, str) and got != wanted:
            raise UnsupportedVersionError(
                f"expected {wanted!r}, got {got!r}",
                file=document.name,
                line=document.line_of((key,)),
                where=key,
                hint=f"this airlift reads `apiVersion: {api_version}` with `kind: {kind}`",
            )


def _syntax(name: str, line: int | None, problem: str) -> ManifestError:
    hint = "indent with spaces; YAML does not take tabs" if r"'\t'" in problem else None
    return ManifestError(f"not YAML: {problem}", file=name, line=line, hint=hint)


class _Reader:
    """Builds a document from parser events, without recursion over what the parser has not bounded."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._anchors: dict[str, tuple[Any, Mark]] = {}
        self._aliased = 0
        self._nodes = 0
        self._resolver: Any = yaml.resolver.Resolver()
        self._guesses: list[Problem] = []

    def read(self, events: Iterator[Any]) -> Document:
        value: Any = None
        mark = Mark(1)
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._fail(_line(event), (), "a second document starts here, expected one per file")
            elif isinstance(event, yaml.NodeEvent):
                value, mark = self._node(event, events, ())
        document = Document(self._name, value, mark)
        if self._guesses:
            raise refusal(document, self._guesses)
        return document

    def _node(self, event: yaml.NodeEvent, events: Iterator[Any], path: Where) -> tuple[Any, Mark]:
        line = _line(event)
        self._nodes += 1
        if self._nodes > _NODES:
            self._fail(line, path, f"more than {_NODES} values")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        if len(path) > _DEPTH:
            self._fail(line, path[:4], f"nested more than {_DEPTH} deep")
        self._refuse_tag(event, path)
        mark = Mark(line)
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(events, mark, path)
        else:
            value = self._mapping(events, mark, path)
        # Only a finished node can be pointed at, so nothing contains itself.
        if event.anchor is not None:
            if event.anchor in self._anchors:
                self._fail(line, path, f"anchor &{event.anchor} is there twice")
            self._anchors[event.anchor] = (value, mark)
        return value, mark

    def _sequence(self, events: Iterator[Any], mark: Mark, path: Where) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            item, child = self._node(event, events, (*path, len(items)))
            mark.children[len(items)] = child
            mark.nodes += child.nodes
            items.append(item)
        return items

    def _mapping(self, events: Iterator[Any], mark: Mark, path: Where) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key, line = self._key(event, path), _line(event)
            if key in items:
                first = mark.key_lines[key]
                self._fail(line, (*path, key), f"key is there twice, first on line {first}")
            items[key], child = self._node(next(events), events, (*path, key))
            mark.children[key] = child
            mark.key_lines[key] = line
            mark.nodes += child.nodes
        return items

    def _key(self, event: object, path: Where) -> str:
        if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None:
            self._fail(_line(event), path, "expected text as a key")
        self._refuse_tag(event, path)
        if event.implicit[0] and event.value == "<<":
            self._fail(_line(event), path, "merge keys (<<) are not supported", hint="write the keys out")
        if event.implicit[0] and (_INTEGER.fullmatch(event.value) or event.value in _BOOLEANS or event.value in _NULLS):
            shown = event.value or "nothing"
            self._fail(_line(event), path, f"expected text as a key, got {shown}", hint=f'quote it: "{event.value}"')
        return str(self._scalar(event, path))

    def _scalar(self, event: Any, path: Where) -> str | int | bool | None:
        text: str = event.value
        if _SURROGATE.search(text):
            # JSON writes a character beyond U+FFFF as a pair.
            try:
                text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
            except UnicodeDecodeError:
                self._fail(_line(event), path, "half a surrogate pair is not text")
        if not event.implicit[0]:
            return text
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if text in _NULLS:
            return None
        if _INTEGER.fullmatch(text):
            return int(text)
        guess = self._resolver.resolve(yaml.ScalarNode, text, (True, False)).removeprefix(_TAG)
        if guess not in _MEANINGS and _NUMBER_1_2.fullmatch(text):
            guess = "float"
        if guess in _MEANINGS:
            self._guesses.append(
                Problem(
                    path,
                    f"unquoted {text} may be read as {_MEANINGS[guess]}",
                    f'{"write true or false, or quote it" if guess == "bool" else "quote it"}: "{text}"',
                    line=_line(event),
                )
            )
        return text

    def _alias(self, event: yaml.AliasEvent, path: Where) -> tuple[Any, Mark]:
        if event.anchor not in self._anchors:
            self._fail(_line(event), path, f"alias *{event.anchor} points at nothing that stands before it")
        value, mark = self._anchors[event.anchor]
        self._aliased += mark.nodes
        if self._aliased > _ALIASED:
            self._fail(_line(event), path, f"aliases expand to more than {_ALIASED} values")
        return value, mark

    def _refuse_tag(self, event: yaml.NodeEvent, path: Where) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None:
            shown = str(tag).replace(_TAG, "!!")
            self._fail(
                _line(event), path, f"tag {shown} is not supported", hint="leave the tag out; quote what is text"
            )

    def _fail(self, line: int, path: Where, message: str, *, hint: str | None = None) -> NoReturn:
        raise ManifestError(message, file=self._name, line=line, where=show(path), hint=hint)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1

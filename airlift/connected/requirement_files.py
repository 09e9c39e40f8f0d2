"""Requirements files as pip knows them, read here, so that the worker gets nothing but requirements.

Taken: requirements with extras, markers and ``--hash``, continued lines, comments, nested ``-r`` and ``-c``, ``--pre``,
``--require-hashes``, and ``--only-binary`` and ``--prefer-binary``, which say what is the rule here anyway. Refused
with a hint: everything that names another place to fetch from (index options, addresses, paths, editables), since that
belongs into pip's configuration.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement

from airlift import fs, limits
from airlift.errors import ManifestError

_COMMENT = re.compile(r"(^|\s)#.*$")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_OTHER_HASH = re.compile(r"(sha384|sha512):[0-9a-f]+")
_OPTIONS = re.compile(r"\s+--")
_FILES_MOST: Final = 1000
_PLACES: Final = {
    "-i",
    "--index-url",
    "--extra-index-url",
    "-f",
    "--find-links",
    "--no-index",
    "--trusted-host",
    "--proxy",
    "--cert",
    "--client-cert",
}
_WITHOUT_EFFECT: Final = {"--prefer-binary", "--only-binary"}
_NESTED: Final = {"-r": "--requirement", "-c": "--constraint"}


@dataclass(frozen=True, slots=True)
class Line:
    """One requirement.

    Attributes:
        text: the requirement, without options.
        place: where it stands, ``requirements.in:3``.
        constraint: whether it only limits versions (``-c``).
        hashes: the ``sha256:`` digests that its file may have; empty when none were given.
    """

    text: str
    place: str
    constraint: bool = False
    hashes: tuple[str, ...] = ()


@dataclass(slots=True)
class Requirements:
    """All requirements of a set.

    Attributes:
        lines: in order.
        files: every file that was read, nested ones too.
        pre: whether ``--pre`` was said.
        require_hashes: whether ``--require-hashes`` was said.
    """

    lines: list[Line] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    pre: bool = False
    require_hashes: bool = False


def read(paths: Sequence[str], packages: Sequence[str], *, base: Path, set_name: str) -> Requirements:
    """Read the requirements of a set.

    Args:
        paths: requirements files, relative to `base`.
        packages: requirements that stand in the manifest itself.
        base: the manifest's directory.
        set_name: for messages.

    Raises:
        ManifestError: a file is missing, too large, or holds something that is not taken; with file and line.
    """
    reader = _Reader(base)
    for path in paths:
        reader.read_file(base / path, constraint=False, chain=())
    for number, text in enumerate(packages):
        reader.requirement((), text, f"{set_name}.packages[{number}]", None, constraint=False)
    if not any(not line.constraint for line in reader.found.lines):
        raise ManifestError(f"the set {set_name!r} asks for nothing: its requirements are empty", where="python")
    return reader.found


class _Reader:
    def __init__(self, base: Path) -> None:
        self._base = base
        self._read = 0
        self.found = Requirements()

    def read_file(self, path: Path, *, constraint: bool, chain: tuple[Path, ...]) -> None:
        shown = self._shown(path)
        if path.resolve() in chain:
            raise ManifestError("the file includes itself", file=shown)
        # How often, since files that name each other twice would be read for ever.
        self._read += 1
        if self._read > _FILES_MOST:
            raise ManifestError(f"more than {_FILES_MOST} requirements files", file=shown)
        if not path.is_file():
            raise ManifestError(
                "the requirements file does not exist", file=shown, hint="paths are relative to the manifest"
            )
        try:
            text = fs.read_bounded(path, limits.DOCUMENT).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ManifestError("the requirements file is not UTF-8", file=shown) from None
        if path not in self.found.files:
            self.found.files.append(path)
        for number, line in _logical_lines(text):
            self._line(line, path, number, constraint=constraint, chain=(*chain, path.resolve()))

    def _shown(self, path: Path) -> str:
        try:
            return str(path.relative_to(self._base))
        except ValueError:
            return str(path)

    def _line(self, line: str, path: Path, number: int, *, constraint: bool, chain: tuple[Path, ...]) -> None:
        shown = self._shown(path)
        if not line.startswith("-"):
            text, _, options = _OPTIONS.sub("\0--", line, count=1).partition("\0")
            self.requirement(_words(options, shown, number), text, shown, number, constraint=constraint)
            return
        words = _words(line, shown, number)
        option, equals, value = words[0].partition("=")
        if not equals and option[:2] in _NESTED and len(option) > 2 and option[1] != "-":  # noqa: PLR2004 - "-rFILE"
            option, value = option[:2], option[2:]
        value = value or (words[1] if len(words) > 1 else "")
        option = _NESTED.get(option, option)
        if option in _NESTED.values():
            self._nested(option, value, path, number, constraint=constraint, chain=chain)
        else:
            self._option(option, value, shown, number)

    def _nested(
        self, option: str, value: str, path: Path, number: int, *, constraint: bool, chain: tuple[Path, ...]
    ) -> None:
        shown = self._shown(path)
        if not value:
            raise ManifestError(f"{option} needs a file", file=shown, line=number)
        if "://" in value:
            raise ManifestError(
                f"{option} {value.partition('?')[0]}: a file from the network is not taken",
                file=shown,
                line=number,
                hint="put a copy beside the manifest",
            )
        self.read_file(path.parent / value, constraint=constraint or option == "--constraint", chain=chain)

    def _option(self, option: str, value: str, shown: str, number: int) -> None:
        if option == "--pre":
            self.found.pre = True
        elif option == "--require-hashes":
            self.found.require_hashes = True
        elif option in _PLACES:
            raise ManifestError(
                f"{option} is not taken from a requirements file",
                file=shown,
                line=number,
                hint="indexes, certificates and credentials come from pip's configuration (pip.conf, PIP_INDEX_URL)",
            )
        elif option in {"-e", "--editable"}:
            raise ManifestError(
                "an editable requirement cannot be carried",
                file=shown,
                line=number,
                hint="build a wheel of it and put it into an index",
            )
        elif option not in _WITHOUT_EFFECT:
            raise ManifestError(f"the option {option} {value}".rstrip() + " is not supported", file=shown, line=number)

    def requirement(
        self, options: Sequence[str], text: str, shown: str, number: int | None, *, constraint: bool
    ) -> None:
        """Take one requirement with its options."""
        try:
            parsed = Requirement(text.strip())
        except InvalidRequirement as error:
            hint = None
            if "://" in text or text.startswith((".", "/")) or text.endswith((".whl", ".tar.gz")):
                hint = "an address or a path cannot be carried; put the distribution into an index and name its project"
            first = str(error).partition("\n")[0]
            raise ManifestError(
                f"{text.strip()!r} is not a requirement: {first}", file=shown, line=number, hint=hint
            ) from None
        if parsed.url is not None:
            raise ManifestError(
                f"{parsed.name} is asked for by address, which is not supported",
                file=shown,
                line=number,
                hint="put the distribution into an index and ask for its version",
            )
        place = shown if number is None else f"{shown}:{number}"
        hashes = tuple(_hash(word, shown, number) for word in options)
        self.found.lines.append(Line(str(parsed), place, constraint, hashes))


def _hash(word: str, shown: str, number: int | None) -> str:
    option, _, value = word.partition("=")
    if option != "--hash":
        raise ManifestError(f"the option {option} is not supported", file=shown, line=number)
    if _HASH.fullmatch(value) is None:
        other = " (only sha256 is compared)" if _OTHER_HASH.fullmatch(value) else ""
        raise ManifestError(f"{word!r} is not --hash=sha256:<64 hex digits>{other}", file=shown, line=number)
    return value


def _words(text: str, shown: str, number: int) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ManifestError(f"the line cannot be split: {error}", file=shown, line=number) from None
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] == "--hash":
            joined[-1] = f"--hash={word}"
        else:
            joined.append(word)
    return joined


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    first, parts = 0, list[str]()
    for number, line in enumerate(text.splitlines(), start=1):
        if not parts:
            first = number
        # As in pip: a comment line ends a continuation, and comments are cut after lines were joined.
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            parts.append(line[:-1])
            continue
        whole = _COMMENT.sub("", "".join([*parts, " " + line if line.lstrip().startswith("#") else line])).strip()
        parts = []
        if whole:
            yield first, whole
    whole = _COMMENT.sub("", "".join(parts)).strip()
    if whole:
        yield first, whole

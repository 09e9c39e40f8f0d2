"""A model is a tree of files at one revision; in a drop it is a CNCF ModelPack manifest with one raw layer per file.

The layers are the hub's own bytes. ``org.cncf.model.filepath`` says where each lies in the tree; files that the hub
keeps in Git itself also have their Git object id, so that clients see the ETag that they know.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from airlift import canonical, limits, oci
from airlift import digest as digests
from airlift.artifact import MODEL_TYPE
from airlift.canonical import JsonObject
from airlift.digest import Digest
from airlift.errors import IntegrityError, PolicyError, ResolveError
from airlift.oci import Descriptor, Manifest

CONFIG_TYPE: Final = "application/vnd.cncf.model.config.v1+json"
FILEPATH: Final = "org.cncf.model.filepath"
GIT_OID: Final = "io.airlift.model.git-oid"

_WEIGHT: Final = "application/vnd.cncf.model.weight.v1.raw"
_SETTINGS: Final = "application/vnd.cncf.model.weight.config.v1.raw"
_DOC: Final = "application/vnd.cncf.model.doc.v1.raw"
_CODE: Final = "application/vnd.cncf.model.code.v1.raw"

_SETTINGS_SUFFIXES: Final = frozenset({".json", ".jsonl", ".yaml", ".yml", ".toml", ".txt", ".model", ".ini", ".jinja"})
_DOC_SUFFIXES: Final = frozenset({".md", ".rst", ".pdf", ".png", ".jpg", ".jpeg", ".svg"})
_DOC_NAMES: Final = frozenset({"license", "licence", "notice", "readme", "copying", ".gitattributes", ".gitignore"})
_OID: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model.

    Attributes:
        path: its place in the tree, with ``/``, checked by `check_paths`.
        digest, size: its content.
        git_oid: SHA-1 of it as a Git blob, where the hub keeps it in Git itself; None for what is in LFS.
    """

    path: str
    digest: Digest
    size: int
    git_oid: str | None = None

    @property
    def media_type(self) -> str:
        """The ModelPack layer type."""
        name = PurePosixPath(self.path.lower())
        if name.suffix == ".py":
            return _CODE
        if name.suffix in _DOC_SUFFIXES or name.stem in _DOC_NAMES or name.name in _DOC_NAMES:
            return _DOC
        return _SETTINGS if name.suffix in _SETTINGS_SUFFIXES else _WEIGHT

    @property
    def descriptor(self) -> Descriptor:
        """The layer."""
        notes = {FILEPATH: self.path}
        if self.git_oid is not None:
            notes[GIT_OID] = self.git_oid
        return Descriptor(self.media_type, self.digest, self.size, notes)


@dataclass(frozen=True, slots=True)
class Packed:
    """A model's generated documents."""

    manifest: bytes
    config: bytes

    @property
    def root(self) -> Descriptor:
        """Descriptor of the manifest."""
        own = oci.describe(self.manifest, oci.MANIFEST)
        return Descriptor(own.media_type, own.digest, own.size, artifact_type=MODEL_TYPE)

    @property
    def revision(self) -> str:
        """What stands for the commit of a model that has none: the first 40 hex digits of the manifest's digest."""
        return digests.hex_of(self.root.digest)[:40]


def pack(
    model_id: str,
    files: Iterable[ModelFile],
    *,
    revision: str | None = None,
    licence: str | None = None,
    source: str | None = None,
) -> Packed:
    """Return the ModelPack documents of a model; the same input gives the same bytes everywhere.

    Raises:
        IntegrityError: a path is unsafe, or two differ in case only.
    """
    ordered = sorted(files, key=lambda item: item.path)
    check_paths([item.path for item in ordered], subject=f"model {model_id}")
    about: JsonObject = {"name": model_id}
    if licence:
        about["licenses"] = [licence]
    if revision:
        about["revision"] = revision
    if source:
        about["sourceURL"] = source
    config = canonical.encode(
        {
            "descriptor": about,
            "config": {},
            "modelfs": {"type": "layers", "diffIds": [item.digest for item in ordered]},
        }
    )
    manifest = canonical.encode(
        {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "artifactType": MODEL_TYPE,
            "config": oci.describe(config, CONFIG_TYPE).to_json(),
            "layers": [item.descriptor.to_json() for item in ordered],
        }
    )
    if len(manifest) > limits.SMALL_BLOB:
        raise IntegrityError(
            f"model {model_id}",
            expected=f"files that a manifest of {limits.SMALL_BLOB} bytes can list",
            actual=f"{len(ordered)} files",
            hint="take less of it with include and exclude",
        )
    return Packed(manifest, config)


def files_of(manifest: Manifest, *, subject: str) -> tuple[ModelFile, ...]:
    """Return the files that a ModelPack manifest lists.

    Raises:
        IntegrityError: it is no model of ours, or a path in it is unsafe.
    """
    if manifest.artifact_type != MODEL_TYPE:
        raise IntegrityError(subject, expected=MODEL_TYPE, actual=str(manifest.artifact_type))
    files = []
    for layer in manifest.layers:
        oid = layer.annotations.get(GIT_OID)
        if oid is not None and _OID.fullmatch(oid) is None:
            raise IntegrityError(subject, expected="a Git object id of 40 hex digits", actual=repr(oid)[:100])
        files.append(ModelFile(layer.annotations.get(FILEPATH, ""), layer.digest, layer.size, oid))
    check_paths([item.path for item in files], subject=subject)
    return tuple(files)


def check_paths(paths: Sequence[str], *, subject: str) -> None:
    """Check that files of these names can lie together on every disk, inside their directory.

    Raises:
        IntegrityError: a path leaves its directory, has control characters or backslashes, or is there twice, also when
            only case or Unicode form differ.
    """
    seen: dict[str, str] = {}
    for path in paths:
        if (why := _unsafe(path)) is not None:
            raise IntegrityError(subject, expected="a safe file name", actual=f"{path!r}: {why}"[:300])
        folded = unicodedata.normalize("NFC", path).casefold()
        if folded in seen:
            raise IntegrityError(
                subject,
                expected="file names that differ in more than case",
                actual=f"{seen[folded]!r} and {path!r}"[:300],
            )
        seen[folded] = path
    for folded, path in seen.items():
        for parent in PurePosixPath(folded).parents:
            if str(parent) in seen:
                raise IntegrityError(
                    subject,
                    expected="a file or a directory",
                    actual=f"{seen[str(parent)]!r} as both, by {path!r}"[:300],
                )


def _unsafe(path: str) -> str | None:
    if not path or len(path) > limits.NAME:
        return f"not of 1 to {limits.NAME} characters"
    if "\\" in path or any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in path):
        return "a backslash or control character"
    parts = path.split("/")
    if parts[0] == "" or re.match(r"[A-Za-z]:", path):
        return "an absolute path"
    if any(part in ("", ".", "..") for part in parts):
        return "a path that leaves its directory or is not in its shortest form"
    return None


def matches(path: str, pattern: str) -> bool:
    """Say whether a pattern of `include`, `exclude` or `unsafe_files` names a path, as huggingface_hub does.

    ``*`` crosses directories, a trailing ``/`` means everything below, case counts.
    """
    return fnmatch.fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern)


def select(
    paths: Sequence[str], *, include: Sequence[str], exclude: Sequence[str], unsafe: Sequence[str], subject: str
) -> list[str]:
    """Return the wanted paths, sorted.

    Raises:
        ResolveError: a pattern of `include` or `unsafe` matches nothing, or nothing is left.
    """
    for key, patterns in (("include", include), ("unsafe_files", unsafe)):
        for pattern in patterns:
            if not any(matches(path, pattern) for path in paths):
                raise ResolveError(
                    f"{subject}: {key} pattern {pattern!r} matches none of its {len(paths)} files",
                    hint=f"its files are {_some(paths)}" if paths else None,
                )
    wanted = [
        path
        for path in sorted(paths)
        if (not include or any(matches(path, pattern) for pattern in include))
        and not any(matches(path, pattern) for pattern in exclude)
    ]
    if not wanted:
        raise ResolveError(f"{subject}: no files are left of {len(paths)} after include and exclude")
    return wanted


def _some(paths: Sequence[str]) -> str:
    shown = sorted(paths)[:10]
    return ", ".join(shown) + (", ..." if len(paths) > len(shown) else "")


def refuse_dangerous(dangers: Sequence[tuple[str, str]], *, allowed: Sequence[str], subject: str) -> None:
    """Refuse files that may run code when they are loaded, but for those that the manifest names.

    Args:
        dangers: path and reason of each such file.
        allowed: the patterns of `unsafe_files`.
        subject: whose files they are.

    Raises:
        PolicyError: one of them is not named.
    """
    refused = [(path, why) for path, why in dangers if not any(matches(path, pattern) for pattern in allowed)]
    if refused:
        raise PolicyError(
            f"{subject}: {len(refused)} {'file' if len(refused) == 1 else 'files'} may run code when loaded",
            violations=[f"{path}: {why}" for path, why in refused],
            hint="leave them out with exclude, or name under unsafe_files what you have examined and trust",
        )


def git_blob(size: int) -> hashlib._Hash:
    """Return the hash that gives a file's Git object id, ready for its content."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

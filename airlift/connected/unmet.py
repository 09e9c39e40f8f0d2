"""Why pip found no set of wheels, in words that name project, target, and what the indexes have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidSdistFilename, parse_sdist_filename
from packaging.version import InvalidVersion, Version

from airlift.connected.pip_process import NoAnswerError, Unmet
from airlift.connected.simple_index import SimpleIndex
from airlift.errors import IntegrityError, ResolveError, first_of
from airlift.kinds.simple_page import IndexFile
from airlift.kinds.wheel_targets import WheelTarget
from airlift.kinds.wheels import parse_filename

_SHOWN: Final = 8
_CONFLICT: Final = "it conflicts with the other requirements"


def explain(
    error: NoAnswerError, index: SimpleIndex, target: WheelTarget, *, set_name: str, allow_sdist: bool
) -> ResolveError:
    """Return the error to show for what pip said."""
    lines: list[str] = []
    hint = None
    for item in error.unmet:
        if item.is_python:
            lines.append(f"{item.by} wants {item.wanted.removeprefix('Requires-')}")
            continue
        asked = f"{item.wanted} (for {item.by})" if item.by else item.wanted
        reason, advice = _reason(item, index.files(item.project), target)
        if reason == _CONFLICT and len(error.unmet) == 1:
            reason = "a constraint (-c) or a --hash excludes it, or the index did not answer pip"
        lines.append(f"{asked}: {reason}")
        if advice and not allow_sdist:
            hint = advice
    text = "".join(f"\n  {line}" for line in dict.fromkeys(lines))
    return ResolveError(
        f"{set_name}: no set of wheels answers the requirements for target {target}:{text}",
        hint=hint or "loosen the versions that are asked for, or change the target",
    )


def _reason(item: Unmet, files: Sequence[IndexFile], target: WheelTarget) -> tuple[str, str | None]:
    """Return why nothing answers a requirement, and what to do about it."""
    if not files:
        return "no index has that project", None
    specifier = SpecifierSet(item.specifier)
    every_wheel, every_sdist = wheel_versions(files), sdist_versions(files)
    wheels = [pair for pair in every_wheel if specifier.contains(pair[0], prereleases=True)]
    sdists = [pair for pair in every_sdist if specifier.contains(pair[0], prereleases=True)]
    if not wheels and not sdists:
        versions = {version for version, _ in [*every_wheel, *every_sdist]}
        return f"no such version; there are {_some(str(v) for v in sorted(versions, reverse=True))}", None
    if all(file.yanked is not None for _, file in [*wheels, *sdists]):
        reasons = {file.yanked for _, file in [*wheels, *sdists] if file.yanked}
        said = f" ({_some(sorted(reasons))})" if reasons else ""
        return f"every release of it that would do is yanked{said}", None
    if not wheels:
        advice = "allow_sdist: true builds a wheel of it on this machine, which runs its build script"
        return f"there is only a source distribution ({_some(file.filename for _, file in sdists)})", advice
    return _unfit(wheels, target), None


def _unfit(wheels: Sequence[tuple[Version, IndexFile]], target: WheelTarget) -> str:
    supported = set(target.tags())
    fit = [(version, file) for version, file in wheels if parse_filename(file.filename).tags & supported]
    if not fit:
        newest = max(version for version, _ in wheels)
        tags = {tag for version, file in wheels if version == newest for tag in parse_filename(file.filename).tags}
        own = {tag.interpreter for tag in supported}
        shown = (str(tag) for tag in sorted(tags, key=lambda tag: (tag.interpreter not in own, str(tag))))
        return f"no wheel for the target; version {newest} has wheels for {_some(shown)}"
    if not any(runs_on(file, target) for _, file in fit):
        said = _some(sorted({file.requires_python or "" for _, file in fit}))
        return f"no release for Python {target.python}; they want Python {said}"
    return _CONFLICT


def wheel_versions(files: Iterable[IndexFile]) -> list[tuple[Version, IndexFile]]:
    """Return the wheels among files with their versions; what is no wheel is left out."""
    found = []
    for file in files:
        try:
            found.append((parse_filename(file.filename).version, file))
        except IntegrityError:
            continue
    return found


def sdist_versions(files: Iterable[IndexFile]) -> list[tuple[Version, IndexFile]]:
    """Return the source distributions among files with their versions; what is none is left out."""
    found = []
    for file in files:
        try:
            found.append((parse_sdist_filename(file.filename)[1], file))
        except (InvalidSdistFilename, InvalidVersion):
            continue
    return found


def runs_on(file: IndexFile, target: WheelTarget) -> bool:
    """Say whether the page lets that Python have the file."""
    try:
        return SpecifierSet(file.requires_python or "").contains(target.full_version)
    except InvalidSpecifier:
        return True  # as pip does


def _some(items: Iterable[str]) -> str:
    return first_of(list(items), _SHOWN)

"""A chart directory becomes an archive: its files, and its dependencies as they are published, in ``charts/``.

The same directory and the same pins give the same bytes. What ``Chart.lock`` pins is taken; without one the newest
version inside each range is, and the pins are handed back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from airlift.errors import AirliftError, ResolveError
from airlift.kinds import chart_pack, charts, semver
from airlift.kinds.chart_metadata import Chart, Dependency

Pull: TypeAlias = Callable[[Dependency, str], tuple[Chart, bytes]]
"""Fetches a dependency from its repository (http, https or oci) in a version or range."""

_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Assembled:
    """A packed directory.

    Attributes:
        chart: what it says about itself, dependencies included.
        data: the archive.
        pins: version of each dependency that came from a repository, by ``repository|name|range``.
    """

    chart: Chart
    data: bytes
    pins: Mapping[str, str]


def assemble(
    directory: Path, *, subject: str, pull: Pull, pins: Mapping[str, str] | None = None, depth: int = 0
) -> Assembled:
    """Pack a chart directory with its dependencies.

    Args:
        directory: where Chart.yaml is.
        subject: the directory as the user named it, for messages.
        pull: fetches what is in a repository.
        pins: versions of an earlier run, taken as they are.
        depth: how many directories led here by ``file://``.

    Raises:
        ResolveError: a dependency is missing or has no place to come from, or the lock does not fit.
        FetchError: a repository does not answer.
        IntegrityError: something is not a chart.
    """
    if depth > _DEPTH:
        raise ResolveError(f"{subject}: dependencies lead in a circle (file://, more than {_DEPTH} deep)")
    files = chart_pack.read_directory(directory, subject=subject)
    chart = charts.read_files(files, subject=subject)
    locked = charts.lock_of(files, subject=subject)
    used: dict[str, str] = {}
    for dependency in chart.dependencies:
        version = _locked_version(dependency, locked, subject)
        if _is_there(files, chart, dependency, version, subject=subject):
            continue
        if dependency.repository.startswith("file://"):
            place = directory / dependency.repository.removeprefix("file://")
            where = f"{subject}, dependency {dependency.name} ({dependency.repository})"
            inner = assemble(place, subject=where, pull=pull, pins=pins, depth=depth + 1)
            used.update(inner.pins)
            found, data = inner.chart, inner.data
        elif dependency.repository.startswith(("http://", "https://", "oci://")):
            key = f"{dependency.repository}|{dependency.name}|{dependency.version}"
            try:
                found, data = pull(dependency, (pins or {}).get(key) or version or dependency.version)
            except AirliftError as error:
                error.message = f"{subject}, dependency {dependency.name}: {error.message}"
                raise
            used[key] = found.version
        else:
            raise _homeless(dependency, subject)
        _check_version(found, dependency, version, subject)
        files = {path: content for path, content in files.items() if not _is_old(path, chart, found)}
        files[f"charts/{found.file_name}"] = data
    data = chart_pack.pack(chart.name, files)
    return Assembled(charts.read_archive(data, subject=subject), data, used)


def _locked_version(dependency: Dependency, locked: tuple[Dependency, ...] | None, subject: str) -> str | None:
    if locked is None:
        return None
    fits = [item for item in locked if item.name == dependency.name and _is_inside(item.version, dependency.version)]
    same = [item for item in fits if item.repository == dependency.repository]
    if not fits:
        have = ", ".join(f"{item.name} {item.version}" for item in locked if item.name == dependency.name) or "nothing"
        raise ResolveError(
            f"{subject}: Chart.lock has {have} for the dependency {dependency.name} {dependency.version}",
            hint="run helm dependency update in the chart's directory",
        )
    return (same or fits)[0].version


def _is_there(
    files: Mapping[str, bytes], chart: Chart, dependency: Dependency, version: str | None, *, subject: str
) -> bool:
    """Say whether ``charts/`` holds the dependency, in a version that is asked for."""
    there = [item for item in chart.subcharts if item.name == dependency.name]
    fits = [
        item
        for item in there
        if _is_inside(item.version, dependency.version) and (version is None or item.version == version)
    ]
    is_fixed = dependency.repository == "" or not all(f"charts/{item.file_name}" in files for item in there)
    if there and not fits and is_fixed:
        have = ", ".join(item.version for item in there)
        raise ResolveError(
            f"{subject}: charts/ has {dependency.name} {have}, and {version or dependency.version} is asked for"
        )
    return bool(fits)


def _is_old(path: str, chart: Chart, found: Chart) -> bool:
    """Say whether a file is another version of what was found, which its own line does not ask for any more."""
    versions = {item.version for item in chart.subcharts if item.name == found.name}
    wanted = [item for item in chart.dependencies if item.name == found.name]
    return len(wanted) == 1 and any(path == f"charts/{found.name}-{version}.tgz" for version in versions)


def _check_version(found: Chart, dependency: Dependency, version: str | None, subject: str) -> None:
    if found.name != dependency.name or not _is_inside(found.version, version or dependency.version):
        raise ResolveError(
            f"{subject}: {dependency.repository} has {found.name} {found.version}, "
            f"and {dependency.name} {version or dependency.version} is asked for"
        )


def _is_inside(version: str, wanted: str) -> bool:
    if version == wanted:
        return True
    try:
        return semver.parse_version(version) in semver.parse_range(wanted or "*")
    except ValueError:
        return False


def _homeless(dependency: Dependency, subject: str) -> ResolveError:
    if dependency.repository.startswith(("@", "alias:")):
        return ResolveError(
            f"{subject}: dependency {dependency.name}: {dependency.repository!r} is a name of helm's configuration",
            hint="write the repository's URL in Chart.yaml",
        )
    return ResolveError(
        f"{subject}: dependency {dependency.name} {dependency.version} is missing: "
        "it is not in charts/, and no repository is given for it",
        hint=f"put {dependency.name} into charts/, or give its repository in Chart.yaml",
    )

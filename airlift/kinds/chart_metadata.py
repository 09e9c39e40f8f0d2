"""What a chart says about itself: Chart.yaml, a config blob, an entry of an index. One reader for all three.

Only the fields that Helm knows are kept, with the types that Helm gives them, so that Helm's strict parser reads what
we write from them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from airlift import canonical, limits
from airlift.canonical import JsonObject
from airlift.errors import IntegrityError
from airlift.kinds import semver

_API_VERSIONS = ("v1", "v2", "v3")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,249}")
_STRINGS = ("name", "home", "version", "description", "icon", "condition", "tags", "appVersion", "kubeVersion", "type")
_DEPENDENCY = ("name", "version", "repository", "condition", "alias")
_MAINTAINER = ("name", "email", "url")
_LICENCE = ("artifacthub.io/license", "licenses", "license", "org.opencontainers.image.licenses")


@dataclass(frozen=True, slots=True)
class Dependency:
    """A line under ``dependencies``.

    Attributes:
        name: the other chart's name.
        version: a range, or in a lock a version.
        repository: ``https://``, ``oci://``, ``file://``, an alias, or "" for what lies in ``charts/``.
    """

    name: str
    version: str
    repository: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What one chart says about itself.

    Attributes:
        name, version: as Chart.yaml has them.
        kube_version: range of Kubernetes versions, or "".
        is_library: whether it is of type ``library``, which cannot be installed.
        licence: from the usual annotations, or None.
        dependencies: what it asks for.
        metadata: the fields that Helm knows, with Helm's types: the config blob, and an entry of an index.
        subcharts: the charts in its ``charts/``, in the order of their paths.
    """

    name: str
    version: str
    kube_version: str
    is_library: bool
    licence: str | None
    dependencies: tuple[Dependency, ...]
    metadata: JsonObject
    subcharts: tuple[Chart, ...] = ()

    @property
    def file_name(self) -> str:
        """``<name>-<version>.tgz``, as Helm calls it."""
        return f"{self.name}-{self.version}.tgz"

    @property
    def missing(self) -> tuple[Dependency, ...]:
        """The dependencies that are not among `subcharts`."""
        have = {chart.name for chart in self.subcharts}
        return tuple(item for item in self.dependencies if item.name not in have)

    def everything(self) -> Iterator[Chart]:
        """Yield the chart and all charts inside it."""
        yield self
        for chart in self.subcharts:
            yield from chart.everything()


def parse_metadata(value: object, *, subject: str) -> Chart:
    """Read the content of Chart.yaml, or a config blob, or an index entry; unknown fields are left out.

    Raises:
        IntegrityError: a field has another type, or name, version or apiVersion is missing or malformed.
    """
    if not isinstance(value, dict):
        raise _wrong(subject, "a mapping", value)
    metadata: JsonObject = {
        key: _text(value[key], f"{subject}, {key}") for key in ("apiVersion", *_STRINGS) if value.get(key) is not None
    }
    _check_identity(metadata, subject)
    metadata.update(_structures(value, subject))
    try:
        canonical.encode(metadata)
    except ValueError as error:
        raise _wrong(subject, "text", str(error)) from None
    annotations = metadata.get("annotations", {})
    return Chart(
        metadata["name"],
        metadata["version"],
        metadata.get("kubeVersion", ""),
        metadata.get("type") == "library",
        next((annotations[key] for key in _LICENCE if annotations.get(key)), None),
        parse_dependencies(value, subject=subject),
        metadata,
    )


def _check_identity(metadata: JsonObject, subject: str) -> None:
    if metadata.get("apiVersion") not in _API_VERSIONS:
        raise _wrong(f"{subject}, apiVersion", f"one of {', '.join(_API_VERSIONS)}", metadata.get("apiVersion"))
    if not _NAME.fullmatch(metadata.get("name", "")):
        raise _wrong(f"{subject}, name", "letters, digits, '.', '_', '-'", metadata.get("name"))
    try:
        semver.parse_version(metadata.get("version", ""))
    except ValueError:
        raise _wrong(f"{subject}, version", "a semantic version", metadata.get("version")) from None


def _structures(value: dict[str, Any], subject: str) -> JsonObject:
    """Return the fields that are not plain text, as far as they are there."""

    def texts(key: str) -> list[str]:
        return [_text(item, f"{subject}, {key}") for item in _list(value.get(key) or [], f"{subject}, {key}")]

    people = _list(value.get("maintainers") or [], f"{subject}, maintainers")
    dependencies = _list(value.get("dependencies") or [], f"{subject}, dependencies")
    found: JsonObject = {
        "sources": texts("sources"),
        "keywords": texts("keywords"),
        "maintainers": [_record(item, _MAINTAINER, f"{subject}, maintainers") for item in people if item],
        "deprecated": value.get("deprecated") is True,
        "annotations": _annotations(value.get("annotations"), f"{subject}, annotations"),
        "dependencies": [_dependency_record(item, f"{subject}, dependencies") for item in dependencies],
    }
    return {key: item for key, item in found.items() if item}


def parse_dependencies(value: object, *, subject: str) -> tuple[Dependency, ...]:
    """Read the ``dependencies`` of Chart.yaml, Chart.lock, requirements.yaml or requirements.lock.

    Raises:
        IntegrityError: they are malformed.
    """
    if not isinstance(value, dict):
        raise _wrong(subject, "a mapping", value)
    where = f"{subject}, dependencies"
    found = []
    for item in _list(value.get("dependencies") or [], where):
        record = _record(item, _DEPENDENCY, where)
        if not _NAME.fullmatch(record.get("name", "")):
            raise _wrong(where, "a chart's name", record.get("name"))
        found.append(Dependency(record["name"], record.get("version", ""), record.get("repository", "")))
    return tuple(found)


def _dependency_record(item: object, subject: str) -> JsonObject:
    record: JsonObject = dict(_record(item, _DEPENDENCY, subject))
    if isinstance(item, dict) and item.get("tags"):
        record["tags"] = [_text(tag, subject) for tag in _list(item["tags"], subject)]
    if isinstance(item, dict) and item.get("enabled") is True:
        record["enabled"] = True
    if isinstance(item, dict) and item.get("import-values"):
        values = _list(item["import-values"], subject)
        record["import-values"] = [_import_value(entry, subject) for entry in values]
    return record


def _import_value(entry: object, subject: str) -> str | dict[str, str]:
    return entry if isinstance(entry, str) else _record(entry, ("child", "parent"), subject)


def _list(value: object, subject: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > limits.NAME:
        raise _wrong(subject, f"a list of at most {limits.NAME}", value)
    return value


def _record(value: object, keys: tuple[str, ...], subject: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _wrong(subject, "a mapping", value)
    return {key: _text(value[key], subject) for key in keys if value.get(key) is not None}


def _annotations(value: object, subject: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(subject, "a mapping", value)
    return {_text(key, subject): _text(item, subject) for key, item in value.items() if item is not None}


def _text(value: object, subject: str) -> str:
    """Return a scalar as the text that Helm makes of it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value).removesuffix(".0")
    raise _wrong(subject, "text", value)


def _wrong(subject: str, expected: str, actual: object) -> IntegrityError:
    return IntegrityError(subject, expected=expected, actual=repr(actual)[:100])

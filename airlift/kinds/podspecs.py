"""Finds the images that Kubernetes resources run: whatever stands where a pod's specification has an image.

A pod's specification is recognised by its shape, wherever it is (Deployment, CronJob, PodTemplate, an item of a List, a
custom resource that embeds one): ``containers``, ``initContainers``, ``ephemeralContainers`` with ``image``, and
volumes with ``image.reference``. A CustomResourceDefinition only describes such shapes and is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from airlift import limits, reference
from airlift.errors import IntegrityError, ManifestError
from airlift.kinds import chart_yaml

_CONTAINERS: Final = ("initContainers", "containers", "ephemeralContainers")
_VISITS: Final = 1_000_000

_Path: TypeAlias = "tuple[_Path, Any] | None"
"""Keys from the last one up to the resource; spelled out only where an image is found."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An image in a pod's specification.

    Attributes:
        image: its full reference, or what stands there when that is none.
        where: resource and path, such as ``Deployment/web: spec.template.spec.containers[0]``.
        is_reference: whether `image` is a reference at all.
    """

    image: str
    where: str
    is_reference: bool


def find(rendered: bytes, *, subject: str, limit: int = limits.INDEX_DOCUMENT) -> list[Seen]:
    """Return every image that the resources in a YAML stream run, in order.

    Args:
        rendered: the YAML, as ``helm template`` prints it.
        subject: whose it is, for messages.
        limit: the most bytes that are looked at.

    Raises:
        IntegrityError: it is not YAML, or out of bounds.
    """
    found: list[Seen] = []
    visits = 0
    for document in chart_yaml.load_all(rendered, subject=subject, limit=limit):
        pending: list[tuple[Any, str, _Path]] = [(document, "", None)]
        while pending:
            value, owner, path = pending.pop()
            visits += 1
            # Aliases make one value stand in many places; without a bound a small text becomes an endless walk.
            if visits > _VISITS:
                raise IntegrityError(subject, expected=f"at most {_VISITS} values", actual="more")
            if isinstance(value, dict):
                kind = value.get("kind")
                if kind == "CustomResourceDefinition":
                    continue
                if isinstance(kind, str) and "apiVersion" in value:
                    owner, path = _owner(kind, value), None
                found += _images(value, owner, path)
                children = [(child, owner, (path, key)) for key, child in value.items()]
            elif isinstance(value, list):
                children = [(child, owner, (path, number)) for number, child in enumerate(value)]
            else:
                continue
            pending += reversed(children)
    return found


def _owner(kind: str, value: dict[Any, Any]) -> str:
    metadata = value.get("metadata")
    name = metadata.get("name") or metadata.get("generateName") if isinstance(metadata, dict) else None
    return f"{kind}/{name or ''}"


def _text(path: _Path) -> str:
    """Return ``spec.template.spec`` with a dot at its end, or "" for the top."""
    parts: list[str] = []
    while path is not None:
        path, key = path
        parts.append(f"[{key}]." if isinstance(key, int) else f"{key}.")
    return "".join(reversed(parts)).replace(".[", "[")


def _images(value: dict[Any, Any], owner: str, path: _Path) -> Iterator[Seen]:
    for key in _CONTAINERS:
        items = value.get(key)
        for number, item in enumerate(items if isinstance(items, list) else ()):
            if isinstance(item, dict) and isinstance(item.get("image"), str):
                yield _seen(item["image"], f"{owner}: {_text(path)}{key}[{number}]")
    volumes = value.get("volumes")
    for number, item in enumerate(volumes if isinstance(volumes, list) else ()):
        image = item.get("image") if isinstance(item, dict) else None
        if isinstance(image, dict) and isinstance(image.get("reference"), str):
            yield _seen(image["reference"], f"{owner}: {_text(path)}volumes[{number}].image")


def _seen(text: str, where: str) -> Seen:
    try:
        return Seen(str(reference.parse(text)), where, is_reference=True)
    except ManifestError:
        return Seen(text, where, is_reference=False)


def group(seen: list[Seen]) -> list[dict[str, Any]]:
    """Return images with where each was seen, by name: ``[{"image", "where"}]``."""
    places: dict[str, list[str]] = {}
    for item in seen:
        where = places.setdefault(item.image, [])
        if item.where not in where:
            where.append(item.where)
    return [{"image": image, "where": places[image]} for image in sorted(places)]

"""The pages of the package index, in HTML and JSON, and which of the two a client wants.

PEP 503 and 691 (the two forms), 592 (yanked), 658 and 714 (METADATA), 700 (sizes, versions, upload times). All
addresses are relative, so that the index works behind any prefix.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment
from packaging.version import Version

from airlift import digest as digests
from airlift.digest import Digest

JSON: Final = "application/vnd.pypi.simple.v1+json"
HTML: Final = "application/vnd.pypi.simple.v1+html"
TEXT_HTML: Final = "text/html"

_OFFERS: Final[Mapping[str, str]] = {
    TEXT_HTML: TEXT_HTML,
    JSON: JSON,
    HTML: HTML,
    "application/vnd.pypi.simple.latest+json": JSON,
    "application/vnd.pypi.simple.latest+html": HTML,
}
_PREFERENCE: Final = (TEXT_HTML, HTML, JSON)
_API_VERSION: Final = "1.1"

_ENVIRONMENT: Final = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
_PROJECTS: Final = _ENVIRONMENT.from_string(
    """<!DOCTYPE html>
<html><head><meta charset="utf-8"><meta name="pypi:repository-version" content="{{ api }}">
<title>Simple index</title></head><body>
{% for name in names %}
<a href="{{ name }}/">{{ name }}</a><br>
{% endfor %}
</body></html>
"""
)
_PROJECT: Final = _ENVIRONMENT.from_string(
    """<!DOCTYPE html>
<html><head><meta charset="utf-8"><meta name="pypi:repository-version" content="{{ api }}">
<title>{{ name }}</title></head><body><h1>{{ name }}</h1>
{% for file in files %}
<a href="{{ file.url }}#sha256={{ file.hashes.sha256 }}"
{%- if file["requires-python"] %} data-requires-python="{{ file["requires-python"] }}"{% endif %}
{%- if file["core-metadata"] %} data-core-metadata="sha256={{ file["core-metadata"].sha256 }}"
{#- #} data-dist-info-metadata="sha256={{ file["core-metadata"].sha256 }}"{% endif %}
{%- if file.yanked is sameas true %} data-yanked=""{% elif file.yanked %} data-yanked="{{ file.yanked }}"{% endif -%}
>{{ file.filename }}</a><br>
{% endfor %}
</body></html>
"""
)


def choose(accept: str | None) -> str | None:
    """Return the media type to answer with, or None when the client takes none of ours.

    The highest q-value wins; of equals ``text/html``, which is what a client without an opinion gets (PEP 691).
    """
    if accept is None or not accept.strip():
        return TEXT_HTML
    scores: dict[str, tuple[int, float]] = {}
    for part in accept.split(","):
        pattern, *parameters = (word.strip().lower() for word in part.split(";"))
        weight = _weight(parameters)
        for offer, kind in _OFFERS.items():
            exactness = _matches(pattern, offer)
            if exactness and (exactness, weight) > scores.get(kind, (0, 0.0)):
                scores[kind] = (exactness, weight)
    best = max((scores[kind][1] for kind in scores), default=0.0)
    return next((kind for kind in _PREFERENCE if best > 0 and scores.get(kind, (0, 0.0))[1] == best), None)


def _weight(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return max(0.0, min(1.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0


def _matches(pattern: str, offer: str) -> int:
    if pattern == offer:
        return 3
    if pattern == offer.partition("/")[0] + "/*":
        return 2
    return 1 if pattern == "*/*" else 0


def projects(names: Sequence[str], kind: str) -> bytes:
    """Return the page of all projects."""
    ordered = sorted(names)
    if kind == JSON:
        return _json({"meta": {"api-version": _API_VERSION}, "projects": [{"name": name} for name in ordered]})
    return _PROJECTS.render(names=ordered, api=_API_VERSION).encode()


def project(name: str, values: Iterable[Mapping[str, Any]], kind: str) -> bytes:
    """Return the page of one project.

    Args:
        name: normalised.
        values: what `airlift.site.mirrors.wheels` listed for its files.
        kind: `JSON`, `HTML` or `TEXT_HTML`.
    """
    once = {str(value["filename"]): value for value in values}
    files = [_file(once[filename]) for filename in sorted(once)]
    if kind == JSON:
        versions = sorted({str(value["version"]) for value in once.values()}, key=Version)
        page = {"meta": {"api-version": _API_VERSION}, "name": name, "versions": versions, "files": files}
        return _json(page)
    return _PROJECT.render(name=name, files=files, api=_API_VERSION).encode()


def _file(value: Mapping[str, Any]) -> dict[str, Any]:
    sha256 = digests.hex_of(Digest(value["digest"]))
    filename = str(value["filename"])
    file: dict[str, Any] = {
        "filename": filename,
        "url": f"{sha256}/{quote(filename)}",
        "hashes": {"sha256": sha256},
        "size": value["size"],
        "core-metadata": {"sha256": digests.hex_of(Digest(value["metadata"]))},
        # An empty reason is a reason: PEP 592 wants true then, never an empty text.
        "yanked": (value["yanked"] or True) if "yanked" in value else False,
    }
    for key in ("requires-python", "upload-time"):
        if key in value:
            file[key] = value[key]
    return file


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

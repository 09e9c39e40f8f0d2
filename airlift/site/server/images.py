"""The registry: the pull half of the OCI distribution specification 1.1, with containerd's ``?ns=``.

A repository is asked for as ``/v2/<registry>/<repository>`` (``host:port`` is written ``host_port``), or as mirrors
are: by ``/v2/<repository>`` with the registry in ``ns``. Without either, docker.io is meant. Tags are those of the
active drops, digests those of the kept ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from aiohttp import web

from airlift import digest as digests
from airlift import oci
from airlift.errors import IntegrityError
from airlift.reference import DEFAULT_REGISTRY
from airlift.site.listing import Service
from airlift.site.server import content

if TYPE_CHECKING:
    from airlift.digest import Digest
    from airlift.site.catalog import Catalog
    from airlift.site.listing import Held

_CALL: Final = re.compile(r"(.+)/(?:(manifests|blobs|referrers)/([^/]+)|(tags)/list)")
_PART: Final = r"[A-Za-z0-9]+(?:(?:[._]|__|-+)[A-Za-z0-9]+)*"
_NAME: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_VERSION: Final = {"Docker-Distribution-Api-Version": "registry/2.0"}
_MAX_NAME: Final = 512
_TYPES: Final = oci.INDEX_TYPES | oci.MANIFEST_TYPES
_ALIASES: Final = frozenset({"index.docker.io", "registry-1.docker.io"})


def routes(catalog: Catalog) -> list[web.AbstractRouteDef]:
    """Return the registry's routes."""
    registry = _Registry(catalog)
    return [
        web.get("/v2", registry.base),
        web.get("/v2/", registry.base),
        web.get("/v2/_catalog", registry.catalog),
        web.get("/v2/{tail:.+}", registry.call),
        web.route("*", "/v2/{tail:.*}", registry.refuse),
    ]


def refusals(address: str) -> list[web.AbstractRouteDef]:
    """Return the routes of a site whose images and charts are in another registry."""

    async def elsewhere(_: web.Request) -> web.StreamResponse:
        return _error(404, "NAME_UNKNOWN", f"images and charts of this site are in {address}")

    return [web.route("*", "/v2/{tail:.*}", elsewhere)]


class _Registry:
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def base(self, _: web.Request) -> web.StreamResponse:
        """Say that this is a registry."""
        return content.json_response({}, headers=_VERSION)

    async def refuse(self, request: web.Request) -> web.StreamResponse:
        """Answer what would change something."""
        return _error(
            405, "UNSUPPORTED", f"{request.method}: this registry is a read-only mirror", {"Allow": "GET, HEAD"}
        )

    async def catalog(self, request: web.Request) -> web.StreamResponse:
        """Answer the list of repositories."""
        return _page(request, "repositories", {}, self._catalog.scopes(Service.OCI))

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Answer everything below a repository."""
        match = _CALL.fullmatch(request.match_info["tail"])
        if match is None:
            return _error(404, "NOT_FOUND", "no such call")
        name, what, reference, _ = match.groups()
        if len(name) > _MAX_NAME or _NAME.fullmatch(name) is None:
            return _error(400, "NAME_INVALID", f"{name[:80]!r} is not a repository name")
        paths = _scopes(name, request.query.get("ns", ""))
        scopes = [path for path in paths if self._catalog.has_scope(Service.OCI, path)]
        if what == "referrers":
            return self._referrers(request, reference, scopes)
        if not scopes:
            return _error(404, "NAME_UNKNOWN", f"no repository {name} in a kept drop")
        answers = {"blobs": self._blob, "manifests": self._manifest}
        return await answers.get(what, self._tags)(request, reference, scopes)

    async def _tags(self, request: web.Request, _: str, scopes: list[str]) -> web.StreamResponse:
        tags = sorted({tag for scope in scopes for tag in self._catalog.tags(scope)})
        name = request.match_info["tail"].removesuffix("/tags/list")
        return _page(request, "tags", {"name": name}, tags)

    async def _blob(self, request: web.Request, reference: str, scopes: list[str]) -> web.StreamResponse:
        digest = _digest(reference)
        if digest is None:
            return _error(400, "DIGEST_INVALID", f"{reference[:80]!r} is not sha256:<64 lower-case hex digits>")
        held = self._held(scopes, digest)
        if held is None:
            return _error(404, "BLOB_UNKNOWN", f"no blob {digest} in a kept drop")
        headers = {"Docker-Content-Digest": digest, "Content-Type": "application/octet-stream", **_common(request)}
        return await content.blob_response(request, self._catalog, held, headers=headers)

    async def _manifest(self, request: web.Request, reference: str, scopes: list[str]) -> web.StreamResponse:
        digest = _digest(reference)
        if digest is None:
            if ":" in reference or _TAG.fullmatch(reference) is None:
                return _error(400, "MANIFEST_INVALID", f"{reference[:80]!r} is neither a tag nor a sha256 digest")
            named = [value for scope in scopes for value in self._catalog.names(Service.OCI, f"{scope}:{reference}")]
            digest = digests.parse(named[0]["digest"]) if named else None
        held = None if digest is None else self._held(scopes, digest)
        if digest is None or held is None or held.media_type not in _TYPES:
            return _error(404, "MANIFEST_UNKNOWN", f"no manifest {reference}: tags are those of the active drops")
        headers = {"Docker-Content-Digest": digest, **_common(request)}
        return await content.blob_response(request, self._catalog, held, headers=headers)

    def _held(self, scopes: list[str], digest: Digest) -> Held | None:
        return next((held for scope in scopes if (held := self._catalog.held(Service.OCI, scope, digest))), None)

    def _referrers(self, request: web.Request, reference: str, scopes: list[str]) -> web.StreamResponse:
        digest = _digest(reference)
        if digest is None:
            return _error(400, "DIGEST_INVALID", f"{reference[:80]!r} is not sha256:<64 lower-case hex digits>")
        found = {held.digest: held for scope in scopes for held in self._catalog.referrers(scope, digest)}
        wanted = request.query.get("artifactType")
        headers = _common(request)
        if wanted:
            headers["OCI-Filters-Applied"] = "artifactType"
        manifests = [
            _descriptor(held) for held in found.values() if not wanted or held.facts.get("artifactType") == wanted
        ]
        # Unknown digests have an empty list, not an error (distribution-spec 1.1, "Listing Referrers").
        body = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": manifests}
        return content.json_response(body, headers=headers, content_type=oci.INDEX)


def _scopes(name: str, namespace: str) -> list[str]:
    """Return the mirror paths that a request may mean, the likeliest first."""
    if namespace:
        registry = DEFAULT_REGISTRY if namespace in _ALIASES else namespace.replace(":", "_")
        # An endpoint that ends in /v2/<registry> is asked with the path and with ns.
        paths = [name] if name.startswith(f"{registry}/") else []
        paths.append(f"{registry}/{name}")
        if registry == DEFAULT_REGISTRY:
            paths.append(f"{registry}/library/{name}")
        return [path for path in paths if registry != DEFAULT_REGISTRY or path.count("/") > 1]
    found = [name, f"{DEFAULT_REGISTRY}/{name}"]
    if "/" not in name:
        found.append(f"{DEFAULT_REGISTRY}/library/{name}")
    return found


def _digest(text: str) -> Digest | None:
    try:
        return digests.parse(text)
    except IntegrityError:
        return None


def _descriptor(held: Held) -> dict[str, Any]:
    value: dict[str, Any] = {"mediaType": held.media_type, "digest": held.digest, "size": held.size}
    if held.facts.get("artifactType"):
        value["artifactType"] = held.facts["artifactType"]
    if held.facts.get("annotations"):
        value["annotations"] = held.facts["annotations"]
    return value


def _page(request: web.Request, key: str, body: Mapping[str, Any], items: list[str]) -> web.StreamResponse:
    """Answer a sorted list from behind ``last`` on, ``n`` at most, with the way to the next page."""
    text = request.query.get("n")
    if text is not None and not re.fullmatch(r"[0-9]{1,9}", text):
        return _error(400, "PAGINATION_NUMBER_INVALID", "n: expected a number")
    most = len(items) if text is None else int(text)
    last = request.query.get("last", "")
    rest = [item for item in items if not last or item > last]
    shown = rest[:most]
    headers = _common(request)
    if shown and len(rest) > most:
        query = {"n": most, "last": shown[-1]}
        if request.query.get("ns"):
            query["ns"] = request.query["ns"]
        # Whole, since skopeo puts its own host before it without looking.
        headers["Link"] = f'<{request.rel_url.raw_path}?{urlencode(query)}>; rel="next"'
    return content.json_response({**body, key: shown}, headers=headers)


def _common(request: web.Request) -> dict[str, str]:
    """Return what every good answer says; a mirror that routed by ``ns`` says so (containerd's hosts.md)."""
    namespace = request.query.get("ns")
    return {**_VERSION, "OCI-Namespace": quote(namespace, safe=".:")} if namespace else dict(_VERSION)


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {"errors": [{"code": code, "message": message, "detail": None}]}
    return content.json_response(body, status=status, headers={**_VERSION, **(headers or {})})

"""What a static tree holds: path to content, for every mirror that a web server can show from files alone.

The model hub answers with headers that belong to a file at a commit, and files have no headers. So a model's file is a
link to a directory whose name says them: ``hf-files/<commit>/<Git object id>``, or for what a hub has in LFS
``hf-files/<commit>/<sha256>-<size>``. The web server resolves the link once, reads the headers in the name, and sends
what is in there (appliance/nginx.conf). So names, headers and content switch with the tree, and no answer has the
headers of one drop and the bytes of another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from airlift import canonical
from airlift import digest as digests
from airlift.digest import Digest
from airlift.errors import PolicyError, StoreError
from airlift.kinds.models import ModelFile
from airlift.site import file_index, model_hub, simple_pages
from airlift.site.catalog import Catalog
from airlift.site.chart_index import index_of
from airlift.site.listing import Held, Service
from airlift.site.model_hub import Snapshot

GENERATION: Final = "generation.json"
"""Which drops the tree shows."""

_INFO: Final = ".info.json"
_ENTRIES: Final = ".entries.json"
_ALL_ENTRIES: Final = ".all-entries.json"
_REFS: Final = ".refs.json"
_MODELS: Final = ".models.json"
_COMMIT: Final = ".commit"
"""A link to the directory of a revision's commit, for what is not there."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A file with the content of a blob."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link.

    Attributes:
        target: what it points to, relative to where it is.
    """

    target: str


Item = bytes | Blob | Link
Plan = dict[str, Item]


def plan_of(catalog: Catalog, *, with_charts: bool) -> Plan:
    """Return the tree of a site's active drops.

    Args:
        catalog: what they are.
        with_charts: whether the charts are in the tree.

    Raises:
        StoreError: a name cannot be a path, or two contents have one name.
        PolicyError: a name is below another one, so that no tree has both.
        IntegrityError: a model's manifest is damaged.
    """
    plan: Plan = {GENERATION: canonical.encode({"generation": catalog.generation()})}
    _plan_wheels(plan, catalog)
    if with_charts:
        _plan_charts(plan, catalog)
    _plan_models(plan, catalog)
    _plan_files(plan, catalog)
    _refuse_nested(plan)
    return plan


def _plan_wheels(plan: Plan, catalog: Catalog) -> None:
    projects: dict[str, list[Any]] = {}
    for name, value in catalog.all_names(Service.SIMPLE):
        projects.setdefault(name, []).append(value)
    for suffix, kind in (("html", simple_pages.TEXT_HTML), ("json", simple_pages.JSON)):
        _add(plan, f"simple/index.{suffix}", simple_pages.projects(list(projects), kind))
        for name, values in projects.items():
            _add(plan, f"simple/{name}/index.{suffix}", simple_pages.project(name, values, kind))
    for held in _held(catalog, Service.SIMPLE):
        if "filename" not in held.facts:
            continue
        path = f"simple/{held.scope}/{digests.hex_of(held.digest)}/{held.facts['filename']}"
        _add(plan, path, Blob(held.digest, held.size))
        metadata = catalog.held(Service.SIMPLE, held.scope, digests.parse(held.facts["metadata"]))
        if metadata is not None:
            _add(plan, f"{path}.metadata", Blob(metadata.digest, metadata.size))


def _plan_charts(plan: Plan, catalog: Catalog) -> None:
    _add(plan, "charts/index.yaml", canonical.encode(index_of(catalog.all_names(Service.CHARTS))))
    for held in _held(catalog, Service.CHARTS):
        if held.scope.endswith(".prov"):
            continue
        path = f"charts/{digests.hex_of(held.digest)}/{held.scope}"
        _add(plan, path, Blob(held.digest, held.size))
        signed = held.facts.get("provenance")
        provenance = catalog.held(Service.CHARTS, f"{held.scope}.prov", digests.parse(signed)) if signed else None
        if provenance is not None:
            _add(plan, f"{path}.prov", Blob(provenance.digest, provenance.size))


def _plan_models(plan: Plan, catalog: Catalog) -> None:
    hub = model_hub.Hub(catalog)
    _add_json(plan, f"hf/api/models/{_MODELS}", model_hub.model_list(catalog.keys(Service.HUB)))
    for model_id in catalog.scopes(Service.HUB):
        api = f"hf/api/models/{model_id}"
        if names := catalog.names(Service.HUB, model_id):
            _add_json(plan, f"{api}/refs/{_REFS}", model_hub.refs(names))
            if (shown := hub.find(model_id, model_hub.DEFAULT)) is not None:
                _add_json(plan, f"{api}/{_INFO}", model_hub.info(shown, with_blobs=True))
        for revision in hub.revisions(model_id):
            if (snapshot := hub.find(model_id, revision)) is not None:
                _plan_snapshot(plan, snapshot, revision)


def _plan_snapshot(plan: Plan, snapshot: Snapshot, revision: str) -> None:
    api = f"hf/api/models/{snapshot.model_id}"
    _add_json(plan, f"{api}/revision/{revision}/{_INFO}", model_hub.info(snapshot, with_blobs=True))
    folders = {str(parent) for path in snapshot.files for parent in PurePosixPath(path).parents}
    for folder in folders:
        place = f"{api}/tree/{revision}" + ("" if folder == "." else f"/{folder}")
        directory = "" if folder == "." else folder
        _add_json(plan, f"{place}/{_ENTRIES}", model_hub.entries(snapshot, directory, is_recursive=False))
        _add_json(plan, f"{place}/{_ALL_ENTRIES}", model_hub.entries(snapshot, directory, is_recursive=True))
    commit = f"{api}/revision/{revision}/{_COMMIT}"
    _add(plan, commit, Link("../" * commit.count("/") + f"hf-files/{snapshot.revision}"))
    for file in snapshot.files.values():
        told = _told(snapshot, file)
        _add(plan, f"{told}/content", Blob(file.digest, file.size))
        place = f"hf/{snapshot.model_id}/resolve/{revision}/{file.path}"
        _add(plan, place, Link("../" * place.count("/") + told))


def _told(snapshot: Snapshot, file: ModelFile) -> str:
    """Return the directory whose name says the headers of a file."""
    etag = file.git_oid or f"{digests.hex_of(file.digest)}-{file.size}"
    return f"hf-files/{snapshot.revision}/{etag}"


def _plan_files(plan: Plan, catalog: Catalog) -> None:
    for held in _held(catalog, Service.FILES):
        _add(plan, f"files/{digests.hex_of(held.digest)}/{held.scope}", Blob(held.digest, held.size))
    names = catalog.all_names(Service.FILES)
    for name, value in names:
        _add(plan, f"files/{name}", Blob(digests.parse(value["digest"]), value["size"]))
    _add_json(plan, "files.json", {"files": file_index.index_of(names)})


def _refuse_nested(plan: Plan) -> None:
    problems = [
        f"{path} is below {parent}, which is a file"
        for path in plan
        for parent in PurePosixPath(path).parents
        if str(parent) in plan
    ]
    if problems:
        raise PolicyError(
            "a tree of files cannot have all names of the drops",
            violations=problems,
            hint="airlift serve has them all; for a tree, the release engineer has to give one of the two another name",
        )


def _held(catalog: Catalog, service: Service) -> Iterator[Held]:
    for scope in catalog.scopes(service):
        yield from catalog.held_all(service, scope)


def _add_json(plan: Plan, path: str, value: object) -> None:
    _add(plan, path, canonical.encode(value))


def _add(plan: Plan, path: str, item: Item) -> None:
    if any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
        raise StoreError(f"exporting {path[:200]!r}: expected a path below the tree")
    if plan.setdefault(path, item) != item:
        raise StoreError(f"exporting {path}: two contents have this name")

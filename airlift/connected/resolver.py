"""`resolve`: a manifest becomes a lock.

* Pins stay while an entry's request is unchanged; ``update`` moves them. What lies beside the manifest (charts, models,
  files, layouts) is read again every time.
* Every entry is tried, so that one run names everything that is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Final

from pydantic import ValidationError

from airlift import digest, fs, limits, reference
from airlift.artifact import Kind
from airlift.canonical import JsonObject
from airlift.connected import requirement_files
from airlift.connected.source import Settings, Source
from airlift.connected.sources.charts import ChartSource
from airlift.connected.sources.files import FileSource
from airlift.connected.sources.images import ImageSource
from airlift.connected.sources.models import ModelSource
from airlift.connected.sources.wheels import WheelSource
from airlift.errors import AirliftError, IntegrityError, PolicyError, ResolveError, UsageError
from airlift.lock import Lock, LockedBlob, LockedEntry
from airlift.manifest import Chart, Deploy, File, Image, Manifest, Model, ModelWeights, Python

SOURCES: Final[Mapping[Kind, Callable[[Settings], Source[Any]]]] = {
    Kind.IMAGE: ImageSource,
    Kind.WHEELS: WheelSource,
    Kind.CHART: ChartSource,
    Kind.MODEL: ModelSource,
    Kind.FILE: FileSource,
}

ALL: Final = "all"

_PARALLEL = 4


@dataclass(frozen=True, slots=True)
class _Wanted:
    kind: Kind
    where: str
    model: Model
    request: JsonObject
    is_local: bool


def resolve(
    manifest: Manifest, settings: Settings, *, previous: Lock | None = None, update: Collection[str] = ()
) -> Lock:
    """Pin everything that a manifest asks for.

    Args:
        manifest: the request.
        settings: what sources know of the machine.
        previous: the last lock; its pins stay where the request is unchanged.
        update: names of entries whose pins move, or ``all``.

    Raises:
        ResolveError: something is not there, or ambiguous; all of it is named.
        FetchError: a source did not answer.
        IntegrityError: a source gave other bytes than it promised.
        PolicyError: a model holds files that may execute code.
        UsageError: ``update`` names an entry that the manifest does not have.
    """
    settings = replace(settings, deployed=tuple((item.chart, tuple(item.values)) for item in manifest.deploy))
    wanted = tuple(_wanted(manifest, settings))
    sources = {kind: make(settings) for kind, make in SOURCES.items() if any(item.kind is kind for item in wanted)}
    before = _previous(previous)

    def one(item: _Wanted) -> LockedEntry | AirliftError:
        old = before.get((item.kind, item.where))
        old = old or next(
            (e for (kind, _), e in before.items() if kind is item.kind and e.request == item.request), None
        )
        is_same = old is not None and old.request == item.request
        moves = ALL in update or (old is not None and old.name in update) or _name(item.model) in update
        if old is not None and is_same and not moves and not item.is_local:
            return old
        try:
            return replace(sources[item.kind].resolve(item.model, old), request=item.request)
        except AirliftError as error:
            return error

    settings.progress.start("resolving", len(wanted), unit="requests")
    with ThreadPoolExecutor(_PARALLEL) as pool:
        results = []
        for result in pool.map(one, wanted):
            settings.progress.advance(1)
            results.append(result)
    settings.progress.finish()
    _raise_all([item for item in results if isinstance(item, AirliftError)])
    entries = tuple(item for item in results if isinstance(item, LockedEntry))
    _check_update(update, entries, wanted)
    _check_names(entries)
    deploy, values = _deployments(manifest.deploy, entries, settings)
    lock = Lock(
        manifest.metadata.name,
        manifest.metadata.channel,
        dict(manifest.metadata.labels),
        tuple(manifest.platforms),
        entries,
        deploy,
        values,
        {"preload": _preload(manifest, entries)},
    )
    _report_missing_images(lock, settings)
    return lock


def check(manifest: Manifest, lock: Lock, settings: Settings) -> None:
    """Compare a manifest with its lock, without a network.

    Raises:
        ResolveError: the lock is stale; every difference is named.
    """
    wanted = {(item.kind, item.where): item for item in _wanted(manifest, settings)}
    have = _previous(lock)
    stale = [f"{where}: not in the lock" for kind, where in wanted if (kind, where) not in have]
    stale += [f"{entry.name}: in the lock, not in the manifest" for key, entry in have.items() if key not in wanted]
    stale += [
        f"{where}: changed since the lock was made"
        for (kind, where), item in wanted.items()
        if (kind, where) in have and have[kind, where].request != item.request
    ]
    for label, new, old in (
        ("metadata.name", manifest.metadata.name, lock.name),
        ("metadata.channel", manifest.metadata.channel, lock.channel),
        ("metadata.labels", dict(manifest.metadata.labels), dict(lock.labels)),
        ("platforms", tuple(manifest.platforms), lock.platforms),
    ):
        if new != old:
            stale.append(f"{label}: {old!r} in the lock, {new!r} in the manifest")
    if not stale:
        deploy, values = _deployments(manifest.deploy, lock.entries, settings)
        if (deploy, values) != (tuple(lock.deploy), lock.values):
            stale.append("deploy: changed since the lock was made")
        if _preload(manifest, lock.entries) != list(lock.k3s.get("preload", [])):
            stale.append("k3s: changed since the lock was made")
    if stale:
        raise ResolveError(
            "\n".join(["the lock is stale", *(f"  {line}" for line in stale)]), hint="run airlift resolve"
        )


def _wanted(manifest: Manifest, settings: Settings) -> Iterator[_Wanted]:
    groups: tuple[tuple[Kind, str, Sequence[Model]], ...] = (
        (Kind.IMAGE, "images", [*manifest.images, *_preloaded(manifest)]),
        (Kind.WHEELS, "python", manifest.python),
        (Kind.CHART, "charts", manifest.charts),
        (Kind.MODEL, "models", manifest.models),
        (Kind.FILE, "files", manifest.files),
    )
    for kind, section, models in groups:
        for number, model in enumerate(models):
            request: JsonObject = {"entry": model.model_dump(mode="json", by_alias=True, exclude_none=True)}
            if kind is Kind.IMAGE:
                request["platforms"] = list(settings.platforms)
            deployed = _deployed_values(model, manifest)
            if deployed:
                request["deployed"] = deployed
            named = [name for names in deployed for name in names]
            inputs = _inputs(model, settings, f"{section}[{number}]", named)
            if inputs:
                request["inputs"] = inputs
            yield _Wanted(kind, f"{section}[{_name(model)}]", model, request, _is_local(model))


def _name(model: Model) -> str:
    match model:
        case Image():
            return str(model.site_name)
        case Python() | File():
            return model.name
        case Chart():
            return model.name or model.ref or model.path or ""
        case ModelWeights():
            return model.id
        case _:
            raise TypeError(type(model).__name__)


def _is_local(model: Model) -> bool:
    if isinstance(model, Image):
        return model.ref.startswith("oci-layout:")
    return getattr(model, "path", None) is not None


def _deployed_values(model: Model, manifest: Manifest) -> list[list[str]]:
    """Return the values files of each deployment of a chart: with them its images are looked up."""
    if not isinstance(model, Chart):
        return []
    names = (model.likely_name, _name(model))
    return [
        list(item.values)
        for item in manifest.deploy
        if item.values and (item.chart in names or item.chart.startswith(f"charts/{model.likely_name}:"))
    ]


def _inputs(model: Model, settings: Settings, where: str, more: Sequence[str]) -> JsonObject:
    """Return the digests of the small files that a request names: an edit of them changes the request."""
    if isinstance(model, Python):
        found = requirement_files.read(model.requirements, model.packages, base=settings.base, set_name=model.name)
        names = [os.path.relpath(path, settings.base) for path in found.files]
    else:
        names = list(model.values) if isinstance(model, Chart) else []
    places = [*((name, where) for name in names), *((name, "deploy") for name in more)]
    return {name: digest.of(_read(settings, name, place)) for name, place in places}


def _read(settings: Settings, name: str, where: str) -> bytes:
    path = settings.base / name
    if not path.is_file():
        raise ResolveError(f"{where}: {name} is not a file", hint="paths are relative to the manifest")
    return fs.read_bounded(path, limits.DOCUMENT)


def _previous(lock: Lock | None) -> dict[tuple[Kind, str], LockedEntry]:
    sections = {
        Kind.IMAGE: "images",
        Kind.WHEELS: "python",
        Kind.CHART: "charts",
        Kind.MODEL: "models",
        Kind.FILE: "files",
    }
    models: Mapping[Kind, type[Model]] = {
        Kind.IMAGE: Image,
        Kind.WHEELS: Python,
        Kind.CHART: Chart,
        Kind.MODEL: ModelWeights,
        Kind.FILE: File,
    }
    found: dict[tuple[Kind, str], LockedEntry] = {}
    for entry in lock.entries if lock else ():
        try:
            model = models[entry.kind].model_validate(entry.request.get("entry"))
        except ValidationError:
            raise ResolveError(
                f"the lock's entry {entry.name} was asked for in a way that this airlift does not know",
                hint="move the lock away and run airlift resolve again, which moves every pin",
            ) from None
        found[entry.kind, f"{sections[entry.kind]}[{_name(model)}]"] = entry
    return found


def _raise_all(errors: Sequence[AirliftError]) -> None:
    """Raise what is wrong as one error, of the gravest class among them."""
    if not errors:
        return
    grave = min(errors, key=lambda e: (not isinstance(e, IntegrityError), not isinstance(e, PolicyError)))
    if len(errors) > 1:
        grave.message = "\n".join(
            [f"{len(errors)} entries cannot be resolved", *dict.fromkeys(f"  {e.message}" for e in errors)]
        )
    raise grave


def _check_update(update: Collection[str], entries: Sequence[LockedEntry], wanted: Sequence[_Wanted]) -> None:
    known = {entry.name for entry in entries} | {_name(item.model) for item in wanted} | {ALL}
    for name in update:
        if name not in known:
            raise UsageError(f"--update {name}: no such entry", hint=f"known are {', '.join(sorted(known))}")


def _check_names(entries: Sequence[LockedEntry]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for entry in entries:
        for item in entry.artifacts:
            name, root = item.artifact.name, item.artifact.root.digest
            other, by = seen.setdefault(name.casefold(), (root, entry.name))
            if other != root:
                raise ResolveError(
                    f"{name} is asked for twice with different content, by {by} ({other}) and by {entry.name} ({root})",
                    hint="give one of them another name",
                )


def _deployments(
    wanted: Sequence[Deploy], entries: Sequence[LockedEntry], settings: Settings
) -> tuple[tuple[JsonObject, ...], tuple[LockedBlob, ...]]:
    deploy: list[JsonObject] = []
    values: dict[str, LockedBlob] = {}
    for number, item in enumerate(wanted):
        where = f"deploy[{number}]"
        chart = _chart(item.chart, entries, where)
        files = []
        for name in item.values:
            data = _read(settings, name, where)
            blob = LockedBlob(digest.of(data), len(data), "application/yaml", None, {"path": name})
            values.setdefault(blob.digest, blob)
            files.append({"name": PurePosixPath(name).name, "digest": blob.digest})
        release = item.release or str(chart["release"])
        if any(other["release"] == release for other in deploy):
            raise ResolveError(
                f"{where}: release {release} is there twice",
                hint="K3s names a release by its HelmChart, whatever the namespace; give one of them `release:`",
            )
        deploy.append({"chart": chart["artifact"], "namespace": item.namespace, "release": release, "values": files})
    return tuple(deploy), tuple(values.values())


def _chart(name: str, entries: Sequence[LockedEntry], where: str) -> JsonObject:
    found = [
        {"artifact": item.artifact.name, "release": item.artifact.facts["name"]}
        for entry in entries
        if entry.kind is Kind.CHART
        for item in entry.artifacts
        if "name" in item.artifact.facts and name in (item.artifact.facts["name"], entry.name, item.artifact.name)
    ]
    if len(found) != 1:
        charts = sorted(str(e.name) for e in entries if e.kind is Kind.CHART)
        raise ResolveError(
            f"{where}.chart: {'no' if not found else 'more than one'} chart of this manifest is called {name!r}",
            hint=f"charts are {', '.join(charts) or 'none'}",
        )
    return found[0]


def _preloaded(manifest: Manifest) -> Iterator[Image]:
    """Yield the images that only ``k3s.preload`` names: they are carried like all others."""
    named = {_tag(image.site_name) for image in manifest.images}
    for text in manifest.k3s.preload:
        if _tag(reference.parse(text)) not in named:
            named.add(_tag(reference.parse(text)))
            yield Image(ref=text)


def _preload(manifest: Manifest, entries: Sequence[LockedEntry]) -> list[str]:
    have = {item.artifact.name for entry in entries if entry.kind is Kind.IMAGE for item in entry.artifacts}
    names = list(dict.fromkeys(_tag(reference.parse(text)) for text in manifest.k3s.preload))
    for number, name in enumerate(names):
        if name not in have:
            raise ResolveError(
                f"k3s.preload[{number}]: {name} is not among this manifest's images",
                hint="K3s finds images of tarballs by a tag; give the image one",
            )
    return names


def _tag(name: reference.Reference) -> str:
    """Return the name that the site knows an image by."""
    return str(name.without_digest())


def _report_missing_images(lock: Lock, settings: Settings) -> None:
    have = {item.artifact.name for item in lock.artifacts() if item.artifact.kind is Kind.IMAGE}
    digests = {item.artifact.root.digest for item in lock.artifacts()}
    deployed = {entry["chart"] for entry in lock.deploy}
    for item in lock.artifacts():
        if item.artifact.kind is Kind.CHART and item.artifact.name in deployed:
            for image in item.artifact.facts.get("images") or ():
                ref = reference.parse(str(image["image"]))
                if str(ref.without_digest()) not in have and ref.digest not in digests:
                    settings.progress.warn(
                        f"{item.artifact.name} runs {ref}, which the manifest's images do not name; deploy will refuse"
                    )

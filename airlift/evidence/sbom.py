"""The drop's software bill of materials, CycloneDX 1.6 in canonical JSON.

- The same lock gives the same bytes: the serial number comes from the content-id, a time is there only when the release
  was issued at one.
- One component per package URL; what the lock says about it in several entries is put together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.tool import ToolRepository
from cyclonedx.schema.schema import SchemaVersion1Dot6
from packageurl import PackageURL

from airlift import canonical
from airlift import digest as digests
from airlift.errors import ResolveError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from airlift import lock as locks
    from airlift.digest import Digest
    from airlift.lock import Lock

_LICENCE_NAME: Final = 256
_HEAD: Final = {
    "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
}


@dataclass(slots=True)
class _Line:
    """What all entries together say about one package URL."""

    first: locks.Component
    licence: str | None
    digests: set[Digest] = field(default_factory=set)
    depends_on: set[str] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)


def sbom(lock: Lock, *, issued: datetime | None, tool_version: str) -> bytes:
    """Return the SBOM of a drop.

    Args:
        lock: what the drop holds.
        issued: when the release was issued, with its zone, or None.
        tool_version: version of airlift.

    Raises:
        ResolveError: the lock has a component whose package URL or type is none.
    """
    content_id = lock.layout().content_id
    lines = _merge(lock)
    components = {purl: _component(line) for purl, line in sorted(lines.items())}
    drop = Component(
        name=lock.name,
        version=content_id,
        type=ComponentType.APPLICATION,
        bom_ref=f"urn:airlift:drop:{content_id}",
        hashes=[_hash(content_id)],
        properties=[
            Property(name="airlift:channel", value=lock.channel),
            *(Property(name=f"airlift:label:{key}", value=value) for key, value in lock.labels.items()),
        ],
    )
    tool = Component(name="airlift", version=tool_version, type=ComponentType.APPLICATION, bom_ref="urn:airlift:tool")
    bom = Bom(
        serial_number=uuid5(NAMESPACE_URL, f"urn:airlift:content:{content_id}"),
        metadata=BomMetaData(component=drop, tools=ToolRepository(components=[tool]), timestamp=issued),
        components=components.values(),
        dependencies=[
            _dependency(drop, components.values()),
            *(
                _dependency(
                    components[purl], [components[one] for one in line.depends_on if one in components and one != purl]
                )
                for purl, line in lines.items()
            ),
        ],
    )
    # The library's own output looks every dependency up in a list, which takes minutes for thousands of them.
    body = bom.as_json(view_=SchemaVersion1Dot6)  # type: ignore[attr-defined]
    document: dict[str, Any] = {**_HEAD, **json.loads(body)}
    if issued is None:
        # The library writes the clock where nothing was given.
        document["metadata"].pop("timestamp", None)
    return canonical.encode(document)


def _dependency(component: Component, needs: Iterable[Component]) -> Dependency:
    return Dependency(component.bom_ref, [Dependency(one.bom_ref) for one in needs])


def _merge(lock: Lock) -> dict[str, _Line]:
    lines: dict[str, _Line] = {}
    for entry in lock.entries:
        for component in entry.components:
            line = lines.setdefault(component.purl, _Line(component, component.licence))
            line.licence = line.licence or component.licence
            line.depends_on.update(component.depends_on)
            line.kinds.add(entry.kind.value)
            line.sources.add(entry.source)
            if component.digest is not None:
                line.digests.add(component.digest)
    return lines


def _component(line: _Line) -> Component:
    said = line.first
    try:
        purl = PackageURL.from_string(said.purl)
        kind = ComponentType(said.type)
    except ValueError as error:
        raise ResolveError(f"component {said.purl!r} of the lock: {error}") from None
    # A component has one hash of an algorithm; the several files of one version are named by their digests.
    several = sorted(line.digests) if len(line.digests) > 1 else []
    return Component(
        name=said.name,
        version=said.version,
        type=kind,
        bom_ref=said.purl,
        purl=purl,
        hashes=[_hash(digest) for digest in line.digests] if not several else [],
        licenses=[LicenseFactory().make_from_string(line.licence[:_LICENCE_NAME])] if line.licence else [],
        properties=[
            *_properties("airlift:kind", line.kinds),
            *_properties("airlift:source", line.sources),
            *_properties("airlift:digest", several),
        ],
    )


def _properties(name: str, values: Iterable[str]) -> list[Property]:
    return [Property(name=name, value=value) for value in sorted(values)]


def _hash(digest: Digest) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digests.hex_of(digest))

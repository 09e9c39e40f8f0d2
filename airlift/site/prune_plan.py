"""What a prune will do, as a document that a person reviews."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from airlift import canonical, fs, limits
from airlift.canonical import JsonObject
from airlift.digest import Digest
from airlift.digest import parse as parse_digest
from airlift.errors import BundleError, IntegrityError, UsageError
from airlift.site.elsewhere import Doomed, read_doomed

PLAN: Final = "airlift.prune/v1"
_RELEASE: Final = re.compile(r"[a-z0-9]+:[0-9a-f]{64,128}")
_SEGMENT: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_REPOSITORY: Final = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a prune will do.

    Attributes:
        releases: complete drops that are forgotten, by channel and sequence.
        given_up: drops that are forgotten although their import is not complete, as named.
        blobs: digest and size of what is deleted, sorted.
        manifests: what is deleted in the external registry.
        waits_for: releases whose import is not complete, where `manifests` has to wait for that: what they need there
            is not known yet. Executing the same plan afterwards deletes it.
        unsure_of: releases that stay and whose index in ``drops/`` is missing or damaged: beside it nothing tells which
            blob is the drop's own manifest, so `blobs` has nothing but what the pruned drops served.
        mirrors_left: external mirrors that got something of `releases` and that site.yaml does not name any more, each
            with what it may still show of them: tags, or file names of wheels. Nothing is deleted there.
        wheels_left: file names of wheels that no kept drop has any more and that stay in the external package index;
            in a plan those that may be there.
    """

    releases: tuple[str, ...]
    blobs: tuple[tuple[Digest, int], ...]
    manifests: tuple[Doomed, ...] = ()
    waits_for: tuple[str, ...] = ()
    given_up: tuple[str, ...] = ()
    unsure_of: tuple[str, ...] = ()
    wheels_left: tuple[str, ...] = ()
    mirrors_left: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def size(self) -> int:
        """Bytes that become free."""
        return sum(size for _, size in self.blobs)

    def to_json(self) -> JsonObject:
        """Return the plan as a document."""
        return {
            "format": PLAN,
            "releases": list(self.releases),
            "given_up": list(self.given_up),
            "blobs": [{"digest": digest, "size": size} for digest, size in self.blobs],
            "registry": [item.to_json() for item in self.manifests],
            "registry_waits_for": list(self.waits_for),
            "unsure_of": list(self.unsure_of),
            "wheels_left": list(self.wheels_left),
            "mirrors_left": {mirror: list(names) for mirror, names in self.mirrors_left},
            "size": self.size,
        }


def read_plan(path: Path) -> Plan:
    """Read a plan that `to_json` made, in canonical JSON.

    Raises:
        UsageError: it is no plan.
        StoreError: it cannot be read.
    """
    try:
        value = canonical.decode(fs.read_bounded(path, limits.LOCK), limit=limits.LOCK, subject=str(path))
        if value["format"] != PLAN:
            raise UsageError(f"{path}: plan of format {value['format']!r}, expected {PLAN!r}")
        blobs = tuple((parse_digest(item["digest"]), int(item["size"])) for item in value["blobs"])
        manifests = tuple(map(_doomed, value.get("registry", [])))
        given_up = tuple(map(_release, value.get("given_up", [])))
        return Plan(tuple(map(_release, value["releases"])), blobs, manifests, given_up=given_up)
    except (BundleError, IntegrityError) as error:
        raise UsageError(error.message, hint="make a plan with airlift drops prune -o PLAN") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: not a plan: {error!r}") from None


def _release(text: object) -> str:
    """Return a release digest; it names a directory below ``drops/``, and nothing may lead out of that."""
    if not isinstance(text, str) or _RELEASE.fullmatch(text) is None:
        raise ValueError(f"{text!r:.100} is no release")
    return text


def _doomed(value: JsonObject) -> Doomed:
    """Return what goes in the registry; its repository stands in an address, and nothing may lead out of that."""
    item = read_doomed(value)
    if _REPOSITORY.fullmatch(item.repository) is None:
        raise ValueError(f"{item.repository!r:.100} is no repository")
    return item

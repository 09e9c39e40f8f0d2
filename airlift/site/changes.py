"""What becomes of the names that clients see, from one drop to another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from airlift.artifact import DropConfig, Kind
from airlift.digest import Digest
from airlift.errors import IntegrityError, StoreError
from airlift.site import contents, oci_listing
from airlift.site.listing import Name, part_of
from airlift.store import Store


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one name.

    Attributes:
        name: such as ``v2/docker.io/library/redis:7.4`` or ``simple/numpy/numpy-2.0-cp312-...whl``.
        digest: what it points at afterwards; of a name that goes, what it pointed at.
        change: ``new``, ``changed``, ``same`` or ``gone``.
        old_digest: of a changed name, what it pointed at before.
        size, old_size: bytes of what the two digests name, where that is known.
    """

    name: str
    digest: Digest
    change: str
    old_digest: Digest | None = None
    size: int | None = None
    old_size: int | None = None

    def to_json(self) -> dict[str, str | int | None]:
        """Return what ``--json`` says of it."""
        return {
            "name": self.name,
            "digest": self.digest,
            "change": self.change,
            "old_digest": self.old_digest,
            "size": self.size,
            "old_size": self.old_size,
        }


def changes(before: Iterable[Name], names: Iterable[Name]) -> list[Change]:
    """Compare names with what clients see before; sorted by name.

    Args:
        before: what they see before.
        names: what they see afterwards.
    """
    found = []
    old, new = ({(n.service.value, n.key, part_of(n)): n.value for n in given} for given in (before, names))
    for key in sorted(old.keys() | new.keys()):
        shown, had, has = contents.shown(*key), old.get(key), new.get(key)
        if has is None or had is None:
            value, change = (old[key], "gone") if has is None else (has, "new")
            found.append(Change(shown, Digest(value["digest"]), change, size=value.get("size")))
        elif had["digest"] == has["digest"]:
            found.append(Change(shown, Digest(has["digest"]), "same", size=has.get("size")))
        else:
            digest, was = Digest(has["digest"]), Digest(had["digest"])
            found.append(Change(shown, digest, "changed", was, has.get("size"), had.get("size")))
    return found


def with_sizes(store: Store, configs: Iterable[DropConfig], found: Iterable[Change]) -> list[Change]:
    """Add the sizes that names do not say: of a chart its archive's, else of all that is below a manifest."""
    listed = list(found)
    wanted = {digest for item in listed if item.change != "same" for digest in (item.digest, item.old_digest)}
    sizes: dict[Digest, int] = {}
    for config in configs:
        for item in config.artifacts:
            is_chart = item.kind is Kind.CHART
            if not is_chart and item.root.digest not in wanted:
                continue
            blobs: dict[Digest, int] = {}
            try:
                for descriptor, manifest in oci_listing.walk(item.root, store, subject=item.name):
                    blobs[descriptor.digest] = descriptor.size
                    blobs |= {blob.digest: blob.size for blob in oci_listing.blobs_of(manifest)}
            except (IntegrityError, StoreError):
                # Damage is for `airlift check` to tell; here a size stays unknown.
                continue
            if is_chart:
                sizes.update(blobs)
            sizes[item.root.digest] = sum(blobs.values())
    return [
        replace(
            item,
            size=sizes.get(item.digest, item.size),
            old_size=item.old_size if item.old_digest is None else sizes.get(item.old_digest, item.old_size),
        )
        for item in listed
    ]

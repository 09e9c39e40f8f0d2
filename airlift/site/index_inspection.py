"""Compares the package index that a site fills with the wheels of the active drops."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from airlift.errors import DeliveryError
from airlift.site.inspection import Finding, Inventory, Place, side_by_side
from airlift.site.journal import READY, Drop, Journal
from airlift.site.mirrors.wheels import wheels_of
from airlift.transport.package_index import PackageIndex, Wheel

_MEND: Final = "airlift check --site DIR --repair"
_REMOVE: Final = "remove the file in the index, then run airlift check --site DIR --repair"


def inspect_index(journal: Journal, inventory: Inventory, index: PackageIndex) -> list[Finding]:
    """Return what is missing in the index, or is something else there.

    Raises:
        StoreError: the journal cannot be read.
    """
    projects: dict[str, dict[Wheel, list[Drop]]] = defaultdict(lambda: defaultdict(list))
    for drop in journal.drops():
        if drop.active and drop.state == READY and not drop.pending:
            for wheel, _ in wheels_of(journal.names_of(drop.release)):
                projects[wheel.project][wheel].append(drop)
    found: list[Finding] = []

    def one(project: str) -> Finding | None:
        try:
            there = {file.filename: file.sha256 for file in index.files(project)}
        except DeliveryError as error:
            of = {
                owner: None for w, drops in projects[project].items() for owner in inventory.owners_of(w.digest, *drops)
            }
            subject, remedy = f"{index.name}/{project}", error.hint or "look at the index"
            return Finding(Place.INDEX, subject, error.message, remedy, tuple(of))
        for wheel, drops in projects[project].items():
            owners = inventory.owners_of(wheel.digest, *drops)
            subject = f"{index.name}/{project}/{wheel.filename}"
            if wheel.filename not in there:
                found.append(Finding(Place.INDEX, subject, "missing", _MEND, owners))
            elif there[wheel.filename] not in (None, wheel.digest):
                problem = f"is {there[wheel.filename]} there, the drop says {wheel.digest}"
                found.append(Finding(Place.INDEX, subject, problem, _REMOVE, owners))
        return None

    unanswered = [item for item in side_by_side(one, sorted(projects)) if item is not None]
    return sorted([*found, *unanswered], key=lambda item: item.subject)

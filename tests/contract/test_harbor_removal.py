"""What is taken away in a Harbor with the rights that ``airlift site robot`` gives: of a stand-in, and of a real one.

What only the stand-in can do is in test_harbor_prune.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from airlift.artifact import Kind
from airlift.progress import Silent
from airlift.site import drops, repair, retention
from airlift.transport.http import HttpSettings
from tests.contract.test_harbor import APP, BIG, check, client_of, harbor, with_a_robot
from tests.support.listener import Listener
from tests.support.real_harbor import HarborUnderTest, eventually
from tests.support.site_bundles import Cargo, ship, take

__all__ = ["harbor"]


def test_pruning_deletes_by_digest_what_no_kept_drop_needs(harbor: HarborUnderTest, tmp_path: Path) -> None:
    project = harbor.name()
    site = with_a_robot(harbor, tmp_path, project)
    indexes, own, same = {}, {}, ""
    for number in (1, 2):
        made = Cargo()
        shared = made.image_manifest(b"the same every month")
        single = made.image_manifest(b"layer of %d" % number)
        indexes[number] = made.index(f"{APP}:1", shared, single).root.digest
        own[number], same = single.digest, shared.digest
        take(site, ship(made, tmp_path / f"month{number}", sequence=number))
    done = retention.execute(site, retention.plan(site, 1), Silent())
    assert {item.digest for item in done.manifests} == {indexes[1], own[1]}
    client, repository = client_of(harbor), f"{project}/{APP}"
    eventually(lambda: client.head(repository, indexes[1]) is None, "the pruned index is still there")
    eventually(lambda: client.head(repository, own[1]) is None, "its manifest is still there")
    for digest in (same, own[2], indexes[2], "1"):
        assert client.head(repository, digest) is not None
    assert repair.check(site, progress=Silent(), http=HttpSettings()) == []


@pytest.mark.parametrize("name", ["by its digest", "under a tag that has moved on"])
def test_pruning_an_index_leaves_what_a_kept_drop_needs_of_it(
    harbor: HarborUnderTest, tmp_path: Path, name: str
) -> None:
    project = harbor.name()
    site = with_a_robot(harbor, tmp_path, project)
    first, second, third = Cargo(), Cargo(), Cargo()
    amd, arm = first.image_manifest(b"amd64"), first.image_manifest(b"arm64", annotations={"for": "arm64"})
    index = first.index(f"{APP}:1", amd, arm).root.digest
    assert second.image_manifest(b"amd64") == amd
    second.add(Kind.IMAGE, f"{APP}@{amd.digest}" if name == "by its digest" else f"{APP}:1", amd)
    third.image(f"{APP}:1", b"another")
    for sequence, cargo in enumerate((first, second, third), 1):
        take(site, ship(cargo, tmp_path / f"month{sequence}", sequence=sequence))
    plan = retention.plan(site, 2)
    assert {item.digest for item in plan.manifests} == {index, arm.digest}
    listener = Listener()
    assert retention.execute(site, plan, listener).manifests == ()
    place = f"{harbor.host}/{project}/{APP}"
    above, below = listener.warnings
    assert above == (
        f"{place}@{index} stays: {harbor.host} would delete with it {amd.digest}, which a kept drop needs; "
        "execute the same plan again when that drop is pruned too"
    )
    assert below == f"{place}@{arm.digest} stays: {index} stays, which lists it"
    assert check(site) == []
    # The other drop's own plan cannot delete what the index lists; the first plan then can.
    retention.execute(site, retention.plan(site, 1), listener)
    assert set(retention.execute(site, plan, Silent()).manifests) == set(plan.manifests)
    client = client_of(harbor)
    for digest in (index, amd.digest, arm.digest):
        eventually(lambda digest=digest: client.head(f"{project}/{APP}", digest) is None, f"{digest} is still there")
    assert check(site) == []


def test_pruning_an_image_leaves_the_statement_about_it_that_a_kept_drop_needs(
    harbor: HarborUnderTest, tmp_path: Path
) -> None:
    project = harbor.name()
    site = with_a_robot(harbor, tmp_path, project)
    first, second = Cargo(), Cargo()
    image = first.image(f"{APP}:1", BIG).root
    about = second.referrer(APP, image, b"a bill")
    second.image(f"{APP}:1", b"another")
    for sequence, cargo in enumerate((first, second), 1):
        take(site, ship(cargo, tmp_path / f"month{sequence}", sequence=sequence))
    assert retention.execute(site, retention.plan(site, 1), Silent()).manifests == ()
    assert client_of(harbor).head(f"{project}/{APP}", about.digest) is not None
    assert check(site) == []


def test_a_rollback_takes_away_the_tags_that_only_the_later_drop_has(harbor: HarborUnderTest, tmp_path: Path) -> None:
    project = harbor.name()
    site = with_a_robot(harbor, tmp_path, project)
    first, second = Cargo(), Cargo()
    first.image(f"{APP}:1", b"of the first")
    second.image(f"{APP}:1", b"of the second")
    later = second.image(f"{APP}:2", b"new in the second").root.digest
    take(site, ship(first, tmp_path / "first"))
    take(site, ship(second, tmp_path / "second", sequence=2))
    client, repository = client_of(harbor), f"{project}/{APP}"
    drops.rollback(site, None)
    eventually(lambda: client.head(repository, "2") is None, "the later drop's tag is still there")
    # What runs by digest notices nothing, and the way forward brings the tag back.
    assert client.head(repository, later) is not None
    drops.activate(site, "stable/2")
    found = client.head(repository, "2")
    assert found is not None
    assert found.digest == later

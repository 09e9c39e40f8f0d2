"""What stands in the way of a prune in a Harbor: of the stand-in alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from airlift.errors import DeliveryError
from airlift.progress import Silent
from airlift.site import drops, retention
from airlift.site.config import Site
from tests.support.cli import airlift
from tests.support.harbor import ROBOT, Harbor
from tests.support.harbor_sites import APP, bundle, client_of
from tests.support.listener import Listener
from tests.support.registry import refuse
from tests.support.site_bundles import Cargo, ship, take

KEEP = "execute the plan again; a new one has what is left there too"


@pytest.fixture
def filled(site: Site, harbor: Harbor, tmp_path: Path) -> Site:
    """A site with two drops, of which the first has a tag of its own, and a robot that may delete."""
    harbor.accounts[ROBOT].gain("repository:delete")
    for number in (1, 2):
        take(site, bundle(tmp_path, b"layer of %d" % number, tag=str(number), sequence=number))
    return site


def sequences(site: Site) -> list[int]:
    return [drop.sequence for drop in drops.list_drops(site)]


@pytest.mark.parametrize("cause", ["robot", "read-only"])
def test_a_harbor_that_takes_nothing_ends_a_prune_before_the_site_forgets(
    filled: Site, harbor: Harbor, tmp_path: Path, cause: str
) -> None:
    plan = ("drops", "prune", "--site", filled.root, "--execute", "plan.json")
    assert airlift(*plan[:4], "--keep", "1", "-o", "plan.json", home=tmp_path).code == 0
    harbor.accounts[ROBOT].is_on = cause != "robot"
    harbor.read_only = cause == "read-only"
    ran = airlift(*plan, home=tmp_path)
    assert ran.code == 17, ran.err
    assert sequences(filled) == [1, 2]
    assert len(retention.plan(filled, 1).manifests) == 1
    harbor.accounts[ROBOT].is_on, harbor.read_only = True, False
    assert airlift(*plan, home=tmp_path).code == 0
    assert client_of(harbor).tags(APP) == ("2",)
    assert sequences(filled) == [2]


def test_a_right_that_is_missing_fails_the_prune_and_the_same_plan_finishes_it(
    filled: Site, harbor: Harbor, tmp_path: Path
) -> None:
    harbor.accounts[ROBOT].lose("repository:delete")
    plan = retention.plan(filled, 1)
    with pytest.raises(DeliveryError) as caught:
        retention.execute(filled, plan, Silent())
    assert caught.value.message == (
        f"{harbor.host}: {ROBOT} lacks the right repository:delete in the project docker.io; "
        "the site has forgotten the pruned drops, and the registry still has some of them"
    )
    assert caught.value.hint == f"give the account that right in Harbor, then run the same command again; {KEEP}"
    harbor.accounts[ROBOT].gain("repository:delete")
    assert retention.execute(filled, plan, Silent()).manifests == plan.manifests
    assert client_of(harbor).tags(APP) == ("2",)


def test_what_may_be_deleted_goes_although_one_manifest_may_not(site: Site, harbor: Harbor, tmp_path: Path) -> None:
    harbor.accounts[ROBOT].gain("repository:delete")
    first = Cargo()
    barred = first.image(f"{APP}:1", b"one").root.digest
    other = first.image("docker.io/library/tool:1", b"tool").root.digest
    take(site, ship(first, tmp_path / "1"))
    take(site, bundle(tmp_path, b"two", sequence=2))
    plan = retention.plan(site, 1)
    harbor.faults.append(refuse(403, b"", match=f"/manifests/{barred}", method="DELETE"))
    listener = Listener()
    with pytest.raises(DeliveryError, match="403"):
        retention.execute(site, plan, listener)
    assert len(listener.warnings) == 1
    assert listener.warnings[0].startswith(f"{harbor.host}/{APP}@{barred} stays: ")
    client = client_of(harbor)
    assert client.head("docker.io/library/tool", other) is None
    harbor.faults.clear()
    assert len(retention.execute(site, plan, Silent()).manifests) == 2
    assert client.head(APP, barred) is None


def test_a_project_that_is_gone_is_no_obstacle(filled: Site, harbor: Harbor) -> None:
    plan = retention.plan(filled, 1)
    del harbor.projects["docker.io"]
    listener = Listener()
    assert retention.execute(filled, plan, listener).manifests == plan.manifests
    assert listener.warnings == []


def test_of_what_stays_only_an_index_is_read_since_harbor_counts_pulls(
    site: Site, harbor: Harbor, tmp_path: Path
) -> None:
    harbor.accounts[ROBOT].gain("repository:delete")
    indexes = []
    for number in (1, 2):
        cargo = Cargo()
        one, other = cargo.image_manifest(b"one of %d" % number), cargo.image_manifest(b"other of %d" % number)
        indexes.append(cargo.index(f"{APP}:{number}", one, other).root.digest)
        cargo.image(f"{APP}:image-{number}", b"image")
        take(site, ship(cargo, tmp_path / f"{number}", sequence=number))
    harbor.asked.clear()
    assert len(retention.execute(site, retention.plan(site, 1), Silent()).manifests) == 3
    read = {
        item.path.rpartition("/")[2] for item in harbor.asked if item.method == "GET" and "/manifests/" in item.path
    }
    assert read == set(indexes)

"""A site that serves images itself and later from a registry, or the other way round."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from airlift.errors import DeliveryError, PartialDeliveryError, StoreError
from airlift.progress import Silent
from airlift.site import drops, repair
from airlift.site.config import Site
from airlift.site.inspection import FROM_STORE, Finding
from airlift.site.preflight import Flight
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.settings import HttpSettings
from tests.support.bundles import NOW
from tests.support.charts import chart
from tests.support.listener import Listener
from tests.support.registry import Registry, running_registry
from tests.support.serving import serving
from tests.support.site_bundles import Cargo, make_site, ship, take

APP = "docker.io/library/app"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with running_registry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def own(tmp_path: Path) -> Site:
    """A site that serves images itself, as site.yaml says."""
    return make_site(tmp_path / "site")


@pytest.fixture
def filling(own: Site, registry: Registry) -> Site:
    """The same site as it is when site.yaml names a registry."""
    config = own.config.model_copy(update={"registry": RegistryConfig(url=registry.url)})
    return replace(own, config=config)


def month(number: int, folder: Path) -> tuple[Cargo, Path]:
    cargo = Cargo()
    cargo.image(f"{APP}:1", b"layer %d" % number)
    cargo.chart(chart("web", "1.0.0", {"values.yaml": f"month: {number}\n"}))
    return cargo, ship(cargo, folder / f"{number}.airlift", sequence=number)


def check(site: Site) -> list[Finding]:
    return repair.check(site, progress=Silent(), http=HttpSettings())


def mend(site: Site) -> list[Finding]:
    return repair.repair(site, check(site), None, now=NOW, passphrase=b"", progress=Silent(), http=HttpSettings())


def foreseen(site: Site, bundle: Path) -> str:
    """What preflight says last of a bundle's sequence."""
    ticks = iter(range(1000))
    found = Flight(site, bundle, NOW, b"", HttpSettings(), Silent(), lambda: next(ticks)).run()
    return [item.message for item in found if item.check == "sequence"][-1]


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return bytes(answer.read())


def test_what_a_registry_served_is_found_and_served_from_the_store_once_the_registry_is_gone(
    own: Site, filling: Site, tmp_path: Path
) -> None:
    shipped = [month(number, tmp_path) for number in (1, 2)]
    for _, bundle in shipped:
        take(filling, bundle)
    assert check(filling) == []
    found = check(own)
    assert {item.subject for item in found} == {
        "charts/web/1.0.0",
        "charts/web-1.0.0.tgz",
        f"v2/{APP}",
        "v2/charts/web",
    }
    assert {item.remedy for item in found} == {FROM_STORE}
    said = {item.problem for item in found if item.subject == f"v2/{APP}"}
    assert {problem.partition(",")[0] for problem in said} == {"the journal lacks digests to serve: 3"}
    assert mend(own) == []
    drops.rollback(own, None)
    with serving(own.root) as url:
        roots = [cargo.artifacts[0].root.digest for cargo, _ in shipped]
        assert read(f"{url}/v2/{APP}/manifests/1") == read(f"{url}/v2/{APP}/manifests/{roots[0]}")
        assert read(f"{url}/v2/{APP}/manifests/{roots[1]}")
        assert b"web" in read(f"{url}/charts/index.yaml")


def test_no_drop_is_shown_that_is_not_served_yet_where_a_registry_was_taken_out(
    own: Site, filling: Site, tmp_path: Path
) -> None:
    for number in (1, 2):
        take(filling, month(number, tmp_path)[1])
    for again in (lambda: drops.rollback(own, None), lambda: drops.activate(own, "stable/2")):
        with pytest.raises(StoreError) as caught:
            again()
        assert caught.value.message.endswith(
            "was imported while a registry served its images, and site.yaml names none now: this site does not serve"
            " them yet"
        )
        assert str(caught.value.hint).startswith("airlift check --site DIR --repair lets it serve them")
    assert [drop.active for drop in drops.list_drops(own)] == [False, True]
    mend(own)
    drops.rollback(own, None)
    assert [drop.active for drop in drops.list_drops(own)] == [True, False]


def test_no_drop_counts_as_shown_in_a_registry_that_was_added_and_does_not_have_it(
    own: Site, filling: Site, tmp_path: Path
) -> None:
    bundle = month(1, tmp_path)[1]
    take(own, bundle)
    for again in (lambda: drops.activate(filling, "stable/1"), lambda: take(filling, bundle)):
        with pytest.raises(DeliveryError, match="does not have 2 of 2 manifests that tags are to point at"):
            again()
    assert foreseen(filling, bundle).startswith("the drop is here already, but a registry or index of site.yaml")
    assert mend(filling) == []
    assert foreseen(filling, bundle) == "the drop is here already and complete"
    asked = Listener()
    drops.activate(filling, "stable/1", progress=asked)
    assert take(filling, bundle).was_here
    assert asked.warnings == []


def test_a_drop_that_is_elsewhere_in_the_registry_by_another_mapping_is_not_shown_there(
    filling: Site, registry: Registry, tmp_path: Path
) -> None:
    take(filling, month(1, tmp_path)[1])
    moved = RegistryConfig(url=registry.url, mapping="moved/{registry}/{repository}")
    other = replace(filling, config=filling.config.model_copy(update={"registry": moved}))
    with pytest.raises(DeliveryError, match=r"the first is .*/moved/"):
        drops.activate(other, "stable/1")
    assert mend(other) == []
    drops.activate(other, "stable/1")


def test_the_bundle_of_a_drop_whose_registry_is_gone_completes_it(own: Site, filling: Site, tmp_path: Path) -> None:
    cargo, bundle = month(1, tmp_path)
    take(filling, bundle)
    assert not take(own, bundle).was_here
    assert check(own) == []
    assert take(own, bundle).was_here
    with serving(own.root) as url:
        assert read(f"{url}/v2/{APP}/manifests/{cargo.artifacts[0].root.digest}")


def test_a_registry_that_is_named_later_is_filled_from_the_store_and_clean(
    own: Site, filling: Site, tmp_path: Path
) -> None:
    for number in (1, 2):
        take(own, month(number, tmp_path)[1])
    assert check(filling)
    assert mend(filling) == []
    drops.rollback(filling, None)
    assert check(filling) == []
    # And back: what the site served before is served still.
    assert check(own) == []


def test_no_tag_begins_to_move_in_a_registry_that_does_not_have_the_drop(
    own: Site, filling: Site, registry: Registry, tmp_path: Path
) -> None:
    bundles = [month(number, tmp_path)[1] for number in (1, 2)]
    for bundle in bundles:
        take(own, bundle)
    host = registry.url.removeprefix("http://")
    with pytest.raises(DeliveryError) as caught:
        drops.rollback(filling, None)
    assert not isinstance(caught.value, PartialDeliveryError)
    assert caught.value.message.startswith(
        f"{host} does not have 2 of 2 manifests that tags are to point at, the first"
    )
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("airlift check --site DIR --repair sends what kept drops have there")
    assert [(drop.active, drop.pending) for drop in drops.list_drops(filling)] == [(False, False), (True, False)]
    mend(filling)
    drops.rollback(filling, None)
    assert [drop.active for drop in drops.list_drops(filling)] == [True, False]

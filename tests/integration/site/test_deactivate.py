"""A channel of which clients are to see nothing any more: its names go, its digests stay, and it comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from airlift.digest import of as digest_of
from airlift.errors import PolicyError, UsageError
from airlift.progress import Silent
from airlift.site import drops, repair, retention
from airlift.site.catalog import Catalog
from airlift.site.config import Site
from airlift.site.listing import Service
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.http import HttpClient
from airlift.transport.registry import RegistryClient
from airlift.transport.settings import HttpSettings
from tests.support.cli import airlift, ok
from tests.support.listener import Listener
from tests.support.registry import running_registry
from tests.support.site_bundles import Cargo, make_site, ship, take

APP = "docker.io/library/app"
CHANNELS = ("stable", "beta")


def cargo(channel: str, **images: bytes) -> Cargo:
    made = Cargo(channel=channel)
    for name, layer in images.items():
        made.image(f"docker.io/library/{name}:1", layer)
    return made


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """The rollback of stable is blocked by a name that beta has given another content in the meantime."""
    made = make_site(tmp_path / "site", channels=CHANNELS)
    for name, sequence, drop in (
        ("s1", 1, cargo("stable", app=b"of stable")),
        ("s2", 2, cargo("stable", other=b"other")),
        ("b1", 1, cargo("beta", app=b"of beta")),
    ):
        take(made, ship(drop, tmp_path / name, sequence=sequence))
    return made


def names(site: Site) -> list[str]:
    catalog = Catalog(site.journal_path, site.store)
    try:
        return catalog.keys(Service.OCI)
    finally:
        catalog.close()


def test_a_rollback_that_another_channel_blocks_is_done_after_that_is_deactivated(site: Site, tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        drops.rollback(site, "stable")
    assert caught.value.hint == (
        "the release engineer has to ship one content under one name, or another tag or version; where clients need not see the other channel"
        " any more: airlift drops deactivate --site DIR beta"
    )
    with pytest.raises(UsageError, match="beta/1 is the first kept drop") as first:
        drops.rollback(site, "beta")
    assert first.value.hint == "to let clients see nothing of the channel: airlift drops deactivate --site DIR beta"

    before = names(site)
    done = drops.deactivate(site, "beta")
    assert (done.drop.channel, done.drop.active, done.left.tags) == ("beta", False, ())
    assert names(site) == ["docker.io/library/other:1"] != before
    assert drops.rollback(site, "stable").drop.sequence == 1
    assert names(site) == [f"{APP}:1"]
    catalog = Catalog(site.journal_path, site.store)
    layer = digest_of(b"of beta")
    assert catalog.held(Service.OCI, APP, layer) is not None
    assert list(catalog.generation()) == ["stable"]
    catalog.close()
    assert repair.check(site, progress=Silent(), http=HttpSettings()) == []

    # It comes back as any other drop: once nothing is against it.
    with pytest.raises(PolicyError):
        take(site, tmp_path / "b1")
    drops.activate(site, "stable/2")
    assert take(site, tmp_path / "b1").switched
    assert names(site) == before


def test_the_command_says_what_it_did_and_may_be_repeated(site: Site, tmp_path: Path) -> None:
    for _ in range(2):
        ran = ok("drops", "deactivate", "beta", "--site", site.root, home=tmp_path)
        assert ran.out.startswith("  beta/1  sha256:")
        assert ran.out.endswith("clients see no drop of channel beta now; airlift drops activate brings one back\n")
    told = ok("drops", "deactivate", "beta", "--site", site.root, "--json", home=tmp_path).json
    assert [(item["channel"], item["active"]) for item in told["drops"]] == [
        ("beta", False),
        ("stable", False),
        ("stable", True),
    ]
    assert told["tags_left"] == []
    for verb in (["status"], ["drops", "list"]):
        ran = ok(*verb, "--site", site.root, home=tmp_path)
        assert ran.err == "airlift: clients see no drop of channel beta; airlift drops activate chooses one\n"
    ran = airlift("drops", "deactivate", "gamma", "--site", site.root, home=tmp_path)
    assert (ran.code, ran.err.splitlines()) == (
        2,
        [
            "airlift: error: no drop of channel gamma is active",
            "airlift: hint: airlift drops list shows what is; channels with drops are: beta, stable",
        ],
    )


def test_of_tags_that_are_not_all_moved_both_ways_on_are_told(site: Site, tmp_path: Path) -> None:
    beta = drops.find(site, "beta/1")
    with site.journal() as journal, journal.transaction():
        journal.announce(beta)
    listed = ok("drops", "list", "--site", site.root, home=tmp_path).out.splitlines()
    assert listed[0].endswith(
        "  the registry or package index does not follow yet; activate it again, or deactivate the channel again"
    )
    (found,) = repair.check(site, progress=Silent(), http=HttpSettings())
    assert found.remedy == (
        "airlift drops activate --site DIR beta/1; or, where clients are to see nothing of the channel,"
        " airlift drops deactivate --site DIR beta"
    )
    drops.deactivate(site, "beta")
    assert repair.check(site, progress=Silent(), http=HttpSettings()) == []


def test_drops_of_a_deactivated_channel_may_be_pruned_and_those_of_a_recovered_one_may_not(
    site: Site, tmp_path: Path
) -> None:
    take(site, ship(cargo("beta", more=b"more"), tmp_path / "b2", sequence=2))
    drops.deactivate(site, "beta")
    plan = retention.plan(site, 1)
    assert {drops.find(site, release).channel for release in plan.releases} == {"beta", "stable"}
    retention.execute(site, plan, Silent())
    assert [(drop.channel, drop.sequence) for drop in drops.list_drops(site)] == [("beta", 2), ("stable", 2)]
    assert drops.activate(site, "beta/2").drop.active

    (site.root / "state.db").unlink()
    bounds = [f"--min-sequence={channel}=2" for channel in CHANNELS for _ in range(2)]
    paper = ("--fingerprint", site.trust.fingerprint, *bounds)
    ok("site", "recover", "--site", site.root, *paper, home=tmp_path)
    with pytest.raises(UsageError, match="no drop of channel beta is active"):
        drops.deactivate(site, "beta")


def test_a_registry_that_deletes_no_tags_keeps_them_and_they_are_named(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        made = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url), channels=CHANNELS)
        both = b"in both"
        take(made, ship(cargo("stable", app=both), tmp_path / "s1"))
        take(made, ship(cargo("beta", app=both, more=b"more"), tmp_path / "b1"))
        heard = Listener()
        assert drops.deactivate(made, "beta", progress=heard).left.tags == ("docker.io/library/more:1",)
        (said,) = heard.warnings
        assert said.startswith(
            f"{registry.url} still shows 1 tag(s) that were channel beta's; they stay until no kept drop has their content: "
        )
        # The other channel's is not touched.
        client = RegistryClient(registry.host, http=HttpClient(HttpSettings(), Silent()), plain_http=True)
        assert client.head(APP, "1") is not None
        assert repair.check(made, progress=Silent(), http=HttpSettings()) == []

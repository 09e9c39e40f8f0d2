"""Mending a Harbor and going back there: what is healthy stays, and what cannot be done is refused before it begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airlift import oci
from airlift.artifact import Kind
from airlift.digest import of as digest_of
from airlift.errors import DeliveryError, PartialDeliveryError
from airlift.oci import Descriptor
from airlift.progress import Silent
from airlift.site import drops, recovery, repair
from airlift.site.config import Site
from airlift.site.inspection import Finding
from airlift.site.preflight import Flight
from airlift.site.preflight_findings import Severity
from tests.support.bundles import NOW
from tests.support.harbor import ROBOT, Harbor, immutable
from tests.support.harbor_sites import APP, ONCE, bundle, client_of, import_once, writes
from tests.support.registry import refuse
from tests.support.site_bundles import Cargo, compact, ship, take


def problems(site: Site) -> list[str]:
    return [item.problem for item in repair.check(site, progress=Silent(), http=ONCE)]


def mend(site: Site, shipped: Path | None = None, found: list[Finding] | None = None) -> list[str]:
    found = repair.check(site, progress=Silent(), http=ONCE) if found is None else found
    left = repair.repair(site, found, shipped, now=NOW, passphrase=b"", progress=Silent(), http=ONCE)
    return [item.problem for item in left]


def test_nothing_is_deleted_while_what_stores_the_manifests_is_away(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    made = Cargo()
    app = made.image(f"{APP}:1", b"one").root
    made.image("docker.io/library/other:1", b"other")
    shipped = ship(made, tmp_path / "bundle")
    take(site, shipped)
    client = client_of(harbor)
    # Somebody else's: a tag, and a signature.
    own = client.manifest(APP, "1")
    client.put_manifest(APP, "prod", own.data, own.media_type)
    signature = compact({**json.loads(own.data), "subject": app.to_json()})
    client.put_manifest(APP, digest_of(signature), signature, oci.MANIFEST)
    harbor.accounts[ROBOT].gain("repository:delete")
    del harbor.projects["docker.io"].repositories["library/other"].tags["1"]
    found = repair.check(site, progress=Silent(), http=ONCE)
    harbor.down.add("registry")
    with pytest.raises(DeliveryError) as caught:
        mend(site, found=found)
    harbor.down.clear()
    assert "answers 502; it may be whole, so nothing was deleted" in caught.value.message
    assert caught.value.temporary
    assert [item for item in harbor.asked if item.method == "DELETE"] == []
    assert client.tags(APP) == ("1", "prod")
    assert [item.digest for item in client.referrers(APP, app.digest)] == [digest_of(signature)]
    assert mend(site) == []


def test_an_immutable_tag_that_two_kept_drops_share_does_not_hinder_mending(
    harbor: Harbor, site: Site, tmp_path: Path
) -> None:
    take(site, bundle(tmp_path, b"one"))
    take(site, bundle(tmp_path, b"two", sequence=2))
    project = harbor.projects["docker.io"]
    project.rules.append({**immutable("**"), "id": 99})
    repository = project.repositories["library/app"]
    (old,) = repository.artifacts.keys() - repository.tags.values()
    project.forget(repository, old)
    assert problems(site) == ["missing"]
    assert mend(site) == []
    now = client_of(harbor).head(APP, "1")
    assert now is not None
    assert now.digest == repository.tags["1"] != old


def test_an_immutable_tag_does_not_hinder_a_bundle_that_moves_no_name(
    harbor: Harbor, site: Site, tmp_path: Path
) -> None:
    first = bundle(tmp_path, b"one")
    old = take(site, first).drop
    take(site, bundle(tmp_path, b"two", sequence=2))
    project = harbor.projects["docker.io"]
    project.rules.append({**immutable("**"), "id": 99})
    tags = dict(project.repositories["library/app"].tags)
    site.store.path(drops.load_drop(site, old.release).artifacts[0].root.digest).unlink()
    assert mend(site, first) == []

    site.store.path(drops.load_drop(site, old.release).artifacts[0].root.digest).unlink()
    for path in site.root.glob("state.db*"):
        path.unlink()
    assert list(recovery.recover(site, {"stable": 2}, Silent()).left_out) == [old.release]
    drops.activate(site, "stable/2", http=ONCE)
    flight = Flight(site, first, NOW, b"", ONCE, Silent(), lambda: 0.0)
    assert [item for item in flight.run() if item.severity is Severity.ERROR] == []
    assert not take(site, first).drop.active
    assert problems(site) == []
    assert project.repositories["library/app"].tags == tags


def with_a_bill(folder: Path) -> tuple[Path, Descriptor, Descriptor]:
    """Ship an image and what refers to it; return bundle, image and that."""
    made = Cargo()
    image = made.image_manifest(b"an image")
    made.add(Kind.IMAGE, f"{APP}:1", image)
    bill = made.referrer(APP, image, b"a bill")
    return ship(made, folder / "bundle"), image, bill


@pytest.mark.parametrize("times", [2, 10**9])
def test_a_refused_login_is_not_taken_for_a_harbor_without_lists_of_referrers(
    harbor: Harbor, site: Site, tmp_path: Path, times: int
) -> None:
    shipped, image, bill = with_a_bill(tmp_path)
    said = b'{"errors":[{"code":"UNAUTHORIZED","message":"project docker.io not found: project docker.io not found"}]}'
    harbor.faults.append(refuse(401, said, {"Www-Authenticate": ""}, match="/referrers/", times=times))
    if times == 2:
        # The database was away for a moment.
        assert take(site, shipped).drop.active
        assert [item.digest for item in client_of(harbor).referrers(APP, image.digest)] == [bill.digest]
    else:
        with pytest.raises(PartialDeliveryError, match="nothing of the drop has a name there") as caught:
            import_once(site, shipped)
        assert caught.value.temporary
    assert not any(tag.startswith("sha256-") for tag in harbor.projects["docker.io"].repositories["library/app"].tags)


def test_an_entry_that_is_missing_in_a_list_of_referrers_is_mended(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    shipped, image, bill = with_a_bill(tmp_path)
    take(site, shipped)
    harbor.projects["docker.io"].repositories["library/app"].artifacts[bill.digest].subject = ""
    assert problems(site) == [f"not listed as a referrer of {image.digest}"]
    harbor.asked.clear()
    assert mend(site) == []
    assert [item.digest for item in client_of(harbor).referrers(APP, image.digest)] == [bill.digest]
    assert writes(harbor) == [f"PUT /v2/{APP}/manifests/{bill.digest}"]
    harbor.asked.clear()
    assert mend(site) == []
    assert writes(harbor) == []


def test_a_rollback_into_an_immutable_tag_is_refused_before_any_tag_moves(
    harbor: Harbor, site: Site, tmp_path: Path
) -> None:
    for number in (1, 2):
        made = Cargo()
        for name in ("a", "b"):
            made.image(f"docker.io/library/{name}:1", f"{name} of {number}".encode())
        take(site, ship(made, tmp_path / str(number), sequence=number))
    project = harbor.projects["docker.io"]
    project.rules.append({**immutable("**", "library/b"), "id": 99})
    harbor.asked.clear()
    with pytest.raises(DeliveryError, match="library/b:1 is immutable and is sha256:") as caught:
        drops.rollback(site, None)
    assert (
        caught.value.hint
        == "change the project's rule of immutability in Harbor, or let the release engineer ship a new tag"
    )
    assert writes(harbor) == []
    assert [(d.sequence, d.active, d.pending) for d in drops.list_drops(site)] == [(1, False, False), (2, True, False)]
    assert problems(site) == []
    project.rules.clear()
    assert drops.rollback(site, None).drop.sequence == 1


def test_a_deactivation_that_a_harbor_stops_half_way_goes_on_or_is_taken_back(
    harbor: Harbor, site: Site, tmp_path: Path
) -> None:
    made = Cargo()
    for tag in ("1", "2", "3"):
        made.image(f"{APP}:{tag}", tag.encode())
    take(site, ship(made, tmp_path / "bundle"))
    harbor.accounts[ROBOT].gain("tag:delete")
    client = client_of(harbor)
    for end in ("go on", "take back"):
        fault = refuse(500, match="/tags/2", method="DELETE")
        harbor.faults.append(fault)
        with pytest.raises(DeliveryError):
            drops.deactivate(site, "stable", http=ONCE)
        harbor.faults.remove(fault)
        assert client.tags(APP) == ("2", "3")
        (drop,) = drops.list_drops(site)
        assert (drop.active, drop.pending) == (True, True)
        assert problems(site) == ["its tags were moving in the registry, and not all may have moved"]
        if end == "go on":
            assert drops.deactivate(site, "stable", http=ONCE).left.tags == ()
            assert client.tags(APP) == ()
            assert problems(site) == []
        drops.activate(site, "stable/1", http=ONCE)
        assert client.tags(APP) == ("1", "2", "3")
        assert problems(site) == []

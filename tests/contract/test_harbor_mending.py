"""Mending a Harbor: what is healthy stays, and what is asked of it is no more than what is to be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airlift import oci
from airlift.digest import of as digest_of
from airlift.errors import DeliveryError
from airlift.progress import Silent
from airlift.site import repair
from airlift.site.config import Site
from airlift.site.inspection import Finding
from tests.support.bundles import NOW
from tests.support.harbor import ROBOT, Harbor, immutable
from tests.support.harbor_sites import APP, ONCE, bundle, client_of
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

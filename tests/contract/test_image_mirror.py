"""What every registry has to do that a site shows its images in: the embedded one, and one that it fills."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from airlift import oci
from airlift.artifact import Artifact
from airlift.digest import of as digest_of
from airlift.errors import BundleError, DeliveryError, IntegrityError, PartialDeliveryError
from airlift.progress import Silent
from airlift.site import drops
from airlift.site.config import Site
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.credentials import Credentials
from airlift.transport.harbor import HarborClient
from airlift.transport.http import HttpClient
from airlift.transport.registry import RegistryClient
from airlift.transport.settings import HttpSettings
from tests.components import require, require_go
from tests.support.harbor import ROBOT, SECRET, running_harbor
from tests.support.real_harbor import HarborUnderTest
from tests.support.registry import Registry, refuse, running_crane, running_front, running_registry
from tests.support.serving import serving
from tests.support.site_bundles import Cargo, make_site, seal, ship, take

BIG = bytes(range(256)) * 20_000
"""Larger than what is held in memory whole, so it streams straight to its place."""

OTHER_BIG = BIG[::-1]
APP = "docker.io/library/app"


class Backend:
    """A site, and where its images are seen."""

    def __init__(self, site: Site, client: RegistryClient, skopeo: list[str], registry: Registry | None = None) -> None:
        self.site = site
        self.client = client
        self.skopeo = skopeo
        self.registry = registry
        self.host = client.registry

    @property
    def is_external(self) -> bool:
        return self.site.config.registry is not None

    def tags(self, path: str) -> tuple[str, ...]:
        return self.client.tags(path)

    def tag(self, path: str, tag: str) -> str | None:
        found = self.client.head(path, tag)
        return None if found is None else found.digest

    def pull(self, path: str, reference: str, folder: Path) -> None:
        """Copy an image as skopeo does it, which checks every digest."""
        sign = "@" if reference.startswith("sha256:") else ":"
        source = f"docker://{self.host}/{path}{sign}{reference}"
        done = subprocess.run(
            [require("skopeo"), "--insecure-policy", "copy", "-q", "--all", *self.skopeo, source, f"dir:{folder}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture(
    params=[
        "embedded",
        "docker-registry",
        "docker-registry with TLS, a login and a path",
        "distribution 3",
        "crane",
        "a Harbor's stand-in",
        pytest.param("a Harbor", marks=pytest.mark.harbor),
    ]
)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with contextlib.ExitStack() as stack:
        if request.param == "embedded":
            site = make_site(tmp_path / "site")
            url = stack.enter_context(serving(site.root))
            http = HttpClient(HttpSettings(retries=0), Silent())
            client = RegistryClient(url.removeprefix("http://"), http=http, plain_http=True)
            yield Backend(site, client, ["--src-tls-verify=false"])
            return
        if request.param == "a Harbor":
            # Asked for here, so that a run without one skips nothing else.
            yield _harbor(tmp_path, request.getfixturevalue("named_harbor"), None)
            return
        if "Harbor" in request.param:
            behind = stack.enter_context(running_registry(tmp_path / "registry"))
            harbor = stack.enter_context(running_harbor(behind))
            yield _harbor(tmp_path, HarborUnderTest(harbor.url, ROBOT, SECRET, stand_in=harbor), behind)
            return
        is_secure = "TLS" in request.param
        root = tmp_path / "registry"
        if request.param == "crane":
            registry = stack.enter_context(running_crane(root))
        elif request.param == "distribution 3":
            registry = stack.enter_context(running_registry(root, program=require_go("registry")))
        else:
            registry = stack.enter_context(running_registry(root, secure=is_secure))
        password = tmp_path / "password"
        password.write_text(registry.password + "\n")
        config = RegistryConfig(
            url=f"{registry.url}/air/lift" if is_secure else registry.url,
            ca=str(registry.ca) if registry.ca else None,
            username=registry.username or None,
            password_file=str(password) if registry.username else None,
        )
        site = make_site(tmp_path / "site", registry=config)
        http = HttpClient(HttpSettings(retries=0, ca_bundle=registry.ca), Silent())
        login = Credentials(registry.username, registry.password) if registry.username else None
        client = RegistryClient(registry.host, http=http, credentials=login, plain_http=not is_secure)
        # crane's log does not say what went well.
        yield Backend(site, client, registry.skopeo("src"), None if request.param == "crane" else registry)


def _harbor(folder: Path, harbor: HarborUnderTest, behind: Registry | None) -> Backend:
    (folder / "password").write_text(harbor.password + "\n")
    config = RegistryConfig(
        url=harbor.url,
        kind="harbor",
        username=harbor.user,
        password_file=str(folder / "password"),
        ca=None if harbor.ca is None else str(harbor.ca),
        project=None if harbor.stand_in else harbor.name(),
    )
    http = HttpClient(HttpSettings(retries=2, ca_bundle=harbor.ca), Silent())
    login = Credentials(harbor.user, harbor.password)
    client = HarborClient(config.host, http=http, credentials=login, plain_http=harbor.is_plain)
    skopeo = [f"--src-creds={harbor.user}:{harbor.password}"]
    if harbor.is_plain or harbor.ca:
        skopeo.append("--src-tls-verify=false")
    return Backend(make_site(folder / "site", registry=config), client, skopeo, behind)


def at(backend: Backend, path: str) -> str:
    config = backend.site.config.registry
    return path if config is None else config.repository(path)


def cargo(layer: bytes = BIG) -> tuple[Cargo, Artifact]:
    """An index of two platforms; a second repository shares its large layer; and a file."""
    made = Cargo()
    one = made.image_manifest(layer, b"small")
    two = made.image_manifest(b"for arm", architecture="arm64")
    app = made.index(f"{APP}:1", one, two)
    made.image("registry.example.com:5000/team/app:stable", layer)
    made.file("tool", b"tool")
    return made, app


def test_an_imported_image_is_pulled_by_tag_and_by_digest(backend: Backend, tmp_path: Path) -> None:
    made, app = cargo()
    take(backend.site, ship(made, tmp_path / "bundle"))
    for number, reference in enumerate(("1", app.root.digest)):
        backend.pull(at(backend, APP), reference, tmp_path / f"pulled{number}")
        files = {path.name for path in (tmp_path / f"pulled{number}").iterdir()}
        assert digest_of(BIG)[7:] in files
        assert digest_of((tmp_path / f"pulled{number}" / "manifest.json").read_bytes()) == app.root.digest
    assert backend.tag(at(backend, "registry.example.com_5000/team/app"), "stable")
    backend.pull(at(backend, "registry.example.com_5000/team/app"), "stable", tmp_path / "other")


def test_activation_moves_tags_and_keeps_digests(backend: Backend, tmp_path: Path) -> None:
    path = at(backend, APP)
    first, old = cargo()
    one = take(backend.site, ship(first, tmp_path / "a"))
    second, new = cargo(OTHER_BIG)
    take(backend.site, ship(second, tmp_path / "b", sequence=2))
    assert backend.tag(path, "1") == new.root.digest
    backend.pull(path, old.root.digest, tmp_path / "old")
    drops.activate(backend.site, one.drop.release)
    assert backend.tag(path, "1") == old.root.digest
    backend.pull(path, new.root.digest, tmp_path / "new")
    drops.activate(backend.site, "stable/2")
    assert backend.tag(path, "1") == new.root.digest


def test_a_second_import_changes_nothing(backend: Backend, tmp_path: Path) -> None:
    made, app = cargo()
    bundle = ship(made, tmp_path / "bundle")
    take(backend.site, bundle)
    assert take(backend.site, bundle).was_here
    assert backend.tag(at(backend, APP), "1") == app.root.digest


@pytest.mark.parametrize("wrong", ["last frame", "a blob too many"])
def test_nothing_is_seen_of_a_bundle_that_turns_out_wrong(backend: Backend, tmp_path: Path, wrong: str) -> None:
    made, app = cargo()
    bundle = tmp_path / "bundle"
    if wrong == "last frame":
        ship(made, bundle)
        data = bytearray(bundle.read_bytes())
        data[-2 * 1024 * 1024] ^= 1
        bundle.write_bytes(data)
    else:
        extra = b"nobody names this"
        seal({**made.members(), f"blobs/sha256/{digest_of(extra)[7:]}": extra}, bundle)
    with pytest.raises((IntegrityError, BundleError)):
        take(backend.site, bundle)
    assert backend.tag(at(backend, APP), "1") is None
    assert backend.tag(at(backend, APP), app.root.digest) is None
    assert drops.list_drops(backend.site) == []
    good, _ = cargo()
    take(backend.site, ship(good, tmp_path / "good"))
    assert backend.tag(at(backend, APP), "1") == app.root.digest


def test_a_drop_that_is_not_activated_shows_no_tag(backend: Backend, tmp_path: Path) -> None:
    made, _ = cargo()
    take(backend.site, ship(made, tmp_path / "a"))
    second = Cargo()
    later = second.image(f"{APP}:2", b"two")
    take(backend.site, ship(second, tmp_path / "b", sequence=2))
    drops.activate(backend.site, "stable/1")
    if not backend.is_external:
        # An external registry keeps a tag that a later drop brought: its moves only add.
        assert backend.tags(APP) == ("1",)
    assert backend.tag(at(backend, APP), later.root.digest) == later.root.digest


def test_an_external_registry_gets_manifests_after_the_last_frame_and_tags_last(
    backend: Backend, tmp_path: Path
) -> None:
    if backend.registry is None:
        return
    made, _ = cargo()
    take(backend.site, ship(made, tmp_path / "bundle"))
    puts = [line for line in backend.registry.log if re.match(r"PUT .* 201$", line)]
    kinds = [
        "blob" if "/blobs/" in line else "manifest" if re.search("/manifests/sha256:", line) else "tag" for line in puts
    ]
    assert kinds == sorted(kinds, key=["blob", "manifest", "tag"].index)
    assert (kinds.count("manifest"), kinds.count("tag")) == (4, 2)
    # The shared layer crossed once, and the second repository got it by mount.
    assert sum(digest_of(BIG)[7:] in line for line in puts) == 1
    assert any(line.startswith("POST") and "mount=" in line and line.endswith("201") for line in backend.registry.log)


def test_an_external_registry_sees_no_manifest_of_a_bundle_that_turns_out_wrong(
    backend: Backend, tmp_path: Path
) -> None:
    if backend.registry is None:
        return
    made, _ = cargo()
    extra = b"nobody names this"
    seal({**made.members(), f"blobs/sha256/{digest_of(extra)[7:]}": extra}, tmp_path / "bundle")
    with pytest.raises(BundleError):
        take(backend.site, tmp_path / "bundle")
    assert not [line for line in backend.registry.log if line.startswith("PUT") and "/manifests/" in line]


def test_large_layers_for_an_external_registry_are_not_kept_twice(backend: Backend, tmp_path: Path) -> None:
    made, _ = cargo()
    take(backend.site, ship(made, tmp_path / "bundle"))
    assert backend.site.store.has(digest_of(BIG)) is (not backend.is_external)
    assert backend.site.store.has(digest_of(b"tool"))


def test_a_manifest_behind_the_large_blobs_is_refused_where_a_registry_would_miss_it(
    backend: Backend, tmp_path: Path
) -> None:
    made, app = cargo()
    members = made.members()
    child = oci.parse_manifest(made.small[app.root.digest], subject="app").manifests[1]
    name = f"blobs/sha256/{child.digest[7:]}"
    members[name] = members.pop(name)
    seal(members, tmp_path / "bundle")
    if not backend.is_external:
        take(backend.site, tmp_path / "bundle")
        assert backend.tag(at(backend, APP), child.digest) == child.digest
        return
    # Without that child the index is sparse at this point, and a Harbor's target refuses such a one first.
    late = f"payload: {child.digest} is a manifest and comes after large blobs"
    with pytest.raises((BundleError, DeliveryError), match=f"{late}|takes no index without all its manifests"):
        take(backend.site, tmp_path / "bundle")
    assert backend.tag(at(backend, APP), "1") is None


def test_a_drop_whose_own_description_is_large_is_taken(backend: Backend, tmp_path: Path) -> None:
    made, app = cargo()
    wordy = made.artifacts[-1]
    made.artifacts[-1] = replace(wordy, facts={**wordy.facts, "source": "x" * 5_000_000})
    bundle = ship(made, tmp_path / "bundle")
    assert take(backend.site, bundle, dry_run=True).changes
    assert not list(backend.site.store.digests())
    take(backend.site, bundle)
    assert backend.tag(at(backend, APP), "1") == app.root.digest
    assert [len(drop.artifacts) for drop in drops.active_drops(backend.site)] == [3]


def test_tags_that_moved_half_way_are_taken_back_by_activating_the_drop_before(tmp_path: Path) -> None:
    made, old = cargo()
    made.image(f"{APP}:2", b"two")
    following, new = cargo(OTHER_BIG)
    following.image(f"{APP}:2", b"other two")
    with running_registry(tmp_path / "registry") as registry, running_front(registry) as front:
        site = make_site(tmp_path / "site", registry=RegistryConfig(url=front.url))
        client = RegistryClient(registry.host, http=HttpClient(HttpSettings(), Silent()), plain_http=True)
        take(site, ship(made, tmp_path / "a"))
        front.faults[:] = [refuse(403, match="/manifests/2", method="PUT")]
        with pytest.raises(PartialDeliveryError, match="2 of the drop's 3 tags have moved already"):
            take(site, ship(following, tmp_path / "b", sequence=2))
        moved = client.head(APP, "1")
        assert moved is not None
        assert moved.digest == new.root.digest
        front.faults.clear()
        drops.activate(site, "stable/1")
        back = client.head(APP, "1")
        assert back is not None
        assert back.digest == old.root.digest
        assert [(drop.active, drop.pending) for drop in drops.list_drops(site)] == [(True, False), (False, False)]


def test_a_registry_that_stops_half_way_is_said_to_have_a_part_and_is_finished_later(tmp_path: Path) -> None:
    made, app = cargo()
    bundle = ship(made, tmp_path / "bundle")
    with running_registry(tmp_path / "registry") as registry, running_front(registry) as front:
        site = make_site(tmp_path / "site", registry=RegistryConfig(url=front.url))
        client = RegistryClient(registry.host, http=HttpClient(HttpSettings(), Silent()), plain_http=True)
        front.faults[:] = [refuse(403, match=f"/manifests/{app.root.digest}", method="PUT")]
        with pytest.raises(PartialDeliveryError, match="nothing of the drop has a name there"):
            take(site, bundle)
        assert client.head(APP, "1") is None
        assert [drop.state for drop in drops.list_drops(site)] == ["verified"]
        front.faults[:] = [refuse(403, match="/manifests/1", method="PUT")]
        with pytest.raises(PartialDeliveryError, match="1 of the drop's 2 tags have moved already"):
            take(site, bundle)
        assert [(drop.state, drop.active, drop.pending) for drop in drops.list_drops(site)] == [("ready", False, True)]
        front.faults.clear()
        assert take(site, bundle).drop.active
        found = client.head(APP, "1")
        assert found is not None
        assert found.digest == app.root.digest


def test_a_registry_that_is_away_moves_no_tag_and_leaves_nothing_to_finish(tmp_path: Path) -> None:
    made, _ = cargo()
    following, _ = cargo(OTHER_BIG)
    with running_registry(tmp_path / "registry") as registry:
        site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url))
        take(site, ship(made, tmp_path / "a"))
        bundle = ship(following, tmp_path / "b", sequence=2)
        take(site, bundle)
    before = drops.list_drops(site)
    with pytest.raises(DeliveryError, match="connection refused") as refused:
        drops.activate(site, "stable/1", http=HttpSettings(retries=0))
    assert not isinstance(refused.value, PartialDeliveryError)
    assert refused.value.hint == "see that it runs, and that this machine reaches it"
    assert drops.list_drops(site) == before
    assert [(drop.active, drop.pending) for drop in before] == [(False, False), (True, False)]

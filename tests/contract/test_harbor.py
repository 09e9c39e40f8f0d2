"""What a Harbor is asked before the first byte, and what is said when it refuses: of a stand-in, and of a real one.

Nothing here reaches into the stand-in; what only that can do is in test_harbor_faults.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airlift.digest import of as digest_of
from airlift.errors import DeliveryError
from airlift.progress import Silent
from airlift.site import drops, repair
from airlift.site.config import Site
from airlift.site.oci_listing import blobs_of
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.credentials import Credentials
from airlift.transport.harbor import HarborClient
from airlift.transport.http import HttpClient
from airlift.transport.settings import HttpSettings
from tests.support.bundles import NOW
from tests.support.cli import airlift
from tests.support.harbor import running_harbor
from tests.support.real_harbor import HarborUnderTest, administered, clearing, eventually
from tests.support.registry import running_registry
from tests.support.site_bundles import Cargo, make_site, ship, take

BIG = bytes(range(256)) * 20_000
APP = "docker.io/library/app"


@pytest.fixture(params=["a stand-in", pytest.param("a Harbor", marks=pytest.mark.harbor)])
def harbor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HarborUnderTest]:
    if request.param == "a Harbor":
        yield request.getfixturevalue("named_harbor")
        return
    with running_registry(tmp_path / "registry") as behind, running_harbor(behind) as stand_in:
        with clearing(administered(stand_in)) as harbor:
            yield harbor
        assert set(stand_in.projects) == {"library"}
        assert set(stand_in.accounts) == {"admin", "robot$import"}


def site_of(
    harbor: HarborUnderTest,
    folder: Path,
    project: str,
    *,
    login: tuple[str, str] | None = None,
    public: bool = False,
    storage_limit: int = -1,
    **more: str,
) -> Site:
    user, password = login or (harbor.user, harbor.password)
    (folder / "password").write_text(f"{password}\n")
    config = RegistryConfig(
        url=harbor.url,
        kind="harbor",
        ca=None if harbor.ca is None else str(harbor.ca),
        username=user,
        password_file=str(folder / "password"),
        project=project,
        public=public,
        storage_limit=storage_limit,
        **more,
    )
    return make_site(folder / "site", registry=config)


def bundle(folder: Path, layer: bytes = BIG, tag: str = "1", sequence: int = 1) -> Path:
    made = Cargo()
    made.image(f"{APP}:{tag}", layer)
    return ship(made, folder / f"bundle{sequence}", sequence=sequence)


def client_of(harbor: HarborUnderTest) -> HarborClient:
    http = HttpClient(HttpSettings(retries=2, ca_bundle=harbor.ca), Silent())
    login = Credentials(harbor.user, harbor.password)
    return HarborClient(harbor.host, http=http, credentials=login, plain_http=harbor.is_plain)


def is_empty(harbor: HarborUnderTest, project: str) -> bool:
    """Whether nothing was ever pushed into a project."""
    return bool(harbor.get(f"/projects/{project}/repositories?page_size=1") == [])


def test_a_missing_project_is_made_as_the_site_wants_it(harbor: HarborUnderTest, tmp_path: Path) -> None:
    project = harbor.name()
    limit = 3_000_000_000
    take(site_of(harbor, tmp_path, project, public=True, storage_limit=limit), bundle(tmp_path))
    assert harbor.get(f"/projects/{project}")["metadata"]["public"] == "true"
    found = client_of(harbor).head(f"{project}/{APP}", "1")
    assert found is not None
    if harbor.is_administrators:
        # Of an ordinary user Harbor ignores the limit without a word.
        assert harbor.quota(project)[1] == limit


def test_a_wrong_password_is_told_before_the_first_write(harbor: HarborUnderTest, tmp_path: Path) -> None:
    # Harbor bars a user for a moment after a wrong password, and a robot not.
    user = harbor.robot()[0] if harbor.is_administrators else harbor.user
    project = harbor.name()
    try:
        with pytest.raises(DeliveryError) as caught:
            take(site_of(harbor, tmp_path, project, login=(user, "Wrong12345")), bundle(tmp_path))
    finally:
        eventually(lambda: harbor.ask("GET", "/users/current").status_code in (200, 412), "the account stays barred")
    assert caught.value.message == f"{harbor.host}: the login of {user} is refused"
    assert caught.value.hint == "mend the password in password_file; a robot may be disabled, expired or renamed"
    assert project not in harbor.projects()


def test_a_robot_that_is_off_is_told_and_goes_on_when_it_is_on(harbor: HarborUnderTest, tmp_path: Path) -> None:
    harbor.need_administrator()
    name, secret, number = harbor.robot()
    project = harbor.project(public=True)
    site, shipped = site_of(harbor, tmp_path, project, login=(name, secret)), bundle(tmp_path)
    harbor.switch(number, on=False)
    with pytest.raises(DeliveryError) as caught:
        take(site, shipped)
    assert caught.value.message.endswith(f"the login of {name} is refused")
    harbor.switch(number, on=True)
    assert take(site, shipped).drop.active


def test_a_missing_right_is_named(harbor: HarborUnderTest, tmp_path: Path) -> None:
    harbor.need_administrator()
    name, secret, _ = harbor.robot("repository:pull", "project:read")
    project = harbor.project()
    with pytest.raises(DeliveryError) as caught:
        take(site_of(harbor, tmp_path, project, login=(name, secret)), bundle(tmp_path))
    assert f"{name} lacks the right repository:push in the project {project}" in caught.value.message
    assert caught.value.hint == "give the account that right in Harbor, then run the same command again"
    assert is_empty(harbor, project)


def test_a_quota_that_is_too_small_is_found_before_the_first_byte(harbor: HarborUnderTest, tmp_path: Path) -> None:
    harbor.need_administrator()
    project = harbor.project(storage_limit=1000)
    site, shipped = site_of(harbor, tmp_path, project), bundle(tmp_path)
    with pytest.raises(DeliveryError, match=f"the quota of {project} has 1000 bytes left") as caught:
        take(site, shipped)
    assert "raise the project's quota" in (caught.value.hint or "")
    assert is_empty(harbor, project)
    assert harbor.quota(project)[2] == 0
    harbor.limit(project, -1)
    assert take(site, shipped).drop.active


def test_preflight_says_what_harbor_would_refuse(harbor: HarborUnderTest, tmp_path: Path) -> None:
    harbor.need_administrator()
    project = harbor.project(storage_limit=1000)
    site, shipped = site_of(harbor, tmp_path, project), bundle(tmp_path)
    ran = airlift("preflight", shipped, "--site", site.root, "--json", home=tmp_path)
    (found,) = [item for item in ran.json["findings"] if item["check"] == "registry"]
    assert ran.code == 17
    assert f"the quota of {project} has 1000 bytes left" in found["message"]
    assert found["remedy"] == "raise the project's quota, or prune drops and let Harbor collect its garbage"
    harbor.limit(project, -1)
    ran = airlift("preflight", shipped, "--site", site.root, "--json", home=tmp_path)
    assert ran.code == 0, ran.out
    assert is_empty(harbor, project)


def test_a_limit_that_is_too_small_is_found_before_a_project_is_made(harbor: HarborUnderTest, tmp_path: Path) -> None:
    project = harbor.name()
    with pytest.raises(DeliveryError, match=f"the quota of {project} has 1000 bytes left"):
        take(site_of(harbor, tmp_path, project, storage_limit=1000), bundle(tmp_path))
    assert project not in harbor.projects()


def test_a_quota_that_cannot_be_seen_is_told_at_the_upload_and_the_re_run_goes_on(
    harbor: HarborUnderTest, tmp_path: Path
) -> None:
    harbor.need_administrator()
    name, secret, _ = harbor.robot()
    project = harbor.project(storage_limit=len(BIG) // 2)
    site, shipped = site_of(harbor, tmp_path, project, login=(name, secret)), bundle(tmp_path)
    with pytest.raises(DeliveryError) as caught:
        take(site, shipped)
    assert caught.value.hint == "the project's quota is used up; raise it, or prune and collect garbage"
    assert client_of(harbor).head(f"{project}/{APP}", "1") is None
    assert not any(drop.active for drop in drops.list_drops(site))
    harbor.limit(project, -1)
    assert take(site, shipped).drop.active
    eventually(lambda: harbor.quota(project)[2] >= len(BIG), "the layer is not counted")


def test_an_immutable_tag_with_other_content_is_found_before_the_first_write(
    harbor: HarborUnderTest, tmp_path: Path
) -> None:
    harbor.need_administrator()
    project = harbor.project()
    site, shipped = site_of(harbor, tmp_path, project), bundle(tmp_path)
    take(site, shipped)
    harbor.rule(project, "**")
    assert take(site, shipped).was_here
    with pytest.raises(DeliveryError, match=f"{project}/{APP}:1 is immutable and is sha256:") as caught:
        take(site, bundle(tmp_path, BIG[::-1], sequence=2))
    assert (
        caught.value.hint
        == "change the project's rule of immutability in Harbor, or let the release engineer ship a new tag"
    )
    assert not client_of(harbor).has_blob(f"{project}/{APP}", digest_of(BIG[::-1]))
    assert take(site, bundle(tmp_path, BIG[::-1], tag="2", sequence=3)).drop.active


def test_the_same_content_goes_to_an_immutable_tag_again(harbor: HarborUnderTest, tmp_path: Path) -> None:
    harbor.need_administrator()
    project = harbor.project()
    shipped = bundle(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    take(site_of(harbor, tmp_path / "a", project), shipped)
    harbor.rule(project, "**")
    # A site that knows nothing of the first pushes to tags that are there: Harbor would answer 412 for the same digest.
    assert take(site_of(harbor, tmp_path / "b", project), shipped).drop.active


@pytest.mark.parametrize("fault", ["sparse", "twice"])
def test_an_index_that_harbor_cannot_store_is_refused_before_the_first_byte(
    harbor: HarborUnderTest, tmp_path: Path, fault: str
) -> None:
    project = harbor.project()
    made = Cargo()
    one = made.image_manifest(b"one" * 1000)
    if fault == "sparse":
        made.index(f"{APP}:1", one, absent=2)
        message = (
            f"{APP}:1: {harbor.host} takes no index without all its manifests; 2 of 3 were not shipped, the first is "
        )
        hint: str | None = "the release engineer has to ship the image with all platforms, or with one platform alone"
    else:
        made.index(f"{APP}:1", one, one)
        message, hint = f"{APP}:1: {harbor.host} cannot store the index ", None
    with pytest.raises(DeliveryError) as caught:
        take(site_of(harbor, tmp_path, project), ship(made, tmp_path / "bundle"))
    assert caught.value.message.startswith(message)
    assert caught.value.hint == hint
    assert is_empty(harbor, project)


def test_two_images_in_one_repository_are_refused_before_the_first_byte(
    harbor: HarborUnderTest, tmp_path: Path
) -> None:
    project = harbor.project()
    made = Cargo()
    made.image("docker.io/library/app:1", b"one" * 1000)
    made.image("quay.io/library/app:1", b"two" * 1000)
    site = site_of(harbor, tmp_path, project, mapping="{repository}")
    with pytest.raises(DeliveryError) as caught:
        take(site, ship(made, tmp_path / "bundle"))
    assert f"have one repository at {harbor.host}: {project}/library/app" in caught.value.message
    assert caught.value.hint == "change mapping or depth in site.yaml"
    assert is_empty(harbor, project)


def test_what_refers_to_an_image_arrives_and_is_listed(harbor: HarborUnderTest, tmp_path: Path) -> None:
    made = Cargo()
    image = made.image(f"{APP}:1", BIG).root
    about = made.referrer(APP, image, b"a bill")
    project = harbor.name()
    take(site_of(harbor, tmp_path, project), ship(made, tmp_path / "bundle"))
    client = client_of(harbor)
    found = [item.digest for item in client.referrers(f"{project}/{APP}", image.digest)]
    assert found == [about.digest]
    assert client.manifest(f"{project}/{APP}", about.digest).data == made.small[about.digest]


def test_a_moved_tag_and_a_deleted_repository_are_found_and_mended(harbor: HarborUnderTest, tmp_path: Path) -> None:
    project = harbor.name()
    made = Cargo()
    app = made.image(f"{APP}:1", BIG)
    made.image("quay.io/team/tool:7", b"tool" * 1000)
    shipped = ship(made, tmp_path / "bundle")
    site = site_of(harbor, tmp_path, project)
    take(site, shipped)
    assert check(site) == []
    client = client_of(harbor)
    other = client.manifest(f"{project}/quay.io/team/tool", "7")
    for blob in blobs_of(other):
        assert client.mount(f"{project}/{APP}", blob.digest, f"{project}/quay.io/team/tool")
    client.push_manifest(f"{project}/{APP}", "1", other.data, other.media_type)
    harbor.remove_repository(project, "quay.io/team/tool")
    found = check(site)
    # Its blobs stay until Harbor collects its garbage, so the repository need not look empty.
    assert {"missing"} < set(found) or any(problem.startswith("the repository is gone") for problem in found), found
    assert f"the tag was moved to {other.descriptor.digest}, expected {app.root.digest}" in found
    # The large layer was never kept here, and it is still in Harbor.
    left = repair.repair(
        site, repair.check(site, progress=Silent(), http=HttpSettings()), shipped,
        now=NOW, passphrase=b"", progress=Silent(), http=HttpSettings(),
    )  # fmt: skip
    assert left == []
    again = client.head(f"{project}/{APP}", "1")
    assert again is not None
    assert again.digest == app.root.digest


def test_of_three_drops_two_are_rolled_back_and_every_digest_answers(harbor: HarborUnderTest, tmp_path: Path) -> None:
    site, client = site_of(harbor, tmp_path, harbor.name()), client_of(harbor)
    repository = at(site)
    digests = []
    for month in (1, 2, 3):
        take(site, bundle(tmp_path, b"month %d" % month * 1000 + BIG, sequence=month))
        found = client.head(repository, "1")
        assert found is not None
        digests.append(found.digest)
    assert len(set(digests)) == 3
    for wanted in (digests[1], digests[0], digests[2]):
        drops.activate(site, f"stable/{digests.index(wanted) + 1}")
        now = client.head(repository, "1")
        assert now is not None
        assert now.digest == wanted
        for digest in digests:
            client.manifest(repository, digest)
        assert check(site) == []


def at(site: Site) -> str:
    assert site.config.registry is not None
    return site.config.registry.repository(APP)


def check(site: Site) -> list[str]:
    return [item.problem for item in repair.check(site, progress=Silent(), http=HttpSettings())]


def robots_site(harbor: HarborUnderTest, folder: Path, project: str) -> tuple[Site, tuple[str | Path, ...]]:
    """A site whose robot ``airlift site robot`` is to make, and the words for that."""
    harbor.need_administrator()
    # The prefix is the instance's own: another robot shows it.
    probe = harbor.robot()[0]
    name = probe[: probe.index(harbor.run)] + harbor.name()
    site = site_of(harbor, folder, project, login=(name, "nothing yet"))
    (folder / "admin").write_text(harbor.password + "\n")
    admin = ("--admin", harbor.user, "--admin-password-file", folder / "admin")
    return site, ("site", "robot", "--site", site.root, *admin)


def with_a_robot(harbor: HarborUnderTest, folder: Path, project: str) -> Site:
    """A site that does everything with the rights that ``airlift site robot`` gives."""
    site, words = robots_site(harbor, folder, project)
    made = airlift(*words, home=folder)
    assert made.code == 0, made.err
    return site


def test_a_robot_is_made_from_an_administrators_login_and_imports(harbor: HarborUnderTest, tmp_path: Path) -> None:
    project = harbor.name()
    site, words = robots_site(harbor, tmp_path, project)
    assert site.config.registry is not None
    name = site.config.registry.username
    made = airlift(*words, "--days", "2", "--json", home=tmp_path)
    assert made.code == 0, made.err
    assert made.json["name"] == name
    secret = (tmp_path / "password").read_text().strip()
    assert secret not in made.out + made.err
    assert (tmp_path / "password").stat().st_mode & 0o777 == 0o600
    shipped = bundle(tmp_path)
    assert take(site, shipped).drop.active
    found = client_of(harbor).head(f"{project}/{APP}", "1")
    assert found is not None
    again = airlift(*words, home=tmp_path)
    assert again.code == 17
    assert f"there is a robot {name} already" in again.err
    assert (tmp_path / "password").read_text().strip() == secret
    renewed = airlift(*words, "--renew", "--json", home=tmp_path)
    assert renewed.json == {"name": name, "expires_at": -1}
    assert (tmp_path / "password").read_text().strip() != secret
    ends = airlift(*words, "--renew", "--days", "3", "--json", home=tmp_path).json["expires_at"]
    # Up to a day more: Harbor counts in whole days from when the robot was made.
    assert 86_400 <= ends - made.json["expires_at"] <= 2 * 86_400 + 60
    assert take(site, bundle(tmp_path, BIG[::-1], tag="2", sequence=2)).drop.active
    assert digest_of(BIG) in {blob.digest for blob in client_of(harbor).manifest(f"{project}/{APP}", "1").layers}

"""Accounts of a Harbor: the six meanings of its 401, tokens, and robots that end. Only the stand-in gives these on demand."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from airlift import limits
from airlift.digest import of as digest_of
from airlift.errors import DeliveryError, PartialDeliveryError
from airlift.site.config import Site
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.harbor_login import Meaning, RefusedError
from tests.components import ROOT
from tests.support.cli import Ran, airlift
from tests.support.harbor import ROBOT, SECRET, Harbor, running_harbor
from tests.support.harbor_sites import APP, BIG, bundle, client_of, import_once, when, writes
from tests.support.registry import Registry, redirect, refuse, running_front
from tests.support.site_bundles import Cargo, make_site, ship, take

DAY_S = 86_400


def test_no_cookie_and_no_token_is_used(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    take(site, bundle(tmp_path))
    assert {item.cookie for item in harbor.asked} == {None}
    assert not harbor.paths("/service/token")
    # The first question finds out whether this is the place.
    assert [str(item) for item in harbor.asked if item.authorization is None] == ["GET /api/v2.0/systeminfo"]
    assert all(item.authorization.startswith("Basic ") for item in harbor.asked if item.authorization is not None)
    # With the slash: without it Harbor answers 301.
    assert not [item for item in harbor.asked if item.path.endswith("/blobs/uploads")]


@pytest.mark.parametrize("moment", ["never", "a layer's PUT", "a manifest's PUT", "a tag's PUT"])
def test_kind_oci_logs_in_with_tokens_and_outlives_them(harbor: Harbor, tmp_path: Path, moment: str) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n")
    config = RegistryConfig(url=harbor.url, username=ROBOT, password_file=str(tmp_path / "password"))
    site = make_site(tmp_path / "site", registry=config)
    harbor.project("docker.io", metadata={"public": "true"})
    made = Cargo()
    made.image(f"{APP}:1", BIG)
    # A second repository gets the layer by mount, which needs a token for both.
    made.image("docker.io/library/other:1", BIG)

    def end_all() -> None:
        harbor.tokens_given = {value: replace(token, ends=0.0) for value, token in harbor.tokens_given.items()}

    match = {"a layer's PUT": "digest=", "a manifest's PUT": "/manifests/sha256:", "a tag's PUT": "/manifests/1"}
    if moment in match:
        when(harbor, end_all, match=match[moment], method="PUT")
    assert take(site, ship(made, tmp_path / "bundle")).drop.active
    assert {(item.authorization or "Bearer ").split()[0] for item in harbor.asked if "/v2/" in item.path} == {"Bearer"}
    assert not harbor.faults or harbor.faults[0]._times == 0
    assert any("mount=" in line for line in writes(harbor))
    assert harbor.projects["docker.io"].repositories.keys() == {"library/app", "library/other"}


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        ("project", "the project is missing at the registry, or it does not allow the name"),
        ("right", "the account lacks the right to push there; or a robot has expired"),
        ("read-only", "the registry is read-only; let its administrator end that"),
        ("proxy", "a proxy-cache project takes no push; give project or mapping in site.yaml"),
    ],
)
def test_kind_oci_is_told_what_harbor_means_as_well(harbor: Harbor, tmp_path: Path, state: str, hint: str) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n")
    config = RegistryConfig(url=harbor.url, username=ROBOT, password_file=str(tmp_path / "password"))
    site = make_site(tmp_path / "site", registry=config)
    if state != "project":
        harbor.project("docker.io", registry_id=7 if state == "proxy" else None)
    if state == "right":
        harbor.accounts[ROBOT].lose("repository:push")
    harbor.read_only = state == "read-only"
    with pytest.raises(DeliveryError) as caught:
        import_once(site, bundle(tmp_path))
    assert caught.value.hint == hint


def test_an_account_that_may_not_make_a_project_is_told_which(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    shipped = bundle(tmp_path)
    harbor.creation = "adminonly"
    harbor.accounts[ROBOT].lose("project:create")
    with pytest.raises(DeliveryError, match=r"may not make the project docker\.io"):
        take(site, shipped)
    harbor.project("docker.io")
    assert take(site, shipped).drop.active


def break_login(harbor: Harbor) -> str:
    return f"the login of {ROBOT} is refused"


def break_end(harbor: Harbor) -> str:
    harbor.accounts[ROBOT].expires_at = 1
    return f"the login of {ROBOT} was taken before and is refused now"


def break_right(harbor: Harbor) -> str:
    harbor.accounts[ROBOT].lose("repository:push")
    return f"{ROBOT} lacks the right repository:push in the project library"


def break_project(harbor: Harbor) -> str:
    del harbor.projects["library"]
    return "the project library is missing"


def break_name(harbor: Harbor) -> str:
    return "it does not allow the name library/a___b"


def break_database(harbor: Harbor) -> str:
    harbor.down.add("database")
    return "it refuses every login, since its database is down"


@pytest.mark.parametrize(
    ("meaning", "happens", "method"),
    [
        (Meaning.LOGIN, break_login, "POST"),
        (Meaning.LOGIN, break_login, "HEAD"),
        (Meaning.ENDED, break_end, "POST"),
        (Meaning.RIGHT, break_right, "POST"),
        (Meaning.PROJECT, break_project, "POST"),
        (Meaning.PROJECT, break_project, "HEAD"),
        (Meaning.NAME, break_name, "POST"),
        (Meaning.NAME, break_name, "HEAD"),
        (Meaning.DATABASE, break_database, "HEAD"),
    ],
)
def test_the_meanings_of_401_are_told_apart(
    harbor: Harbor, meaning: Meaning, happens: Callable[[Harbor], str], method: str
) -> None:
    client = client_of(harbor, "wrong" if meaning is Meaning.LOGIN else SECRET)
    if meaning is not Meaning.LOGIN:
        client.ready()
    # A private project: a public one lets nobody's HEAD pass.
    harbor.projects["library"].metadata["public"] = "false"
    message = happens(harbor)
    repository = "library/a___b" if meaning is Meaning.NAME else "library/app"
    with pytest.raises(RefusedError) as caught:
        client.http.exchange(
            method,
            client.url(f"/v2/{repository}/blobs/uploads/" if method == "POST" else f"/v2/{repository}/manifests/1"),
            limit=limits.ERROR_BODY,
            auth=client.scope(f"repository:{repository}:pull,push"),
        )
    assert caught.value.meaning is meaning
    assert caught.value.message == f"{harbor.host}: {message}"
    assert caught.value.hint
    assert caught.value.temporary is (meaning is Meaning.DATABASE)


def test_a_single_401_is_asked_again(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    said = b'{"errors":[{"code":"UNAUTHORIZED","message":"unauthorized: unauthorized"}]}'
    for method, challenge in (("HEAD", ""), ("POST", 'Basic realm="harbor"'), ("PUT", 'Basic realm="harbor"')):
        match = "/manifests/" if method != "POST" else "/blobs/uploads/"
        harbor.faults.append(refuse(401, said, {"Www-Authenticate": challenge}, match=match, method=method, times=1))
    assert take(site, bundle(tmp_path)).drop.active


def test_a_database_that_is_away_for_a_while_is_waited_for(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    when(harbor, lambda: harbor.down.add("database"), match="/manifests/", method="HEAD")
    probes: list[int] = []

    def probed() -> None:
        # Each 401 is explained with the help of this question; the second time the database is back.
        probes.append(1)
        if "database" in harbor.down and len(probes) > 2:
            harbor.down.clear()

    when(harbor, probed, match="/api/v2.0/projects?project_name=", method="HEAD", times=100)
    assert take(site, bundle(tmp_path)).drop.active
    assert not harbor.down


def test_a_database_that_is_down_is_not_called_a_wrong_password(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    shipped = bundle(tmp_path)
    harbor.down.add("database")
    with pytest.raises(DeliveryError) as caught:
        client_of(harbor).ready()
    assert "answered 500" in caught.value.message
    assert caught.value.temporary
    assert caught.value.hint == "Harbor's database or Redis is away, or it cannot read a config; see its log"
    harbor.down.clear()
    assert take(site, shipped).drop.active


def test_a_robot_that_expires_half_way_is_renewed_and_the_same_command_goes_on(
    harbor: Harbor, site: Site, tmp_path: Path
) -> None:
    shipped = bundle(tmp_path)
    robot = harbor.accounts[ROBOT]

    def expire() -> None:
        robot.expires_at = 1

    when(harbor, expire, match="/manifests/sha256:", method="PUT")
    with pytest.raises(PartialDeliveryError) as caught:
        take(site, shipped)
    assert f"the login of {ROBOT} was taken before and is refused now" in caught.value.message
    assert "nothing of the drop has a name there" in caught.value.message
    assert "airlift site robot --renew" in (caught.value.hint or "")
    renewed = renew(site, tmp_path, "--days", "30")
    assert renewed.code == 0, renewed.err
    before = len(writes(harbor))
    assert take(site, shipped).drop.active
    # The large layer is there already.
    assert not [line for line in writes(harbor)[before:] if digest_of(BIG) in line]


def renew(site: Site, folder: Path, *words: str) -> Ran:
    (folder / "admin").write_text("Harbor12345\n")
    admin = ("--admin", "admin", "--admin-password-file", folder / "admin")
    return airlift("site", "robot", "--site", site.root, *admin, "--renew", *words, home=folder)


@pytest.mark.parametrize("age", [0.0, 0.5, 40.0, 400.0])
@pytest.mark.parametrize("life", [30, 365, -1])
def test_a_robot_of_any_age_is_renewed_for_the_days_that_are_asked_for(
    harbor: Harbor, site: Site, tmp_path: Path, age: float, life: int
) -> None:
    robot = harbor.accounts[ROBOT]
    robot.created = time.time() - age * DAY_S
    robot.live(life)
    robot.is_on = False
    robot.lose("repository:push")
    number, before = robot.number, time.time()
    ran = renew(site, tmp_path, "--days", "30", "--json")
    assert ran.code == 0, ran.err
    # Harbor counts in whole days from when the robot was made.
    assert before + 30 * DAY_S - 1 <= ran.json["expires_at"] <= time.time() + 31 * DAY_S
    now = harbor.accounts[ROBOT]
    assert (now.number, now.expires_at) == (number, ran.json["expires_at"])
    assert take(site, bundle(tmp_path)).drop.active
    assert renew(site, tmp_path, "--json").json == {"name": ROBOT, "expires_at": -1}


@pytest.mark.parametrize(
    ("method", "answer", "message"),
    [
        ("PUT", None, "robots/2 answered 403"),
        ("PATCH", None, "robots/2 answered 403"),
        ("PATCH", b"{}", f"no secret came for the robot {ROBOT}"),
        ("PUT", b"", f"the robot {ROBOT} ends at -1, which is not what it was told"),
    ],
)
def test_a_renewal_that_fails_leaves_the_robot_with_its_secret(
    harbor: Harbor, site: Site, tmp_path: Path, method: str, answer: bytes | None, message: str
) -> None:
    robot = harbor.accounts[ROBOT]
    harbor.faults.append(refuse(403 if answer is None else 200, answer or b"", match="/robots/", method=method))
    ran = renew(site, tmp_path, "--days", "30")
    assert ran.code == 17, ran.out
    assert message in ran.err
    assert harbor.accounts[ROBOT] is robot
    assert robot.password == (tmp_path / "password").read_text().strip() == SECRET
    assert take(site, bundle(tmp_path)).drop.active
    harbor.faults.clear()
    assert renew(site, tmp_path, "--days", "30").code == 0
    assert robot.password == (tmp_path / "password").read_text().strip() != SECRET


def test_a_robot_that_is_gone_is_made_by_a_renewal(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    del harbor.accounts[ROBOT]
    assert renew(site, tmp_path).code == 0
    assert take(site, bundle(tmp_path)).drop.active


@pytest.mark.parametrize(
    ("answer", "missing"),
    [
        ((404, b'{"errors":[{"code":"NOT_FOUND","message":"path /api/v2.0/permissions was not found"}]}'), set()),
        ((404, b"404 page not found"), set()),
        ((200, b"{}"), set()),
        ((200, b'{"system":[{"resource":"quota","action":"list"}]}'), {"project:create"}),
    ],
)
def test_a_robot_gets_all_rights_but_those_that_harbor_says_it_has_not(
    harbor: Harbor, site: Site, tmp_path: Path, answer: tuple[int, bytes], missing: set[str]
) -> None:
    harbor.faults.append(refuse(*answer, match="/permissions"))
    assert renew(site, tmp_path).code == 0
    rights = harbor.accounts[ROBOT].rights
    assert rights["/"] == {"project:create", "quota:list"} - missing
    assert len(rights["*"]) == 6
    assert take(site, bundle(tmp_path)).drop.active


def test_every_command_of_the_page_works_in_the_order_it_is_given(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "site-harbor.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (commands,) = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    registry = re.sub("  ca: .*\n", "", block).replace("https://harbor.example.com", harbor.url)
    config = site.root / "site.yaml"
    config.write_text(re.sub(r"^registry:\n(?:  .*\n)*", "", config.read_text(), flags=re.MULTILINE) + registry)
    (tmp_path / "admin-password").write_text("Harbor12345\n")
    bundle(tmp_path).rename(tmp_path / "bundle.airlift")
    for line in commands.splitlines():
        program, *arguments = line.split()
        assert program == "airlift"
        ran = airlift(*arguments, home=tmp_path)
        assert ran.code == 0, f"{line}\n{ran.out}{ran.err}"
    made = harbor.accounts["robot$airlift"]
    named = set(re.findall(r"`([a-z-]+:[a-z]+)`", text.partition("## The robot")[2].partition("\n## ")[0]))
    assert named == {right for held in made.rights.values() for right in held}
    assert made.rights["/"] == {"project:create", "quota:list"}
    assert harbor.projects["docker.io"].repositories["library/app"].tags.keys() == {"1"}


@pytest.mark.parametrize(
    ("state", "code", "message", "hint"),
    [
        ("no Harbor", 2, "its registry is no Harbor", "give registry: with kind: harbor in site.yaml first"),
        ("a robot's login", 17, "only an administrator may make a robot", "give the login of one with --admin"),
        ("a wrong password", 17, "the login of admin is refused", "mend the password"),
        ("another prefix", 17, "is no name of a system robot there: expected bot-NAME", "set username of registry"),
        ("no directory", 16, "harbor-password", ""),
        ("read-only", 17, "The system is in read only mode", "the registry is read-only"),
    ],
)
def test_a_robot_that_cannot_be_made_is_told_why_and_none_is_made(
    harbor: Harbor, site: Site, tmp_path: Path, state: str, code: int, message: str, hint: str
) -> None:
    config = site.root / "site.yaml"
    text = config.read_text()
    if state == "no Harbor":
        text = text.replace("kind: harbor", "kind: oci")
    if state == "no directory":
        text = text.replace(str(tmp_path / "password"), str(tmp_path / "absent" / "harbor-password"))
    config.write_text(text)
    login = (ROBOT, SECRET) if state == "a robot's login" else ("admin", "Harbor12345")
    (tmp_path / "admin").write_text("wrong" if state == "a wrong password" else login[1])
    if state != "a robot's login":
        del harbor.accounts[ROBOT]
    if state == "another prefix":
        harbor.name_robots("bot-")
    harbor.read_only = state == "read-only"
    before = set(harbor.accounts)
    admin = ["--admin", login[0], "--admin-password-file", tmp_path / "admin"]
    ran = airlift("site", "robot", "--site", site.root, *admin, home=tmp_path)
    assert ran.code == code, ran.err
    assert message in ran.err
    assert hint in ran.err
    assert set(harbor.accounts) == before
    assert (tmp_path / "password").read_text() == f"{SECRET}\n"


def test_a_login_does_not_go_in_clear_to_a_harbor_that_only_has_tls(behind: Registry, tmp_path: Path) -> None:
    with running_harbor(behind, authority=tmp_path / "ca.pem") as harbor, running_front() as proxy:
        # What nginx of a Harbor with TLS says on its other port.
        proxy.faults.append(redirect(harbor.url, 308))
        (tmp_path / "password").write_text(f"{SECRET}\n")
        config = RegistryConfig(url=proxy.url, kind="harbor", username=ROBOT, password_file=str(tmp_path / "password"))
        with pytest.raises(DeliveryError) as caught:
            take(make_site(tmp_path / "site", registry=config), bundle(tmp_path))
    path = "/api/v2.0/systeminfo"
    assert caught.value.message == f"{proxy.host}: {proxy.url}{path} redirects to {harbor.url}{path}"
    assert caught.value.hint == (
        f"if this is the Harbor that is meant, give url: {harbor.url} in site.yaml, "
        "and ca: where its certificate is of a private authority"
    )
    assert proxy.asked != []
    assert {item.authorization for item in proxy.asked} == {None}


def test_a_wrong_password_is_told_where_a_later_harbor_shows_public_projects_to_anybody(
    harbor: Harbor, site: Site, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("Wrong12345\n")
    harbor.faults.append(refuse(200, b"", match="/projects?project_name=library", method="HEAD"))
    with pytest.raises(DeliveryError) as caught:
        import_once(site, bundle(tmp_path))
    assert caught.value.message == f"{harbor.host}: the login of {ROBOT} is refused"
    assert not caught.value.temporary


@pytest.mark.parametrize("what", ["absent", "there", "not to be made"])
def test_a_project_that_a_later_harbor_hides_from_the_account_is_made_or_used(
    harbor: Harbor, site: Site, tmp_path: Path, what: str
) -> None:
    # Versions after 2.15 answer as they do elsewhere: whoever may not look at a project is not told whether it is there.
    for path in ("/projects?project_name=docker.io", "/projects/docker.io"):
        harbor.faults += [refuse(403, b"{}", match=path, method=method) for method in ("HEAD", "GET")]
    if what == "there":
        harbor.project("docker.io")
    if what == "not to be made":
        harbor.creation = "adminonly"
        harbor.accounts[ROBOT].lose("project:create")
        with pytest.raises(DeliveryError, match=r"the project docker\.io is missing"):
            import_once(site, bundle(tmp_path))
        return
    assert take(site, bundle(tmp_path)).drop.active
    assert harbor.projects["docker.io"].repositories.keys() == {"library/app"}

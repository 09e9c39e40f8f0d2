"""A Harbor that breaks: states and moments that only the stand-in gives on demand.

What is asked of every Harbor is in test_harbor.py.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from airlift import limits
from airlift.cli import exit as exits
from airlift.digest import of as digest_of
from airlift.errors import DeliveryError, PartialDeliveryError
from airlift.progress import Silent
from airlift.site import drops, repair
from airlift.site.config import RegistryConfig, Site
from airlift.site.importer import import_bundle
from airlift.transport.credentials import Credentials
from airlift.transport.harbor import HarborClient
from airlift.transport.harbor_login import Meaning, RefusedError
from airlift.transport.http import HttpClient
from airlift.transport.settings import HttpSettings
from tests.components import ROOT
from tests.support.bundles import NOW
from tests.support.cli import airlift
from tests.support.harbor import ROBOT, SECRET, Harbor, immutable, running_harbor
from tests.support.registry import Fault, FrontHandler, Registry, refuse, running_registry
from tests.support.site_bundles import Cargo, make_site, ship, take

BIG = bytes(range(256)) * 20_000
APP = "docker.io/library/app"
ONCE = HttpSettings(retries=0)


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Registry]:
    with running_registry(tmp_path / "registry") as behind:
        yield behind


@pytest.fixture
def harbor(behind: Registry) -> Iterator[Harbor]:
    with running_harbor(behind) as harbor:
        yield harbor


@pytest.fixture
def site(harbor: Harbor, tmp_path: Path) -> Site:
    (tmp_path / "password").write_text(f"{SECRET}\n")
    password = str(tmp_path / "password")
    config = RegistryConfig(url=harbor.url, kind="harbor", username=ROBOT, password_file=password, public=True)
    return make_site(tmp_path / "site", registry=config)


def bundle(folder: Path, layer: bytes = BIG, tag: str = "1", sequence: int = 1) -> Path:
    made = Cargo()
    made.image(f"{APP}:{tag}", layer)
    return ship(made, folder / f"bundle{sequence}", sequence=sequence)


def client_of(harbor: Harbor, password: str = SECRET, retries: int = 0) -> HarborClient:
    http = HttpClient(HttpSettings(retries=retries), Silent(), sleep=lambda _: None)
    return HarborClient(harbor.host, http=http, credentials=Credentials(ROBOT, password), plain_http=True)


def import_once(site: Site, shipped: Path) -> None:
    """Import without asking anything twice."""
    import_bundle(site, shipped, now=NOW, passphrase=b"", progress=Silent(), http=ONCE)


def writes(harbor: Harbor) -> list[str]:
    return [str(item) for item in harbor.asked if item.method not in ("GET", "HEAD")]


def when(harbor: Harbor, happens: Callable[[], None], *, match: str, method: str = "", times: int = 1) -> None:
    """Let something happen just before a request is answered."""

    def act(_handler: FrontHandler) -> bool:
        happens()
        return False

    harbor.faults.append(Fault(act, match=match, method=method, times=times))


def lose_the_answer(harbor: Harbor, *, match: str, method: str) -> None:
    """Do what is asked for, and hang up instead of answering, once."""

    def act(handler: FrontHandler) -> None:
        harbor.faults.remove(fault)
        with harbor.lock:
            # It is noted again below.
            harbor.asked.remove(next(item for item in reversed(harbor.asked) if item.path == handler.path))
        answer, handler.answer = handler.answer, lambda *_, **__: None  # type: ignore[method-assign]
        handler._handle()  # type: ignore[attr-defined]
        handler.answer = answer  # type: ignore[method-assign]
        handler.close_connection = True

    fault = Fault(act, match=match, method=method, times=1)
    harbor.faults.append(fault)


def test_no_cookie_and_no_token_is_used(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    take(site, bundle(tmp_path))
    assert {item.cookie for item in harbor.asked} == {None}
    assert not harbor.paths("/service/token")
    assert all((item.authorization or "").startswith("Basic ") for item in harbor.asked)
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
    ("state", "message", "hint"),
    [
        ("read-only", "the registry is in read-only mode", "read-only mode"),
        ("proxy", "docker.io is a proxy-cache project, which takes no push", "another project"),
        ("expired", f"the login of {ROBOT} is refused", "disabled, expired"),
    ],
)
def test_a_harbor_that_would_refuse_later_is_found_before_the_first_write(
    harbor: Harbor, site: Site, tmp_path: Path, state: str, message: str, hint: str
) -> None:
    harbor.read_only = state == "read-only"
    if state == "expired":
        harbor.accounts[ROBOT].expires_at = int(time.time()) - 1
    if state == "proxy":
        harbor.project("docker.io", registry_id=7)
    with pytest.raises(DeliveryError) as caught:
        take(site, bundle(tmp_path))
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert writes(harbor) == []


def test_an_account_that_may_not_make_a_project_is_told_which(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    shipped = bundle(tmp_path)
    harbor.creation = "adminonly"
    harbor.accounts[ROBOT].lose("project:create")
    with pytest.raises(DeliveryError, match=r"may not make the project docker\.io"):
        take(site, shipped)
    harbor.project("docker.io")
    assert take(site, shipped).drop.active


# The six meanings of 401.


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


@pytest.mark.parametrize("what", ["core", "registry"])
def test_a_harbor_that_goes_down_half_way_leaves_no_name_and_the_re_run_goes_on(
    harbor: Harbor, site: Site, tmp_path: Path, what: str
) -> None:
    shipped = bundle(tmp_path)
    when(harbor, lambda: harbor.down.add(what), match="/manifests/sha256:", method="PUT")
    with pytest.raises(PartialDeliveryError) as caught:
        import_once(site, shipped)
    assert "answered 502 Bad Gateway; nothing of the drop has a name there" in caught.value.message
    assert caught.value.temporary
    assert exits.code_of(caught.value) == 3
    harbor.down.clear()
    assert client_of(harbor).head(APP, "1") is None
    assert take(site, shipped).drop.active
    assert client_of(harbor).head(APP, "1") is not None


def test_a_harbor_that_is_down_before_the_import_is_exit_17(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    harbor.down.add("core")
    with pytest.raises(DeliveryError, match="answered 502 Bad Gateway") as caught:
        import_once(site, bundle(tmp_path))
    assert caught.value.temporary
    assert exits.code_of(caught.value) == 17


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
    (tmp_path / "admin").write_text("Harbor12345\n")
    admin = ["--admin", "admin", "--admin-password-file", tmp_path / "admin", "--days", "30", "--renew"]
    renewed = airlift("site", "robot", "--site", site.root, *admin, home=tmp_path)
    assert renewed.code == 0, renewed.err
    before = len(writes(harbor))
    assert take(site, shipped).drop.active
    # The large layer is there already.
    assert not [line for line in writes(harbor)[before:] if digest_of(BIG) in line]


@pytest.mark.parametrize("what", ["blob", "manifest", "immutable tag", "project"])
def test_a_lost_answer_is_found_to_have_been_a_success(harbor: Harbor, site: Site, tmp_path: Path, what: str) -> None:
    if what == "immutable tag":
        harbor.project("docker.io").rules.append({**immutable("*"), "id": 1})
    match, method = {
        "blob": (f"digest={digest_of(BIG)}".replace(":", "%3A"), "PUT"),
        "manifest": ("/manifests/sha256:", "PUT"),
        "immutable tag": ("/manifests/1", "PUT"),
        "project": ("/api/v2.0/projects", "POST"),
    }[what]
    lose_the_answer(harbor, match=match, method=method)
    assert take(site, bundle(tmp_path)).drop.active
    assert harbor.faults == []
    if what == "immutable tag":
        # It was sent again and refused with 412, although the digest is the same.
        assert len([line for line in writes(harbor) if line.endswith("/manifests/1")]) == 2
    if what == "blob":
        # The answer was lost and the layer was not sent again.
        assert len([line for line in writes(harbor) if match in line]) == 1


def test_an_upload_that_is_cut_begins_anew(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    def cut(handler: FrontHandler) -> None:
        handler.rfile.read(100_000)
        harbor.dead.add(handler.path.partition("?")[0].rpartition("/")[2])
        handler.close_connection = True
        handler.connection.close()

    match = f"digest={digest_of(BIG)}".replace(":", "%3A")
    harbor.faults.append(Fault(cut, match=match, method="PUT", times=1))
    assert take(site, bundle(tmp_path)).drop.active
    sent = [line.partition("?")[0] for line in writes(harbor) if match in line]
    assert len(sent) == len(set(sent)) == 2


def vanish(harbor: Harbor) -> None:
    del harbor.projects["docker.io"]


def test_a_project_that_vanishes_half_way_is_made_again(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    shipped = bundle(tmp_path)
    when(harbor, lambda: vanish(harbor), match="/manifests/sha256:", method="PUT")
    with pytest.raises(PartialDeliveryError) as caught:
        take(site, shipped)
    assert "the project docker.io is missing" in caught.value.message
    assert caught.value.hint == (
        "it was removed meanwhile; run the same command again, and when nothing but tags was missing airlift check --repair"
    )
    assert take(site, shipped).drop.active
    assert "docker.io" in harbor.projects


def test_a_project_that_vanishes_before_its_tags_is_mended(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    shipped = bundle(tmp_path)
    when(harbor, lambda: vanish(harbor), match="/manifests/1", method="PUT")
    with pytest.raises(PartialDeliveryError, match="0 of the drop's 1 tags have moved already"):
        take(site, shipped)
    mended = airlift("check", "--site", site.root, "--repair", shipped, home=tmp_path)
    # What is left to do is said: the tags that were to move.
    assert mended.out.count("mended   registry: ") == 4, mended.out
    assert "do: airlift drops activate --site DIR stable/1\n1 findings" in mended.out
    assert take(site, shipped).drop.active
    assert client_of(harbor).head(APP, "1") is not None


def test_pressure_makes_it_go_one_by_one_and_arrive(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    # More refusals than one request makes attempts.
    harbor.faults.append(refuse(429, headers={"Retry-After": "0"}, match="/manifests/sha256:", method="PUT", times=7))
    assert take(site, bundle(tmp_path)).drop.active


def test_a_project_with_a_cosign_policy_blocks_what_is_read_first(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    shipped = bundle(tmp_path)
    take(site, shipped)
    harbor.projects["docker.io"].metadata["enable_content_trust_cosign"] = "true"
    with pytest.raises(DeliveryError) as caught:
        take(site, bundle(tmp_path, BIG[::-1], sequence=2))
    assert "answered 412" in caught.value.message
    assert caught.value.hint == (
        "a policy of the project hides unsigned or unscanned images; switch it on after the import, or sign them"
    )


def test_a_blob_of_zero_bytes_is_found_in_a_harbor(
    harbor: Harbor, behind: Registry, site: Site, tmp_path: Path
) -> None:
    shipped = bundle(tmp_path)
    take(site, shipped)
    digest = digest_of(BIG)
    path = behind.root / "data/docker/registry/v2/blobs/sha256" / digest[7:9] / digest[7:] / "data"
    path.write_bytes(b"")
    (found,) = repair.check(site, progress=Silent(), http=ONCE)
    assert found.subject == f"{harbor.host}/{APP}@{digest}"
    assert found.problem == f"damaged: the registry says it has it and holds 0 bytes, expected {len(BIG)}"
    # The robot may delete nothing, and the registry does not look at a file that it believes to have.
    (left,) = repair.repair(site, [found], shipped, now=NOW, passphrase=b"", progress=Silent(), http=HttpSettings())
    assert left.remedy.startswith("the registry keeps its damaged file under this digest")
    path.unlink()
    found_again = repair.check(site, progress=Silent(), http=ONCE)
    assert (
        repair.repair(site, found_again, shipped, now=NOW, passphrase=b"", progress=Silent(), http=HttpSettings()) == []
    )
    assert not any(drop.pending for drop in drops.list_drops(site))


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
    assert "robot$airlift" in harbor.accounts
    assert harbor.projects["docker.io"].repositories["library/app"].tags.keys() == {"1"}

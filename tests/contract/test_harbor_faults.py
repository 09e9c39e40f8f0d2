"""A Harbor that breaks: states and moments that only the stand-in gives on demand.

What is asked of every Harbor is in test_harbor.py, what concerns accounts in test_harbor_logins.py.
"""

from __future__ import annotations

import http.client
import time
from pathlib import Path

import pytest

from airlift.cli import exit as exits
from airlift.digest import of as digest_of
from airlift.errors import DeliveryError, PartialDeliveryError
from airlift.progress import Silent
from airlift.site import drops, repair
from airlift.site.config import Site
from airlift.transport.settings import HttpSettings
from tests.support.bundles import NOW
from tests.support.cli import airlift
from tests.support.harbor import ROBOT, Harbor, immutable
from tests.support.harbor_sites import APP, BIG, ONCE, bundle, client_of, import_once, lose_the_answer, when, writes
from tests.support.real_harbor import eventually
from tests.support.registry import Fault, FrontHandler, Registry, refuse
from tests.support.site_bundles import Cargo, ship, take


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


@pytest.mark.parametrize("moment", ["start", "closing PUT", "mount", "manifest"])
def test_a_quota_that_is_used_up_is_told_wherever_harbor_says_so(
    harbor: Harbor, site: Site, tmp_path: Path, moment: str
) -> None:
    harbor.accounts[ROBOT].lose("quota:list")
    made = Cargo()
    made.image(f"{APP}:1", BIG)
    # The second project gets the layer by mount.
    made.image("quay.io/library/app:1", BIG)
    config = next(len(data) for data in made.small.values() if b'"rootfs"' in data)
    first, second = harbor.project("docker.io"), harbor.project("quay.io")
    if moment == "start":
        first.hard, first.blobs = 5, {"sha256:of others": 10}
    elif moment == "closing PUT":
        first.hard = len(BIG) - 1
    else:
        second.hard = len(BIG) + (-1 if moment == "mount" else 2 * config)
    shipped = ship(made, tmp_path / "bundle")
    with pytest.raises(DeliveryError) as caught:
        take(site, shipped)
    assert "will exceed the configured upper limit of" in caught.value.message
    assert caught.value.hint == "the project's quota is used up; raise it, or prune and collect garbage"
    assert not caught.value.temporary
    assert not any(item.tags for project in harbor.projects.values() for item in project.repositories.values())
    if moment in ("mount", "manifest"):
        assert caught.value.message.endswith("; nothing of the drop has a name there")
    first.hard = second.hard = -1
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
    if what == "blob":
        # Room for the layer once, and it is counted when the answer is lost.
        harbor.project("docker.io").hard = len(BIG) * 3 // 2
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


def test_a_refusal_that_comes_before_the_body_is_through_is_read(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    said = (
        b'{"errors":[{"code":"DENIED","message":"adding 4.9 MiB of storage resource, which when updated to current usage'
        b' of 0 B will exceed the configured upper limit of 1.0 MiB."}]}'
    )

    def refuse_at_once(handler: FrontHandler) -> None:
        # Core knows the size before it reads: it answers, and hangs up.
        handler.answer(403, said, {"Content-Type": "application/json; charset=utf-8", "Connection": "close"})
        handler.wfile.flush()
        handler.close_connection = True

    match = f"digest={digest_of(BIG)}".replace(":", "%3A")
    harbor.faults.append(Fault(refuse_at_once, match=match, method="PUT"))
    with pytest.raises(DeliveryError) as caught:
        take(site, bundle(tmp_path))
    assert caught.value.hint == "the project's quota is used up; raise it, or prune and collect garbage"
    assert len([line for line in writes(harbor) if match in line]) == 1


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
    assert "do: airlift drops activate --site DIR stable/1; or, where clients" in mended.out
    assert mended.out.endswith("\n1 finding\n")
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


def test_tags_of_an_import_that_was_cut_short_go_when_it_is_taken_back(
    harbor: Harbor, site: Site, tmp_path: Path
) -> None:
    harbor.accounts[ROBOT].gain("tag:delete")
    take(site, bundle(tmp_path))
    made = Cargo()
    for tag in ("1", "2", "3"):
        made.image(f"{APP}:{tag}", tag.encode())
    tags = harbor.projects["docker.io"].repositories["library/app"].tags

    def refuse_last(handler: FrontHandler) -> None:
        handler.body()
        eventually(lambda: {"2", "3"} <= tags.keys(), "the other tags do not move")
        handler.answer(403)

    harbor.faults.append(Fault(refuse_last, match="/manifests/1", method="PUT"))
    with pytest.raises(PartialDeliveryError, match="2 of the drop's 3 tags have moved already"):
        import_once(site, ship(made, tmp_path / "2", sequence=2))
    # The way back is cut short too: the journal still knows whose tags are to go.
    harbor.faults[:] = [refuse(500, b"", match="/tags/", method="DELETE")]
    with pytest.raises(DeliveryError, match="500"):
        drops.activate(site, "stable/1", http=ONCE)
    assert [(drop.active, drop.pending) for drop in drops.list_drops(site)] == [(True, False), (False, True)]
    harbor.faults.clear()
    assert drops.activate(site, "stable/1").left.tags == ()
    assert [(drop.active, drop.pending) for drop in drops.list_drops(site)] == [(True, False), (False, False)]
    assert client_of(harbor).tags(APP) == ("1",)
    assert repair.check(site, progress=Silent(), http=HttpSettings()) == []


def test_what_a_garbage_collection_took_of_a_drop_that_is_not_active_is_explained_and_mended(
    harbor: Harbor, site: Site, tmp_path: Path
) -> None:
    first = bundle(tmp_path, b"one")
    take(site, first)
    root = client_of(harbor).manifest(APP, "1").descriptor.digest
    take(site, bundle(tmp_path, b"two", sequence=2))
    harbor.projects["docker.io"].collect_untagged()
    (found,) = repair.check(site, progress=Silent(), http=HttpSettings())
    assert (found.subject, found.problem) == (f"{harbor.host}/{APP}@{root}", "missing")
    assert found.remedy.endswith(
        "; where Harbor's garbage collection deletes untagged artifacts, or a retention policy does, switch that off for "
        "this project first"
    )
    left = repair.repair(
        site, [found], first, now=NOW, passphrase=b"", progress=Silent(), http=HttpSettings()
    )  # fmt: skip
    assert left == []
    assert drops.rollback(site, None).drop.sequence == 1


def test_a_layer_that_is_collected_before_its_manifest_is_sent_again_by_the_re_run(
    harbor: Harbor, behind: Registry, site: Site, tmp_path: Path
) -> None:
    def collect() -> None:
        link = http.client.HTTPConnection(behind.host, timeout=30)
        link.request("DELETE", f"/v2/{APP}/blobs/{digest_of(BIG)}")
        assert link.getresponse().status == 202
        link.close()

    shipped = bundle(tmp_path)
    when(harbor, collect, match="/manifests/sha256:", method="PUT")
    with pytest.raises(PartialDeliveryError, match="answered 400 Bad Request: MANIFEST_BLOB_UNKNOWN") as caught:
        take(site, shipped)
    assert caught.value.hint == (
        "Harbor's garbage collection took a blob before its manifest came; run the same command again, "
        "which sends what is missing"
    )
    assert take(site, shipped).drop.active
    assert repair.check(site, progress=Silent(), http=ONCE) == []


def test_a_rule_of_immutability_on_a_later_page_is_seen(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    take(site, bundle(tmp_path))
    rules = harbor.projects["docker.io"].rules
    rules += [{**immutable(f"never-{number}"), "id": number} for number in range(1, 120)]
    rules.append({**immutable("[0-9]"), "id": 120})
    harbor.asked.clear()
    with pytest.raises(DeliveryError, match=f"{APP}:1 is immutable and is sha256:") as caught:
        take(site, bundle(tmp_path, BIG[::-1], sequence=2))
    assert (
        caught.value.hint
        == "change the project's rule of immutability in Harbor, or let the release engineer ship a new tag"
    )
    assert writes(harbor) == []

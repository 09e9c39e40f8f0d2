"""Tags that an external registry keeps although the active drop does not have them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from airlift.errors import PartialDeliveryError
from airlift.progress import Silent
from airlift.site import drops
from airlift.site.recovery import recover
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.http import HttpClient
from airlift.transport.registry import RegistryClient
from airlift.transport.settings import HttpSettings
from tests.support.cli import ok
from tests.support.real_harbor import eventually
from tests.support.registry import Fault, FrontHandler, running_front, running_registry
from tests.support.site_bundles import Cargo, make_site, ship, take

APP = "docker.io/library/app"


class Warnings(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, message: str) -> None:
        self.said.append(message)


def test_a_rollback_names_the_tags_that_stay_and_no_others(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url), channels=("stable", "beta"))
        heard = Warnings()
        first, second, beta = Cargo(), Cargo(), Cargo(channel="beta")
        first.image(f"{APP}:1", b"one")
        second.image(f"{APP}:1", b"two")
        second.image(f"{APP}:2", b"new")
        second.image(f"{APP}:3", b"in beta too")
        beta.artifacts.append(second.artifacts[-1])
        root = second.artifacts[-1].root.digest
        body = second.small[root]
        beta.small = {key: data for key, data in second.small.items() if key == root or key.encode() in body}
        beta.large = {key: data for key, data in second.large.items() if key.encode() in body}
        take(site, ship(first, tmp_path / "1.airlift"), progress=heard)
        take(site, ship(second, tmp_path / "2.airlift", sequence=2), progress=heard)
        take(site, ship(beta, tmp_path / "3.airlift"), progress=heard)
        assert heard.said == []
        assert drops.rollback(site, "stable", progress=heard).left.tags == (f"{APP}:2",)
        assert heard.said == [
            f"{registry.url} still shows 1 tag(s) that stable/1 does not have; they stay until no kept drop has their content: {APP}:2"
        ]
        assert drops.activate(site, "stable/2", progress=heard).left.tags == ()
        assert len(heard.said) == 1


def test_the_json_of_rollback_activate_and_import_lists_them_all(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url))
        first, second, third = Cargo(), Cargo(), Cargo()
        first.image(f"{APP}:1", b"one")
        tags = sorted(f"{APP}:of-2-{number:02}" for number in range(12))
        for tag in tags:
            second.image(tag, b"new")
        third.image(f"{APP}:3", b"three")
        for number, cargo in enumerate((first, second, third), 1):
            ship(cargo, tmp_path / f"{number}.airlift", sequence=number)

        def run(*verb: str) -> Any:
            return ok(*verb, "--site", site.root, "--json", home=tmp_path).json

        assert run("import", "1.airlift")["tags_left"] == []
        assert run("import", "2.airlift")["tags_left"] == [f"{APP}:1"]
        told = ok("drops", "rollback", "--site", site.root, "--json", home=tmp_path)
        assert told.json["tags_left"] == tags
        assert [(item["sequence"], item["active"]) for item in told.json["drops"]] == [(1, True), (2, False)]
        # People get the first ten.
        assert (
            f"still shows 12 tag(s) that stable/1 does not have; they stay until no kept drop has their content: {tags[0]}, "
            in told.err
        )
        assert "and 2 more" in told.err
        assert run("drops", "activate", "stable/1")["tags_left"] == []
        assert run("drops", "activate", "stable/2")["tags_left"] == [f"{APP}:1"]
        assert run("import", "3.airlift")["tags_left"] == [f"{APP}:1", *tags]


def months(folder: Path, *tags: str) -> list[Path]:
    """Bundles of months with one tag each."""
    made = []
    for number, tag in enumerate(tags, 1):
        cargo = Cargo()
        cargo.image(f"{APP}:{tag}", b"of month %d" % number)
        made.append(ship(cargo, folder / f"{number}.airlift", sequence=number))
    return made


def test_tags_of_drops_that_were_left_earlier_are_named_too(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url))
        first, second, third, fourth = months(tmp_path, "1", "2", "3", "1")
        take(site, first)
        take(site, second)
        assert drops.rollback(site, "stable").left.tags == (f"{APP}:2",)
        assert drops.activate(site, "stable/2").left.tags == (f"{APP}:1",)
        heard = Warnings()
        assert take(site, third, progress=heard).left.tags == (f"{APP}:1", f"{APP}:2")
        assert heard.said == [
            f"{registry.url} still shows 2 tag(s) that stable/3 does not have; they stay until no kept drop has their content: {APP}:1, {APP}:2"
        ]
        # The tag of the first month is the fourth's now.
        assert take(site, fourth).left.tags == (f"{APP}:2", f"{APP}:3")
        assert drops.deactivate(site, "stable").left.tags == (f"{APP}:1", f"{APP}:2", f"{APP}:3")


def test_a_tag_that_another_channel_of_a_recovered_site_may_need_is_not_named(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url), channels=("stable", "beta"))
        first, second, beta = Cargo(), Cargo(), Cargo(channel="beta")
        first.image(f"{APP}:1", b"one")
        for cargo in (second, beta):
            cargo.image(f"{APP}:both", b"in both")
        second.image(f"{APP}:2", b"two")
        take(site, ship(first, tmp_path / "1.airlift"))
        take(site, ship(second, tmp_path / "2.airlift", sequence=2))
        take(site, ship(beta, tmp_path / "beta.airlift"))
        for path in site.root.glob("state.db*"):
            path.unlink()
        recover(site, {"stable": 2, "beta": 1}, Silent())
        assert drops.activate(site, "stable/1").left.tags == (f"{APP}:2",)
        drops.activate(site, "beta/1")
        assert drops.deactivate(site, "beta").left.tags == (f"{APP}:both",)
        assert drops.activate(site, "stable/2").left.tags == (f"{APP}:1",)
        assert drops.activate(site, "stable/1").left.tags == (f"{APP}:2", f"{APP}:both")


def test_a_tag_of_an_older_drop_that_the_registry_cannot_read_ends_no_move(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry, running_front(registry) as front:
        site = make_site(tmp_path / "site", registry=RegistryConfig(url=front.url))
        first, second, third = months(tmp_path, "1", "2", "3")
        take(site, first)
        take(site, second)
        front.faults.append(Fault(lambda handler: handler.answer(403), match="/manifests/1", method="HEAD"))
        heard = Warnings()
        done = take(site, third, progress=heard)
        assert (done.drop.active, done.drop.pending, done.left.tags) == (True, False, (f"{APP}:2",))
        assert heard.said[0].startswith("which tags of channel stable's other drops stay is not known: ")
        assert (
            f"still shows 1 tag(s) that stable/3 does not have; they stay until no kept drop has their content: {APP}:2"
            in heard.said[1]
        )


def test_an_activation_that_was_cut_short_and_taken_back_names_the_tags_that_it_brought(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry, running_front(registry) as front:
        site = make_site(tmp_path / "site", registry=RegistryConfig(url=front.url))
        first, second, third = Cargo(), Cargo(), Cargo()
        first.image(f"{APP}:1", b"one")
        for tag in ("1", "2", "3"):
            second.image(f"{APP}:{tag}", b"two" + tag.encode())
        third.image(f"{APP}:1", b"three")
        shipped = [
            ship(cargo, tmp_path / f"{n}.airlift", sequence=n) for n, cargo in enumerate((first, second, third), 1)
        ]
        client = RegistryClient(registry.host, http=HttpClient(HttpSettings(), Silent()), plain_http=True)

        def refuse_after_the_second(handler: FrontHandler) -> None:
            handler.body()
            eventually(lambda: client.head(APP, "2"), "the second tag does not move")
            handler.answer(403)

        faults = [Fault(refuse_after_the_second, match=f"/manifests/{tag}", method="PUT") for tag in ("1", "3")]
        take(site, shipped[0])
        front.faults += faults
        with pytest.raises(PartialDeliveryError, match="1 of the drop's 3 tags have moved already"):
            take(site, shipped[1])
        front.faults.clear()
        heard = Warnings()
        assert drops.activate(site, "stable/1", progress=heard).left.tags == (f"{APP}:2",)
        assert heard.said == [
            f"{front.url} still shows 1 tag(s) that stable/1 does not have; they stay until no kept drop has their content: {APP}:2"
        ]
        front.faults += faults[1:]
        with pytest.raises(PartialDeliveryError):
            drops.activate(site, "stable/2")
        front.faults.clear()
        assert take(site, shipped[2]).left.tags == (f"{APP}:2",)


def test_tags_that_may_stay_are_asked_for_side_by_side(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry, running_front(registry) as front:
        site = make_site(tmp_path / "site", registry=RegistryConfig(url=front.url))
        first, second = Cargo(), Cargo()
        tags = sorted(f"{APP}:of-1-{number}" for number in range(4))
        for tag in tags:
            first.image(tag, b"old")
        second.image(f"{APP}:2", b"new")
        take(site, ship(first, tmp_path / "1.airlift"))
        pair = threading.Barrier(2, timeout=60)
        alone: list[str] = []

        def meet(handler: FrontHandler) -> bool:
            try:
                pair.wait()
            except threading.BrokenBarrierError:
                alone.append(handler.path)
            return False

        front.faults.append(Fault(meet, match="/manifests/of-1-", method="HEAD"))
        assert take(site, ship(second, tmp_path / "2.airlift", sequence=2)).left.tags == tuple(tags)
        assert alone == []

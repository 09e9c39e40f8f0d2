"""Tags that an external registry keeps although the active drop does not have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airlift.progress import Silent
from airlift.site import drops
from airlift.site.config import RegistryConfig
from tests.support.cli import ok
from tests.support.registry import running_registry
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
        assert drops.rollback(site, "stable", progress=heard).tags_left == (f"{APP}:2",)
        assert heard.said == [
            f"{registry.url} still shows 1 tag(s) that stable/1 does not have; take them away there: {APP}:2"
        ]
        assert drops.activate(site, "stable/2", progress=heard).tags_left == ()
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
        assert f"still shows 12 tag(s) that stable/1 does not have; take them away there: {tags[0]}, " in told.err
        assert "and 2 more" in told.err
        assert run("drops", "activate", "stable/1")["tags_left"] == []
        assert run("drops", "activate", "stable/2")["tags_left"] == [f"{APP}:1"]
        assert run("import", "3.airlift")["tags_left"] == tags

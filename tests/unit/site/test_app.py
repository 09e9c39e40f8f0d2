"""The application of a site: requests that a change overtakes at the worst moment, and what is elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from airlift.progress import Silent
from airlift.site import retention
from airlift.site.catalog import Catalog
from airlift.site.config import Site
from airlift.site.server.app import make_app
from airlift.site.site_yaml import RegistryConfig
from tests.support.site_bundles import Cargo, make_site, ship, take

APP = "docker.io/library/app"


def month(number: int) -> Cargo:
    cargo = Cargo()
    cargo.image(f"{APP}:1", b"layer of %d" % number)
    cargo.file("tool", b"tool of month %d" % number)
    return cargo


def ask(site: Site, path: str) -> tuple[int, bytes]:
    async def once() -> tuple[int, bytes]:
        async with TestClient(TestServer(make_app(site))) as client:
            answer = await client.get(path)
            return answer.status, await answer.read()

    return asyncio.run(once())


def overtaken(monkeypatch: pytest.MonkeyPatch, method: str, change: Callable[[], object], times: int = 1) -> list[str]:
    """Let `change` happen right after the catalog has answered, before the answer is used."""
    original = getattr(Catalog, method)
    happened: list[str] = []

    def answer(self: Catalog, *arguments: Any) -> Any:
        found = original(self, *arguments)
        if len(happened) < times:
            happened.append(method)
            change()
        return found

    monkeypatch.setattr(Catalog, method, answer)
    return happened


@pytest.mark.parametrize("method", ["names", "held"])
@pytest.mark.parametrize("path", [f"/v2/{APP}/manifests/1", "/files/tool"])
def test_a_name_is_answered_although_its_drop_is_replaced_and_pruned_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    site = make_site(tmp_path / "site")
    take(site, ship(month(1), tmp_path / "1", sequence=1))
    later = ship(month(2), tmp_path / "2", sequence=2)

    def change() -> None:
        take(site, later)
        assert len(retention.execute(site, retention.plan(site, 1), Silent()).releases) == 1

    happened = overtaken(monkeypatch, method, change)
    status, body = ask(site, path)
    assert happened == [method]
    assert status == 200
    assert body in (month(2).members().values())


def test_what_is_not_there_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site(tmp_path / "site")
    take(site, ship(month(1), tmp_path / "1", sequence=1))
    asked = overtaken(monkeypatch, "names", lambda: None, times=100)
    assert ask(site, "/files/absent")[0] == 404
    assert asked == ["names"]


def test_a_site_that_never_settles_answers_after_some_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site(tmp_path / "site")
    bundles = [ship(month(number), tmp_path / str(number), sequence=number) for number in range(1, 20)]
    waiting = iter(bundles)
    asked = overtaken(monkeypatch, "names", lambda: take(site, next(waiting)), times=len(bundles))
    assert ask(site, "/files/absent")[0] == 404
    assert 5 < len(asked) < len(bundles)


@pytest.mark.parametrize("path", ["/charts/index.yaml", "/v2/library/redis/manifests/7"])
def test_a_site_with_a_registry_says_where_images_and_charts_are(tmp_path: Path, path: str) -> None:
    site = make_site(tmp_path / "site", registry=RegistryConfig(url="https://registry.example.com/mirror"))
    status, body = ask(site, path)
    assert (status, b"https://registry.example.com/mirror" in body) == (404, True)

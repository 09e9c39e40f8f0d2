"""A site that fills the stand-in of a Harbor, and moments in which something happens to that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from airlift.progress import Silent
from airlift.site.config import Site
from airlift.site.importer import import_bundle
from airlift.transport.credentials import Credentials
from airlift.transport.harbor import HarborClient
from airlift.transport.http import HttpClient
from airlift.transport.settings import HttpSettings
from tests.support.bundles import NOW
from tests.support.harbor import ROBOT, SECRET, Harbor
from tests.support.registry import Fault, FrontHandler
from tests.support.site_bundles import Cargo, ship

BIG = bytes(range(256)) * 20_000
APP = "docker.io/library/app"
ONCE = HttpSettings(retries=0)


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

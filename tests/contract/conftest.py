"""The Harbors of the contract: the stand-in, and a real one that a tester names, where nothing is to stay."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import pytest

from airlift.site.config import Site
from airlift.site.site_yaml import RegistryConfig
from tests.support import real_harbor
from tests.support.harbor import ROBOT, SECRET, Harbor, running_harbor
from tests.support.real_harbor import HarborUnderTest
from tests.support.registry import Registry, running_registry
from tests.support.site_bundles import make_site

ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""What ends a run. A closed terminal sends its signal twice, and an impatient tester as well."""


def _stop(_signal: int, _frame: FrameType | None) -> None:
    _end_no_more()
    raise KeyboardInterrupt


def _end_no_more() -> None:
    """What was made is removed from here on, which is not to be broken off."""
    for one in ENDS:
        signal.signal(one, signal.SIG_IGN)


@pytest.fixture(scope="session")
def named_harbor() -> Iterator[HarborUnderTest]:
    """The Harbor of AIRLIFT_TEST_HARBOR; what the run made in it is removed at the end, also when it is ended."""
    harbor = real_harbor.named()
    if harbor is None:
        pytest.skip(f"no Harbor is named: {real_harbor.URL}, {real_harbor.USER} and {real_harbor.PASSWORD}")
    before = {one: signal.getsignal(one) for one in ENDS}
    for one, handler in before.items():
        if handler != signal.SIG_IGN:  # as nohup has it
            signal.signal(one, _stop)
    try:
        with pytest.MonkeyPatch.context() as patch, real_harbor.clearing(harbor):
            for name in ("NO_PROXY", "no_proxy"):
                # Helm and skopeo go the way that everything else here goes.
                patch.setenv(name, ",".join(filter(None, [os.environ.get(name), urlsplit(harbor.url).hostname])))
            yield harbor
            _end_no_more()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Registry]:
    """What stores for the stand-in of a Harbor."""
    with running_registry(tmp_path / "registry") as behind:
        yield behind


@pytest.fixture
def harbor(behind: Registry) -> Iterator[Harbor]:
    """The stand-in of a Harbor."""
    with running_harbor(behind) as harbor:
        yield harbor


@pytest.fixture
def site(harbor: Harbor, tmp_path: Path) -> Site:
    """A site that fills it with a robot's login."""
    (tmp_path / "password").write_text(f"{SECRET}\n")
    password = str(tmp_path / "password")
    config = RegistryConfig(url=harbor.url, kind="harbor", username=ROBOT, password_file=password, public=True)
    return make_site(tmp_path / "site", registry=config)

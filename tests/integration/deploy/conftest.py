from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.k3s.lent import Lent, running_k3s
from tests.support.node import KINDS, Node, given_node, running_parts


@pytest.fixture(scope="session")
def k3s(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lent]:
    """A K3s with a real Kubernetes, one for all tests."""
    with running_k3s(tmp_path_factory.mktemp("k3s")) as lent:
        yield lent


@pytest.fixture(scope="session", params=KINDS)
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One of each kind for all tests: a real one is restarted when its registries change."""
    if request.param == "k3s":
        yield request.getfixturevalue("k3s").node()
        return
    with given_node() if request.param == "given" else running_parts(tmp_path_factory.mktemp("node")) as made:
        yield made

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.node import NODES, Node


@pytest.fixture(scope="session", params=NODES)
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One of each kind for all tests: a real one is restarted when its registries change."""
    with NODES[request.param](tmp_path_factory.mktemp("node")) as made:
        yield made

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.node import Node, running_node


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One for all tests: a real one is restarted when its registries change."""
    with running_node(tmp_path_factory.mktemp("node")) as made:
        yield made

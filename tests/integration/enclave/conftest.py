from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import desk, ok


@dataclass(frozen=True)
class SignedKit:
    """A kit that alice signed, with the trust file of every desk; `said` is what ``kit make --json`` printed."""

    path: Path
    said: dict[str, Any]


@pytest.fixture(scope="session")
def signed_kit(tmp_path_factory: pytest.TempPathFactory) -> SignedKit:
    """One for all tests, each of which takes a copy."""
    made = desk(tmp_path_factory.mktemp("kit"))
    given = ["--signer", "alice.key", "--trust", made.trust, "--json"]
    return SignedKit(made.home / "kit", ok("kit", "make", "-o", "kit", *given, home=made.home, timeout=600).json)

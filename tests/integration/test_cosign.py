"""Somebody else's tool, with the public key alone, accepts the statement over the tree."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from airlift.bundle import layout
from airlift.bundle.reader import BundleReader
from tests.components import require_go
from tests.support.bundles import ANN, BOB, EVE, Recipe


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """The envelope and the tree of a bundle, and public keys, as files."""
    Recipe(signers=[ANN, BOB]).write(tmp_path / "drop.airlift")
    with BundleReader(tmp_path / "drop.airlift") as reader:
        container = layout.Container.of(reader.release, digest_size=32)
        (tmp_path / "envelope").write_bytes(reader.envelope)
    start, size = container.offset_of(layout.TREE), container.size_of(layout.TREE)
    (tmp_path / "tree").write_bytes((tmp_path / "drop.airlift").read_bytes()[start : start + size])
    for name, signer in (("ann", ANN), ("bob", BOB), ("eve", EVE)):
        (tmp_path / f"{name}.pub").write_bytes(signer.public_pem)
    return tmp_path


def cosign(parts: Path, key: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            require_go("cosign"),
            "verify-blob-attestation",
            "--type=urn:airlift:release:v1",
            f"--key={parts / key}.pub",
            f"--signature={parts / 'envelope'}",
            "--new-bundle-format=false",
            "--insecure-ignore-tlog=true",
            parts / "tree",
        ],
        env={"HOME": str(parts), "SIGSTORE_NO_CACHE": "true"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("key", ["ann", "bob"])
def test_cosign_accepts_the_statement_with_each_signers_key(parts: Path, key: str) -> None:
    result = cosign(parts, key)
    assert result.returncode == 0, result.stderr
    assert "Verified OK" in result.stderr


def test_cosign_refuses_a_stranger_and_another_tree(parts: Path) -> None:
    assert cosign(parts, "eve").returncode != 0
    (parts / "tree").write_bytes(bytes(32))
    assert cosign(parts, "ann").returncode != 0

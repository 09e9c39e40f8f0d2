"""A further suite is a further row of the table, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from airlift.bundle.reader import BundleReader
from airlift.bundle.writer import BundleWriter
from airlift.errors import TrustError, UsageError
from airlift.trust import suites
from airlift.trust.gate import Gate
from airlift.trust.keys import generate_identity, generate_signer, load_signer, load_signer_public, write_key
from airlift.trust.roots import make_trust
from tests.support.bundles import ANN, NOW, SITE, Recipe, accept, members, plan, trust

LARGER = suites.Suite(
    name="larger",
    digest="sha384",
    digest_size=48,
    signature=suites.Ecdsa(ec.SECP384R1(), hashes.SHA384()),
    kem=suites.MlKem768X25519(),
)


@pytest.fixture(autouse=True)
def _row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "SUITES", {**suites.SUITES, LARGER.name: LARGER})


def test_a_bundle_of_another_suite_goes_the_whole_way(tmp_path: Path) -> None:
    signer, identity = generate_signer(suite="larger"), generate_identity(suite="larger")
    content = members([b"one", b"two" * 3_000_000])
    path = tmp_path / "x"
    with BundleWriter(path, plan(content), suite="larger", encrypted=True) as writer:
        for name, data in content.items():
            with writer.member(name) as sink:
                sink.write(data)
        released = Recipe(signers=[signer], recipients=[identity.recipient]).finish(writer)
    assert released.digest.startswith("sha384:")
    assert released.tree.startswith("sha384:")
    site = make_trust(["stable"], [("ann", [signer.public_pem])])
    assert site.suites == ("larger",)
    assert accept(path, site, identity)["content"] == content
    with BundleReader(path) as reader, pytest.raises(TrustError, match="signed by nobody"):
        Gate(trust(), now=NOW).admit(reader.envelope, reader.roots)


def test_keys_of_another_suite_are_told_apart(tmp_path: Path) -> None:
    private, public = write_key(tmp_path, "ann", generate_signer(suite="larger"), passphrase=None)
    assert load_signer(private, None).suite == load_signer_public(public).suite == "larger"


def test_suites_are_not_mixed_in_one_bundle(tmp_path: Path) -> None:
    content = members([])
    with BundleWriter(tmp_path / "x", plan(content), suite="larger", encrypted=True) as writer:
        for name, data in content.items():
            with writer.member(name) as sink:
                sink.write(data)
        with pytest.raises(UsageError, match=f"signer {ANN.key_id} is of suite default, the bundle of larger"):
            Recipe(signers=[ANN]).finish(writer)
        with pytest.raises(UsageError, match=f"recipient {SITE.key_id} is of suite default, the bundle of larger"):
            Recipe(signers=[generate_signer(suite="larger")]).finish(writer)

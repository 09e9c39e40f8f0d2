from __future__ import annotations

import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from airlift.errors import TrustError, UsageError
from airlift.trust import keys
from airlift.trust.pkcs8 import ROUNDS
from tests.components import require
from tests.support.bundles import ANN, SITE


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_signer_comes_back_from_its_file(tmp_path: Path, passphrase: bytes | None) -> None:
    made = keys.generate_signer()
    private, public = keys.write_key(tmp_path, "ann", made, passphrase=passphrase)
    read = keys.load_signer(private, passphrase)
    assert read.key_id == made.key_id
    keys.load_signer_public(public).verify(read.sign(b"text"), b"text")


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_an_identity_comes_back_from_its_file(tmp_path: Path, passphrase: bytes | None) -> None:
    made = keys.generate_identity()
    private, public = keys.write_key(tmp_path, "site", made, passphrase=passphrase)
    sealed = keys.load_recipient(public).seal(b"secret", b"info")
    assert keys.load_identity(private, lambda: passphrase or b"").open(sealed, b"info") == b"secret"


def test_the_private_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    private, public = keys.write_key(tmp_path, "ann", ANN, passphrase=None)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o644


def test_of_several_who_write_one_name_at_once_one_does_and_its_halves_belong_together(tmp_path: Path) -> None:
    made = [keys.generate_signer() for _ in range(8)]
    begin = threading.Barrier(len(made))

    def write(key: keys.Signer) -> bool:
        begin.wait()
        try:
            keys.write_key(tmp_path, "ann", key, passphrase=None)
        except UsageError:
            return False
        return True

    with ThreadPoolExecutor(len(made)) as pool:
        assert sum(pool.map(write, made)) == 1
    private, public = keys.load_signer(tmp_path / "ann.key", None), keys.load_signer_public(tmp_path / "ann.pub")
    assert private.public == public


@pytest.mark.parametrize("existing", ["ann.key", "ann.pub"])
def test_an_existing_file_is_not_overwritten_and_nothing_new_appears(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("mine")
    with pytest.raises(UsageError, match="exists already and is not overwritten"):
        keys.write_key(tmp_path, "ann", ANN, passphrase=None)
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "mine"


@pytest.mark.parametrize("name", ["", "../ann", "a/b", ".ann", "x" * 101])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no name for a key"):
        keys.write_key(tmp_path, name, ANN, passphrase=None)


def test_an_empty_passphrase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the passphrase is empty"):
        keys.write_key(tmp_path, "ann", ANN, passphrase=b"")
    assert not list(tmp_path.iterdir())


def test_an_encrypted_file_costs_an_attacker_many_rounds_and_openssl_reads_it(tmp_path: Path) -> None:
    private, _ = keys.write_key(tmp_path, "ann", ANN, passphrase=b"correct horse")
    assert ROUNDS >= 600_000
    shown = subprocess.run(
        [require("openssl"), "pkey", "-in", private, "-passin", "pass:correct horse", "-pubout"],
        check=True,
        capture_output=True,
    )
    assert shown.stdout == ANN.public_pem
    parsed = subprocess.run(
        [require("openssl"), "asn1parse", "-in", private], check=True, capture_output=True, text=True
    )
    assert f"{ROUNDS:X}" in parsed.stdout.replace("0927C0", "927C0")


@pytest.mark.parametrize(
    ("kind", "loader", "message"),
    [
        ("signer.key", keys.load_identity, "is a signer's key, an identity is needed"),
        ("identity.key", keys.load_signer, "is an identity, a signer is needed"),
        ("signer.pub", keys.load_signer, "is a public key, a private signer key is needed"),
    ],
)
def test_the_wrong_kind_of_private_key_is_named(tmp_path: Path, kind: str, loader: object, message: str) -> None:
    keys.write_key(tmp_path, "signer", ANN, passphrase=None)
    keys.write_key(tmp_path, "identity", SITE, passphrase=None)
    with pytest.raises(UsageError) as caught:
        loader(tmp_path / kind, None)  # type: ignore[operator]
    assert caught.value.message == f"{tmp_path / kind} {message}"


@pytest.mark.parametrize(
    ("kind", "loader", "message"),
    [
        ("signer.pub", keys.load_recipient, "is a signer's key, a recipient is needed"),
        ("identity.pub", keys.load_signer_public, "is a recipient's key, a signer is needed"),
        ("signer.key", keys.load_signer_public, "is a private key, a public signer key is needed"),
        ("identity.key", keys.load_recipient, "is a private key, a public recipient key is needed"),
    ],
)
def test_the_wrong_kind_of_public_key_is_named(tmp_path: Path, kind: str, loader: object, message: str) -> None:
    keys.write_key(tmp_path, "signer", ANN, passphrase=None)
    keys.write_key(tmp_path, "identity", SITE, passphrase=None)
    with pytest.raises(UsageError) as caught:
        loader(tmp_path / kind)  # type: ignore[operator]
    assert caught.value.message == f"{tmp_path / kind} {message}"


@pytest.mark.parametrize("passphrase", [None, b""])
def test_a_missing_passphrase_is_asked_for(tmp_path: Path, passphrase: bytes | None) -> None:
    private, _ = keys.write_key(tmp_path, "ann", ANN, passphrase=b"correct horse")
    with pytest.raises(UsageError) as caught:
        keys.load_signer(private, passphrase)
    assert caught.value.message == f"{private} is encrypted and no passphrase was given"
    assert caught.value.hint == "give it with --passphrase-file"


def test_what_asks_for_the_passphrase_of_a_key_in_vain_is_told_which_key(tmp_path: Path) -> None:
    def ask() -> bytes:
        raise UsageError("nobody knows it", hint="ask")

    private, _ = keys.write_key(tmp_path, "ann", ANN, passphrase=b"correct horse")
    with pytest.raises(UsageError) as caught:
        keys.load_signer(private, ask)
    assert (caught.value.message, caught.value.hint) == (f"{private}: nobody knows it", "ask")
    plain, _ = keys.write_key(tmp_path, "bob", ANN, passphrase=None)
    assert (keys.needs_passphrase(private), keys.needs_passphrase(plain)) == (True, False)


def test_a_wrong_passphrase_is_not_repeated_in_the_message(tmp_path: Path) -> None:
    private, _ = keys.write_key(tmp_path, "ann", ANN, passphrase=b"correct horse")
    with pytest.raises(UsageError) as caught:
        keys.load_signer(private, b"wrong horse")
    assert caught.value.message == f"{private} does not open with this passphrase"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("content", [b"", b"text", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.key"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is not a private key"):
        keys.load_signer(path, None)


def _encodings() -> dict[str, bytes]:
    def convert(*options: str) -> bytes:
        pem = ANN.private_keys()[0].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return subprocess.run(
            [require("openssl"), "ec", "-pubout", *options], input=pem, check=True, capture_output=True
        ).stdout

    return {
        "compressed": convert("-conv_form", "compressed"),
        "hybrid": convert("-conv_form", "hybrid"),
        "explicit": convert("-param_enc", "explicit"),
        "crlf": ANN.public_pem.replace(b"\n", b"\r\n"),
        "text around": b"# ann's key\n" + ANN.public_pem + b"\n\n",
    }


def test_one_key_in_many_encodings_is_one_key() -> None:
    plain = keys.load_signer_public(ANN.public_pem)
    for name, pem in _encodings().items():
        read = keys.load_signer_public(pem)
        assert pem != ANN.public_pem
        assert (read, read.key_id, read.pem, hash(read)) == (plain, plain.key_id, plain.pem, hash(plain)), name


def test_a_signature_over_other_bytes_is_refused() -> None:
    with pytest.raises(TrustError, match=f"the signature of key {ANN.key_id} does not match what it signs"):
        ANN.public.verify(ANN.sign(b"one"), b"two")


def test_signatures_are_reproducible_and_secrets_do_not_show_in_repr() -> None:
    assert ANN.sign(b"text") == ANN.sign(b"text")
    assert repr(ANN) == f"Signer({ANN.key_id})"
    assert repr(SITE) == f"Identity({SITE.key_id})"


def test_another_curve_is_no_key_of_a_known_suite(tmp_path: Path) -> None:
    made = subprocess.run(
        [require("openssl"), "ecparam", "-name", "secp384r1", "-genkey", "-noout"], check=True, capture_output=True
    ).stdout
    pem = subprocess.run([require("openssl"), "ec", "-pubout"], input=made, check=True, capture_output=True).stdout
    with pytest.raises(UsageError, match="a key of a suite that this version does not know"):
        keys.load_signer_public(pem)

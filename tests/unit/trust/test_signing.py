from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from airlift import canonical
from airlift.errors import BundleError, TrustError, UsageError
from airlift.trust import signing
from tests.support.bundles import ANN, BOB, ZERO, predicate, release, statement


def test_the_pre_authentication_encoding_is_dsse() -> None:
    assert signing.pae(b"body") == b"DSSEv1 28 application/vnd.in-toto+json 4 body"


def test_a_release_comes_back_from_its_body() -> None:
    made = release(issued=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), expires=datetime(2027, 1, 1, tzinfo=UTC))
    assert signing.parse_release(made.body) == made
    assert made.digest.startswith("sha256:")
    assert made.digest_bytes.hex() == made.digest.removeprefix("sha256:")


def test_the_same_release_has_the_same_body_and_envelope() -> None:
    assert release() == release()
    assert signing.sign(release().body, [ANN, BOB]) == signing.sign(release().body, [BOB, ANN])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_reader": 2}, "the bundle needs reader version 2, this airlift is 1"),
        ({"min_reader": 2, "format": 9, "suite": 4}, "the bundle needs reader version 2, this airlift is 1"),
        ({"min_reader": 0}, "predicate.min_reader: an integer from 1 to 9007199254740991 was expected"),
        ({"format": 2}, "predicate.format: expected 1, got '2'"),
        ({"format": True}, "predicate.format: expected 1, got 'True'"),
        ({"suite": "rot13"}, "suite 'rot13' is not known; known are: default"),
        ({"encryption": "xor"}, "predicate.encryption: expected aes-256-gcm or none, got 'xor'"),
        ({"channel": "Stable"}, "predicate.channel: 1 to 64 of a-z, 0-9, dot, dash and underscore were expected"),
        ({"channel": "absent"}, "predicate: channel is missing"),
        ({"sequence": 0}, "predicate.sequence: an integer from 1 to 9007199254740991 was expected"),
        ({"sequence": "1"}, "predicate.sequence: an integer from 1 to 9007199254740991 was expected"),
        ({"sequence": True}, "predicate.sequence: an integer from 1 to 9007199254740991 was expected"),
        ({"issued": "2026-01-01"}, "predicate.issued: '2026-01-01' is not written as YYYY-MM-DDTHH:MM:SSZ"),
        ({"expires": "2026-13-01T00:00:00Z"}, "predicate.expires: '2026-13-01T00:00:00Z' does not exist"),
        ({"base": 1}, "predicate.base: null or a digest was expected"),
        ({"frame_size": 65536}, "predicate.frame_size: expected 4194304, got '65536'"),
        ({"frames": 2**21 + 1}, "predicate.frames: an integer from 1 to 2097152 was expected"),
        ({"last_frame": 16}, "predicate.last_frame: an integer from 17 to 4194304 was expected"),
        ({"attest": {"size": 1}}, "predicate.attest: expected the keys digest, size, got size"),
        ({"attest": {"size": 2**26 + 1, "digest": ZERO}}, "predicate.attest.size: an integer from 17 to 67108864"),
        ({"attest": {"size": 99, "digest": "sha256:0"}}, "predicate.attest.digest: a sha256 digest was expected"),
        ({"commitment": None}, "predicate.commitment: a string was expected"),
        ({"commitment": "AA" * 32}, "predicate.commitment: 32 bytes in lower-case hex were expected"),
        ({"encryption": "none"}, "predicate.commitment: null was expected, as nothing is encrypted"),
    ],
)
def test_a_predicate_outside_of_the_format_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError) as caught:
        signing.parse_release(predicate(**changes))
    assert caught.value.message.startswith(message)


def test_an_unknown_predicate_field_is_ignored_and_signed() -> None:
    body = predicate(future={"x": [1]})
    assert signing.parse_release(body).channel == "stable"
    assert signing.parse_release(body).digest != release().digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": 1}, "statement: expected the keys _type, predicate, predicateType, subject, got _type, extra"),
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "statement._type: expected 'https://in-toto.io/Statement/v1'"),
        ({"predicateType": "https://slsa.dev"}, "statement.predicateType: expected 'urn:airlift:release:v1'"),
        ({"subject": []}, "statement.subject: exactly one was expected"),
        ({"subject": [{"name": "x", "digest": {}}]}, "statement.subject[0].name: expected 'tree', got 'x'"),
        (
            {"subject": [{"name": "tree", "digest": {"sha1": "00"}}]},
            "statement.subject[0].digest: expected the keys sha256, got sha1",
        ),
        ({"predicate": []}, "predicate: an object was expected"),
    ],
)
def test_a_statement_outside_of_the_format_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError) as caught:
        signing.parse_release(canonical.encode(statement(**changes)))
    assert caught.value.message.startswith(message)


def envelope(**changes: Any) -> bytes:
    value = canonical.decode(signing.sign(release().body, [ANN, BOB]), limit=10**6, subject="x")
    return canonical.encode(value | changes)


SIG = {"keyid": "0" * 16, "sig": "AAAA"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": 1}, "envelope: expected the keys payload, payloadType, signatures, got extra, payload"),
        ({"payloadType": "text/plain"}, "envelope.payloadType: expected 'application/vnd.in-toto+json'"),
        ({"payload": "e30"}, "envelope.payload: not Base64"),
        ({"payload": "e31="}, "envelope.payload: not the one Base64 encoding of its content"),
        ({"payload": "e3\n0="}, "envelope.payload: not Base64"),
        ({"payload": "é"}, "envelope.payload: not Base64"),
        ({"signatures": {}}, "envelope.signatures: an array of at most 16 was expected"),
        ({"signatures": [SIG] * 17}, "envelope.signatures: an array of at most 16 was expected"),
        ({"signatures": [{"keyid": "0" * 16}]}, "envelope.signatures[0]: expected the keys keyid, sig, got keyid"),
        ({"signatures": [SIG | {"keyid": "A" * 16}]}, "envelope.signatures[0].keyid: 16 lower-case hex digits"),
        ({"signatures": [SIG | {"keyid": "1" * 16}, SIG]}, "envelope.signatures: not in the order of their key ids"),
    ],
)
def test_an_envelope_outside_of_the_format_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError) as caught:
        signing.parse_envelope(envelope(**changes))
    assert caught.value.message.startswith(message)


def test_one_key_that_signs_twice_is_refused() -> None:
    with pytest.raises(TrustError, match="key 0000000000000000 is said to have signed twice"):
        signing.parse_envelope(envelope(signatures=[SIG, SIG]))
    with pytest.raises(UsageError, match="one key was given as a signer twice"):
        signing.sign(release().body, [ANN, ANN])


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b' {"a":1}', b'{"a":1,"a":1}', b"\xff", b'{"a":1.0}', b"null"])
def test_an_envelope_that_is_not_canonical_json_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        signing.parse_envelope(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel": "Über"}, "channel 'Über' is not 1 to 64 of a-z"),
        ({"sequence": 0}, "sequence 0 is not between 1 and 2^53-1"),
        ({"issued": datetime(2026, 1, 1)}, "time 2026-01-01 00:00:00 has no time zone"),  # noqa: DTZ001
        (
            {"issued": datetime(2026, 1, 2, tzinfo=UTC), "expires": datetime(2026, 1, 1, tzinfo=UTC)},
            "the bundle would expire at 2026-01-01T00:00:00Z, before it is issued",
        ),
    ],
)
def test_a_release_that_cannot_be_made_is_a_mistake_in_the_call(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        release(**changes)
    assert caught.value.message.startswith(message)


def test_nobody_cannot_sign() -> None:
    with pytest.raises(UsageError, match="a bundle needs at least one signer"):
        signing.sign(release().body, [])


def test_the_signature_is_over_the_encoding_and_base64_of_the_body() -> None:
    value = canonical.decode(envelope(), limit=10**6, subject="x")
    assert base64.b64decode(value["payload"]) == release().body
    parsed = signing.parse_envelope(envelope())
    keys = {ANN.key_id: ANN, BOB.key_id: BOB}
    for one in parsed.signatures:
        keys[one.key_id].public.verify(one.value, parsed.pae)

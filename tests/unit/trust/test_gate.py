from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airlift import canonical
from airlift.errors import BundleError, TrustError
from airlift.trust import signing
from airlift.trust.gate import Gate, Verified
from airlift.trust.keys import Signer
from airlift.trust.roots import Trust, make_trust
from tests.components import require
from tests.support.bundles import ANN, BOB, EVE, NOW, predicate, release, trust

BODY = release(sequence=7).body


def admit(
    envelope: bytes | None = None,
    *,
    body: bytes = BODY,
    signers: Sequence[Signer] = (ANN,),
    site: Trust | None = None,
    now: datetime | None = NOW,
    seen: dict[str, tuple[int, str]] | None = None,
    roots: bytes = b"[]",
) -> Verified:
    return Gate(site or trust(), now=now, seen=seen).admit(envelope or signing.sign(body, signers), roots)


def resigned(signatures: Sequence[signing.Signature], body: bytes = BODY) -> bytes:
    return signing.encode_envelope(signing.Envelope(body, tuple(signatures)))


def signature(signer: Signer, key_id: str | None = None, body: bytes = BODY) -> signing.Signature:
    return signing.Signature(key_id or signer.key_id, signer.sign(signing.pae(body)))


def test_a_good_bundle_is_admitted_with_the_names_of_who_signed() -> None:
    verified = admit(signers=[ANN, BOB, EVE], site=trust("ann", "bob", threshold=2))
    assert verified.signers == ("ann", "bob")
    assert verified.unknown_signers == (EVE.key_id,)
    assert verified.release == release(sequence=7)


def test_a_bundle_without_a_signature_is_refused() -> None:
    with pytest.raises(TrustError, match=r"^the bundle is not signed$"):
        admit(resigned([]))


def test_an_unknown_signer_is_listed_and_counts_for_nothing() -> None:
    with pytest.raises(TrustError, match=f"^signed by nobody whom the trust file lists; unknown keys: {EVE.key_id}$"):
        admit(signers=[EVE])


def test_an_unknown_signers_bad_signature_changes_nothing() -> None:
    envelope = resigned([signature(ANN), signing.Signature(EVE.key_id, b"nonsense")])
    assert admit(envelope).unknown_signers == (EVE.key_id,)


def test_too_few_persons_are_refused() -> None:
    with pytest.raises(TrustError, match=r"^signed by 1 of the 2 persons that are needed: ann; unknown keys: ") as few:
        admit(signers=[ANN, EVE], site=trust("ann", "bob", threshold=2))
    assert (
        few.value.hint
        == "the release engineer has to build it with a --signer KEY of each that has to sign; the trust file also lists bob"
    )


def test_two_keys_of_one_person_are_one_person() -> None:
    site = make_trust(["stable"], [("ann", [ANN.public_pem, EVE.public_pem]), ("bob", [BOB.public_pem])], 2)
    with pytest.raises(TrustError, match=r"^signed by 1 of the 2 persons that are needed: ann$"):
        admit(signers=[ANN, EVE], site=site)
    assert admit(signers=[ANN, EVE, BOB], site=site).signers == ("ann", "bob")


@pytest.mark.parametrize("form", [("-conv_form", "compressed"), ("-param_enc", "explicit")])
def test_a_key_in_the_trust_file_counts_in_whichever_encoding_it_stands_there(form: tuple[str, str]) -> None:
    pem = subprocess.run(
        [require("openssl"), "ec", "-pubin", "-pubout", *form],
        input=ANN.public_pem,
        check=True,
        capture_output=True,
    ).stdout
    assert pem != ANN.public_pem
    assert admit(site=make_trust(["stable"], [("ann", [pem])])).signers == ("ann",)


def test_a_known_keys_bad_signature_refuses_the_bundle_even_above_the_threshold() -> None:
    bad = signing.Signature(BOB.key_id, BOB.sign(b"something else"))
    with pytest.raises(TrustError, match=f"^the signature of bob \\(key {BOB.key_id}\\) is not over this bundle$"):
        admit(resigned([signature(ANN), bad]), site=trust("ann", "bob"))


def test_a_known_keys_signature_under_another_id_refuses_the_bundle() -> None:
    with pytest.raises(TrustError, match=r"a signature of ann .* stands under the key id 0123456789abcdef"):
        admit(resigned([signature(ANN), signature(ANN, "0123456789abcdef")]))
    with pytest.raises(TrustError, match="is not over this bundle"):
        admit(resigned([signature(ANN, BOB.key_id)]), site=trust("ann", "bob"))


def test_roots_in_a_bundle_are_never_trusted() -> None:
    with pytest.raises(BundleError, match="neither checks nor trusts"):
        admit(roots=canonical.encode([{"key": EVE.public_pem.decode()}]), signers=[EVE])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (release(channel="beta").body, "channel beta is not in the trust file; it lists: stable"),
        (
            release(encrypted=False, commitment=None).body,
            "the bundle is not encrypted, and the trust file does not allow that",
        ),
        (release(sequence=4).body, "sequence 4 of channel stable is too old: the trust file asks for 5 or higher"),
        (
            release(sequence=5, expires=NOW).body,
            "the bundle expired at 2026-11-25T12:00:00Z; it is 2026-11-25T12:00:00Z here",
        ),
    ],
)
def test_what_the_trust_file_does_not_take_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(TrustError) as caught:
        admit(body=body, site=trust(min_sequence=5))
    assert caught.value.message == message


def test_a_bundle_of_a_suite_that_the_site_does_not_list_is_refused() -> None:
    site = trust()
    narrow = Trust(signers=site.signers, threshold=1, channels=site.channels, suites=("cnsa2",), allow_plain=False)
    with pytest.raises(TrustError, match=r"^suite default is not accepted here; the trust file lists: cnsa2$"):
        admit(site=narrow)


def test_a_plain_bundle_is_admitted_where_the_trust_file_allows_it() -> None:
    body = release(encrypted=False, commitment=None).body
    assert admit(body=body, site=trust(allow_plain=True)).release.is_encrypted is False


def test_a_bundle_expires_at_its_second_and_never_without_a_clock() -> None:
    body = release(expires=NOW).body
    assert admit(body=body, now=NOW - timedelta(seconds=1)).signers == ("ann",)
    assert admit(body=body, now=None).signers == ("ann",)


def test_sequences_only_go_up_except_for_the_very_same_release() -> None:
    same = release(sequence=7)
    assert admit(seen={"stable": (6, "sha256:" + "1" * 64)}).release.sequence == 7
    assert admit(seen={"stable": (7, same.digest)}).release.sequence == 7
    assert admit(seen={"other": (99, "sha256:" + "1" * 64)}).release.sequence == 7
    with pytest.raises(TrustError, match=r"^sequence 7 of channel stable is too old: 8 was accepted before$"):
        admit(seen={"stable": (8, same.digest)})
    with pytest.raises(TrustError, match="was accepted before with another content"):
        admit(seen={"stable": (7, "sha256:" + "1" * 64)})


def test_sequences_that_were_passed_over_are_told_where_it_is_known_what_was_accepted() -> None:
    other = "sha256:" + "1" * 64
    assert admit(seen={"stable": (3, other)}).gap == "sequences 4 to 6 of channel stable were never imported here"
    assert admit(seen={"stable": (5, other)}).gap == "sequence 6 of channel stable was never imported here"
    for nothing_known in ({"stable": (6, other)}, {"stable": (3, "")}, {"other": (3, other)}, None):
        assert admit(seen=nothing_known).gap == ""
    assert admit(seen={"stable": (7, admit().release.digest)}).gap == ""


@pytest.mark.parametrize("bound", [7, 8])
def test_a_minimum_that_a_person_gave_is_told_as_one(bound: int) -> None:
    assert admit(seen={"stable": (6, "")}).release.sequence == 7
    with pytest.raises(TrustError) as caught:
        admit(seen={"stable": (bound, "")})
    assert caught.value.message == (
        f"sequence 7 of channel stable is too old: {bound + 1} was given as the lowest one when the site was recovered"
    )


def test_a_delta_is_refused() -> None:
    with pytest.raises(BundleError, match="the bundle is a delta"):
        admit(body=predicate(base="sha256:" + "1" * 64))


def test_a_newer_bundle_is_refused_as_newer() -> None:
    with pytest.raises(BundleError) as caught:
        admit(body=predicate(min_reader=2))
    assert caught.value.message == "the bundle needs reader version 2, this airlift is 1"
    assert caught.value.hint == "update airlift on this side"


def test_another_data_key_than_the_signed_one_is_refused() -> None:
    verified = admit()
    verified.check_commitment(bytes(32))
    with pytest.raises(BundleError, match="the data key is not the one that was signed"):
        verified.check_commitment(b"\1" * 32)


def _steps() -> list[tuple[str, tuple[Any, ...]]]:
    envelope = signing.sign(BODY, [ANN])
    return [
        ("envelope", (envelope,)),
        ("roots", (b"[]",)),
        ("signatures", ()),
        ("acceptance", ()),
        ("expiry", ()),
        ("sequence", ()),
        ("base", ()),
        ("verified", ()),
    ]


@pytest.mark.parametrize("left_out", range(7))
def test_no_step_can_be_left_out(left_out: int) -> None:
    gate = Gate(trust(), now=datetime.now(UTC))
    steps = _steps()
    for name, arguments in steps[:left_out]:
        getattr(gate, name)(*arguments)
    name, arguments = steps[left_out + 1]
    with pytest.raises(RuntimeError, match="was due"):
        getattr(gate, name)(*arguments)


def test_a_refusal_cannot_be_stepped_over() -> None:
    gate = Gate(trust(), now=NOW)
    gate.envelope(resigned([]))
    gate.roots(b"[]")
    with pytest.raises(TrustError):
        gate.signatures()
    with pytest.raises(RuntimeError, match="REFUSED was due"):
        gate.acceptance()

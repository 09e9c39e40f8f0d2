from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest

from airlift import canonical, digest
from airlift.bundle import frames, layout
from airlift.bundle.attest import pack
from airlift.bundle.reader import BundleReader
from airlift.errors import BundleError, IntegrityError, StoreError, TrustError
from airlift.trust import recipients, suites
from airlift.trust.gate import Gate
from tests.support.bundles import (
    ANN,
    BOB,
    EVE,
    INDEX,
    NOW,
    OCI_LAYOUT,
    OTHER_SITE,
    SBOM,
    SITE,
    Recipe,
    accept,
    archive,
    blob_name,
    craft,
    members,
    patch_slot,
    trust,
)

BIG = hashlib.shake_128(b"big").digest(9 * 1024 * 1024)
PLAIN_OK = trust(allow_plain=True)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "drop.airlift"
    Recipe(blobs=[b"", b"one", BIG]).write(path)
    return path


def test_everything_comes_back_as_it_was(bundle: Path) -> None:
    found = accept(bundle)
    assert found["content"] == members([b"", b"one", BIG])
    assert list(found["content"])[:2] == ["oci-layout", "index.json"]
    assert found["content_id"] == digest.of(INDEX)
    assert found["attest"] == {"sbom.cdx.json": SBOM}
    assert found["signers"] == ("ann",)


def test_every_recipient_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    Recipe(recipients=[SITE.recipient, OTHER_SITE.recipient]).write(path)
    assert accept(path, site_identity=SITE)["content"] == accept(path, site_identity=OTHER_SITE)["content"]


def test_inspect_says_what_is_claimed_and_that_nothing_is_verified(bundle: Path) -> None:
    with BundleReader(bundle) as reader:
        facts = reader.inspect()
        assert facts == {
            "verified": False,
            "release": reader.release.digest,
            "suite": "default",
            "encryption": "aes-256-gcm",
            "channel": "stable",
            "sequence": 7,
            "issued": None,
            "expires": None,
            "signers": [ANN.key_id],
            "recipients": [SITE.key_id],
            "frames": 3,
            "attest_size": reader.release.attest_size,
            "size": bundle.stat().st_size,
        }
        assert reader.inspect(SITE) == facts | {"content_id": digest.of(INDEX)}


def test_the_summary_of_a_verified_bundle_names_persons(bundle: Path) -> None:
    with BundleReader(bundle) as reader:
        verified = Gate(trust(), now=NOW).admit(reader.envelope, reader.roots)
        facts = reader.summary(verified)
    assert (facts["verified"], facts["signers"], facts["unknown_signers"]) == (True, ["ann"], [])


def test_a_member_that_is_left_alone_is_checked_all_the_same(bundle: Path) -> None:
    with BundleReader(bundle) as reader:
        verified = Gate(trust(), now=NOW).admit(reader.envelope, reader.roots)
        names = [member.name for member in reader.unlock(verified, SITE).payload()]
    assert names == list(members([b"", b"one", BIG]))


def test_leaving_the_payload_early_ends_its_threads(bundle: Path) -> None:
    with BundleReader(bundle) as reader:
        verified = Gate(trust(), now=NOW).admit(reader.envelope, reader.roots)
        stream = reader.unlock(verified, SITE).payload()
        assert next(stream).name == "oci-layout"
        stream.close()


def test_the_wrong_identity_is_refused(bundle: Path) -> None:
    with pytest.raises(BundleError) as caught:
        accept(bundle, site_identity=OTHER_SITE)
    assert caught.value.message == (
        f"{bundle}: no stanza for this identity ({OTHER_SITE.key_id}); the bundle is for {SITE.key_id}"
    )
    with pytest.raises(BundleError, match="is encrypted and no identity was given"):
        accept(bundle, site_identity=None)


def test_a_stanza_to_another_key_is_refused(bundle: Path) -> None:
    with BundleReader(bundle) as reader:
        release = reader.release
    other = recipients.seal(b"k" * 32, release, [SITE.recipient])
    patch_slot(bundle, "keys.json", recipients.encode(other))
    with pytest.raises(BundleError, match="the data key is not the one that was signed: the stanza leads to another"):
        accept(bundle)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_stanza_that_holds_another_length_is_refused(bundle: Path, length: int) -> None:
    with BundleReader(bundle) as reader:
        release = reader.release
    patch_slot(bundle, "keys.json", recipients.encode(recipients.seal(b"k" * length, release, [SITE.recipient])))
    with pytest.raises(BundleError, match=f"holds {length} bytes, not 32"):
        accept(bundle)


def test_a_stanza_of_another_release_does_not_open(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Recipe(sequence=8).write(other)
    with BundleReader(other) as reader:
        patch_slot(bundle, "keys.json", recipients.encode(reader.stanzas))
    with pytest.raises(BundleError, match="does not open: it was altered, or sealed for another release"):
        accept(bundle)


def test_a_signers_key_in_the_bundle_does_not_make_it_trusted(tmp_path: Path) -> None:
    path = tmp_path / "x"
    Recipe(signers=[EVE]).write(path)
    patch_slot(path, "roots.json", canonical.encode([{"person": "eve", "keys": [EVE.public_pem.decode()]}]))
    with pytest.raises(BundleError, match="carries trust roots, which this version neither checks nor trusts"):
        accept(path)
    patch_slot(path, "roots.json", b"[]")
    with pytest.raises(TrustError, match="signed by nobody whom the trust file lists"):
        accept(path)


def test_another_recipient_cannot_forge_a_frame(bundle: Path) -> None:
    suite = suites.get("default")
    with BundleReader(bundle) as reader:
        release, held = reader.release, reader.stanzas
        offset = layout.Container.of(release, digest_size=32).offset_of("payload")
    key = frames.DataKey(recipients.open_data_key(held, release, SITE), suite)
    forged = key.cipher("payload").encrypt(frames.nonce(1, 3), b"forged".ljust(4 * 1024 * 1024 - 16), None)
    with bundle.open("r+b") as stream:
        stream.seek(offset + 4 * 1024 * 1024)
        stream.write(forged)
    with pytest.raises(IntegrityError) as caught:
        accept(bundle)
    assert caught.value.message == (f"frame 1 of {bundle}: expected the leaf of the signed tree, got another digest")
    with BundleReader(bundle) as reader:
        verified = Gate(trust(), now=NOW).admit(reader.envelope, reader.roots)
        with pytest.raises(IntegrityError, match="frame 1 of"):  # noqa: PT012
            for member in reader.unlock(verified, SITE).payload():
                for _ in member.chunks:
                    pass


@pytest.mark.parametrize("what", ["tree", "attest", "payload"])
def test_a_changed_member_is_refused(bundle: Path, what: str) -> None:
    with BundleReader(bundle) as reader:
        offset = layout.Container.of(reader.release, digest_size=32).offset_of(what)
    with bundle.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([byte ^ 1]))
    with pytest.raises(IntegrityError, match=f"^{'frame 0' if what == 'payload' else what} of "):
        accept(bundle)


def test_truncated_and_lengthened_files_are_refused(bundle: Path) -> None:
    whole = bundle.read_bytes()
    for size in (0, 1, 511, 512, 1000, 512 + 256 * 1024, len(whole) // 2, len(whole) - 1024, len(whole) - 1):
        bundle.write_bytes(whole[:size])
        with pytest.raises(BundleError, match=r"is truncated|is not an airlift bundle"):
            accept(bundle)
    for more in (b"\0", b"x" * 512, bytes(10240)):
        bundle.write_bytes(whole + more)
        with pytest.raises(BundleError, match=f"has {len(more)} bytes after its end"):
            accept(bundle)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(10240), b"PK\x03\x04" + bytes(2000)])
def test_something_else_than_a_bundle_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="is not an airlift bundle, or its first bytes are damaged"):
        BundleReader(path)


def test_a_file_that_cannot_be_read_is_a_matter_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        BundleReader(tmp_path / "absent")
    with pytest.raises((StoreError, BundleError)):
        BundleReader(tmp_path)


@pytest.mark.parametrize(
    ("slot", "content", "message"),
    [
        ("keys.json", b"[]", "an encrypted bundle has stanzas, a plain one has none"),
        ("keys.json", b"{}", "keys.json: an array of at most 100 stanzas was expected"),
        ("keys.json", b"[{}]", "keys.json[0]: an object with key, kem and sealed was expected"),
        ("keys.json", b"[ ]", "keys.json: not canonical JSON"),
        ("keys.json", b'[{"kem":"x","key":"0000000000000000","sealed":""}]', "is of kem 'x', not 'MLKEM768_X25519'"),
        ("keys.json", b'[{"kem":"x","key":"0","sealed":""}]', "keys.json[0].key: 16 lower-case hex digits"),
        ("keys.json", b'[{"kem":"x","key":"0000000000000000","sealed":"e31="}]', "not the one Base64 encoding"),
        ("volume.json", b"{}", "volume.json: not the one volume that holds all frames"),
        ("volume.json", b'{"count":3,"first":0,"volume":1,"volumes":2}', "volume.json: not the one volume"),
        ("volume.json", b'{"count":3,"first":false,"volume":1,"volumes":1}', "volume.json: not the one volume"),
        ("roots.json", b"", "roots.json: not canonical JSON"),
    ],
)
def test_a_slot_outside_of_the_format_is_refused(bundle: Path, slot: str, content: bytes, message: str) -> None:
    patch_slot(bundle, slot, content)
    with pytest.raises(BundleError) as caught:
        accept(bundle)
    assert message in caught.value.message


def test_a_damaged_envelope_is_said_with_the_files_name_and_what_to_do(bundle: Path) -> None:
    patch_slot(bundle, "airlift.json", b"{")
    with pytest.raises(BundleError) as caught:
        BundleReader(bundle)
    assert caught.value.message.startswith(f"{bundle}: envelope: not canonical JSON: ")
    assert caught.value.hint == "the medium or the copy may be damaged; copy the bundle again"


def test_stanzas_have_an_order_and_come_once(tmp_path: Path) -> None:
    path = tmp_path / "x"
    Recipe(recipients=[SITE.recipient, OTHER_SITE.recipient]).write(path)
    with BundleReader(path) as reader:
        entries = canonical.decode(recipients.encode(reader.stanzas), limit=10**6, subject="x")
    for bad in (list(reversed(entries)), [entries[0], entries[0]]):
        patch_slot(path, "keys.json", canonical.encode(bad))
        with pytest.raises(BundleError, match="not in the order of their key ids, or one twice"):
            accept(path)


def test_what_was_verified_has_to_be_this_bundle(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Recipe(sequence=9).write(other)
    with BundleReader(other) as reader:
        verified = Gate(trust(), now=NOW).admit(reader.envelope, reader.roots)
    with BundleReader(bundle) as reader:
        for use in (reader.verify, reader.summary, lambda given: reader.unlock(given, SITE)):
            with pytest.raises(BundleError, match="what was verified is another bundle"):
                use(verified)


def test_a_frame_of_another_bundle_is_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    Recipe().write(one)
    Recipe().write(two)
    with BundleReader(one) as reader:
        container = layout.Container.of(reader.release, digest_size=32)
        start, size = container.offset_of("payload"), reader.release.payload_size
    data = bytearray(one.read_bytes())
    data[start : start + size] = two.read_bytes()[start : start + size]
    one.write_bytes(data)
    with pytest.raises(IntegrityError, match="frame 0"):
        accept(one)


@pytest.mark.parametrize(
    ("recipe", "site", "message"),
    [
        (Recipe(signers=[EVE]), trust(), "signed by nobody whom the trust file lists"),
        (Recipe(signers=[ANN, EVE]), trust("ann", "bob", threshold=2), "signed by 1 of the 2 persons"),
        (Recipe(sequence=4), trust(min_sequence=5), "sequence 4 of channel stable is too old"),
        (Recipe(expires=NOW - timedelta(days=1)), trust(), "the bundle expired at 2026-11-24T12:00:00Z"),
        (Recipe(encrypted=False), trust(), "the bundle is not encrypted, and the trust file does not allow that"),
        (Recipe(channel="beta"), trust(), "channel beta is not in the trust file"),
    ],
)
def test_a_real_bundle_that_the_site_does_not_take_is_refused(
    tmp_path: Path, recipe: Recipe, site: object, message: str
) -> None:
    path = tmp_path / "x"
    recipe.write(path)
    with pytest.raises(TrustError, match=message):
        accept(path, site)  # type: ignore[arg-type]


def test_two_persons_sign_and_the_bundle_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "x"
    Recipe(signers=[ANN, BOB, EVE]).write(path)
    assert accept(path, trust("ann", "bob", threshold=2))["signers"] == ("ann", "bob")


GOOD = [("oci-layout", OCI_LAYOUT), ("index.json", INDEX), (blob_name(b"one"), b"one")]


def test_a_crafted_good_bundle_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "x"
    craft(path, archive(GOOD))
    assert accept(path, PLAIN_OK, None)["content"] == dict(GOOD)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive([]), "payload: the archive does not end where it should"),
        (archive(GOOD[:1]), "payload: the archive does not end where it should"),
        (archive([GOOD[1], GOOD[0]]), "payload: oci-layout of at most 4096 bytes was expected, got 'index.json'"),
        (archive([("oci-layout", bytes(5000)), GOOD[1]]), "payload: oci-layout of at most 4096 bytes was expected"),
        (archive([*GOOD, GOOD[2]]), f"payload: {GOOD[2][0]} comes twice"),
        (archive([*GOOD, ("blobs/sha256/../../evil", b"")]), "payload: 'blobs/sha256/../../evil' is no name of a blob"),
        (archive([*GOOD, ("index.json", INDEX)]), "payload: 'index.json' is no name of a blob"),
        (archive(GOOD)[:-1], "payload: the archive does not end where it should"),
        (archive(GOOD) + bytes(1), "archive: a member's header is not one that airlift writes"),
        (archive(GOOD) + bytes(512), "archive: a member's header is not one that airlift writes"),
        (archive(GOOD)[:-1024], "payload: the archive does not end where it should"),
        (archive(GOOD)[:-1025] + b"x" + bytes(1024), f"payload: {GOOD[2][0]} is not followed by zero bytes"),
        (archive(GOOD)[:-1] + b"x", "payload: the archive does not end where it should"),
        (archive(GOOD).replace(b"0000644", b"0000755", 1), "archive: the header of 'oci-layout' is not the one"),
        (archive(GOOD).replace(b"ustar\x0000", b"ustar  \0", 1), "archive: the header of 'oci-layout' is not the one"),
    ],
)
def test_a_signed_payload_outside_of_the_format_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x"
    craft(path, content)
    with pytest.raises(BundleError) as caught:
        accept(path, PLAIN_OK, None)
    assert caught.value.message.startswith(f"{path}: {message}")


def test_a_blob_that_is_not_its_name_is_refused_before_its_last_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    craft(path, archive([*GOOD[:2], (blob_name(b"one"), b"two")]))
    with BundleReader(path) as reader:
        verified = Gate(PLAIN_OK, now=NOW).admit(reader.envelope, reader.roots)
        reader.verify(verified)
        seen: list[bytes] = []
        with pytest.raises(IntegrityError, match=r"^blob in blobs/sha256/7692.*: expected sha256:7692"):  # noqa: PT012
            for member in reader.unlock(verified, None).payload():
                seen.extend(bytes(chunk) for chunk in member.chunks)
    assert seen == [OCI_LAYOUT, INDEX]


def test_a_header_that_claims_more_than_there_is_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for size in (10**6, 2**40):
        content = b"".join([archive(GOOD)[:-1024], layout.header(blob_name(b"x"), size), bytes(2048)])
        craft(path, content)
        with pytest.raises(BundleError, match=f"claims {size} bytes, only "):
            accept(path, PLAIN_OK, None)


@pytest.mark.parametrize(
    ("attest", "message"),
    [
        (bytes(1023), "attest: the archive does not end where it should"),
        (bytes(1536), "archive: a member's header is not one that airlift writes"),
        (archive([("b", b""), ("a", b"")]), "attest: 'a' is no name, or not in its place"),
        (archive([("a", b""), ("a", b"")]), "attest: 'a' is no name, or not in its place"),
        (archive([("../a", b"")]), "attest: '../a' is no name, or not in its place"),
        (archive([("a", b"x")])[:-1025] + b"x" + bytes(1024), "attest: a is not followed by zero bytes"),
        (layout.header("a", 9999) + bytes(2048), "archive: 'a' claims 9999 bytes"),
    ],
)
def test_a_signed_attest_outside_of_the_format_is_refused(tmp_path: Path, attest: bytes, message: str) -> None:
    path = tmp_path / "x"
    craft(path, archive(GOOD), attest=attest)
    with pytest.raises(BundleError) as caught:
        accept(path, PLAIN_OK, None)
    assert caught.value.message.startswith(f"{path}: {message}")


def test_attest_may_be_empty_and_hold_many_files(tmp_path: Path) -> None:
    path = tmp_path / "x"
    big = hashlib.shake_128(b"attest").digest(5 * 1024 * 1024)
    for files in ({}, {"a": b"", "b.json": b"{}", "z": big}):
        Recipe(attest=files).write(path)
        assert accept(path)["attest"] == files
    assert pack({}) == layout.END


def test_a_plain_bundle_with_stanzas_is_refused(tmp_path: Path, bundle: Path) -> None:
    path = tmp_path / "x"
    with BundleReader(bundle) as reader:
        craft(path, archive(GOOD), keys=recipients.encode(reader.stanzas))
    with pytest.raises(BundleError, match="an encrypted bundle has stanzas, a plain one has none"):
        accept(path, PLAIN_OK, None)


@pytest.mark.parametrize("plain", [False, True])
def test_members_that_are_read_apart_are_the_same_in_any_order_and_as_often_as_wanted(
    tmp_path: Path, plain: bool
) -> None:
    path = tmp_path / "x"
    blobs = [b"", b"one", BIG, BIG[::-1], b"z" * layout.BLOCK, BIG[:5_000_000]]
    Recipe(blobs=blobs, encrypted=not plain).write(path)
    with BundleReader(path) as reader:
        verified = Gate(PLAIN_OK, now=NOW).admit(reader.envelope, reader.roots)
        for chosen in range(0, 2 ** len(blobs), 3):
            opened = reader.unlock(verified, None if plain else SITE)
            apart, found = {}, {}
            for place, member in enumerate(opened.payload()):
                if member.digest is not None and chosen >> (place - 2) & 1:
                    apart[member.name] = member.apart()
                else:
                    found[member.name] = member.read()
            for name in reversed(apart):
                found[name] = b"".join(map(bytes, apart[name].chunks()))
                assert b"".join(map(bytes, apart[name].undigested())) == found[name]
            assert found == members(blobs)


def test_damage_in_a_member_that_is_read_apart_is_found_by_who_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    Recipe(blobs=[BIG, b"after"]).write(path)
    data = bytearray(path.read_bytes())
    with BundleReader(path) as reader:
        container = layout.Container.of(reader.release, digest_size=32)
    data[container.offset_of(layout.PAYLOAD) + frames.FRAME_SIZE + 1000] ^= 1
    path.write_bytes(data)
    with BundleReader(path) as reader:
        verified = Gate(trust(), now=NOW).admit(reader.envelope, reader.roots)
        apart = [member.apart() for member in reader.unlock(verified, SITE).payload() if member.size == len(BIG)]
        with pytest.raises(IntegrityError, match="frame 1 of"):
            list(apart[0].chunks())
        with pytest.raises(IntegrityError, match="frame 1 of"):
            list(apart[0].undigested())


def test_a_wrong_digest_in_a_member_that_is_read_apart_comes_before_its_last_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    craft(path, archive([("oci-layout", OCI_LAYOUT), ("index.json", INDEX), (blob_name(b"right"), b"wrong")]))
    with BundleReader(path) as reader:
        verified = Gate(PLAIN_OK, now=NOW).admit(reader.envelope, reader.roots)
        apart = [member.apart() for member in reader.unlock(verified, None).payload() if member.digest is not None]
        with pytest.raises(IntegrityError, match="blob in blobs/sha256/"):
            next(apart[0].chunks())
        assert b"".join(apart[0].undigested()) == b"wrong"

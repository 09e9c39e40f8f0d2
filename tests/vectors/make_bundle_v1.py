"""Writes the frozen vectors of bundle version 1. Run once per format version: what is there is never written again.

    python -m tests.vectors.make_bundle_v1

`cases.json` says, per case: the bundle, the edits made to it, trust file and identity, the clock, and the verdict.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization

from airlift import canonical
from airlift.bundle.reader import BundleReader
from airlift.trust import recipients, signing
from airlift.trust.keys import Identity
from airlift.trust.roots import dump_trust, make_trust
from tests.support.bundles import ANN, BOB, EVE, NOW, OTHER_SITE, SITE, Recipe, predicate, signer

HERE = Path(__file__).parent / "bundle_v1"
BLOBS = (b"first blob", b"", b"second blob" * 300)


def key_file(one: Identity) -> bytes:
    return b"".join(
        part.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        for part in one.private_keys()
    )


def trust_file(threshold: int, min_sequence: int, *persons: str, allow_plain: bool = False) -> bytes:
    named = [(person, [signer(person).public_pem]) for person in persons]
    return dump_trust(make_trust(["stable"], named, threshold, min_sequence, allow_plain=allow_plain))


def bundles(work: Path) -> dict[str, bytes]:
    both = [SITE.recipient, OTHER_SITE.recipient]
    recipes = {
        "encrypted": Recipe(blobs=BLOBS, signers=[ANN, BOB, EVE], recipients=both, issued=NOW),
        "plain": Recipe(blobs=BLOBS, encrypted=False, signers=[ANN]),
        "expired": Recipe(blobs=BLOBS, signers=[ANN], expires=NOW),
    }
    found = {}
    for name, recipe in recipes.items():
        recipe.write(work / name)
        found[name] = (work / name).read_bytes()
    return found


def case(name: str, bundle: str, verdict: str, message: str = "", **more: Any) -> dict[str, Any]:
    given = {"name": name, "bundle": bundle, "verdict": verdict, "message": message, "edits": []}
    defaults = {"trust": "ann-and-bob", "identity": "site", "now": "2026-11-25T12:00:00Z", "seen": {}}
    return given | defaults | more


def cases(work: Path) -> list[dict[str, Any]]:
    with BundleReader(work / "encrypted") as reader:
        release, stanzas, envelope, size = reader.release, reader.stanzas, reader.envelope, reader.size
    with BundleReader(work / "expired") as reader:
        foreign = reader.stanzas
    parsed = signing.parse_envelope(envelope)

    def keys(content: bytes) -> list[Any]:
        return [["slot", "keys.json", content.decode()]]

    def signed(signatures: Any, body: bytes | None = None) -> list[Any]:
        made = signing.encode_envelope(signing.Envelope(body or parsed.body, tuple(signatures)))
        return [["slot", "airlift.json", made.decode()]]

    def resigned(**changes: Any) -> list[Any]:
        body = predicate(**changes)
        return [["slot", "airlift.json", signing.sign(body, [ANN, BOB]).decode()]]

    by_key = {one.key_id: one for one in parsed.signatures}
    unsigned = [one for key_id, one in by_key.items() if key_id == EVE.key_id]
    bad_ann = signing.Signature(ANN.key_id, ANN.sign(b"another bundle"))
    renamed = signing.Signature("0" * 16, by_key[ANN.key_id].value)
    other_key = recipients.encode(recipients.seal(b"k" * 32, release, [SITE.recipient]))
    return [
        case("two persons signed", "encrypted", "success", blobs=3),
        case("the other recipient", "encrypted", "success", identity="other-site", blobs=3),
        case("the very same release again", "encrypted", "success", seen={"stable": [7, release.digest]}, blobs=3),
        case("plain where it is allowed", "plain", "success", trust="plain-allowed", identity="", blobs=3),
        case("plain", "plain", "TrustError", "the bundle is not encrypted", trust="ann"),
        case("expired", "expired", "TrustError", "the bundle expired at 2026-11-25T12:00:00Z", trust="ann"),
        case("a second before it expires", "expired", "success", trust="ann", now="2026-11-25T11:59:59Z", blobs=3),
        case("unsigned", "encrypted", "TrustError", "the bundle is not signed", edits=signed([])),
        case("unknown signer", "encrypted", "TrustError", "signed by nobody", edits=signed(unsigned)),
        case("below threshold", "encrypted", "TrustError", "signed by 1 of the 2", edits=signed([by_key[ANN.key_id]])),
        case("bad signature", "encrypted", "TrustError", "the signature of ann", edits=signed([bad_ann])),
        case("alias", "encrypted", "TrustError", "a signature of ann", edits=signed([renamed, by_key[BOB.key_id]])),
        case(
            "smuggled root",
            "encrypted",
            "BundleError",
            "roots.json: the bundle carries trust roots",
            edits=[["slot", "roots.json", canonical.encode([EVE.public_pem.decode()]).decode()]],
        ),
        case("sequence below minimum", "encrypted", "TrustError", "sequence 7 of channel stable", trust="min-8"),
        case("rollback", "encrypted", "TrustError", "sequence 7", seen={"stable": [8, release.digest]}),
        case("replaced", "encrypted", "TrustError", "sequence 7", seen={"stable": [7, "sha256:" + "0" * 64]}),
        case("no stanza", "encrypted", "BundleError", "no stanza for this identity", identity="stranger"),
        case("no identity", "encrypted", "BundleError", "", identity=""),
        case("stanza to another key", "encrypted", "BundleError", "the data key is not", edits=keys(other_key)),
        case(
            "stanza of another release",
            "encrypted",
            "BundleError",
            f"the stanza for identity {SITE.key_id} does not open",
            edits=keys(recipients.encode(foreign)),
        ),
        case("no stanzas", "encrypted", "BundleError", "", edits=keys(b"[]")),
        case("one stanza removed", "encrypted", "success", edits=keys(recipients.encode(stanzas[:1])), blobs=3)
        | {"identity": "site" if stanzas[0].key_id == SITE.key_id else "other-site"},
        case("newer reader", "encrypted", "BundleError", "the bundle needs reader", edits=resigned(min_reader=2)),
        case("unknown suite", "encrypted", "BundleError", "suite 'x' is not known", edits=resigned(suite="x")),
        case("other format", "encrypted", "BundleError", "predicate.format: expected 1", edits=resigned(format=2)),
        case("tag of a header", "encrypted", "BundleError", "", edits=[["xor", 257, 1]]),
        case("byte of padding", "encrypted", "BundleError", "", edits=[["xor", 200_000, 1]]),
        case("first frame", "encrypted", "IntegrityError", "frame 0 of", edits=[["xor", size - 5000, 1]]),
        case("truncated", "encrypted", "BundleError", "", edits=[["truncate", size - 1]]),
        case("trailing data", "encrypted", "BundleError", "", edits=[["append", "00"]]),
        case("no bundle", "encrypted", "BundleError", "", edits=[["truncate", 0]]),
    ]


def main() -> None:
    if HERE.exists():
        raise SystemExit(f"{HERE} exists: released vectors never change")
    HERE.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name, data in bundles(work).items():
            (HERE / f"{name}.airlift.gz").write_bytes(gzip.compress(data, mtime=0))
        text = json.dumps(cases(work), indent=1, ensure_ascii=False)
        (HERE / "cases.json").write_text(text + "\n", encoding="utf-8")
    for name, one in (("site", SITE), ("other-site", OTHER_SITE)):
        (HERE / f"{name}.key").write_bytes(key_file(one))
    for name, content in {
        "ann-and-bob": trust_file(2, 1, "ann", "bob"),
        "ann": trust_file(1, 1, "ann"),
        "plain-allowed": trust_file(1, 1, "ann", allow_plain=True),
        "min-8": trust_file(2, 8, "ann", "bob"),
    }.items():
        (HERE / f"{name}.trust.json").write_bytes(content)


if __name__ == "__main__":
    main()

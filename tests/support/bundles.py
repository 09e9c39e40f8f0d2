"""Small bundles with known keys."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519

from airlift import canonical
from airlift.bundle import frames, layout
from airlift.bundle.attest import pack
from airlift.bundle.layout import Member, PayloadPlan
from airlift.bundle.reader import BundleReader
from airlift.bundle.writer import BundleWriter
from airlift.trust import signing, suites
from airlift.trust.gate import Gate
from airlift.trust.keys import Identity, Recipient, Signer
from airlift.trust.roots import Trust, make_trust
from airlift.trust.signing import Release

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
INDEX = b'{"manifests":[],"schemaVersion":2}'
SBOM = b'{"bomFormat":"CycloneDX"}'


def signer(name: str) -> Signer:
    """A signer's key that follows from a name. For tests alone."""
    secret = int.from_bytes(hashlib.sha256(f"signer {name}".encode()).digest(), "big") >> 1
    return Signer(ec.derive_private_key(secret, ec.SECP256R1()), suites.get("default"))


def identity(name: str) -> Identity:
    """An identity that follows from a name. For tests alone."""
    seed = hashlib.sha512(f"mlkem {name}".encode()).digest()
    secret = hashlib.sha256(f"x25519 {name}".encode()).digest()
    parts = (mlkem.MLKEM768PrivateKey.from_seed_bytes(seed), x25519.X25519PrivateKey.from_private_bytes(secret))
    return Identity(parts, suites.get("default"))


ANN, BOB, EVE = signer("ann"), signer("bob"), signer("eve")
SITE, OTHER_SITE = identity("site"), identity("other site")


def trust(*persons: str, threshold: int = 1, min_sequence: int = 1, allow_plain: bool = False) -> Trust:
    """A trust for channel stable."""
    named = persons or ("ann",)
    return make_trust(
        ["stable"],
        [(person, [signer(person).public_pem]) for person in named],
        threshold,
        min_sequence,
        allow_plain=allow_plain,
    )


def blob_name(data: bytes) -> str:
    return f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"


def members(blobs: Sequence[bytes]) -> dict[str, bytes]:
    """What a payload of these blobs consists of, in order."""
    return {"oci-layout": OCI_LAYOUT, "index.json": INDEX, **{blob_name(data): data for data in blobs}}


def plan(content: dict[str, bytes]) -> PayloadPlan:
    return PayloadPlan([Member(name, len(data)) for name, data in content.items()])


@dataclass
class Recipe:
    """A bundle to be made; every field has a usable value."""

    blobs: Sequence[bytes] = (b"first blob", b"second blob" * 100)
    encrypted: bool = True
    channel: str = "stable"
    sequence: int = 7
    issued: datetime | None = None
    expires: datetime | None = None
    signers: Sequence[Signer] = (ANN,)
    recipients: Sequence[Recipient] = (SITE.recipient,)
    attest: dict[str, bytes] = field(default_factory=lambda: {"sbom.cdx.json": SBOM})

    def write(self, path: Path) -> Release:
        content = members(self.blobs)
        with BundleWriter(path, plan(content), encrypted=self.encrypted) as writer:
            for name, data in content.items():
                with writer.member(name) as sink:
                    sink.write(data)
            return self.finish(writer)

    def finish(self, writer: BundleWriter) -> Release:
        return writer.finish(
            channel=self.channel,
            sequence=self.sequence,
            issued=self.issued,
            expires=self.expires,
            attest_files=self.attest,
            signers=self.signers,
            recipients=self.recipients if self.encrypted else (),
        )


def accept(
    path: Path,
    site_trust: Trust | None = None,
    site_identity: Identity | None = SITE,
    *,
    now: datetime | None = NOW,
    seen: dict[str, tuple[int, str]] | None = None,
) -> dict[str, Any]:
    """Do all that an import checks, and return what came out."""
    with BundleReader(path) as reader:
        verified = Gate(site_trust or trust(), now=now, seen=seen).admit(reader.envelope, reader.roots)
        reader.verify(verified)
        opened = reader.unlock(verified, site_identity)
        content = {member.name: member.read() for member in opened.payload()}
        return {
            "signers": verified.signers,
            "unknown": verified.unknown_signers,
            "content": content,
            "content_id": opened.content_id,
            "attest": opened.attest(),
            "release": verified.release,
        }


ZERO = "sha256:" + "0" * 64


def release(**changes: Any) -> signing.Release:
    fields: dict[str, Any] = {
        "suite": "default",
        "encrypted": True,
        "channel": "stable",
        "sequence": 1,
        "issued": None,
        "expires": None,
        "frames": 1,
        "last_frame": 4096,
        "tree": ZERO,
        "attest_size": 2048,
        "attest_digest": ZERO,
        "commitment": bytes(32),
    }
    return signing.make_release(**fields | changes)


def statement(**changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = canonical.decode(release().body, limit=10**6, subject="x")
    return value | changes


def predicate(**changes: Any) -> bytes:
    value = statement()
    value["predicate"] |= changes
    return canonical.encode({**value, "predicate": {k: v for k, v in value["predicate"].items() if v != "absent"}})


def craft(path: Path, archive: bytes, *, attest: bytes | None = None, keys: bytes = b"[]", **changes: Any) -> None:
    """Write a plain bundle, well signed by ann, around any payload archive: what a careless signer could do."""
    suite = suites.get("default")
    attest = pack({"sbom.cdx.json": SBOM}) if attest is None else attest
    pieces = [archive[start : start + signing.FRAME_SIZE] for start in range(0, len(archive), signing.FRAME_SIZE)]
    tree = b"".join(frames.leaf(suite, index, piece) for index, piece in enumerate(pieces))
    made = release(
        encrypted=False,
        commitment=None,
        frames=len(pieces),
        last_frame=len(pieces[-1]),
        tree=suite.digest_of(tree),
        attest_size=len(attest),
        attest_digest=suite.digest_of(attest),
        **changes,
    )
    container = layout.Container.of(made, digest_size=suite.digest_size)
    data = bytearray(container.size)
    contents = {
        layout.ENVELOPE: layout.slot(layout.ENVELOPE, signing.sign(made.body, [ANN])),
        layout.KEYS: layout.slot(layout.KEYS, keys),
        layout.ROOTS: layout.slot(layout.ROOTS, b"[]"),
        layout.VOLUME: layout.slot(layout.VOLUME, canonical.encode(layout.volume_document(len(pieces)))),
        layout.TREE: tree,
        layout.PAYLOAD: archive,
        layout.ATTEST: attest,
    }
    for offset, fixed in container.fixed():
        data[offset : offset + len(fixed)] = fixed
    for name, content in contents.items():
        start = container.offset_of(name)
        data[start : start + len(content)] = content
    path.write_bytes(data)


def archive(members_: Sequence[tuple[str, bytes]]) -> bytes:
    """An archive of any members, in any order."""
    parts = [layout.header(name, len(data)) + data + bytes(layout.padding(len(data))) for name, data in members_]
    return b"".join(parts) + layout.END


def patch_slot(path: Path, name: str, content: bytes) -> None:
    """Replace what a slot holds."""
    data = bytearray(path.read_bytes())
    offset = layout.BLOCK
    for slot_name, size in layout.SLOTS.items():
        if slot_name == name:
            data[offset : offset + size] = layout.slot(name, content)
        offset += size + layout.BLOCK
    path.write_bytes(data)

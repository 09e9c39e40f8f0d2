"""The signed part of a bundle: a DSSE envelope around an in-toto Statement (docs/bundle-format.md, section 4).

* Everything here is strict: canonical JSON, exact keys, Base64 that encodes again to the same text.
* Parsing proves nothing. Who signed, and whether that is enough, is for `airlift.trust.gate`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from airlift import canonical
from airlift.errors import BundleError, TrustError, UsageError
from airlift.trust import suites
from airlift.trust.fields import Fields, format_time, strict_base64
from airlift.trust.keys import Signer

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:airlift:release:v1"
FORMAT: Final = 1
READER: Final = 1
"""The reader version that this code is (section 4.1)."""

MAX_SIGNATURES: Final = 16
MAX_ENVELOPE: Final = 256 * 1024
MAX_FRAMES: Final = 2**21
FRAME_SIZE: Final = 4 * 1024 * 1024
MAX_ATTEST: Final = 64 * 1024 * 1024
TAG_SIZE: Final = 16

ENCRYPTED: Final = "aes-256-gcm"
PLAIN: Final = "none"

CHANNEL: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_KEY_ID: Final = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What signers say about one bundle. All values are within the format's limits.

    Attributes:
        body: the exact bytes that are signed.
        tree: digest of the tree member, ``name:hex`` as all digests here.
        commitment: of the data key; None when nothing is encrypted.
        other fields: as in section 4.
    """

    body: bytes
    suite: str
    encryption: str
    channel: str
    sequence: int
    issued: datetime | None
    expires: datetime | None
    base: str | None
    frames: int
    last_frame: int
    tree: str
    attest_size: int
    attest_digest: str
    commitment: bytes | None
    min_reader: int = READER

    @property
    def digest(self) -> str:
        """The release digest: the bundle's name everywhere."""
        return suites.get(self.suite).digest_of(self.body)

    @property
    def digest_bytes(self) -> bytes:
        """The release digest without its name."""
        return bytes.fromhex(self.digest.partition(":")[2])

    @property
    def is_encrypted(self) -> bool:
        """Whether a data key is needed."""
        return self.encryption == ENCRYPTED

    @property
    def payload_size(self) -> int:
        """Stored bytes of the payload member."""
        return (self.frames - 1) * FRAME_SIZE + self.last_frame


def make_release(
    *,
    suite: str,
    encrypted: bool,
    channel: str,
    sequence: int,
    issued: datetime | None,
    expires: datetime | None,
    frames: int,
    last_frame: int,
    tree: str,
    attest_size: int,
    attest_digest: str,
    commitment: bytes | None,
) -> Release:
    """Return the release with these fields, its body encoded.

    Raises:
        UsageError: a field is outside of the format.
    """
    if CHANNEL.fullmatch(channel) is None:
        raise UsageError(f"channel {channel!r} is not 1 to 64 of a-z, 0-9, dot, dash and underscore")
    if not 1 <= sequence < 2**53:
        raise UsageError(f"sequence {sequence} is not between 1 and 2^53-1")
    if issued is not None and expires is not None and expires <= issued:
        raise UsageError(f"the bundle would expire at {format_time(expires)}, before it is issued")
    name, _, hex_digits = tree.partition(":")
    body = canonical.encode(
        {
            "_type": STATEMENT_TYPE,
            "predicateType": PREDICATE_TYPE,
            "subject": [{"name": "tree", "digest": {name: hex_digits}}],
            "predicate": {
                "format": FORMAT,
                "min_reader": READER,
                "suite": suite,
                "encryption": ENCRYPTED if encrypted else PLAIN,
                "channel": channel,
                "sequence": sequence,
                "issued": None if issued is None else format_time(issued),
                "expires": None if expires is None else format_time(expires),
                "base": None,
                "frame_size": FRAME_SIZE,
                "frames": frames,
                "last_frame": last_frame,
                "attest": {"size": attest_size, "digest": attest_digest},
                "commitment": None if commitment is None else commitment.hex(),
            },
        }
    )
    try:
        return parse_release(body)
    except BundleError as error:
        raise UsageError(f"the bundle cannot be described: {error}") from error


def parse_release(body: bytes) -> Release:
    """Read the signed body.

    Raises:
        BundleError: it is malformed, or for a newer reader.
    """
    statement = Fields(canonical.decode(body, limit=MAX_ENVELOPE, subject="statement"), "statement")
    statement.exactly("_type", "predicateType", "subject", "predicate")
    statement.constant("_type", STATEMENT_TYPE)
    statement.constant("predicateType", PREDICATE_TYPE)
    predicate = Fields(statement.get("predicate"), "predicate")
    # Section 4.1: the version comes first, so that a bundle of the future is not called malformed.
    needed = predicate.integer("min_reader", 1, 2**53 - 1)
    if needed > READER:
        raise BundleError(
            f"the bundle needs reader version {needed}, this airlift is {READER}", hint="update airlift on this side"
        )
    predicate.constant("format", FORMAT, hint="update airlift on this side")
    suite = suites.get(predicate.text("suite"))
    encryption = predicate.text("encryption")
    if encryption not in (ENCRYPTED, PLAIN):
        raise BundleError(f"predicate.encryption: expected {ENCRYPTED} or {PLAIN}, got {encryption[:80]!r}")
    channel = predicate.text("channel")
    if CHANNEL.fullmatch(channel) is None:
        raise BundleError("predicate.channel: 1 to 64 of a-z, 0-9, dot, dash and underscore were expected")
    base = predicate.get("base")
    if base is not None and not isinstance(base, str):
        raise BundleError("predicate.base: null or a digest was expected")
    predicate.constant("frame_size", FRAME_SIZE)
    overhead = TAG_SIZE if encryption == ENCRYPTED else 0
    attest = Fields(predicate.get("attest"), "predicate.attest").exactly("size", "digest")
    commitment: bytes | None = None
    if encryption == ENCRYPTED:
        commitment = bytes.fromhex(predicate.hex("commitment", 32))
    elif predicate.get("commitment") is not None:
        raise BundleError("predicate.commitment: null was expected, as nothing is encrypted")
    return Release(
        body=body,
        suite=suite.name,
        encryption=encryption,
        channel=channel,
        sequence=predicate.integer("sequence", 1, 2**53 - 1),
        issued=predicate.time("issued"),
        expires=predicate.time("expires"),
        base=base,
        frames=predicate.integer("frames", 1, MAX_FRAMES),
        last_frame=predicate.integer("last_frame", overhead + 1, FRAME_SIZE),
        tree=_subject_digest(statement.get("subject"), suite),
        attest_size=attest.integer("size", overhead + 1, MAX_ATTEST),
        attest_digest=_digest(attest.text("digest"), suite),
        commitment=commitment,
        min_reader=needed,
    )


def _subject_digest(value: object, suite: suites.Suite) -> str:
    if not isinstance(value, list) or len(value) != 1:
        raise BundleError("statement.subject: exactly one was expected")
    subject = Fields(value[0], "statement.subject[0]").exactly("name", "digest")
    subject.constant("name", "tree")
    digests = Fields(subject.get("digest"), "statement.subject[0].digest").exactly(suite.digest)
    return f"{suite.digest}:{digests.hex(suite.digest, suite.digest_size)}"


def _digest(text: str, suite: suites.Suite) -> str:
    if re.fullmatch(rf"{suite.digest}:[0-9a-f]{{{2 * suite.digest_size}}}", text) is None:
        raise BundleError(f"predicate.attest.digest: a {suite.digest} digest was expected")
    return text


@dataclass(frozen=True, slots=True)
class Signature:
    """One entry of an envelope: who claims to have signed, and the signature."""

    key_id: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A well-formed envelope, not verified."""

    body: bytes
    signatures: tuple[Signature, ...]

    @property
    def pae(self) -> bytes:
        """What the signatures are over."""
        return pae(self.body)


def pae(body: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding of a statement."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode("ascii"), len(body), body)


def sign(body: bytes, signers: Sequence[Signer]) -> bytes:
    """Return the envelope of a statement.

    Raises:
        UsageError: nobody signs, one key signs twice, or too many do.
    """
    check_signers(signers)
    message = pae(body)
    return encode_envelope(Envelope(body, tuple(Signature(one.key_id, one.sign(message)) for one in signers)))


def check_signers(signers: Sequence[Signer]) -> None:
    """Find out whether these can sign one bundle together.

    Raises:
        UsageError: there is none, one key twice, or too many.
    """
    if not signers:
        raise UsageError("a bundle needs at least one signer", hint="give one with --signer KEY")
    if len({signer.key_id for signer in signers}) != len(signers):
        raise UsageError("one key was given as a signer twice")
    if len(signers) > MAX_SIGNATURES:
        raise UsageError(f"{len(signers)} signers were given, at most {MAX_SIGNATURES} can be")


def encode_envelope(envelope: Envelope) -> bytes:
    """Return the envelope's bytes, signatures in the order of their key ids."""
    return canonical.encode(
        {
            "payload": base64.b64encode(envelope.body).decode("ascii"),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {"keyid": one.key_id, "sig": base64.b64encode(one.value).decode("ascii")}
                for one in sorted(envelope.signatures, key=lambda one: one.key_id)
            ],
        }
    )


def parse_envelope(data: bytes) -> Envelope:
    """Read an envelope.

    Raises:
        BundleError: it is malformed.
        TrustError: one key is said to have signed twice.
    """
    fields = Fields(canonical.decode(data, limit=MAX_ENVELOPE, subject="envelope"), "envelope")
    fields.exactly("payload", "payloadType", "signatures")
    fields.constant("payloadType", PAYLOAD_TYPE)
    entries = fields.get("signatures")
    if not isinstance(entries, list) or len(entries) > MAX_SIGNATURES:
        raise BundleError(f"envelope.signatures: an array of at most {MAX_SIGNATURES} was expected")
    signatures: list[Signature] = []
    for index, entry in enumerate(entries):
        subject = f"envelope.signatures[{index}]"
        one = Fields(entry, subject).exactly("keyid", "sig")
        key_id = one.text("keyid")
        if _KEY_ID.fullmatch(key_id) is None:
            raise BundleError(f"{subject}.keyid: 16 lower-case hex digits were expected")
        if signatures and signatures[-1].key_id == key_id:
            raise TrustError(f"key {key_id} is said to have signed twice")
        if signatures and signatures[-1].key_id > key_id:
            raise BundleError("envelope.signatures: not in the order of their key ids")
        signatures.append(Signature(key_id, strict_base64(one.text("sig"), subject=f"{subject}.sig")))
    return Envelope(strict_base64(fields.text("payload"), subject="envelope.payload"), tuple(signatures))

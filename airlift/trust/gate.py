"""What a site accepts: a state machine without input or output (docs/bundle-format.md, section 4.2).

Each step is a method, has to be taken in its order, and raises or lets the next step happen; none returns a bool.
The clock, the trust and what the site has seen are handed in. Example::

    gate = Gate(trust, now=now, seen={"stable": (41, "sha256:...")})
    verified = gate.admit(reader.envelope, reader.roots)
    opened = reader.unlock(verified, identity)      # steps 8 to 10
"""

from __future__ import annotations

import contextlib
import enum
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from airlift import canonical
from airlift.errors import BundleError, NotAcceptedError, TrustError
from airlift.trust.fields import format_time
from airlift.trust.roots import Trust
from airlift.trust.signing import Envelope, Release, parse_envelope, parse_release

_MAX_ROOTS = 1024 * 1024
_OTHER = (
    "ask the release engineer whether it is meant for this site; what a site accepts is changed by a trust file that"
    " comes with its fingerprint on paper"
)
GAP_HINT = "a drop needs none before it, but ask the release engineer whether one was meant for this site"
"""What to do about a `Verified.gap`."""
CLOCK_HINT = "set this machine's clock; while it is behind, an expired bundle is not seen to be one"
"""What to do about a clock that is behind."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A release that passed every step which needs no data key.

    Attributes:
        release: what was signed.
        signers: the persons who signed, sorted.
        unknown_signers: key ids that nobody in the trust file holds; they count for nothing.
        skipped: the sequences between the highest that was accepted before and this one.
    """

    release: Release
    signers: tuple[str, ...]
    unknown_signers: tuple[str, ...]
    skipped: range = range(0)

    @property
    def gap(self) -> str:
        """Say which sequences were passed over, or nothing."""
        if not self.skipped:
            return ""
        first, last = self.skipped[0], self.skipped[-1]
        which = f"sequence {first}" if first == last else f"sequences {first} to {last}"
        return f"{which} of channel {self.release.channel} {'was' if first == last else 'were'} never imported here"

    def check_commitment(self, commitment: bytes) -> None:
        """§4.2 step 8: the data key has to be the one that the signers committed to.

        Raises:
            BundleError: it is another, so what it would open is not what was signed.
        """
        if self.release.commitment is None or not hmac.compare_digest(commitment, self.release.commitment):
            raise BundleError("the data key is not the one that was signed: the stanza leads to another key")


class _Step(enum.IntEnum):
    ENVELOPE = 1
    ROOTS = 2
    SIGNATURES = 3
    ACCEPTANCE = 4
    EXPIRY = 5
    SEQUENCE = 6
    BASE = 7
    DONE = 8
    REFUSED = 9


class Gate:
    """Takes one bundle through the steps of §4.2."""

    def __init__(
        self, trust: Trust, *, now: datetime | None, seen: Mapping[str, tuple[int, str]] | None = None
    ) -> None:
        """Begin.

        Args:
            trust: the site's pinned trust.
            now: the time, with its zone; None where there is no clock, then nothing expires.
            seen: per channel the highest sequence that was accepted, with its release digest; where a person said how
                high the sequences were, the one below that, with an empty digest.
        """
        self._trust = trust
        self._now = now
        self._seen = dict(seen or {})
        self._next = _Step.ENVELOPE
        self._envelope: Envelope | None = None
        self._release: Release | None = None
        self._signers: tuple[str, ...] = ()
        self._is_signed = False
        self._unknown: tuple[str, ...] = ()
        self._skipped = range(0)

    def admit(self, envelope: bytes, roots: bytes) -> Verified:
        """Take all the steps that need no data key.

        Raises:
            BundleError: something is malformed or of a newer version.
            TrustError: the site does not accept it.
        """
        self.envelope(envelope)
        self.roots(roots)
        self.signatures()
        self.acceptance()
        self.expiry()
        self.sequence()
        self.base()
        return self.verified()

    def envelope(self, data: bytes) -> None:
        """§4.2 step 1: well-formed, and not for a newer reader.

        Raises:
            BundleError: it is neither.
        """
        with self._step(_Step.ENVELOPE):
            self._envelope = parse_envelope(data)
            self._release = parse_release(self._envelope.body)

    def roots(self, data: bytes) -> None:
        """§4.2 step 2: no key of the bundle is trusted for being there.

        Raises:
            BundleError: there is a chain, which this version cannot check.
        """
        with self._step(_Step.ROOTS):
            if canonical.decode(data, limit=_MAX_ROOTS, subject="roots.json") != []:
                raise BundleError(
                    "roots.json: the bundle carries trust roots, which this version neither checks nor trusts",
                    hint="update airlift on this side",
                )

    def signatures(self) -> None:
        """§4.2 step 3: enough different persons signed, and no pinned key's signature is bad.

        Raises:
            TrustError: nobody signed, or a signature is bad or under another key's name.
            NotAcceptedError: too few persons signed.
        """
        with self._step(_Step.SIGNATURES):
            envelope, release = self._parsed()
            persons: set[str] = set()
            unknown: list[str] = []
            for one in envelope.signatures:
                owner = self._trust.owner(one.key_id)
                if owner is None:
                    self._refuse_alias(one.key_id, one.value, envelope.pae)
                    unknown.append(one.key_id)
                    continue
                person, key = owner
                if key.suite != release.suite:
                    raise TrustError(
                        f"key {key.key_id} of {person.name} is of suite {key.suite}, the bundle of {release.suite}"
                    )
                if not key.made(one.value, envelope.pae):
                    raise TrustError(
                        f"the signature of {person.name} (key {key.key_id}) is not over this bundle",
                        hint="copy the bundle again; when that does not help, do not use it and ask who sent it",
                    )
                persons.add(person.name)
            self._signers = tuple(sorted(persons))
            self._unknown = tuple(unknown)
            self._count(len(envelope.signatures))
            self._is_signed = True

    def _refuse_alias(self, key_id: str, signature: bytes, pae: bytes) -> None:
        """Refuse a pinned key's signature under another id: it would count as somebody unknown, or twice."""
        for person, key in self._trust.held_keys():
            if key.made(signature, pae):
                raise TrustError(f"a signature of {person.name} (key {key.key_id}) stands under the key id {key_id}")

    def _count(self, signatures: int) -> None:
        if not signatures:
            raise TrustError("the bundle is not signed", hint="the release engineer has to build it with --signer KEY")
        strangers = f"; unknown keys: {', '.join(self._unknown)}" if self._unknown else ""
        if not self._signers:
            raise NotAcceptedError(
                f"signed by nobody whom the trust file lists{strangers}",
                hint="ask the release engineer who signed it; where keys were exchanged, pin the trust file that"
                " came with its fingerprint on paper",
            )
        if len(self._signers) < self._trust.threshold:
            others = ", ".join(sorted(one.name for one in self._trust.signers if one.name not in self._signers))
            raise NotAcceptedError(
                f"signed by {len(self._signers)} of the {self._trust.threshold} persons that are needed:"
                f" {', '.join(self._signers)}{strangers}",
                hint="the release engineer has to build it with a --signer KEY of each that has to sign; the trust"
                f" file also lists {others}",
            )

    @property
    def signed(self) -> Release | None:
        """What enough persons signed, also when a later step refused it; None before `signatures` was passed."""
        return self._release if self._is_signed else None

    @property
    def signers(self) -> tuple[str, ...]:
        """The persons who signed, sorted; nobody before `signatures` was taken."""
        return self._signers

    def acceptance(self) -> None:
        """§4.2 step 4: a channel, a suite and an encryption that the site takes.

        Raises:
            NotAcceptedError: it does not take one of them.
        """
        with self._step(_Step.ACCEPTANCE):
            _, release = self._parsed()
            if release.channel not in self._trust.channels:
                raise NotAcceptedError(
                    f"channel {release.channel} is not in the trust file;"
                    f" it lists: {', '.join(sorted(self._trust.channels))}",
                    hint=_OTHER,
                )
            if release.suite not in self._trust.suites:
                raise NotAcceptedError(
                    f"suite {release.suite} is not accepted here;"
                    f" the trust file lists: {', '.join(self._trust.suites)}",
                    hint=_OTHER,
                )
            if not release.is_encrypted and not self._trust.allow_plain:
                raise NotAcceptedError(
                    "the bundle is not encrypted, and the trust file does not allow that",
                    hint="the release engineer has to build it with --recipient, or to make a trust file with"
                    " --allow-plain",
                )

    def expiry(self) -> None:
        """§4.2 step 5: not expired.

        Raises:
            TrustError: it is.
        """
        with self._step(_Step.EXPIRY):
            _, release = self._parsed()
            if release.expires is not None and self._now is not None and self._now >= release.expires:
                raise TrustError(
                    f"the bundle expired at {format_time(release.expires)}; it is {format_time(self._now)} here",
                    hint="ask the release engineer for a newer bundle; if the date is wrong, set this machine's clock",
                )

    def sequence(self) -> None:
        """§4.2 step 6: nothing older than what was accepted before.

        Raises:
            TrustError: it is older, or another bundle of the same sequence.
        """
        with self._step(_Step.SEQUENCE):
            _, release = self._parsed()
            lowest = self._trust.channels[release.channel].min_sequence
            if release.sequence < lowest:
                raise TrustError(
                    f"sequence {release.sequence} of channel {release.channel} is too old:"
                    f" the trust file asks for {lowest} or higher",
                    hint="ask the release engineer for a newer bundle",
                )
            seen = self._seen.get(release.channel)
            if seen is None:
                return
            highest, digest = seen
            if not digest and release.sequence <= highest:
                raise TrustError(
                    f"sequence {release.sequence} of channel {release.channel} is too old:"
                    f" {highest + 1} was given as the lowest one when the site was recovered",
                    hint="to go back to a drop that is still here, use: airlift drops activate",
                )
            if release.sequence < highest:
                raise TrustError(
                    f"sequence {release.sequence} of channel {release.channel} is too old:"
                    f" {highest} was accepted before",
                    hint="to go back to a drop that is still here, use: airlift drops activate",
                )
            if release.sequence == highest and release.digest != digest:
                raise TrustError(
                    f"sequence {release.sequence} of channel {release.channel} was accepted before"
                    f" with another content: {digest}, this is {release.digest}",
                    hint="the release engineer has to build it again with a higher --sequence",
                )
            if digest:
                # Else a person said how high the sequences were, and not which of them were imported.
                self._skipped = range(highest + 1, release.sequence)

    def base(self) -> None:
        """§4.2 step 7: the base of a delta is here; this version knows no deltas.

        Raises:
            BundleError: it is a delta.
        """
        with self._step(_Step.BASE):
            _, release = self._parsed()
            if release.base is not None:
                raise BundleError(
                    "the bundle is a delta, which this version does not read", hint="update airlift on this side"
                )

    def verified(self) -> Verified:
        """Return the result, once every step was taken."""
        with self._step(_Step.DONE):
            _, release = self._parsed()
            return Verified(release, self._signers, self._unknown, self._skipped)

    @contextlib.contextmanager
    def _step(self, step: _Step) -> Iterator[None]:
        """Let the next step happen only when this one was due and came to its end."""
        if step is not self._next:
            raise RuntimeError(f"gate: step {step.name} was called when {self._next.name} was due")
        self._next = _Step.REFUSED
        yield
        self._next = _Step(step + 1) if step < _Step.DONE else step

    def _parsed(self) -> tuple[Envelope, Release]:
        if self._envelope is None or self._release is None:
            raise RuntimeError("gate: no envelope was parsed")
        return self._envelope, self._release

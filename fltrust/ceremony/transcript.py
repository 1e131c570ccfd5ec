"""The transcript: what was done with the root's key, one file for each ceremony, each naming the one before.

A transcript is two statements, each signed by every holder who was there (DSSE's encoding): the *opening*,
what they agreed to, signed before the key is touched, and the *closing*, what came out. Files are numbered
without gaps and hold the SHA-256 of the file before, so that none can be left out, changed or put in later
without it showing to whoever kept the last digest. They hold no secret: publish them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from fltrust import strictjson
from fltrust.ceremony.files import Act
from fltrust.ceremony.holders import Holder
from fltrust.ceremony.unlock import MAX_HOLDERS, Roster
from fltrust.clock import to_rfc3339
from fltrust.errors import Malformed, Refused
from fltrust.identity import Digest, Name, TrustDomain
from fltrust.keys.verify import verify_signature
from fltrust.strictbase64 import from_base64, to_base64
from fltrust.updates.dsse import pae

OPENING_TYPE: Final = "urn:fltrust:ceremony-opening:v1"
CLOSING_TYPE: Final = "urn:fltrust:ceremony-closing:v1"
TRANSCRIPT_TYPE: Final = "urn:fltrust:ceremony-transcript:v1"
PAYLOAD_TYPE: Final = "application/vnd.fltrust.ceremony+json"
MAX_TRANSCRIPT: Final = 256 * 1024
_MAX_WORDS: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What the holders agree to."""

    domain: TrustDomain
    sequence: int
    previous: Digest | None
    at: datetime
    act: Act
    request: Digest | None
    words: tuple[str, ...]
    roster: Roster | None
    """Who holds the key from here on, where that changes."""

    def to_json(self) -> bytes:
        return strictjson.encode(
            {
                "type": OPENING_TYPE,
                "domain": str(self.domain),
                "sequence": self.sequence,
                "previous": None if self.previous is None else str(self.previous),
                "at": to_rfc3339(self.at),
                "act": str(self.act),
                "request": None if self.request is None else str(self.request),
                "words": list(self.words),
                "roster": None if self.roster is None else self.roster.to_value(),
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        fields = _fields(data, "an opening", OPENING_TYPE)
        opening = cls(
            domain=fields.domain("domain"),
            sequence=fields.number("sequence"),
            previous=fields.optional_digest("previous"),
            at=fields.time("at"),
            act=fields.choice("act", Act),
            request=fields.optional_digest("request"),
            words=tuple(fields.texts("words", limit=_MAX_WORDS, each=400)),
            roster=None if fields.is_null("roster") else Roster.from_fields(fields.object("roster")),
        )
        fields.done()
        return opening


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """What came out: the digests of every certificate and CRL, in the answer's order; the root in force."""

    opening: Digest
    at: datetime
    root: Digest
    made: tuple[Digest, ...]

    def to_json(self) -> bytes:
        return strictjson.encode(
            {
                "type": CLOSING_TYPE,
                "opening": str(self.opening),
                "at": to_rfc3339(self.at),
                "root": str(self.root),
                "made": list(map(str, self.made)),
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        fields = _fields(data, "a closing", CLOSING_TYPE)
        closing = cls(
            opening=fields.digest("opening"),
            at=fields.time("at"),
            root=fields.digest("root"),
            made=tuple(map(Digest.parse, fields.texts("made", limit=8, each=192))),
        )
        fields.done()
        return closing


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement with the holders' signatures. Holding one says nothing about its validity."""

    payload: bytes
    signatures: tuple[tuple[Name, bytes], ...]

    @classmethod
    def by(cls, holders: Sequence[Holder], payload: bytes) -> Self:
        words = pae(PAYLOAD_TYPE, payload)
        return cls(payload, tuple((holder.card.name, holder.signer.sign(words)) for holder in holders))

    def verify(self, roster: Roster) -> tuple[Name, ...]:
        """Return who signed, if they are a quorum of the roster and every signature is good."""
        cards = [roster.card_of(name) for name, _ in self.signatures]
        roster.require_quorum(cards)
        words = pae(PAYLOAD_TYPE, self.payload)
        for card, (_, signature) in zip(cards, self.signatures, strict=True):
            verify_signature(card.signing, signature, words)
        return tuple(card.name for card in cards)

    def to_value(self) -> dict[str, object]:
        signatures = [{"holder": str(name), "sig": to_base64(sig)} for name, sig in self.signatures]
        return {"payload": to_base64(self.payload), "signatures": signatures}

    @classmethod
    def from_fields(cls, fields: strictjson.Fields) -> Self:
        payload = from_base64(fields.text("payload", limit=MAX_TRANSCRIPT), "the payload")
        signatures = []
        for entry in fields.objects("signatures", limit=MAX_HOLDERS):
            name = Name(entry.text("holder", limit=63))
            signatures.append((name, from_base64(entry.text("sig", limit=128), "a signature")))
            entry.done()
        fields.done()
        return cls(payload, tuple(signatures))


@dataclass(frozen=True, slots=True)
class Transcript:
    """One ceremony's record, as its file has it."""

    opening: Signed
    closing: Signed

    def to_json(self) -> bytes:
        return strictjson.encode(
            {
                "type": TRANSCRIPT_TYPE,
                "payloadType": PAYLOAD_TYPE,
                "opening": self.opening.to_value(),
                "closing": self.closing.to_value(),
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        fields = _fields(data, "a transcript", TRANSCRIPT_TYPE)
        if fields.text("payloadType", limit=64) != PAYLOAD_TYPE:
            raise Malformed(f"expected payloads of type {PAYLOAD_TYPE} in a transcript, found others")
        opening, closing = (Signed.from_fields(fields.object(name)) for name in ("opening", "closing"))
        fields.done()
        return cls(opening, closing)

    @property
    def digest(self) -> Digest:
        """SHA-256 of the file: what the next one names."""
        return Digest.sha256_of(self.to_json())


@dataclass(frozen=True, slots=True)
class Told:
    """A ceremony whose transcript was verified."""

    opening: Opening
    closing: Closing
    holders: tuple[Name, ...]
    digest: Digest


def verify_transcripts(transcripts: Iterable[Transcript], *, first_root: Digest | None = None) -> list[Told]:
    """Return what a room's transcripts tell, all of them, in order, or raise why they do not hold together.

    1. The first is an ``init`` and names nothing before it; each further one names the file before it, by
       digest and by the next number, and no second ``init`` is there. Time does not run backwards.
    2. Opening and closing are signed by the same quorum: of the roster in force, and for ``init`` of its own.
    3. The closing names its opening.
    4. The root stays but where the act replaces it; the first is `first_root`, if that is given.

    `Refused` (``transcript-broken``) for 1, 3 and 4; ``no-quorum``, ``holder-unknown`` or `SignatureInvalid`
    for 2. Whoever has the last digest from elsewhere sees that none is missing at the end.
    """
    told: list[Told] = []
    roster: Roster | None = None
    for number, transcript in enumerate(transcripts, start=1):
        opening, closing = (
            Opening.from_json(transcript.opening.payload),
            Closing.from_json(transcript.closing.payload),
        )
        last = told[-1] if told else None
        # 1.
        expected = None if last is None else last.digest
        if (opening.sequence, opening.previous) != (number, expected):
            raise _broken(f"expected transcript {number} to follow the one before it, it does not")
        if (opening.act is Act.INIT) is not (last is None):
            raise _broken(f"expected exactly the first transcript to be of a new room, at {number}")
        if closing.at < opening.at or (last is not None and opening.at < last.closing.at):
            raise _broken(f"expected transcript {number} to be later than the one before it, it is not")
        if last is not None and opening.domain != last.opening.domain:
            raise _broken(f"expected transcript {number} of {last.opening.domain}, got another domain's")
        # 2.
        in_force = opening.roster if roster is None else roster
        if in_force is None or (opening.roster is not None) is not (opening.act in (Act.INIT, Act.HOLDERS)):
            raise _broken(f"expected holders to be named where they change, in transcript {number}")
        holders = transcript.opening.verify(in_force)
        if transcript.closing.verify(in_force) != holders:
            raise _broken(f"expected the same holders to close transcript {number} as opened it")
        # 3.
        if closing.opening != Digest.sha256_of(transcript.opening.payload):
            raise _broken(f"expected the closing of transcript {number} to name its opening, it does not")
        # 4.
        before = first_root if last is None else last.closing.root
        if before is not None and closing.root != before and opening.act is not Act.ROLLOVER:
            raise _broken(f"expected transcript {number} of the root {before}, got one of {closing.root}")
        roster = opening.roster or roster
        told.append(Told(opening, closing, holders, transcript.digest))
    if not told:
        raise _broken("expected at least one transcript, found none")
    return told


def record(
    opening: Opening, holders: Sequence[Holder], roster: Roster, act: Callable[[], Closing]
) -> Transcript:
    """Have the holders sign what they agree to, do it, and have them sign what came out.

    Nothing is done unless the signatures are those of a quorum.
    """
    signed = Signed.by(holders, opening.to_json())
    signed.verify(roster)
    return Transcript(signed, Signed.by(holders, act().to_json()))


def _fields(data: bytes, what: str, kind: str) -> strictjson.Fields:
    fields = strictjson.Fields(strictjson.decode(data, limit=MAX_TRANSCRIPT, what=what), what)
    if fields.text("type", limit=64) != kind:
        raise Malformed(f"expected {what} of type {kind}, found another")
    return fields


def _broken(message: str) -> Refused:
    return Refused(message, reason="transcript-broken")

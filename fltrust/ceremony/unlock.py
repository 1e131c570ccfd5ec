"""The secret that encrypts the root's key: `threshold` holders open it together, fewer learn nothing.

For every set of `threshold` holders there is one envelope: the secret, sealed to one of them, the result
sealed to the next, and so on (HPKE, as `fltrust.keys.recovery`; each layer bound to the room, the set and
the holder). They open it in turn. Nothing is shared by arithmetic: see docs/decisions/0009.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Self

from fltrust import strictjson
from fltrust.ceremony.holders import Holder, HolderCard
from fltrust.errors import Malformed, Refused
from fltrust.identity import Name
from fltrust.keys.openssh import spki_der
from fltrust.keys.recovery import RecoveryRecipient
from fltrust.strictbase64 import from_base64, to_base64

MAX_HOLDERS: Final = 9
"""At most 126 envelopes."""
MAX_ENVELOPE: Final = 4 * 1024


@dataclass(frozen=True, slots=True)
class Roster:
    """The holders of a room, by name, and how many of them it takes."""

    cards: tuple[HolderCard, ...]
    threshold: int

    def __post_init__(self) -> None:
        names = [card.name for card in self.cards]
        keys = {spki_der(key) for card in self.cards for key in (card.signing, card.unlock)}
        if not 1 <= len(names) <= MAX_HOLDERS or not 1 <= self.threshold <= len(names):
            raise Malformed(
                f"expected 1 to {MAX_HOLDERS} holders and a threshold of at most as many, "
                f"got {len(names)} and {self.threshold}"
            )
        if names != sorted(set(names)) or len(keys) != 2 * len(names):
            raise Malformed("expected holders in order of their names, each once, with keys of their own")

    @classmethod
    def of(cls, cards: Iterable[HolderCard], *, threshold: int) -> Self:
        return cls(tuple(sorted(cards, key=lambda card: card.name)), threshold)

    @classmethod
    def from_fields(cls, fields: strictjson.Fields) -> Self:
        threshold = fields.number("threshold")
        cards = tuple(map(HolderCard.from_fields, fields.objects("holders", limit=MAX_HOLDERS)))
        fields.done()
        return cls(cards, threshold)

    def to_value(self) -> dict[str, object]:
        return {"threshold": self.threshold, "holders": [card.to_value() for card in self.cards]}

    def card_of(self, name: Name) -> HolderCard:
        for card in self.cards:
            if card.name == name:
                return card
        raise Refused(f"expected a holder of this room, got {name}", reason="holder-unknown")

    def require_quorum(self, present: Sequence[HolderCard]) -> None:
        """Return only if enough different holders of the roster are there; `Refused` (``no-quorum``, or
        ``holder-unknown`` for somebody who is none)."""
        for card in present:
            if self.card_of(card.name) != card:
                raise Refused(f"expected the card of {card.name}, got another", reason="holder-unknown")
        count = len({card.name for card in present})
        if count < self.threshold or count != len(present):
            raise Refused(
                f"expected {self.threshold} different holders, got {count}",
                reason="no-quorum",
                hint=f"of {', '.join(card.name for card in self.cards)}",
            )


@dataclass(frozen=True, slots=True)
class Envelope:
    """The secret for one set of holders."""

    names: tuple[Name, ...]
    sealed: bytes

    @classmethod
    def from_fields(cls, fields: strictjson.Fields) -> Self:
        names = tuple(map(Name, fields.texts("holders", limit=MAX_HOLDERS, each=63)))
        sealed = from_base64(fields.text("sealed", limit=MAX_ENVELOPE), "the envelope")
        fields.done()
        return cls(names, sealed)

    def to_value(self) -> dict[str, object]:
        return {"holders": list(map(str, self.names)), "sealed": to_base64(self.sealed)}


def seal(secret: bytes, roster: Roster, *, room: str) -> tuple[Envelope, ...]:
    """Seal a secret to every set of holders that is a quorum; `room` names the room that it is for."""
    envelopes = []
    for chosen in combinations(roster.cards, roster.threshold):
        names = tuple(card.name for card in chosen)
        sealed = secret
        for card in reversed(chosen):  # the last holder's layer is the innermost
            context = _context(room, names, card.name)
            sealed = RecoveryRecipient(card.unlock).seal(sealed, context=context)
        envelopes.append(Envelope(names, sealed))
    return tuple(envelopes)


def open_sealed(envelopes: Iterable[Envelope], present: Sequence[Holder], *, room: str) -> bytes:
    """Open the secret with the holders present; `Refused` if they are none of the sets it was sealed to
    (``no-quorum``), or if a layer does not open (``recovery-key``)."""
    holders = {holder.card.name: holder for holder in present}
    for envelope in envelopes:
        if envelope.names and set(envelope.names) <= set(holders):
            secret = envelope.sealed
            for name in envelope.names:
                secret = holders[name].unlock.open(secret, context=_context(room, envelope.names, name))
            return secret
    raise Refused("expected holders to whom the secret was sealed together, got others", reason="no-quorum")


def _context(room: str, names: Sequence[Name], name: Name) -> bytes:
    return strictjson.encode(
        {
            "type": "urn:fltrust:ceremony-unlock:v1",
            "room": room,
            "holders": list(map(str, names)),
            "layer": str(name),
        }
    )

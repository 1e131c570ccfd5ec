"""Key holders: who must come together before the root's key is used, and what each brings.

A holder has a folder of their own (a USB stick, say): two P-256 keys, both encrypted with the holder's
passphrase, and a card with the public halves, which is all that others ever see.

    sign.key      signs what the holder agreed to
    unlock.key    opens the holder's layer of the secret that encrypts the root's key (`ceremony.unlock`)
    card.json
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from fltrust import strictjson
from fltrust.errors import Conflict, Malformed
from fltrust.files import make_private_folder, read_bounded, write_durably
from fltrust.identity import Name
from fltrust.keys.file import generate, load, save
from fltrust.keys.openssh import spki_der
from fltrust.keys.recovery import RecoveryKey
from fltrust.keys.signer import Signer
from fltrust.keys.verify import is_p256, verify_signature
from fltrust.strictbase64 import from_base64, to_base64

CARD_TYPE: Final = "urn:fltrust:ceremony-holder:v1"
MAX_CARD: Final = 4 * 1024


@dataclass(frozen=True, slots=True)
class HolderCard:
    """A holder's name and public keys. The card is signed by the holder, so that it is of one piece; whose it
    is, the others learn from the holder in person."""

    name: Name
    signing: ec.EllipticCurvePublicKey
    unlock: ec.EllipticCurvePublicKey
    signature: bytes

    @classmethod
    def of(cls, name: Name, signer: Signer, unlock: ec.EllipticCurvePublicKey) -> Self:
        return cls(name, signer.public_key, unlock, signer.sign(_words(name, signer.public_key, unlock)))

    @classmethod
    def from_fields(cls, fields: strictjson.Fields) -> Self:
        """Read a card; `Malformed` or `SignatureInvalid` for one that its own key did not sign."""
        if fields.text("type", limit=64) != CARD_TYPE:
            raise Malformed(f"expected a card of type {CARD_TYPE}, found another")
        name = Name(fields.text("name", limit=63))
        signing, unlock = _key(fields, "signing"), _key(fields, "unlock")
        signature = from_base64(fields.text("signature", limit=128), "the signature")
        fields.done()
        if signing == unlock:
            raise Malformed(f"expected two keys on the card of {name}, found one twice")
        verify_signature(signing, signature, _words(name, signing, unlock))
        return cls(name, signing, unlock, signature)

    @classmethod
    def read(cls, path: Path) -> Self:
        data = read_bounded(path, limit=MAX_CARD)
        return cls.from_fields(
            strictjson.Fields(strictjson.decode(data, limit=MAX_CARD, what="a card"), "a card")
        )

    def to_value(self) -> dict[str, object]:
        value = strictjson.decode(_words(self.name, self.signing, self.unlock), limit=MAX_CARD, what="a card")
        return {**value, "signature": to_base64(self.signature)}


@dataclass(frozen=True, slots=True)
class Holder:
    """A holder who is present, keys open."""

    card: HolderCard
    signer: Signer
    unlock: RecoveryKey


def create_holder(folder: Path, name: Name, *, passphrase: bytes) -> HolderCard:
    """Make a holder's keys and card in a folder that is not there yet or is empty; `Conflict` otherwise."""
    make_private_folder(folder)
    if os.listdir(folder):
        raise Conflict(
            f"expected an empty folder at {folder}, found files in it",
            hint="a holder's keys are never overwritten: choose another folder",
        )
    signer = generate()
    save(signer, folder / "sign.key", passphrase=passphrase)
    unlock = RecoveryKey.create(folder / "unlock.key", passphrase=passphrase)
    card = HolderCard.of(name, signer, unlock.public_key)
    write_durably(folder / "card.json", strictjson.encode(card.to_value()))
    return card


def open_holder(folder: Path, *, passphrase: bytes) -> Holder:
    """Open a holder's keys; `Conflict` for keys that are not the card's, else as `fltrust.keys.load`."""
    card = HolderCard.read(folder / "card.json")
    signer = load(folder / "sign.key", passphrase=passphrase)
    unlock = RecoveryKey.load(folder / "unlock.key", passphrase=passphrase)
    if signer.public_key != card.signing or unlock.public_key != card.unlock:
        raise Conflict(f"expected the keys of the card in {folder}, found others")
    return Holder(card, signer, unlock)


def _words(name: Name, signing: ec.EllipticCurvePublicKey, unlock: ec.EllipticCurvePublicKey) -> bytes:
    keys = {"signing": to_base64(spki_der(signing)), "unlock": to_base64(spki_der(unlock))}
    return strictjson.encode({"type": CARD_TYPE, "name": str(name), **keys})


def _key(fields: strictjson.Fields, name: str) -> ec.EllipticCurvePublicKey:
    der = from_base64(fields.text(name, limit=256), name)
    try:
        key = load_der_public_key(der)
    except ValueError:
        key = None
    if not is_p256(key):
        raise Malformed(f"expected a P-256 key as {name!r} on a card, found something else")
    return key

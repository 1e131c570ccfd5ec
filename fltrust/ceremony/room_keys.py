"""A room's keys: who can open them, and the roots' private keys, encrypted with the secret that they open."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust import strictjson
from fltrust.ceremony.unlock import Envelope, Roster, seal
from fltrust.errors import Conflict, Malformed, NotFound
from fltrust.files import read_bounded, write_durably
from fltrust.identity import TrustDomain
from fltrust.keys.signer import Signer
from fltrust.keys.stored import load, save
from fltrust.pki.authority import read_certificate
from fltrust.pki.bundle import chain_to_pem
from fltrust.pki.pointers import key_identifier_of
from fltrust.pki.root_crl import crl_from_der

UNLOCK_TYPE: Final = "urn:fltrust:ceremony-room:v1"
MAX_UNLOCK: Final = 512 * 1024
SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Lock:
    """`unlock.json`: whose root, who holds it, and the secret, sealed."""

    room: str
    domain: TrustDomain
    root: str
    """The key id of the root in force."""
    roster: Roster
    envelopes: tuple[Envelope, ...]

    def to_json(self) -> bytes:
        return strictjson.encode(
            {
                "type": UNLOCK_TYPE,
                "room": self.room,
                "domain": str(self.domain),
                "root": self.root,
                "roster": self.roster.to_value(),
                "envelopes": [envelope.to_value() for envelope in self.envelopes],
            }
        )

    @classmethod
    def new(cls, domain: TrustDomain, *, root: str, roster: Roster, secret: bytes) -> Lock:
        """Seal a secret to every quorum of a roster, for a set of keys that gets a name of its own."""
        room = secrets.token_hex(16)
        return cls(room, domain, root, roster, seal(secret, roster, room=room))

    @classmethod
    def from_json(cls, data: bytes) -> Lock:
        fields = strictjson.Fields(
            strictjson.decode(data, limit=MAX_UNLOCK, what="unlock.json"), "unlock.json"
        )
        if fields.text("type", limit=64) != UNLOCK_TYPE:
            raise Malformed(f"expected unlock.json of type {UNLOCK_TYPE}, found another")
        lock = cls(
            fields.text("room", limit=64),
            fields.domain("domain"),
            fields.text("root", limit=40),
            Roster.from_fields(fields.object("roster")),
            tuple(map(Envelope.from_fields, fields.objects("envelopes", limit=256))),
        )
        fields.done()
        return lock


class KeySet:
    """One folder of keys, with the secret that opens them."""

    def __init__(self, folder: Path, secret: bytes) -> None:
        self._folder = folder
        self._passphrase = secret.hex().encode()

    def put(self, root: x509.Certificate, signer: Signer, crl: x509.CertificateRevocationList) -> None:
        write_durably(self._path(root, "pem"), chain_to_pem([root]))
        save(signer, self._path(root, "key"), passphrase=self._passphrase)
        self.put_crl(root, crl)

    def put_crl(self, root: x509.Certificate, crl: x509.CertificateRevocationList) -> None:
        write_durably(self._path(root, "crl"), crl.public_bytes(Encoding.DER))

    def roots(self) -> list[x509.Certificate]:
        return [read_certificate(path) for path in sorted(self._folder.glob("root-*.pem"))]

    def signer_of(self, root: x509.Certificate) -> Signer:
        signer = load(self._path(root, "key"), passphrase=self._passphrase)
        if signer.public_key != root.public_key():
            raise Conflict("expected the key of the root in the room, found another")
        return signer

    def crl_of(self, root: x509.Certificate) -> x509.CertificateRevocationList:
        return crl_from_der(read_bounded(self._path(root, "crl"), limit=MAX_UNLOCK))

    def _path(self, root: x509.Certificate, ending: str) -> Path:
        return self._folder / f"root-{key_identifier_of(root)}.{ending}"


def newest_keys(folder: Path) -> Path:
    """The folder of keys in force; `NotFound` where there is no room."""
    found = sorted(folder.glob("keys-[0-9][0-9][0-9][0-9]"))
    if not found:
        raise NotFound(f"expected a ceremony's room at {folder}, found none", hint="fltrust ca ceremony init")
    return found[-1]

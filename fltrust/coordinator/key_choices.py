"""Which keys a new trust domain is made with: any of them may lie in an HSM, a TPM or a cloud's KMS.

The choice is made once, by URI (`fltrust.keys.homes`); from then on the folder says where each key lies
(`fltrust.keys.stored`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from fltrust.errors import Malformed
from fltrust.keys.ed25519 import NoteSigner, generate_note_key
from fltrust.keys.file import generate
from fltrust.keys.homes import KeyHome, check_uri, home_of, open_key, open_note_key
from fltrust.keys.signer import Signer


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChoices:
    """URIs of keys that are there already; a purpose without one gets a key in a file. No PINs stand here."""

    root: str | None = None
    """Needed to make and renew CAs, and never to run."""
    issuing: str | None = None
    tsa: str | None = None
    """The timestamp authority's."""
    ct: str | None = None
    """Signs certificate timestamps and signed entry timestamps."""
    note: str | None = None
    """Signs the log's checkpoints. Ed25519: a file, or a PKCS#11 token that has CKM_EDDSA."""

    def __post_init__(self) -> None:
        given = [getattr(self, field.name) for field in fields(self)]
        uris = [check_uri(uri) for uri in given if uri is not None]
        if len(set(uris)) != len(uris):
            raise Malformed("expected a key of its own for each purpose, got one URI twice")
        if self.note is not None and home_of(self.note) not in (KeyHome.FILE, KeyHome.PKCS11):
            raise Malformed(
                "expected the log's note key in a file or a PKCS#11 token: it is an Ed25519 key",
                hint="leave it out, and it lies in log/note.key",
            )

    @classmethod
    def parse(cls, choices: Iterable[str]) -> KeyChoices:
        """Read choices such as ``issuing=pkcs11:token=…``, each purpose once."""
        known = [field.name for field in fields(cls)]
        found: dict[str, str] = {}
        for choice in choices:
            purpose, _, uri = choice.partition("=")
            if purpose not in known or not uri:
                raise Malformed(f"expected PURPOSE=URI with a purpose of {', '.join(known)}")
            if purpose in found:
                raise Malformed(f"expected one key for {purpose!r}, got two")
            found[purpose] = uri
        return cls(**found)

    def root_key(self) -> Signer:
        return _opened(self.root)

    def issuing_key(self) -> Signer:
        return _opened(self.issuing)

    def tsa_key(self) -> Signer:
        return _opened(self.tsa)

    def ct_key(self) -> Signer:
        return _opened(self.ct)

    def note_key(self) -> NoteSigner:
        return generate_note_key() if self.note is None else open_note_key(self.note)


def _opened(uri: str | None) -> Signer:
    return generate() if uri is None else open_key(uri)

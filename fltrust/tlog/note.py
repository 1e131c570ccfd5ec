"""Signed notes (C2SP signed-note): text with signature lines, and the keys that make and check them.

<text, ending in a newline>
<an empty line>
— <key name> base64(32-bit key id || signature)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fltrust.errors import Malformed, Oversized, SignatureInvalid
from fltrust.keys.ed25519 import NoteSigner
from fltrust.strictbase64 import from_base64, to_base64

MAX_NOTE = 256 * 1024
"""Bytes of one note: room for 16 post-quantum signatures, which every verifier must take."""

MAX_SIGNATURES = 64

_MAX_NAME = 512
_KEY_BYTES, _SIGNATURE_BYTES, _ID_BYTES = 32, 64, 4
_VKEY = re.compile(r"([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})\Z")
_DASH = "— "


class KeyType(IntEnum):
    """Signature types of notes that are known here; others are ignored, as unknown keys are."""

    ED25519 = 0x01
    COSIGNATURE = 0x04
    """A witness's, over the note and a time (C2SP tlog-cosignature)."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with the name it signs under; written ``<name>+<key id in hex>+<base64>``, a *vkey*."""

    name: str
    key_type: KeyType
    public_key: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.public_key) != _KEY_BYTES:
            raise Malformed(f"expected an Ed25519 key of 32 bytes, got {len(self.public_key)}")

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Read a vkey; `Malformed` for another key type, or a key id that is not the key's own."""
        match = _VKEY.match(vkey) if len(vkey) <= 2 * _MAX_NAME else None
        if match is None:
            raise Malformed(
                f"expected a key '<name>+<8 hex digits>+<base64>', got {vkey[:80]!r}",
                hint="a log's key stands in its trust file, and in the first entry of the log",
            )
        raw = from_base64(match[3], "a key")
        try:
            key = cls(match[1], KeyType(raw[0]), raw[1:])
        except ValueError:
            raise Malformed(
                f"expected a key of type 0x01 (Ed25519) or 0x04 (cosignature/v1), got 0x{raw[0]:02x}"
            ) from None
        if key.key_id.hex() != match[2]:
            raise Malformed(f"expected the key id {key.key_id.hex()} of {key.name[:80]}, got {match[2]}")
        return key

    def __str__(self) -> str:
        encoded = to_base64(bytes([self.key_type]) + self.public_key)
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    @property
    def full_id(self) -> bytes:
        """SHA-256 of name, newline, type and key: `key_id` is its start (and Sigstore's log id is all)."""
        return sha256(self.name.encode() + b"\n" + bytes([self.key_type]) + self.public_key).digest()

    @property
    def key_id(self) -> bytes:
        """The four bytes that stand in a signature line: an address, not a proof."""
        return self.full_id[:_ID_BYTES]

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check an Ed25519 signature (RFC 8032) over exactly `message`; raises `SignatureInvalid`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, message)
        except (InvalidSignature, ValueError):
            raise SignatureInvalid(f"the signature of {self.name} does not verify") from None


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line. `signature` is what follows the key id."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> str:
        return f"{_DASH}{self.name} {to_base64(self.key_id + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A note as parsed: nothing in it is to be believed before a signature has been verified."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def encode(self) -> bytes:
        return (self.text + "\n" + "".join(signature.line for signature in self.signatures)).encode()

    def by(self, key: VerifierKey) -> tuple[NoteSignature, ...]:
        """The signatures that claim to be by `key`."""
        return tuple(s for s in self.signatures if s.name == key.name and s.key_id == key.key_id)


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A name and the Ed25519 key that signs under it."""

    name: str
    signer: NoteSigner

    @property
    def verifier(self) -> VerifierKey:
        return VerifierKey(self.name, KeyType.ED25519, self.signer.public_key_raw)

    def sign(self, text: str) -> NoteSignature:
        return NoteSignature(self.name, self.verifier.key_id, self.signer.sign(check_text(text).encode()))


def sign_note(text: str, keys: Sequence[NoteKey]) -> bytes:
    """A note with one signature of each key, in order."""
    return Note(text, tuple(key.sign(text) for key in keys)).encode()


def parse_note(data: bytes) -> Note:
    """Cut a note into its text and signature lines.

    `Oversized` past `MAX_NOTE` bytes or `MAX_SIGNATURES` lines; `Malformed` if it is not UTF-8, has
    control characters, no signatures, or lines after the text that are none.
    """
    if len(data) > MAX_NOTE:
        raise Oversized(f"expected a signed note of at most {MAX_NOTE} bytes, got {len(data)}")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("expected a signed note in UTF-8, got something else") from None
    body, separator, tail = whole.rpartition("\n\n")
    if not separator or not tail.endswith("\n"):
        raise Malformed("expected a signed note: text, an empty line, and signature lines")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise Oversized(f"expected at most {MAX_SIGNATURES} signatures on a note, got {len(lines)}")
    return Note(check_text(body + "\n"), tuple(map(parse_signature, lines)))


def parse_signature(line: str) -> NoteSignature:
    """Read one signature line, without its newline."""
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    raw = from_base64(encoded, "a signature line") if line.startswith(_DASH) else b""
    if len(raw) <= _ID_BYTES:
        raise Malformed(f"expected a signature line '— <name> <base64>', got {line[:80]!r}")
    return NoteSignature(check_name(name), raw[:_ID_BYTES], raw[_ID_BYTES:])


def verify_note(note: Note, keys: Sequence[VerifierKey]) -> tuple[VerifierKey, ...]:
    """Check every signature by a known Ed25519 key; the keys that signed, at least one.

    Signatures by others are ignored, whatever they are. Raises `SignatureInvalid` if one by a known key
    does not verify (the whole note is then refused), or if there is none by a known key.
    """
    signed: list[VerifierKey] = []
    for key in keys:
        if key.key_type is not KeyType.ED25519:
            raise Malformed(f"expected an Ed25519 key (0x01) for {key.name}, got 0x{key.key_type:02x}")
        found = note.by(key)
        for signature in found:
            key.verify(signature.signature, note.text.encode())
        if found:
            signed.append(key)
    if not signed:
        wanted = ", ".join(f"{key.name} ({key.key_id.hex()})" for key in keys)
        raise SignatureInvalid(f"expected a signature by {wanted or 'a known key'}, found none")
    return tuple(signed)


def check_text(text: str) -> str:
    """Text that can be signed: ends in a newline, and has no other control character."""
    if not text.endswith("\n") or any(c < " " and c != "\n" for c in text):
        raise Malformed("expected the text of a note to end in a newline, without control characters")
    return text


def check_name(name: str) -> str:
    """A key name: not empty, no spaces of any kind, no plus, no control characters."""
    if not 0 < len(name) <= _MAX_NAME or "+" in name or any(c.isspace() or c < " " for c in name):
        raise Malformed(f"expected a key name without spaces or '+', got {name[:80]!r}")
    return name

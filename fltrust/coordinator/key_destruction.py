"""The end of a key: destroyed where it lies, and recorded in the log, also where it was found to be gone."""

from __future__ import annotations

from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fltrust.coordinator.authority import Authority
from fltrust.errors import Conflict, FltrustError, Malformed, NotFound
from fltrust.identity import KeyId
from fltrust.keys.homes import destroy_key, home_of, open_key, open_note_key
from fltrust.tlog.entries import new_entry
from fltrust.tlog.keyacts import KeyDestroyed


class DestructionReason(StrEnum):
    """Why a key was destroyed."""

    RETIRED = "retired"
    COMPROMISED = "compromised"
    CEREMONY = "ceremony"
    OTHER = "other"

    @classmethod
    def parse(cls, text: str) -> DestructionReason:
        try:
            return cls(text)
        except ValueError:
            raise Malformed(f"expected a reason of {', '.join(cls)}, got {text[:40]!r}") from None


def destroy_and_record(
    authority: Authority, uri: str, *, reason: DestructionReason, expect: KeyId | None = None
) -> KeyDestroyed:
    """Destroy the key at `uri` and write it into the log.

    1. The key is opened, so that the record names it; one that is gone must be named by `expect`, and one
       that is not `expect` is refused (`Conflict`, ``another-key``).
    2. A key that this coordinator signs with is refused (`Conflict`, ``key-in-use``), and so is a root's that
       is in the trust bundle.
    3. It is destroyed, in the transaction of its record: a record without a destruction cannot be. A crash
       between the two leaves a destruction without a record: destroy it again, with `expect`.
    """
    # 1.
    found = _key_id_at(uri)
    key_id = found or expect
    if key_id is None:
        raise NotFound(
            f"expected a key at {uri}, found none",
            reason="key-gone",
            hint="give its id (--key-id) to record that it is gone",
        )
    if expect is not None and key_id != expect:
        raise Conflict(f"expected the key {expect}, found {key_id}", reason="another-key")
    # 2.
    in_use = {use.key_id: use.name for use in authority.key_usage.look()}
    in_use |= {_key_id_of(root): "root" for root in authority.bundle().roots}
    if key_id in in_use:
        raise Conflict(
            f"expected a key that is not in use, this is the coordinator's {in_use[key_id]!r} key",
            reason="key-in-use",
            hint="put another in its place first",
        )
    # 3.
    with authority.ledger.writing() as work:
        done = destroy_key(uri)
        entry = KeyDestroyed(
            at=work.now,
            key_id=key_id,
            home=home_of(uri),
            was_there=done.was_there,
            gone_at=done.gone_at or work.now,
            reason=reason,
        )
        work.log(new_entry(entry))
    return entry


def _key_id_of(certificate: x509.Certificate) -> KeyId:
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return KeyId.of_spki(spki)


def _key_id_at(uri: str) -> KeyId | None:
    try:
        return open_key(uri).key_id
    except NotFound:
        return None
    except Malformed as error:  # not P-256
        try:
            return open_note_key(uri).key_id
        except FltrustError:
            raise error from None

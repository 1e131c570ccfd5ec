"""Keys in a PKCS#11 token: an HSM, a smart card, SoftHSM. Extra: ``pkcs11``.

Sessions, login and the one lock are `fltrust.keys.pkcs11_module`'s.
"""

from __future__ import annotations

import secrets
from hashlib import sha256
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from fltrust.errors import Conflict, Malformed, NotFound, Refused, Unavailable
from fltrust.keys.hardware import HardwareNoteSigner, HardwareSigner
from fltrust.keys.pkcs11_module import Module, run, token_words
from fltrust.keys.pkcs11_uri import Pkcs11Uri

_P256 = bytes.fromhex("06082a8648ce3d030107")
_ED25519 = (bytes.fromhex("06032b6570"), b"\x13\x0cedwards25519")
"""CKA_EC_PARAMS of Ed25519: the OID (PKCS#11 3.0), or the curve's name as a PrintableString (before it)."""
_PRIVATE = {
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.SIGN: True,
    Attribute.DERIVE: False,
    Attribute.DECRYPT: False,
}
_MANAGED = "fltrust"
"""What the label of every key begins with that this process may make and destroy on its own."""


def open_signer(uri: Pkcs11Uri) -> HardwareSigner:
    """Open a P-256 key in a token; it signs once, on trial, before it is returned.

    Refused: a key that is not there or not the only one of its label and id (`NotFound`, ``key-gone``;
    `Conflict`, ``key-ambiguous``), one that could leave the token (`Refused`, ``key-extractable``), of
    another kind (`Malformed`), without its public half; a PIN that is missing, wrong or locked.
    """
    point = run(uri, lambda module: _public_point(module.session(uri), uri, KeyType.EC))
    try:
        public_key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed(f"expected a P-256 key in {token_words(uri)}, found something else") from None

    key = _Key(uri, KeyType.EC)

    def ask(data: bytes) -> bytes:
        raw = key.sign(sha256(data).digest())
        r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
        return encode_dss_signature(r, s)

    signer = HardwareSigner(public_key, ask, where=str(uri))
    signer.try_out()
    return signer


def open_note_signer(uri: Pkcs11Uri) -> HardwareNoteSigner:
    """Open an Ed25519 key in a token, as `open_signer`: CKM_EDDSA, which not every token has."""
    point = run(uri, lambda module: _public_point(module.session(uri), uri, KeyType.EC_EDWARDS))
    try:
        public_key = Ed25519PublicKey.from_public_bytes(point)
    except ValueError:
        raise Malformed(f"expected an Ed25519 key in {token_words(uri)}, found something else") from None
    signer = HardwareNoteSigner(public_key, _Key(uri, KeyType.EC_EDWARDS).sign, where=str(uri))
    signer.try_out()
    return signer


def generate_key(uri: Pkcs11Uri, *, ed25519: bool = False) -> Pkcs11Uri:
    """Make a key in the token, under the URI's label, that can never leave it; returns its URI, with its id.

    `Conflict` where the token holds a key of this label already.
    """
    if uri.object is None:
        raise Malformed("expected 'object' in the URI of a key to make: the label that it shall have")
    named = uri.with_key(object=uri.object, id=uri.id or secrets.token_bytes(16))

    def work(module: Module) -> None:
        with module.writing_session(uri) as session:
            taken = uri.with_key(object=uri.object, id=None)
            if _find(session, taken, ObjectClass.PRIVATE_KEY) or _find(
                session, named, ObjectClass.PUBLIC_KEY
            ):
                raise Conflict(
                    f"expected no key {uri.object!r} in {token_words(uri)}, found one",
                    reason="key-exists",
                    hint="choose another label, or destroy it first",
                )
            kind, params = (KeyType.EC_EDWARDS, _ED25519[1]) if ed25519 else (KeyType.EC, _P256)
            parameters = session.create_domain_parameters(kind, {Attribute.EC_PARAMS: params}, local=True)
            parameters.generate_keypair(
                mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN if ed25519 else Mechanism.EC_KEY_PAIR_GEN,
                store=True,
                label=named.object,
                id=named.id,
                public_template={Attribute.VERIFY: True},
                private_template=_PRIVATE,
            )

    run(uri, work)
    return named


def destroy_key(uri: Pkcs11Uri) -> bool:
    """Destroy the key that the URI names, and its public half, for good; False if it is not there.

    `Conflict` (``key-ambiguous``) where the URI names several.
    """
    if not uri.names_a_key:
        raise Malformed("expected 'object' or 'id' in the URI of the key to destroy")

    def work(module: Module) -> bool:
        with module.writing_session(uri) as session:
            private = _find(session, uri, ObjectClass.PRIVATE_KEY)
            if len(private) > 1:
                raise _ambiguous(uri, len(private))
            for key in (*private, *_find(session, uri, ObjectClass.PUBLIC_KEY)):
                key.destroy()
            return bool(private)

    return run(uri, work)


def list_keys(uri: Pkcs11Uri, *, prefix: str = _MANAGED) -> tuple[Pkcs11Uri, ...]:
    """The private keys in the URI's token whose label begins with `prefix`."""

    def work(module: Module) -> tuple[Pkcs11Uri, ...]:
        keys = module.session(uri).get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
        return tuple(
            uri.with_key(object=key.label, id=bytes(key.id) or None)
            for key in list(keys)
            if key.label.startswith(prefix)
        )

    return run(uri, work)


class _Key:
    """A private key by its URI; its handle is kept as long as the session that it is of."""

    def __init__(self, uri: Pkcs11Uri, kind: KeyType) -> None:
        self._uri = uri
        self._kind = kind
        self._session: Any = None
        self._handle: Any = None

    def sign(self, data: bytes) -> bytes:
        """The raw signature, of 64 bytes: over a digest with ECDSA, over the data itself with EdDSA."""
        signature = run(self._uri, lambda module: self._sign(module.session(self._uri), data))
        if len(signature) != 64:
            raise Unavailable(
                f"expected a signature of 64 bytes from the token, got {len(signature)}",
                reason="key-unavailable",
            )
        return signature

    def _sign(self, session: Any, data: bytes) -> bytes:
        if session is not self._session:
            self._handle, self._session = _private_key(session, self._uri, self._kind), session
        mechanism = Mechanism.EDDSA if self._kind is KeyType.EC_EDWARDS else Mechanism.ECDSA
        return bytes(self._handle.sign(data, mechanism=mechanism))


def _find(session: Any, uri: Pkcs11Uri, kind: ObjectClass) -> list[Any]:
    wanted: dict[Attribute, object] = {Attribute.CLASS: kind}
    if uri.object is not None:
        wanted[Attribute.LABEL] = uri.object
    if uri.id is not None:
        wanted[Attribute.ID] = uri.id
    return list(session.get_objects(wanted))


def _private_key(session: Any, uri: Pkcs11Uri, kind: KeyType) -> Any:
    if not uri.names_a_key:
        raise Malformed("expected 'object' or 'id' in a PKCS#11 URI: which key is it?")
    found = _find(session, uri, ObjectClass.PRIVATE_KEY)
    if not found:
        raise NotFound(
            f"expected a private key {_key_words(uri)} in {token_words(uri)}, found none",
            reason="key-gone",
            hint="fltrust keys list shows what is there",
        )
    if len(found) > 1:
        raise _ambiguous(uri, len(found))
    key = found[0]
    params = bytes(key[Attribute.EC_PARAMS]) if key.key_type == kind else b""
    if params not in (_ED25519 if kind is KeyType.EC_EDWARDS else (_P256,)):
        expected = "an Ed25519" if kind is KeyType.EC_EDWARDS else "a P-256"
        raise Malformed(f"expected {expected} key {_key_words(uri)} in the token, found another kind")
    return key


def _public_point(session: Any, uri: Pkcs11Uri, kind: KeyType) -> bytes:
    """The public key's point, after the private half was held against what we ask of it."""
    private = _private_key(session, uri, kind)
    if private[Attribute.EXTRACTABLE] or not private[Attribute.SENSITIVE]:
        raise Refused(
            f"expected a key {_key_words(uri)} that cannot leave the token, found one that can",
            reason="key-extractable",
            hint="make one in the token: fltrust keys generate",
        )
    wanted = uri.with_key(object=None, id=bytes(private.id)) if private.id else uri
    public = _find(session, wanted, ObjectClass.PUBLIC_KEY)
    if len(public) != 1:
        raise NotFound(
            f"expected the public half of {_key_words(uri)} in the token, found {len(public) or 'none'}",
            reason="key-gone",
            hint="keep the CKO_PUBLIC_KEY object beside the private key, under the same CKA_ID",
        )
    point = bytes(public[0][Attribute.EC_POINT])
    # DER's OCTET STRING (PKCS#11 2.40, 3.0), or, from some tokens, its content alone.
    return point[2:] if len(point) in (67, 34) and point[0] == 0x04 and point[1] == len(point) - 2 else point


def _key_words(uri: Pkcs11Uri) -> str:
    words = [repr(uri.object)] if uri.object is not None else []
    return " ".join([*words, *([f"id {uri.id.hex()}"] if uri.id is not None else [])])


def _ambiguous(uri: Pkcs11Uri, count: int) -> Conflict:
    return Conflict(
        f"expected one private key {_key_words(uri)} in {token_words(uri)}, found {count}",
        reason="key-ambiguous",
        hint="name it by 'id' and 'object' both",
    )

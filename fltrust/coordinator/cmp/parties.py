"""Who sent a CMP message, proven by its protection, and how the answer to them is protected."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.clock import Clock
from fltrust.coordinator.authority import Authority
from fltrust.coordinator.gate import Gate
from fltrust.coordinator.session import Caller
from fltrust.enrollment.mackeys import MacPurpose
from fltrust.errors import FltrustError, Malformed, SignatureInvalid
from fltrust.keys.verify import verify_with
from fltrust.pki.crmf import ECDSA_WITH_SHA256
from fltrust.pki.leaf_keys import key_identifier
from fltrust.protocols.cmp.messages import Body, Incoming, answer_header, body_tlv, write_message
from fltrust.protocols.cmp.protection import (
    SALT_BYTES,
    Pbm,
    as_tlv,
    password_of,
    protected_bytes,
    read_protection,
)


@dataclass(frozen=True, slots=True)
class Party:
    """A sender: the holder of a credential's key, or of a certificate of ours."""

    name: str
    credential_id: str | None = None
    password: bytes = field(default=b"", repr=False)
    caller: Caller | None = None


class Parties:
    """Authenticates senders and protects answers."""

    def __init__(self, authority: Authority, clock: Clock) -> None:
        self._authority = authority
        self._gate = Gate(authority, clock)

    def authenticate(self, message: Incoming) -> Party:
        """Name the sender, by the protection of the whole message.

        A MAC: `senderKID` names a credential that was made here, and the key derived for it made the MAC.
        A signature: the first extra certificate is one of ours that is good as a client's (`Gate`), and its
        key made it. How it stands is decided by what it asks for. `SignatureInvalid` for everything else, as
        for a credential that nobody made: what exists is nobody's business.
        """
        claimed = read_protection(message.header)
        if isinstance(claimed, Pbm):
            return self._by_mac(message, claimed)
        return self._by_signature(message, is_rsa=claimed.is_rsa)

    def protect(
        self, party: Party | None, to: Incoming | None, kind: Body, content: bytes, *, confirmed: bool = False
    ) -> tuple[bytes, bytes]:
        """An answer under the sender's MAC, or signed by the coordinator; and the nonce in it."""
        signer, chain = self._authority.rounds.identity
        own = x509.load_der_x509_certificate(chain[0])
        nonce, body = secrets.token_bytes(16), body_tlv(kind, content)
        mac = (
            Pbm.fresh(secrets.token_bytes(SALT_BYTES))
            if party is not None and party.credential_id is not None
            else None
        )
        header = answer_header(
            sender=own.subject,
            to=to,
            at=self._authority.now(),
            algorithm=mac.algorithm() if mac else as_tlv(asn1.encode_der(_Ecdsa(oid=ECDSA_WITH_SHA256))),
            kid=(party.credential_id or "").encode()
            if mac and party
            else key_identifier(signer.public_key).digest,
            nonce=nonce,
            is_implicitly_confirmed=confirmed,
        )
        data = protected_bytes(header, body)
        protection = mac.tag(party.password, data) if mac and party else signer.sign(data)
        issuing = self._authority.ca.issuer.certificate.public_bytes(Encoding.DER)
        extra = dict.fromkeys((issuing,) if mac else (*chain, issuing))
        return write_message(header, body, protection, tuple(extra)), nonce

    def _by_mac(self, message: Incoming, pbm: Pbm) -> Party:
        try:
            credential_id = (message.header.sender_kid or b"").decode("ascii")
            key = self._authority.mac_keys.key_of(MacPurpose.CMP, credential_id)
        except (UnicodeDecodeError, Malformed):
            raise _unknown() from None
        with self._authority.ledger.reading() as tx:
            is_known = tx.tokens.get(credential_id, now=self._authority.now()) is not None
        password = password_of(key).encode()
        pbm.check(password, message.protected, message.protection)
        if not is_known:
            raise _unknown()
        return Party(f"credential:{credential_id}", credential_id, password)

    def _by_signature(self, message: Incoming, *, is_rsa: bool) -> Party:
        if not message.extra_certs:
            raise SignatureInvalid("expected the certificate of whoever signed a CMP message, got none")
        try:
            caller = self._gate.identify_chain(message.extra_certs)
        except FltrustError as error:
            raise SignatureInvalid(
                f"expected a CMP message signed with a certificate of ours: {error.message}"
            ) from None
        public_key = caller.certificate.leaf.public_key()
        if isinstance(public_key, rsa.RSAPublicKey) != is_rsa:
            raise SignatureInvalid("expected the algorithm of the signer's key in a CMP message, got another")
        verify_with(public_key, message.protection, message.protected)
        return Party(f"identity:{caller.spiffe_id}", caller=caller)


def _unknown() -> SignatureInvalid:
    return SignatureInvalid("expected a message protected with its credential's key, it is not")


@asn1.sequence
class _Ecdsa:
    oid: x509.ObjectIdentifier

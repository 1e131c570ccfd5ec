"""A device that speaks SCEP, built by hand so that it can say what no well-behaved client says."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

from authority_world import World
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import AttributeOID, NameOID

from fltrust.clock import SystemClock
from fltrust.coordinator.scep.recipient import make_recipient
from fltrust.coordinator.scep.responder import ScepResponder
from fltrust.enrollment.token import encode_token
from fltrust.identity import Role, TrustDomain
from fltrust.pki.rfc3161 import Attribute, IssuerAndSerial
from fltrust.protocols.der import der_sequence
from fltrust.protocols.scep import asn1 as scep
from fltrust.protocols.scep.messages import FailInfo, MessageType, PkiStatus
from fltrust.protocols.scep.suites import MODERN, Suite

RECIPIENT = make_recipient(TrustDomain("hospitals.example"), clock=SystemClock())
KEY = rsa.generate_private_key(65_537, 2048)


def own(key: rsa.RSAPrivateKey, world: World) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])
    now = world.clock.now()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )


def request(challenge: str | None, key: rsa.RSAPrivateKey = KEY) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if challenge is not None:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge.encode())
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def sealed(data: bytes, *, algorithm: Any = AES256) -> bytes:
    return (
        pkcs7.PKCS7EnvelopeBuilder()
        .set_data(data)
        .add_recipient(RECIPIENT.certificate)
        .set_content_encryption_algorithm(algorithm)
        .encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary])
    )


def tlv(der: bytes) -> asn1.TLV:
    return asn1.decode_der(asn1.TLV, der)


def message(
    content: bytes,
    certificate: x509.Certificate,
    *,
    kind: str = MessageType.PKCS_REQ,
    key: rsa.RSAPrivateKey = KEY,
    suite: Suite = MODERN,
    digest: x509.ObjectIdentifier | None = None,
    transaction: str = "t-1",
    left_out: x509.ObjectIdentifier | None = None,
) -> bytes:
    said = {
        scep.CONTENT_TYPE: asn1.encode_der(scep.DATA),
        scep.MESSAGE_DIGEST: asn1.encode_der(suite.digest_of(content)),
        scep.MESSAGE_TYPE: asn1.encode_der(asn1.PrintableString(kind)),
        scep.TRANSACTION_ID: asn1.encode_der(asn1.PrintableString(transaction)),
        scep.SENDER_NONCE: asn1.encode_der(secrets.token_bytes(16)),
    }
    said.pop(left_out, None)  # type: ignore[arg-type]
    listed = [Attribute(type=oid, values=asn1.SetOf([tlv(der)])) for oid, der in said.items()]
    raw = bytes(tlv(asn1.encode_der(scep.Attributes(attributes=asn1.SetOf(listed)))).data)
    algorithm = scep.AlgorithmWithNull(algorithm=digest or suite.digest, parameters=asn1.Null())
    info = scep.SignerInfo(
        version=1,
        sid=IssuerAndSerial(
            issuer=tlv(certificate.issuer.public_bytes()), serial_number=certificate.serial_number
        ),
        digest_algorithm=algorithm,
        signed_attributes=tlv(raw),
        signature_algorithm=scep.AlgorithmWithNull(algorithm=scep.RSA_ENCRYPTION, parameters=asn1.Null()),
        signature=key.sign(b"\x31" + raw[1:], padding.PKCS1v15(), suite.hash),
    )
    signed = scep.SignedData(
        version=1,
        digest_algorithms=asn1.SetOf([algorithm]),
        content=scep.Content(content_type=scep.DATA, content=content),
        certificates=asn1.SetOf([certificate]),
        crls=None,
        signers=asn1.SetOf([info]),
    )
    return asn1.encode_der(scep.SignedMessage(content_type=scep.SIGNED_DATA, content=signed))


def said_of(answer: bytes) -> tuple[PkiStatus, FailInfo | None]:
    info = asn1.decode_der(scep.SignedMessage, answer).content.signers.as_list()[0]
    wrapped = der_sequence(asn1.encode_der(info.signed_attributes))
    found = {
        attribute.type: attribute.values.as_list()[0]
        for attribute in asn1.decode_der(scep.Attributes, wrapped).attributes.as_list()
    }
    failure = found.get(scep.FAIL_INFO)
    return (
        PkiStatus(found[scep.PKI_STATUS].parse(asn1.PrintableString).as_str()),
        None if failure is None else FailInfo(failure.parse(asn1.PrintableString).as_str()),
    )


def certificate_in(answer: bytes, signer: x509.Certificate, key: rsa.RSAPrivateKey) -> x509.Certificate:
    content = asn1.decode_der(scep.SignedMessage, answer).content.content.content
    assert content is not None
    opened = pkcs7.pkcs7_decrypt_der(content, signer, key, [])
    found = pkcs7.load_der_pkcs7_certificates(opened)
    return next(c for c in found if c.public_key() == key.public_key())


def challenge(world: World, name: str, role: Role = Role.DEVICE) -> str:
    return encode_token(world.token(name, role))


class Scep:
    """A device and the responder that it asks."""

    def __init__(self, world: World, *, is_legacy_taken: bool = False) -> None:
        self.world = world
        self.responder = ScepResponder(
            world.authority, RECIPIENT, world.clock, is_legacy_taken=is_legacy_taken
        )
        self.own = own(KEY, world)

    def ask(self, content: bytes, **given: Any) -> tuple[PkiStatus, FailInfo | None]:
        certificate = given.pop("certificate", self.own)
        return said_of(self.responder.answer(message(content, certificate, **given), source="test"))

"""What a SCEP message holds: an envelope to the coordinator in, certificates to the device out."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from fltrust.errors import Malformed
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.protocols.scep import asn1 as scep
from fltrust.protocols.scep.des import open_des, seal_des
from fltrust.protocols.scep.messages import Received, Recipient, bad_algorithm
from fltrust.protocols.scep.suites import LEGACY, Suite


def cipher_of(message: Received, suite: Suite) -> x509.ObjectIdentifier:
    """The cipher that a message's envelope is in.

    One of another suite, or of none, raises `Malformed`, ``bad-algorithm``; so every type of message is
    held to one suite, those whose envelope nobody needs to open, too.
    """
    algorithm = _read(message).content.algorithm.algorithm
    if algorithm not in suite.ciphers:
        raise bad_algorithm()
    return algorithm


def open_envelope(message: Received, recipient: Recipient, suite: Suite) -> bytes:
    """Decrypt what a verified message holds, in a cipher of its suite (`cipher_of`). Whatever else is wrong
    with it is one and the same `Malformed`: padding, key, recipient, structure."""
    cipher_of(message, suite)
    try:
        if suite is LEGACY:
            return open_des(_read(message), recipient.certificate, recipient.key)
        return pkcs7.pkcs7_decrypt_der(message.content, recipient.certificate, recipient.key, [])
    except PARSE_ERRORS:
        raise _unreadable() from None


def certificates_for(
    signer: x509.Certificate, chain: tuple[bytes, ...], *, suite: Suite, cipher: x509.ObjectIdentifier
) -> bytes:
    """The content of a successful answer: certificates, in an envelope to the request's signer.

    In the legacy suite the cipher is the request's, and the certificate stands alone: the set has no order,
    and old clients keep the first. What is in it is no secret.
    """
    if suite is LEGACY:
        leaf = [x509.load_der_x509_certificate(chain[0])]
        return seal_des(pkcs7.serialize_certificates(leaf, Encoding.DER), signer, cipher)
    parsed = [x509.load_der_x509_certificate(der) for der in chain]
    return (
        pkcs7.PKCS7EnvelopeBuilder()
        .set_data(pkcs7.serialize_certificates(parsed, Encoding.DER))
        .add_recipient(signer)
        .set_content_encryption_algorithm(AES128)
        .encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary])
    )


def _read(message: Received) -> scep.EnvelopedData:
    try:
        envelope = asn1.decode_der(scep.Envelope, message.content)
    except ValueError:
        raise _unreadable() from None
    if envelope.content_type != scep.ENVELOPED_DATA:
        raise _unreadable()
    return envelope.content


def _unreadable() -> Malformed:
    return Malformed("expected a certificate request encrypted to this coordinator, got something else")

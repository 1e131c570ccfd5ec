"""Envelopes in DES and triple DES (RFC 5652, 6; RFC 3370), for the legacy suite alone.

`cryptography` opens and makes envelopes in AES alone, so the structure is read and written here; RSA, the
ciphers and the padding are its own.

A key has exactly the length of its cipher. That matters: an envelope in AES that was recorded and is
named another cipher has a key of 16 or 32 bytes, which would fit triple DES with two keys.
"""

from __future__ import annotations

import secrets
from typing import Final

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.padding import PKCS7

from fltrust.pki.rfc3161 import IssuerAndSerial
from fltrust.protocols.der import der_sequence
from fltrust.protocols.scep import asn1 as scep

KEY_BYTES: Final = {scep.DES_CBC: 8, scep.DES_EDE3_CBC: 24}
_BLOCK: Final = 8
_MAX_RECIPIENTS: Final = 4
_IN_ONE_PIECE, _IN_PIECES = b"\x80", b"\xa0"


def open_des(envelope: scep.EnvelopedData, certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> bytes:
    """Decrypt an envelope for one of our keys. Whatever is wrong with it raises `ValueError`; so does a
    content key that RSA did not take out, since what comes out then is of a random length and content."""
    content = envelope.content
    wanted = KEY_BYTES[content.algorithm.algorithm]
    iv: bytes = content.algorithm.parameters.parse(bytes)
    if len(iv) != _BLOCK:
        raise ValueError("no IV")
    recipients = envelope.recipients.as_list()
    if not 1 <= len(recipients) <= _MAX_RECIPIENTS:
        raise ValueError("too many recipients")
    ours = [found for each in recipients if _is_for(found := each.parse(scep.KeyTransport), certificate)]
    if len(ours) != 1 or ours[0].algorithm.algorithm != scep.RSA_ENCRYPTION:
        raise ValueError("not for this key")
    content_key = key.decrypt(ours[0].encrypted_key, padding.PKCS1v15())
    if len(content_key) != wanted:
        raise ValueError("not the length of a key")
    decryptor = _cipher(content_key, iv).decryptor()
    unpadder = PKCS7(8 * _BLOCK).unpadder()
    padded = decryptor.update(_octets(content.content)) + decryptor.finalize()
    return unpadder.update(padded) + unpadder.finalize()


def seal_des(data: bytes, recipient: x509.Certificate, algorithm: x509.ObjectIdentifier) -> bytes:
    """An envelope in the cipher named, for a certificate's RSA key, in DER."""
    public = recipient.public_key()
    if not isinstance(public, rsa.RSAPublicKey):
        raise ValueError("no RSA key")
    content_key, iv = secrets.token_bytes(KEY_BYTES[algorithm]), secrets.token_bytes(_BLOCK)
    padder = PKCS7(8 * _BLOCK).padder()
    encryptor = _cipher(content_key, iv).encryptor()
    encrypted = encryptor.update(padder.update(data) + padder.finalize()) + encryptor.finalize()
    transport = scep.KeyTransport(
        version=0,
        recipient=IssuerAndSerial(
            issuer=_tlv(recipient.issuer.public_bytes()), serial_number=recipient.serial_number
        ),
        algorithm=scep.AlgorithmWithNull(algorithm=scep.RSA_ENCRYPTION, parameters=asn1.Null()),
        encrypted_key=public.encrypt(content_key, padding.PKCS1v15()),
    )
    enveloped = scep.EnvelopedData(
        version=0,
        recipients=asn1.SetOf([_tlv(asn1.encode_der(transport))]),
        content=scep.EncryptedContent(
            content_type=scep.DATA,
            algorithm=scep.ContentAlgorithm(algorithm=algorithm, parameters=_tlv(asn1.encode_der(iv))),
            content=_tlv(_IN_ONE_PIECE + asn1.encode_der(encrypted)[1:]),
        ),
    )
    return asn1.encode_der(scep.Envelope(content_type=scep.ENVELOPED_DATA, content=enveloped))


def _cipher(key: bytes, iv: bytes) -> Cipher[modes.CBC]:
    # Three times the same key is single DES.
    return Cipher(TripleDES(key if len(key) == 24 else 3 * key), modes.CBC(iv))


def _octets(content: asn1.TLV) -> bytes:
    tag, data = asn1.encode_der(content)[:1], bytes(content.data)
    if tag == _IN_ONE_PIECE:
        return data
    if tag != _IN_PIECES:
        raise ValueError("not octets under [0]")
    return b"".join(asn1.decode_der(scep.Pieces, der_sequence(der_sequence(data))).pieces)


def _is_for(transport: scep.KeyTransport, certificate: x509.Certificate) -> bool:
    named = transport.recipient
    return (
        named.serial_number == certificate.serial_number
        and asn1.encode_der(named.issuer) == certificate.issuer.public_bytes()
    )


def _tlv(der: bytes) -> asn1.TLV:
    found: asn1.TLV = asn1.decode_der(asn1.TLV, der)
    return found

"""The RSA key that SCEP requests are encrypted to and its answers signed with.

An EC CA cannot decrypt, so this key is beside the CA, not of it: its certificate is its own, leads nowhere,
and clients are given its fingerprint by hand. It decrypts what was recorded for as long as it lives.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from fltrust.clock import Clock
from fltrust.errors import Conflict
from fltrust.files import read_bounded, write_durably
from fltrust.identity import TrustDomain
from fltrust.keys.file import private_key_from_pem, read_private
from fltrust.pki.profiles import BACKDATE
from fltrust.protocols.scep.messages import Recipient

KEY_FILE, CERTIFICATE_FILE = "scep.key", "scep.pem"
KEY_BITS = 3072
LIFETIME = timedelta(days=1_095)
_RENEW_BEFORE = timedelta(days=30)
_MAX_CERTIFICATE = 16 * 1024


def open_recipient(folder: Path, domain: TrustDomain, *, passphrase: bytes, clock: Clock) -> Recipient:
    """Read the key and its certificate in a coordinator's folder; both are made where there are none, and
    made anew, with another key, in the last month of the certificate."""
    key_path, certificate_path = folder / KEY_FILE, folder / CERTIFICATE_FILE
    if key_path.exists() and certificate_path.exists():
        key = private_key_from_pem(read_private(key_path), passphrase=passphrase, where=key_path)
        certificate = x509.load_pem_x509_certificate(read_bounded(certificate_path, limit=_MAX_CERTIFICATE))
        if not isinstance(key, rsa.RSAPrivateKey) or certificate.public_key() != key.public_key():
            raise Conflict(f"expected the certificate of the RSA key in {key_path} beside it, found another")
        if clock.now() < certificate.not_valid_after_utc - _RENEW_BEFORE:
            return Recipient(key, certificate)
    made = make_recipient(domain, clock=clock)
    pem = made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))
    # The certificate last: a crash between leaves a key that the next start replaces.
    certificate_path.unlink(missing_ok=True)
    write_durably(key_path, pem)
    write_durably(certificate_path, made.certificate.public_bytes(Encoding.PEM), mode=0o644)
    return made


def make_recipient(domain: TrustDomain, *, clock: Clock) -> Recipient:
    """A new key with its own certificate: it signs answers and takes keys in, and is no CA."""
    key = rsa.generate_private_key(65_537, KEY_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"SCEP {domain}"[:64])])
    now = clock.now().replace(microsecond=0)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(secrets.randbits(158) | 1)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    return Recipient(key, certificate)

"""Certificates for entries of a log: made with nothing but `cryptography`, so that they may be odd ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fltrust.tlog.entries import CertificateLeaf, PrecertificateLeaf, to_milliseconds

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Ca:
    """An issuer with one key."""

    def __init__(self, name: str = "issuing") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._build(self.name, self.key.public_key(), [], ca=True)

    def issue(
        self,
        *uris: str,
        key: ec.EllipticCurvePrivateKey | None = None,
        ca: bool = False,
        subject: str | None = None,
    ) -> x509.Certificate:
        key = key or ec.generate_private_key(ec.SECP256R1())
        name = [] if subject is None else [x509.NameAttribute(NameOID.COMMON_NAME, subject)]
        return self._build(x509.Name(name), key.public_key(), list(uris), ca=ca)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def _build(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, uris: list[str], *, ca: bool
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .issuer_name(self.name)
            .subject_name(subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(AT)
            .not_valid_after(AT + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if uris:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
            builder = builder.add_extension(names, critical=True)
        return builder.sign(self.key, hashes.SHA256())


def spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def leaf(certificate: x509.Certificate) -> CertificateLeaf:
    return CertificateLeaf(to_milliseconds(AT), certificate.public_bytes(serialization.Encoding.DER))


def precertificate(certificate: x509.Certificate, issuer: Ca) -> PrecertificateLeaf:
    return PrecertificateLeaf(
        to_milliseconds(AT),
        sha256(spki(issuer.certificate)).digest(),
        certificate.tbs_certificate_bytes,
    )

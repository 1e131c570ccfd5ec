"""Where relying parties find what they need about a certificate: its issuer's CRLs, OCSP, and certificate.

Plain HTTP on the coordinator's public address: what is served there is signed (RFC 5280, 8: not HTTPS).
A CA is named by its key identifier, so that what an old one signed stays where it was after a rollover.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from fltrust.errors import Malformed
from fltrust.identity import CaKeyId

if TYPE_CHECKING:
    from fltrust.pki.profiles import Pointer

OCSP_PATH = "/ocsp"
CRLS_PATH = "/crl.pem"
_MAX_URL = 200
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_URL = re.compile(rf"http://{_LABEL}(?:\.{_LABEL})*(?::[1-9][0-9]{{0,4}})?(?:/[a-z0-9_-]+)*\Z")
_ADDRESS = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?\Z")


def crl_path(issuer: CaKeyId) -> str:
    """Path of a CA's complete CRL, in DER."""
    return f"/crl/{issuer}.crl"


def delta_path(issuer: CaKeyId) -> str:
    """Path of a CA's delta CRL, in DER."""
    return f"/crl/{issuer}-delta.crl"


def certificate_path(issuer: CaKeyId) -> str:
    """Path of a CA's own certificate, in DER."""
    return f"/ca/{issuer}.cer"


@dataclass(frozen=True, slots=True)
class PublicUrl:
    """Where the coordinator publishes, and what certificates of its trust domain say of it. `base` is a URL
    without a slash at its end."""

    base: str

    @classmethod
    def at(cls, address: str) -> Self:
        """Pointers to the public port at ``host:port`` (`public` in coordinator.toml)."""
        if not _ADDRESS.match(address):
            raise Malformed(f"expected the public address as host:port, got {address[:80]!r}")
        return cls(f"http://{address.removesuffix(':80')}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a setting: plain HTTP, lower case, no slash at the end, no query; else `Malformed`."""
        if len(text) > _MAX_URL or not _URL.match(text):
            raise Malformed(
                f"expected a public URL such as 'http://pki.hospitals.example', got {text[:80]!r}",
                hint="plain http, lower case, no slash at the end: what is served there is signed",
            )
        return cls(text)

    def crl(self, issuer: CaKeyId) -> str:
        """For cRLDistributionPoints (RFC 5280, 4.2.1.13)."""
        return self.base + crl_path(issuer)

    def delta(self, issuer: CaKeyId) -> str:
        """For freshestCRL (RFC 5280, 5.2.6)."""
        return self.base + delta_path(issuer)

    @property
    def ocsp(self) -> str:
        """For authorityInfoAccess, id-ad-ocsp (RFC 5280, 4.2.2.1)."""
        return self.base + OCSP_PATH

    def certificate(self, issuer: CaKeyId) -> str:
        """For authorityInfoAccess, id-ad-caIssuers (RFC 5280, 4.2.2.1)."""
        return self.base + certificate_path(issuer)

    def extensions(
        self, pointers: Collection[Pointer], *, issuer: x509.Certificate
    ) -> tuple[x509.ExtensionType, ...]:
        """The extensions that point to what `pointers` names, for a certificate under `issuer`."""
        key = key_identifier_of(issuer)
        found: list[x509.ExtensionType] = []
        if "crl" in pointers:
            address = x509.UniformResourceIdentifier(self.crl(key))
            found.append(x509.CRLDistributionPoints([x509.DistributionPoint([address], None, None, None)]))
        access = []
        if "ocsp" in pointers:
            access.append((AuthorityInformationAccessOID.OCSP, self.ocsp))
        if "issuer" in pointers:
            access.append((AuthorityInformationAccessOID.CA_ISSUERS, self.certificate(key)))
        if access:
            found.append(
                x509.AuthorityInformationAccess(
                    x509.AccessDescription(method, x509.UniformResourceIdentifier(address))
                    for method, address in access
                )
            )
        return tuple(found)


def key_identifier_of(certificate: x509.Certificate) -> CaKeyId:
    """The key identifier that a CA's certificate states: what certificates under it name as their issuer."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except (x509.ExtensionNotFound, ValueError):
        raise Malformed("expected a subject key identifier in the CA's certificate, found none") from None
    return CaKeyId(found.digest.hex())


def issuer_of(certificate: x509.Certificate | x509.CertificateRevocationList) -> CaKeyId:
    """The key of the CA that a certificate or CRL says it was issued by (authorityKeyIdentifier)."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except (x509.ExtensionNotFound, ValueError):
        raise Malformed("expected an authority key identifier in the certificate, found none") from None
    return CaKeyId((found.key_identifier or b"").hex())

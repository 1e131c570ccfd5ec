"""Cross-certification as an operation that operators sign: which partner's CA this domain vouches for.

    cross-certify  {"certificate","domains","dnsNames"}

The root signs the certificate offline (`fltrust.pki.cross`), since its key is not here; the operation is the
operators' word that it is wanted, with the names that they agreed on. The certificate (base64 of DER) says
exactly those names or the operation is refused. It is public: relying parties get it from the operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509

from fltrust.clock import to_rfc3339
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.ledger import Work
from fltrust.coordinator.operations import Executed
from fltrust.coordinator.ports import Transaction
from fltrust.enrollment.operation import Operation
from fltrust.enrollment.operation_ports import OperationState
from fltrust.errors import CertificateRefused, Conflict, Malformed, Refusal
from fltrust.identity import Serial, TrustDomain
from fltrust.pki.cross import MAX_DNS_NAMES, MAX_DOMAINS, check_cross_certificate
from fltrust.pki.issuing import domain_of_ca
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.types import VerifiedCertificate
from fltrust.pki.verify import MAX_CERTIFICATE
from fltrust.strictbase64 import from_base64
from fltrust.strictjson import Fields

CROSS_CERTIFY: Final = "cross-certify"
_PAGE: Final = 256


@dataclass(frozen=True, slots=True)
class CrossCertify:
    """Take in a cross-certificate that a root of ours signed."""

    ca: CurrentCa
    kind: str = CROSS_CERTIFY

    def check(self, operation: Operation, work: Work) -> None:
        """1. The certificate says exactly what the operation says, signed by a root that is in the bundle.
        2. It is valid now, and was not taken in before.
        """
        # 1.
        fields = Fields(dict(operation.parameters), "the parameters of a cross-certification")
        certificate = _certificate(fields.text("certificate", limit=2 * MAX_CERTIFICATE))
        domains = fields.texts("domains", limit=MAX_DOMAINS, each=128)
        dns_names = fields.texts("dnsNames", limit=MAX_DNS_NAMES, each=253)
        fields.done()
        check_cross_certificate(
            certificate,
            roots=self.ca.bundle.roots,
            domains=[TrustDomain(domain) for domain in domains],
            dns_names=dns_names,
        )
        # 2.
        if not certificate.not_valid_before_utc <= work.now <= certificate.not_valid_after_utc:
            raise CertificateRefused(
                f"expected a cross-certificate that is valid at {to_rfc3339(work.now)}, got one that is not",
                reason=Refusal.CERTIFICATE_EXPIRED,
            )
        if certificate in cross_certificates(work.tx):
            raise Conflict("expected a cross-certificate that is not there yet, this one is")

    def execute(self, operation: Operation, work: Work, *, actor: VerifiedCertificate) -> Executed:  # noqa: ARG002 - of every kind
        certificate = _certificate(str(operation.parameters["certificate"]))
        return Executed(
            result={
                "domain": str(domain_of_ca(certificate)),
                "serial": Serial(certificate.serial_number).hex,
                "notAfter": to_rfc3339(certificate.not_valid_after_utc),
            }
        )


def cross_certificates(tx: Transaction) -> tuple[x509.Certificate, ...]:
    """Every cross-certificate that operators took in; the root's CRL tells which of them are revoked."""
    found, after = [], ""
    while page := tx.operations.select((OperationState.EXECUTED,), after=after, limit=_PAGE):
        after = page[-1].operation_id
        found += [
            _certificate(str(Operation.from_payload(record.payload).parameters["certificate"]))
            for record in page
            if record.kind == CROSS_CERTIFY
        ]
    return tuple(found)


def _certificate(text: str) -> x509.Certificate:
    der = from_base64(text, "a cross-certificate")
    if len(der) > MAX_CERTIFICATE:
        raise Malformed(f"expected a certificate of at most {MAX_CERTIFICATE} bytes, got {len(der)}")
    try:
        return x509.load_der_x509_certificate(der)
    except PARSE_ERRORS:
        raise Malformed("expected a cross-certificate in DER, got something else") from None

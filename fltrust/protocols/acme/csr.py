"""The CSR of an order: what it asks for is compared with the order, and never copied into a certificate."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from fltrust.errors import FltrustError
from fltrust.pki.csr import parse_csr
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.protocols.acme.jwk import AccountKey
from fltrust.protocols.acme.problems import AcmeProblem, ProblemType


def check_csr(csr_der: bytes, *, names: Sequence[str], account: AccountKey) -> None:
    """Return only if the CSR asks for exactly these names, with a key of its own (RFC 8555, 7.4 and 11.1).

    1. It is PKCS#10 of a P-256 key, signed by that key (`parse_csr`).
    2. It names exactly the order's DNS names, as alternative names and at most one common name among them,
       and nothing else: no address, URI, mail address or other attribute of a subject.
    3. Its key is not the account's.

    Refusals are ``badCSR`` or ``badPublicKey``.
    """
    # 1.
    try:
        public_key = parse_csr(csr_der)
    except FltrustError as error:
        raise _bad(error.message) from None
    # 2.
    if _names_of(csr_der) != set(names):
        raise _bad(f"expected a CSR for exactly {', '.join(sorted(names))}, got one for other names")
    # 3.
    if public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == account.spki_der:
        raise AcmeProblem(ProblemType.BAD_PUBLIC_KEY, "expected a key of the server's own, got the account's")


def _names_of(csr_der: bytes) -> set[str]:
    try:
        request = x509.load_der_x509_csr(csr_der)
        subject = list(request.subject)
        extensions = [e for e in request.extensions if isinstance(e.value, x509.SubjectAlternativeName)]
        alternatives = [name for e in extensions for name in e.value]
    except PARSE_ERRORS as error:
        raise _bad(f"expected a CSR with readable names, found {type(error).__name__}") from None
    if any(attribute.oid != NameOID.COMMON_NAME for attribute in subject) or len(subject) > 1:
        raise _bad("expected at most a common name in the CSR's subject, got more")
    if not all(isinstance(name, x509.DNSName) for name in alternatives):
        raise _bad("expected DNS names alone in the CSR, got names of other kinds")
    return {str(name.value).lower() for name in (*alternatives, *subject)}


def _bad(message: str) -> AcmeProblem:
    return AcmeProblem(ProblemType.BAD_CSR, message)

"""What a conforming CA must not issue (RFC 5280, section 4): looked at where the policy is strict."""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from fltrust.errors import Refusal
from fltrust.pki.leaf import is_dns_name, refuse
from fltrust.pki.path.facts import Facts

_NEVER_CRITICAL: Final = (
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
)
_ALWAYS_CRITICAL: Final = (
    ExtensionOID.NAME_CONSTRAINTS,
    ExtensionOID.POLICY_CONSTRAINTS,
    ExtensionOID.INHIBIT_ANY_POLICY,
)


def check_duties(facts: Facts, *, is_anchor: bool) -> None:
    """Return only if a conforming CA could have issued the certificate; else ``certificate-path``.

    1. Version 3 (4.1.2.1), an issuer's name (4.1.2.4) and, but in an anchor, a positive serial of at most 20
       octets (4.1.2.2).
    2. An authority key identifier, but in an anchor (4.2.1.1), a CA's subject key identifier (4.2.1.2),
       neither critical; nor is the authority information access (4.2.2.1).
    3. A CA has a name (4.1.2.6) and basic constraints that are critical (4.2.1.9).
    4. Only a CA has name constraints (4.2.1.10), and they are critical, as are policy constraints (4.2.1.11)
       and inhibitAnyPolicy (4.2.1.14).
    5. Where the subject is empty, the alternative names are critical (4.2.1.6), and there are some; an
       extended key usage names one at least (4.2.1.12).
    6. DNS names are such (4.2.1.6, RFC 1034), or a wildcard before one.
    """
    # 1.
    _demand(facts, facts.certificate.version is x509.Version.v3, "version 3")
    _demand(facts, is_anchor or 0 < facts.serial < 2**159, "a positive serial number of at most 20 octets")
    _demand(facts, bool(facts.issuer), "the name of an issuer")
    # 2.
    _demand(facts, is_anchor or facts.authority_key_id is not None, "an authority key identifier")
    _demand(facts, not facts.is_ca or facts.subject_key_id is not None, "a subject key identifier")
    for oid in _NEVER_CRITICAL:
        _demand(facts, not facts.is_critical(oid), f"no critical {_called(oid)}")
    # 3.
    if facts.is_ca:
        _demand(facts, bool(facts.subject), "the name of a CA")
        _demand(facts, facts.is_critical(ExtensionOID.BASIC_CONSTRAINTS), "critical basic constraints")
    # 4.
    _demand(
        facts, facts.is_ca or ExtensionOID.NAME_CONSTRAINTS not in facts.extensions, "no name constraints"
    )
    for oid in _ALWAYS_CRITICAL:
        _demand(facts, oid not in facts.extensions or facts.is_critical(oid), f"a critical {_called(oid)}")
    # 5.
    if not facts.subject:
        _demand(facts, facts.is_critical(ExtensionOID.SUBJECT_ALTERNATIVE_NAME), "critical alternative names")
    usage = facts.get(x509.ExtendedKeyUsage)
    _demand(facts, usage is None or len(list(usage)) > 0, "at least one extended key usage")
    # 6.
    names = facts.get(x509.SubjectAlternativeName)
    for name in () if names is None else names.get_values_for_type(x509.DNSName):
        _demand(
            facts, is_dns_name(name.lower().removeprefix("*.")), "DNS names of letters, digits and hyphens"
        )


def _demand(facts: Facts, holds: bool, what: str) -> None:
    if not holds:
        refuse(
            f"expected {what} in the certificate of {facts.label}, as RFC 5280 demands of its issuer",
            reason=Refusal.CERTIFICATE_PATH,
        )


def _called(oid: x509.ObjectIdentifier) -> str:
    return f"extension {oid.dotted_string}"

"""Cross-certification: one domain's CA certified under another's, held to its own names.

A participant of ours may then validate what a partner's CA issued, from our root. What the partner can say
is bounded by the certificate: names of its own domain and nothing else, for so many levels, until a day. It
gives no standing in our federation: that is our record's, and `fltrust.pki.verify` accepts one domain alone.

A bridge is a CA of a domain of its own that certifies each member and is certified by each: n members need
2n certificates rather than n(n-1), and each path leads over it (RFC 4158, 1.5.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fltrust.errors import Malformed, Refusal
from fltrust.identity import TrustDomain
from fltrust.keys.signer import Signer
from fltrust.pki.ca_certificates import check_authority, create_cross_certificate, is_issued_by
from fltrust.pki.issuing import domain_of_ca
from fltrust.pki.leaf import is_dns_name, refuse
from fltrust.pki.pointers import PublicUrl
from fltrust.pki.profiles import CaKind
from fltrust.strictbase64 import to_base64

MAX_DOMAINS: Final = 64
MAX_DNS_NAMES: Final = 64
BRIDGE_PATH_LENGTH: Final = 2
"""CAs below a bridge that a member certifies: the other member's root and its issuing CA."""
MEMBER_PATH_LENGTH: Final = 1
"""CAs below a domain's root that is certified directly or by a bridge: its issuing CA."""


def domain_constraints(
    domains: Sequence[TrustDomain], *, dns_names: Sequence[str] = ()
) -> x509.NameConstraints:
    """Give name constraints that admit names of these trust domains, in every form that we issue, no other.

    Permitted are SPIFFE IDs of the domains exactly, DNS names at and below them and below `dns_names` (hosts
    of TLS servers), mailboxes at them, and subjects that begin with their organisation. Every address is
    excluded.
    """
    if not 1 <= len(domains) <= MAX_DOMAINS or len(set(domains)) != len(domains):
        raise Malformed(f"expected 1 to {MAX_DOMAINS} different trust domains, got {len(domains)}")
    if len(dns_names) > MAX_DNS_NAMES or not all(map(is_dns_name, dns_names)):
        raise Malformed(f"expected at most {MAX_DNS_NAMES} DNS names in lower case, got others")
    permitted: list[x509.GeneralName] = []
    for domain in domains:
        permitted += [
            x509.UniformResourceIdentifier(domain),
            x509.DNSName(domain),
            x509.RFC822Name(domain),
            x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, domain[:64])])),
        ]
    permitted += [x509.DNSName(name) for name in dns_names]
    excluded = [x509.IPAddress(ip_network("0.0.0.0/0")), x509.IPAddress(ip_network("::/0"))]
    return x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=excluded)


def certify_domain(
    subject: x509.Certificate,
    *,
    issuer: x509.Certificate,
    signer: Signer,
    now: datetime,
    lifetime: timedelta | None = None,
    dns_names: Sequence[str] = (),
    public_url: PublicUrl | None = None,
) -> x509.Certificate:
    """Certify another domain's root under ours, for names of that domain alone and its issuing CAs.

    Refusals as `create_cross_certificate`'s.
    """
    return create_cross_certificate(
        subject=subject,
        issuer=issuer,
        signer=signer,
        constraints=domain_constraints([domain_of_ca(subject)], dns_names=dns_names),
        now=now,
        lifetime=lifetime,
        path_length=MEMBER_PATH_LENGTH,
        public_url=public_url,
    )


def certify_bridge(
    bridge: x509.Certificate,
    *,
    issuer: x509.Certificate,
    signer: Signer,
    members: Sequence[TrustDomain],
    now: datetime,
    lifetime: timedelta | None = None,
    public_url: PublicUrl | None = None,
) -> x509.Certificate:
    """Certify a bridge under our root, for names of its members, which we name one by one, and of its own.

    A member that the bridge takes in later is none of ours until we certify the bridge anew. Refuses
    (``certificate-profile``) our own domain among the members: nobody else may speak for it.
    """
    if domain_of_ca(issuer) in members:
        refuse(f"expected other domains than {domain_of_ca(issuer)} itself as members of a bridge")
    return create_cross_certificate(
        subject=bridge,
        issuer=issuer,
        signer=signer,
        constraints=domain_constraints(tuple(dict.fromkeys((domain_of_ca(bridge), *members)))),
        now=now,
        lifetime=lifetime,
        path_length=BRIDGE_PATH_LENGTH,
        public_url=public_url,
    )


def check_cross_certificate(
    certificate: x509.Certificate,
    *,
    roots: Sequence[x509.Certificate],
    domains: Sequence[TrustDomain],
    dns_names: Sequence[str] = (),
) -> None:
    """Return only if a cross-certificate is signed by one of our roots and says exactly what was agreed.

    1. It keeps to the profile of cross-certificates (``certificate-profile``).
    2. One of `roots` signed it (``certificate-path``), and it is about another domain than theirs.
    3. Its name constraints are those of `domains` and `dns_names`, no more and no less, and its own domain is
       among them (``certificate-profile``).
    """
    # 1.
    check_authority(certificate, CaKind.CROSS)
    # 2.
    issuers = [root for root in roots if is_issued_by(certificate, root)]
    if not issuers:
        refuse(
            "expected a cross-certificate signed by a root of ours, got another's",
            reason=Refusal.CERTIFICATE_PATH,
        )
    domain = domain_of_ca(certificate)
    if domain in {domain_of_ca(root) for root in issuers}:
        refuse(f"expected a cross-certificate about another trust domain than {domain}")
    # 3.
    found = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    agreed = domain_constraints(domains, dns_names=dns_names)
    if domain not in domains or _subtrees(found) != _subtrees(agreed):
        refuse(f"expected a cross-certificate about {domain} for names of exactly {', '.join(domains)[:200]}")


def cross_parameters(
    certificate: x509.Certificate, *, domains: Sequence[TrustDomain], dns_names: Sequence[str] = ()
) -> dict[str, object]:
    """What an operation ``cross-certify`` says that takes this certificate in."""
    return {
        "certificate": to_base64(certificate.public_bytes(Encoding.DER)),
        "domains": [str(domain) for domain in domains],
        "dnsNames": list(dns_names),
    }


def _subtrees(
    constraints: x509.NameConstraints,
) -> tuple[frozenset[x509.GeneralName], frozenset[x509.GeneralName]]:
    return (
        frozenset(constraints.permitted_subtrees or ()),
        frozenset(constraints.excluded_subtrees or ()),
    )

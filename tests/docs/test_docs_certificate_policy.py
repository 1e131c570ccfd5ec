"""docs/policy/certificate-policy.md keeps to RFC 3647's outline, and its stated values are the code's."""

from __future__ import annotations

import re
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fltrust.ceremony.unlock import MAX_HOLDERS
from fltrust.coordinator.settings import AuthoritySettings
from fltrust.coordinator.status_settings import StatusSettings
from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.enrollment.token import SECRET_BYTES
from fltrust.identity import Role, TrustDomain
from fltrust.pki.issuing import new_serial
from fltrust.pki.leaf_keys import MAX_RSA, MIN_RSA
from fltrust.pki.profiles import BACKDATE, CaKind, ServiceKind, builtin
from fltrust.pki.root_crl import ROOT_CRL_LIFETIME
from fltrust.pki.timestamping import TIMESTAMP_POLICY
from fltrust.revocation.view import ReachPolicy
from fltrust.testing.identities import ScratchCa, scratch_identity

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "policy" / "certificate-policy.md").read_text("utf-8")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

OUTLINE = """
1 Introduction; 1.1 Overview; 1.2 Document name and identification; 1.3 PKI participants;
1.4 Certificate usage; 1.5 Policy administration; 1.6 Definitions and acronyms;
2 Publication and repository responsibilities; 2.1 Repositories;
2.2 Publication of certification information; 2.3 Time or frequency of publication;
2.4 Access controls on repositories;
3 Identification and authentication; 3.1 Naming; 3.2 Initial identity validation;
3.3 Identification and authentication for re-key requests;
3.4 Identification and authentication for revocation request;
4 Certificate life-cycle operational requirements; 4.1 Certificate application;
4.2 Certificate application processing; 4.3 Certificate issuance; 4.4 Certificate acceptance;
4.5 Key pair and certificate usage; 4.6 Certificate renewal; 4.7 Certificate re-key;
4.8 Certificate modification; 4.9 Certificate revocation and suspension; 4.10 Certificate status services;
4.11 End of subscription; 4.12 Key escrow and recovery;
5 Facility, management, and operational controls; 5.1 Physical controls; 5.2 Procedural controls;
5.3 Personnel controls; 5.4 Audit logging procedures; 5.5 Records archival; 5.6 Key changeover;
5.7 Compromise and disaster recovery; 5.8 CA or RA termination;
6 Technical security controls; 6.1 Key pair generation and installation;
6.2 Private key protection and cryptographic module engineering controls;
6.3 Other aspects of key pair management; 6.4 Activation data; 6.5 Computer security controls;
6.6 Life cycle technical controls; 6.7 Network security controls; 6.8 Time-stamping;
7 Certificate, CRL, and OCSP profiles; 7.1 Certificate profile; 7.2 CRL profile; 7.3 OCSP profile;
8 Compliance audit and other assessments; 8.1 Frequency or circumstances of assessment;
8.2 Identity/qualifications of assessor; 8.3 Assessor's relationship to assessed entity;
8.4 Topics covered by assessment; 8.5 Actions taken as a result of deficiency;
8.6 Communication of results;
9 Other business and legal matters; 9.1 Fees; 9.2 Financial responsibility;
9.3 Confidentiality of business information; 9.4 Privacy of personal information;
9.5 Intellectual property rights; 9.6 Representations and warranties; 9.7 Disclaimers of warranties;
9.8 Limitations of liability; 9.9 Indemnities; 9.10 Term and termination;
9.11 Individual notices and communications with participants; 9.12 Amendments;
9.13 Dispute resolution provisions; 9.14 Governing law; 9.15 Compliance with applicable law;
9.16 Miscellaneous provisions; 9.17 Other provisions
"""
"""RFC 3647, section 6, two levels deep."""


def span(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]+)([smhd])", text)
    assert found is not None, text
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def table(heading: str) -> dict[str, list[str]]:
    """The rows of the table whose first heading is this, by their first cell."""
    lines = PAGE.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        first, *rest = (cell.strip() for cell in line.strip("|").split("|"))
        rows[first] = rest
    return rows


def test_the_outline_is_that_of_rfc_3647() -> None:
    wanted = [" ".join(entry.split()) for entry in OUTLINE.split(";")]
    found = re.findall(r"^#{2,3} ([1-9][0-9.]*?)\.? (.*)$", PAGE, re.MULTILINE)
    assert [f"{number} {title}" for number, title in found] == wanted


def test_sections_are_numbered_without_a_gap() -> None:
    numbers = re.findall(r"^#### ([0-9.]+) ", PAGE, re.MULTILINE)
    for before, after in pairwise(numbers):
        *chapter, last = after.split(".")
        assert last == "1" or [*chapter, str(int(last) - 1)] == before.split("."), after


def test_every_stated_life_is_the_profiles() -> None:
    leaves, services, authorities = builtin().leaves, builtin().services, builtin().authorities
    real = {
        **{str(role): (leaves[role].default_lifetime, leaves[role].max_lifetime) for role in Role},
        **{str(kind): (services[kind].default_lifetime, services[kind].max_lifetime) for kind in ServiceKind},
        **{str(kind): (authorities[kind].lifetime, authorities[kind].max_lifetime) for kind in CaKind},
    }
    stated = table("life of a certificate")
    assert {name: (span(default), span(most)) for name, (default, most) in stated.items()} == real


def key_sizes() -> int:
    ca = ScratchCa.make()
    keys = [ca.issuer.certificate.public_key(), ca.bundle.roots[0].public_key()]
    keys.append(scratch_identity("site-a", ca=ca).credentials.signer.public_key)
    assert all(isinstance(key, ec.EllipticCurvePublicKey) for key in keys)
    (size,) = {key.key_size for key in keys if isinstance(key, ec.EllipticCurvePublicKey)}
    return size


def test_every_other_stated_value_is_the_codes() -> None:
    status = StatusSettings()
    authority = AuthoritySettings(domain=TrustDomain("a.example"), bootstrap="a:1", address="a:2")
    real = {
        "key size of every CA and identity, P-256, bits": key_sizes(),
        "smallest RSA key of a device, bits": MIN_RSA,
        "largest RSA key of a device, bits": MAX_RSA,
        "random bits of a serial number": int(new_serial(lambda count: b"\xff" * count)).bit_length(),
        "notBefore before the moment of issue": BACKDATE,
        "life of a CRL of the issuing CA": status.crl_lifetime,
        "scheduled interval of CRLs": status.crl_interval,
        "life of a delta CRL": status.delta_lifetime,
        "life of an OCSP answer": status.ocsp_lifetime,
        "life of the root's CRL": ROOT_CRL_LIFETIME,
        "longest life of a join token": authority.max_token_ttl,
        "bytes of a join token's secret": SECRET_BYTES,
        "time to decide a request": ApprovalPolicy().decide_within,
        "most holders of the root": MAX_HOLDERS,
        "oldest view of a member who goes on": ReachPolicy().bound,
    }
    stated = table("other value")
    assert set(stated) == set(real)
    for name, (text,) in stated.items():
        value = real[name]
        assert (span(text) if isinstance(value, timedelta) else int(text)) == value, name


def test_the_timestamping_policy_is_the_one_in_tokens() -> None:
    assert TIMESTAMP_POLICY.dotted_string in PAGE


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE))))
def test_every_page_that_it_points_to_is_there(target: str) -> None:
    assert (DOCS / "policy" / target).resolve().exists()

"""Suites that others wrote for path validation, and the table in the docs that explains each difference."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import cryptography_vectors
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fltrust.errors import CertificateRefused, Revoked
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.path import Evidence, PathLimits, PathPolicy, RevocationMode, validate_path

HERE = Path(__file__).parent
LIMBO = HERE.parents[1] / "shared" / "data" / "limbo.json"
PKITS = Path(cryptography_vectors.__file__).parent / "x509" / "PKITS_data"
TABLE = HERE.parent / "docs" / "reference" / "path-validation.md"


@dataclass(frozen=True)
class Case:
    name: str
    is_good: bool
    """What the suite says."""
    accepts: Any
    """A function without arguments: what we say."""


@cache
def differences(suite: str) -> dict[str, bool]:
    """The rows of the table for one suite: case → whether we accept it, unlike the suite."""
    rows = re.findall(
        rf"^\| {suite} \| `([^`]+)` \| (accept|refuse) \| (accept|refuse) \| [^|]{{20,}} \|$",
        TABLE.read_text(),
        re.MULTILINE,
    )
    assert all(suites != ours for _, suites, ours in rows)
    assert len({case for case, _, _ in rows}) == len(rows)
    return {case: ours == "accept" for case, _, ours in rows}


def agrees(suite: str, case: Case) -> bool:
    """Whether we say what the suite says, or the table's opposite."""
    return bool(case.accepts()) is differences(suite).get(case.name, case.is_good)


def _is_accepted(leaf: bytes, **asked: Any) -> bool:
    try:
        validate_path(leaf, **asked)
    except (CertificateRefused, Revoked):
        return False
    return True


# x509-limbo

_PEERS = {
    "DNS": x509.DNSName,
    "RFC822": x509.RFC822Name,
    "IP": lambda value: x509.IPAddress(ip_address(value)),
}


def limbo_cases() -> list[Case]:
    if not LIMBO.exists():
        return []
    return [
        Case(case["id"], case["expected_result"] == "SUCCESS", lambda case=case: _limbo_accepts(case))
        for case in json.loads(LIMBO.read_text())["testcases"]
    ]


def _limbo_accepts(case: Any) -> bool:
    peer, depth = case["expected_peer_name"], case["max_chain_depth"]
    purposes = {"CLIENT": ExtendedKeyUsageOID.CLIENT_AUTH, "SERVER": ExtendedKeyUsageOID.SERVER_AUTH}
    policy = PathPolicy(
        purpose=purposes[case["validation_kind"]],
        peer=None if peer is None else _PEERS[peer["kind"]](peer["value"]),
        revocation=RevocationMode.HARD_FAIL if case["crls"] else RevocationMode.BEST_EFFORT,
        limits=PathLimits() if depth is None else PathLimits(path_length=depth + 2),
    )
    return _is_accepted(
        _der(case["peer_certificate"]),
        anchors=[_der(pem) for pem in case["trusted_certs"]],
        intermediates=[_der(pem) for pem in case["untrusted_intermediates"]],
        evidence=Evidence.read(crls=[_der(pem) for pem in case["crls"]]),
        at=datetime.fromisoformat(case["validation_time"] or "2026-03-01T00:00:00+00:00").astimezone(UTC),
        policy=policy,
    )


def _der(pem: str) -> bytes:
    return b64decode("".join(pem.strip().splitlines()[1:-1]))


# PKITS: every certificate and every CRL of the suite is at hand for every path.

_LIMITS = PathLimits(certificates=200, crls=200)
_RULES = PathPolicy(strict=False, limits=_LIMITS)
_EXPLICIT = replace(_RULES, require_explicit_policy=True)
_AT = datetime(2015, 6, 1, tzinfo=UTC)


def _nist(*numbers: int, explicit: bool = False) -> PathPolicy:
    oids = (x509.ObjectIdentifier(f"2.16.840.1.101.3.2.1.48.{number}") for number in numbers)
    return replace(_RULES, policies=frozenset(oids), require_explicit_policy=explicit)


_SPECIAL: dict[str, list[tuple[PathPolicy, bool]]] = {
    "ValidCertificatePathTest1": [
        (_EXPLICIT, True),
        (_nist(1, explicit=True), True),
        (_nist(2, explicit=True), False),
        (_nist(1, 2, explicit=True), True),
    ],
    "AllCertificatesNoPoliciesTest2": [(_RULES, True), (_EXPLICIT, False)],
    "DifferentPoliciesTest3": [(_RULES, True), (_EXPLICIT, False), (_nist(1, 2, explicit=True), False)],
    **{f"DifferentPoliciesTest{number}": [(_RULES, False)] for number in (4, 5, 7, 8, 9, 12)},
    "OverlappingPoliciesTest6": [(_RULES, True), (_nist(1), True), (_nist(2), False)],
    "AllCertificatesSamePoliciesTest10": [(_RULES, True), (_nist(1), True), (_nist(2), True)],
    "AllCertificatesanyPolicyTest11": [(_RULES, True), (_nist(1), True)],
    "AllCertificatesSamePoliciesTest13": [(_nist(1), True), (_nist(2), True), (_nist(3), True)],
    "AnyPolicyTest14": [(_nist(1), True), (_nist(2), False)],
    **{f"UserNoticeQualifierTest{number}": [(_RULES, True)] for number in (15, 16, 17, 19)},
    "UserNoticeQualifierTest18": [(_nist(1), True), (_nist(2), True)],
    "CPSPointerQualifierTest20": [(_RULES, True)],
    "ValidPolicyMappingTest1": [
        (_nist(1), True),
        (_nist(2), False),
        (replace(_RULES, inhibit_policy_mapping=True), False),
    ],
    "InvalidPolicyMappingTest2": [(_RULES, False), (replace(_RULES, inhibit_policy_mapping=True), False)],
    "ValidPolicyMappingTest3": [(_nist(1), False), (_nist(2), True)],
    "ValidPolicyMappingTest5": [(_nist(1), True), (_nist(6), False)],
    "ValidPolicyMappingTest6": [(_nist(1), True), (_nist(6), False)],
    "ValidPolicyMappingTest12": [(_nist(1), True), (_nist(2), True)],
    "inhibitAnyPolicyTest3": [(_RULES, True), (replace(_RULES, inhibit_any_policy=True), False)],
}
"""What the suite says of paths whose outcome depends on what the relying party asks (4.8, 4.10, 4.12)."""


def pkits_cases() -> Iterator[Case]:
    for path in sorted((PKITS / "certs").glob("*EE.crt")):
        name = path.stem.removesuffix("EE")
        if name in _SPECIAL:
            outcomes = [(f"{name}.{n}", *outcome) for n, outcome in enumerate(_SPECIAL[name], 1)]
        else:
            outcomes = [(name, _RULES, name.startswith("Valid"))]
            assert name.startswith(("Valid", "Invalid")), name
        for label, policy, is_good in outcomes:
            yield Case(
                label, is_good, lambda path=path, policy=policy: _pkits_accepts(path.read_bytes(), policy)
            )


def _pkits_accepts(leaf: bytes, policy: PathPolicy) -> bool:
    root, pool, evidence = _pkits_world()
    return _is_accepted(leaf, anchors=[root], intermediates=pool, evidence=evidence, at=_AT, policy=policy)


@cache
def _pkits_world() -> tuple[bytes, list[x509.Certificate], Evidence]:
    root = (PKITS / "certs" / "TrustAnchorRootCertificate.crt").read_bytes()
    pool = []
    for path in sorted((PKITS / "certs").glob("*.crt")):
        if not path.stem.endswith("EE"):
            try:
                pool.append(x509.load_der_x509_certificate(path.read_bytes()))
            except PARSE_ERRORS:
                continue
    crls = [path.read_bytes() for path in sorted((PKITS / "crls").glob("*.crl"))]
    return root, pool, Evidence.read(crls=crls, limits=_LIMITS)

"""Basic path processing (RFC 5280, section 6.1) of one path whose names and signatures chain."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from fltrust.errors import Refusal
from fltrust.pki.leaf import refuse
from fltrust.pki.path.budget import Budget
from fltrust.pki.path.building import Path
from fltrust.pki.path.constraints import NameConstraintState
from fltrust.pki.path.duties import check_duties
from fltrust.pki.path.facts import POLICY_MAPPINGS, Facts
from fltrust.pki.path.general_names import is_peer
from fltrust.pki.path.policies import PolicyState
from fltrust.pki.path.signatures import is_strong
from fltrust.pki.path.types import PathPolicy

PROCESSED: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.CERTIFICATE_POLICIES,
        POLICY_MAPPINGS,
        ExtensionOID.POLICY_CONSTRAINTS,
        ExtensionOID.INHIBIT_ANY_POLICY,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    }
)
"""Extensions that may be critical: any other is refused where it is."""


def process_path(
    path: Path, *, at: datetime, policy: PathPolicy, budget: Budget
) -> frozenset[x509.ObjectIdentifier]:
    """Return the user-constrained policy set of a path that holds at `at`; refuse otherwise.

    Revocation is judged after this; names and signatures chain before it (`PathBuilder`).

    1. The anchor is a CA whose key counts, it is valid at `at`, and its own constraints apply (RFC 5937).
    2. For each certificate from the anchor's child to the leaf (6.1.3): its key counts, it is valid at `at`,
       its names are within the constraints in force unless it is self-issued and others follow, and a
       certificate policy is left where one must be.
    3. For each that others follow (6.1.4): no mapping of anyPolicy, it is a CA that may sign certificates,
       the path is no longer than it and those above allow, and its own constraints come into force.
    4. No certificate has a critical extension that is not processed; under a strict policy each is one that a
       conforming CA could have issued.
    5. The purpose: the leaf, and every CA below the anchor that says any extended key usage, says this one or
       (a CA) any. A leaf without the extension is good for every purpose.
    6. The leaf carries the name of the peer, if one is given.
    7. A policy that is acceptable is valid at the end of the path where one must be (6.1.5).
    """
    anchor, below = path[-1], tuple(reversed(path[:-1]))
    names = NameConstraintState(budget)
    policies = PolicyState(policy, length=len(below))
    # 1.
    _check_ca(anchor)
    _check_any(anchor, at=at, policy=policy, is_anchor=True)
    names.add(anchor.get(x509.NameConstraints))
    room = len(below) if anchor.path_length is None else anchor.path_length
    for number, facts in enumerate(below):
        is_leaf = number == len(below) - 1
        # 2. and 4.
        _check_any(facts, at=at, policy=policy, is_leaf=is_leaf)
        if is_leaf or not facts.is_self_issued:
            names.check(facts)
        policies.enter(facts)
        # 5.
        _check_purpose(facts, policy, is_leaf=is_leaf)
        if is_leaf:
            break
        # 3.
        policies.leave(facts)
        names.add(facts.get(x509.NameConstraints))
        _check_ca(facts)
        if not facts.is_self_issued:
            if room <= 0:
                _refuse(f"expected no CA below the one that limits the path's length, got {facts.label}")
            room -= 1
        if facts.path_length is not None:
            room = min(room, facts.path_length)
    leaf = path[0]
    # 6.
    if policy.peer is not None:
        alternative = leaf.get(x509.SubjectAlternativeName)
        if alternative is None or not is_peer(list(alternative), policy.peer):
            _refuse(f"expected a certificate of {str(policy.peer.value)[:120]}, got one without that name")
    # 7.
    return policies.finish(leaf)


def _check_any(
    facts: Facts, *, at: datetime, policy: PathPolicy, is_leaf: bool = False, is_anchor: bool = False
) -> None:
    if not is_strong(facts.certificate.public_key()):
        _refuse(f"expected a key of a kind and size that counts in the certificate of {facts.label}")
    if at > facts.not_after:
        refuse(
            f"expected the certificate of {facts.label} to be valid at {at:%Y-%m-%dT%H:%M:%SZ}, it ended at "
            f"{facts.not_after:%Y-%m-%dT%H:%M:%SZ}",
            reason=Refusal.CERTIFICATE_EXPIRED if is_leaf else Refusal.CERTIFICATE_PATH,
        )
    if at < facts.not_before:
        refuse(
            f"expected the certificate of {facts.label} to be valid at {at:%Y-%m-%dT%H:%M:%SZ}, it begins at "
            f"{facts.not_before:%Y-%m-%dT%H:%M:%SZ}",
            reason=Refusal.CERTIFICATE_NOT_YET_VALID if is_leaf else Refusal.CERTIFICATE_PATH,
        )
    unknown = [oid for oid, found in facts.extensions.items() if found.critical and oid not in PROCESSED]
    if unknown:
        _refuse(
            f"expected no critical extension that is unknown, found {unknown[0].dotted_string} in the "
            f"certificate of {facts.label}"
        )
    if policy.strict:
        check_duties(facts, is_anchor=is_anchor)


def _check_ca(facts: Facts) -> None:
    if facts.certificate.version is not x509.Version.v3 or not facts.is_ca:
        _refuse(f"expected a CA, got the certificate of {facts.label}, which is none")
    if not facts.may_sign():
        _refuse(f"expected a CA that may sign certificates, {facts.label} may not")


def _check_purpose(facts: Facts, policy: PathPolicy, *, is_leaf: bool) -> None:
    usage = facts.get(x509.ExtendedKeyUsage)
    if policy.purpose is None or usage is None:
        return
    allowed = set(usage)
    if policy.purpose in allowed or (not is_leaf and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in allowed):
        return
    _refuse(f"expected a certificate for {policy.purpose.dotted_string}, {facts.label} is for other purposes")


def _refuse(message: str) -> None:
    refuse(message, reason=Refusal.CERTIFICATE_PATH)

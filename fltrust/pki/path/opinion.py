"""A second opinion on a path: `cryptography`'s verifier, wherever it is able to judge.

It knows no policies, no constraints on directory names and URIs, and no names that are equal but not in their
bytes. What it can judge must pass there as well: then no fault of ours alone lets a path through.
"""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from fltrust.errors import Refusal
from fltrust.pki.leaf import PARSE_ERRORS, refuse
from fltrust.pki.path.building import Path
from fltrust.pki.path.facts import Facts

_CRITICAL: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.NAME_CONSTRAINTS,
    }
)
_CONSTRAINTS: Final = (x509.DNSName, x509.IPAddress, x509.RFC822Name)
_LEAF_RULES: Final = ExtensionPolicy.permit_all()
_CA_RULES: Final = _LEAF_RULES.require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)


def ask_second_opinion(path: Path, *, at: datetime) -> bool:
    """Say whether `cryptography`'s verifier could judge the path; if it could and said no, refuse."""
    if not _is_able(path):
        return False
    certificates = [facts.certificate for facts in path]
    try:
        PolicyBuilder().store(Store([certificates[-1]])).time(at).max_chain_depth(
            len(path)
        ).extension_policies(ca_policy=_CA_RULES, ee_policy=_LEAF_RULES).build_client_verifier().verify(
            certificates[0], certificates[1:-1]
        )
    except (VerificationError, *PARSE_ERRORS) as error:
        # The tail of the message quotes the certificate's own, possibly hostile, subject.
        why = str(error).partition(" (encountered")[0][:160]
        refuse(
            f"expected two verifiers to accept a path at {at:%Y-%m-%dT%H:%M:%SZ}, the second refused: {why}",
            reason=Refusal.CERTIFICATE_PATH,
        )
    return True


def _is_able(path: Path) -> bool:
    return all(
        below.certificate.issuer.public_bytes() == above.certificate.subject.public_bytes()
        for below, above in pairwise(path)
    ) and all(_is_plain(facts, is_between=0 < number < len(path) - 1) for number, facts in enumerate(path))


def _is_plain(facts: Facts, *, is_between: bool) -> bool:
    if is_between and facts.is_self_issued:
        return False  # counted there towards the path's length
    if not isinstance(facts.certificate.public_key(), ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        return False
    if any(found.critical and oid not in _CRITICAL for oid, found in facts.extensions.items()):
        return False
    constraints = facts.get(x509.NameConstraints)
    subtrees = (
        ()
        if constraints is None
        else (*(constraints.permitted_subtrees or ()), *(constraints.excluded_subtrees or ()))
    )
    return all(isinstance(base, _CONSTRAINTS) for base in subtrees)

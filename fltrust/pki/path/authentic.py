"""CRLs that may be kept: each signed by somebody with a path to the trust anchors who may sign CRLs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509

from fltrust.errors import CertificateRefused
from fltrust.pki.path.evidence import Crl
from fltrust.pki.path.facts import Facts, read_facts, read_pool
from fltrust.pki.path.signatures import has_signed_crl
from fltrust.pki.path.types import PathLimits, PathPolicy, RevocationMode
from fltrust.pki.path.validation import validate_path


def authentic_crls(
    crls: Sequence[Crl],
    *,
    anchors: Sequence[bytes | x509.Certificate],
    intermediates: Sequence[bytes | x509.Certificate],
    at: datetime,
    limits: PathLimits | None = None,
) -> tuple[Crl, ...]:
    """Return the CRLs whose signer has a path to an anchor at `at` and may sign CRLs, in their order.

    Whether the signer was revoked is not asked: what it signed while it was good must not get lost. Whoever
    judges a certificate by these CRLs asks again (`validate_path`).
    """
    bounds = limits or PathLimits()
    trusted = [read_facts(anchor, limit=bounds.certificate_bytes) for anchor in anchors]
    pool = read_pool(intermediates, limit=bounds.certificate_bytes, count=bounds.certificates)
    policy = PathPolicy(strict=False, revocation=RevocationMode.BEST_EFFORT, limits=bounds)
    vouched: dict[bytes, bool] = {facts.der: True for facts in trusted}

    def is_vouched_for(facts: Facts) -> bool:
        if facts.der not in vouched:
            try:
                validate_path(facts.der, anchors=anchors, intermediates=intermediates, at=at, policy=policy)
            except CertificateRefused:
                vouched[facts.der] = False
            else:
                vouched[facts.der] = True
        return vouched[facts.der]

    return tuple(
        crl
        for crl in crls
        if crl.this_update <= at
        and any(
            facts.subject == crl.issuer
            and facts.may_sign(crls=True)
            and has_signed_crl(crl, facts)
            and is_vouched_for(facts)
            for facts in (*trusted, *pool)
        )
    )

"""Path validation at a stated time: build, process, ask for status, decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import NoReturn

from cryptography import x509

from fltrust.errors import CertificateRefused, FltrustError, Refusal, Revoked
from fltrust.pki.leaf import refuse
from fltrust.pki.path.budget import Budget
from fltrust.pki.path.building import Path, PathBuilder
from fltrust.pki.path.crls import UNKNOWN, judge_by_crls
from fltrust.pki.path.evidence import Crl, Entry, Evidence
from fltrust.pki.path.facts import Facts, read_facts, read_pool
from fltrust.pki.path.general_names import check_peer
from fltrust.pki.path.ocsp import is_exempt, judge_by_ocsp
from fltrust.pki.path.opinion import ask_second_opinion
from fltrust.pki.path.processing import process_path
from fltrust.pki.path.signatures import has_signed_crl
from fltrust.pki.path.types import (
    ANY_POLICY,
    CertificateStatus,
    PathPolicy,
    RevocationMode,
    StatusKind,
    ValidatedPath,
)

REVOCATION_UNKNOWN = "revocation-unknown"
"""The reason of a refusal for want of evidence."""
REVOCATION_STALE = "revocation-stale"
"""The reason of a refusal of evidence that is too old."""


def validate_path(
    leaf: bytes | x509.Certificate,
    *,
    anchors: Sequence[bytes | x509.Certificate],
    intermediates: Sequence[bytes | x509.Certificate] = (),
    evidence: Evidence | None = None,
    at: datetime,
    policy: PathPolicy | None = None,
) -> ValidatedPath:
    """Return a path from `leaf` to one of `anchors` that holds at `at`, or raise.

    The answer depends on the arguments alone: no clock is read, nothing is fetched, nothing remembered.
    `intermediates` may be in any order and may hold what is of no use; what of it cannot be read is left out.

    1. Bounds (`PathLimits`): what is past one is ``oversized``, before it is parsed where that is possible.
       The leaf and every anchor must be readable, else ``malformed``, and a peer one name, else `Malformed`.
    2. Paths are built whose names and signatures chain (`PathBuilder`), likely ones first.
    3. Each is processed (`process_path`, RFC 5280, 6.1), until one holds.
    4. Where `cryptography`'s verifier can judge it, that must accept it, too (`ask_second_opinion`).
    5. For each certificate but the anchor CRLs and OCSP answers that may be believed are asked. Revoked or on
       hold, by any of them, is refused: `Revoked` (``revoked``, ``held``).
    6. The rest is up to the mode: without evidence ``revocation-unknown``, with evidence that is too old
       ``revocation-stale``, both `CertificateRefused`.

    If no path holds, the first refusal is raised, a revocation before any other.
    """
    if at.tzinfo is None:
        raise ValueError("expected an aware time to validate at, got a naive one")
    rules = policy or PathPolicy()
    limits = rules.limits
    # 1.
    if rules.peer is not None:
        check_peer(rules.peer)
    subject = read_facts(leaf, limit=limits.certificate_bytes)
    if not 1 <= len(anchors) <= limits.certificates:
        refuse(
            f"expected 1 to {limits.certificates} trust anchors, got {len(anchors)}", reason=Refusal.OVERSIZED
        )
    trusted = tuple(read_facts(anchor, limit=limits.certificate_bytes) for anchor in anchors)
    pool = read_pool(intermediates, limit=limits.certificate_bytes, count=limits.certificates)
    budget = Budget(limits)
    builder = PathBuilder((*pool, subject), trusted, at=at, budget=budget)
    validation = _Validation(builder, evidence or Evidence(), at, budget)
    return validation.run(subject, rules)


class _Validation:
    """One call's work. `_signers` holds which CRLs were found to be signed by whom, for each anchor."""

    def __init__(self, builder: PathBuilder, evidence: Evidence, at: datetime, budget: Budget) -> None:
        self._builder = builder
        self._evidence = evidence
        self._at = at
        self._budget = budget
        self._signers: dict[tuple[int, bytes, bytes, frozenset[bytes]], bytes | None] = {}

    def run(
        self,
        leaf: Facts,
        policy: PathPolicy,
        *,
        to: Facts | None = None,
        below: frozenset[bytes] = frozenset(),
    ) -> ValidatedPath:
        """`below` are the keys of signers whose own path is in question: their CRLs do not vouch for them."""
        failures: list[FltrustError] = []
        # 2.
        for path in self._builder.paths(leaf, to=to):
            try:
                # 3.
                policies = process_path(path, at=self._at, policy=policy, budget=self._budget)
                # 4.
                second = ask_second_opinion(path, at=self._at)
                # 5. and 6.
                statuses = self._statuses(path, policy, below)
            except (CertificateRefused, Revoked) as error:
                if error.reason == Refusal.OVERSIZED:
                    raise
                failures.append(error)
                continue
            return ValidatedPath(
                tuple(facts.certificate for facts in path),
                self._at,
                policies,
                statuses,
                second,
                _warnings(path, statuses, self._at),
            )
        for failure in failures:
            if isinstance(failure, Revoked):
                raise failure
        if failures:
            raise failures[0]
        raise CertificateRefused(
            f"expected a path from the certificate of {leaf.label} to a trust anchor, found none whose names "
            "and signatures chain",
            reason=Refusal.CERTIFICATE_PATH,
        )

    def _statuses(
        self, path: Path, policy: PathPolicy, below: frozenset[bytes]
    ) -> tuple[CertificateStatus, ...]:
        return tuple(self._status(path, number, policy, below) for number in reversed(range(len(path) - 1)))[
            ::-1
        ]

    def _status(
        self, path: Path, number: int, policy: PathPolicy, below: frozenset[bytes]
    ) -> CertificateStatus:
        facts, issuer, anchor = path[number], path[number + 1], path[-1]

        def signer(crl: Crl) -> bytes | None:
            return self._signer(crl, issuer, anchor, policy, below)

        def is_good(responder: Facts) -> bool:
            if is_exempt(responder):
                return True
            verdict = judge_by_crls(responder, self._evidence.crls, at=self._at, signer=signer)
            return verdict.revoked is None and verdict.status.kind is StatusKind.GOOD

        by_crls = judge_by_crls(facts, self._evidence.crls, at=self._at, signer=signer)
        if by_crls.revoked is not None:
            _refuse_revoked(facts, by_crls.revoked)
        by_ocsp = judge_by_ocsp(
            facts,
            issuer,
            self._evidence.answers,
            at=self._at,
            limits=policy.limits,
            is_signed=self._builder.is_signed,
            is_good=is_good,
            count_signature=self._budget.signature,
        )
        if by_ocsp.revoked is not None:
            _refuse_revoked(facts, by_ocsp.revoked)
        return _decide(facts, _better(by_crls.status, by_ocsp.status), policy, self._at)

    def _signer(
        self, crl: Crl, issuer: Facts, anchor: Facts, policy: PathPolicy, below: frozenset[bytes]
    ) -> bytes | None:
        """6.3.3 f and g: the key that signed a CRL: the issuer's, or one with its own path to the anchor."""
        key = (id(crl), issuer.der, anchor.der, below)
        if key not in self._signers:
            self._signers[key] = self._find_signer(crl, issuer, anchor, policy, below)
        return self._signers[key]

    def _find_signer(
        self, crl: Crl, issuer: Facts, anchor: Facts, policy: PathPolicy, below: frozenset[bytes]
    ) -> bytes | None:
        others = [facts for facts in self._builder.named(crl.issuer) if facts is not issuer]
        for facts in ([issuer] if issuer.subject == crl.issuer else []) + others:
            if facts.spki in below or not facts.may_sign(crls=True) or not self._has_signed(crl, facts):
                continue
            if facts is issuer or facts is anchor or self._is_vouched_for(facts, anchor, policy, below):
                return facts.spki
        return None

    def _has_signed(self, crl: Crl, facts: Facts) -> bool:
        self._budget.signature()
        return has_signed_crl(crl, facts)

    def _is_vouched_for(
        self, facts: Facts, anchor: Facts, policy: PathPolicy, below: frozenset[bytes]
    ) -> bool:
        if len(below) >= policy.limits.signer_depth:
            return False
        rules = replace(
            policy,
            purpose=None,
            peer=None,
            policies=frozenset({ANY_POLICY}),
            require_explicit_policy=False,
        )
        try:
            self.run(facts, rules, to=anchor, below=below | {facts.spki})
        except (CertificateRefused, Revoked) as error:
            if error.reason == Refusal.OVERSIZED:
                raise
            return False
        return True


def _decide(facts: Facts, status: CertificateStatus, policy: PathPolicy, at: datetime) -> CertificateStatus:
    mode = policy.revocation
    if status.kind is StatusKind.GOOD or mode is RevocationMode.BEST_EFFORT:
        return status
    if status.kind is StatusKind.UNKNOWN or status.fresh_until is None:
        raise CertificateRefused(
            f"expected evidence that the certificate of {facts.label} is not revoked, found none that counts",
            reason=REVOCATION_UNKNOWN,
            hint="give the CRL or the OCSP answer of its issuer, or choose best-effort",
        )
    if mode is RevocationMode.SOFT_FAIL and at <= status.fresh_until + policy.grace:
        return status
    raise CertificateRefused(
        f"expected fresh evidence that the certificate of {facts.label} is not revoked, the newest ended at "
        f"{status.fresh_until:%Y-%m-%dT%H:%M:%SZ}",
        reason=REVOCATION_STALE,
        hint="get a newer CRL or OCSP answer",
    )


def _better(one: CertificateStatus, other: CertificateStatus) -> CertificateStatus:
    if UNKNOWN in (one, other):
        return other if one == UNKNOWN else one
    if one.kind is not other.kind:
        return one if one.kind is StatusKind.GOOD else other
    ends = [end for end in (one.fresh_until, other.fresh_until) if end is not None]
    return CertificateStatus(one.kind, f"{one.source}+{other.source}", max(ends, default=None))


def _warnings(path: Path, statuses: Sequence[CertificateStatus], at: datetime) -> tuple[str, ...]:
    found = []
    for facts, status in zip(path, statuses, strict=False):
        if status.kind is StatusKind.UNKNOWN:
            found.append(f"nothing tells whether the certificate of {facts.label} is revoked")
        elif status.kind is StatusKind.STALE and status.fresh_until is not None:
            found.append(
                f"the evidence on the certificate of {facts.label} is over since {at - status.fresh_until}"
            )
    return tuple(found)


def _refuse_revoked(facts: Facts, entry: Entry) -> NoReturn:
    is_held = entry.reason is x509.ReasonFlags.certificate_hold
    raise Revoked(
        f"expected a certificate in good standing, {facts.label} was "
        f"{'put on hold' if is_held else 'revoked'} at {entry.at:%Y-%m-%dT%H:%M:%SZ} ({entry.reason.value})",
        reason=Refusal.HELD if is_held else Refusal.REVOKED,
    )

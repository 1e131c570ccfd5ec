"""Whether genuine evidence will do: identity, standing, lineage and policy (steps 9 to 13 of the recipe)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from fltrust.artifacts import content
from fltrust.artifacts.evidence import Trust, VerifiedStatement, verify_bundle
from fltrust.artifacts.identity import IdentityRule, require_identity
from fltrust.artifacts.oms import ModelStatement, parse_statement
from fltrust.artifacts.policy import OnTaint, Policy
from fltrust.artifacts.status import Status, TaintedAggregate
from fltrust.artifacts.trustfile import read_status
from fltrust.clock import to_rfc3339
from fltrust.errors import (
    EvidenceInvalid,
    EvidenceMissing,
    FltrustError,
    PolicyNotMet,
    Refused,
    Revoked,
    Tainted,
)
from fltrust.identity import Digest, Role, SpiffeId, TrustDomain

if TYPE_CHECKING:
    from fltrust.artifacts.lineage import Lineage

_CLOCKS_APART = timedelta(hours=1)
_OLD_STATUS = timedelta(days=30)
"""Without a bound in the policy, an older status is told as a warning."""


@dataclass(slots=True)
class Judgement:
    """What steps 9 to 13 found. Advisory: a refusal is kept, not raised."""

    is_advisory: bool
    statement: ModelStatement | None = None
    lineage: Lineage | None = None
    status: Status | None = None
    warnings: list[str] = field(default_factory=list)
    refusals: list[FltrustError] = field(default_factory=list)

    def hold(self, step: Callable[[], object]) -> None:
        """Run one step; in advisory mode its refusal does not keep the next from being run."""
        try:
            step()
        except Refused as refusal:
            if not self.is_advisory:
                raise
            self.refusals.append(refusal)


def judge(
    found: Judgement,
    *,
    model: Path,
    evidence: VerifiedStatement,
    signers: tuple[IdentityRule, ...],
    policy: Policy,
    trust: Trust,
    lineage: Path | None,
    default_lineage: Path,
    status: Path | None,
    at: datetime,
) -> None:
    """Fill in `found`, or raise the first refusal. The steps are those of `fltrust.artifacts.recipe`."""

    def know_status() -> None:
        found.status = _newest_status(found, trust, status, policy=policy)

    def know_lineage() -> None:
        found.lineage = _lineage(
            found,
            statement,
            lineage or default_lineage,
            is_given=lineage is not None,
            trust=trust,
            policy=policy,
        )

    # 9.
    found.hold(lambda: require_identity(signers, evidence.signer, evidence.issuer))
    # 10.
    statement = found.statement = parse_statement(evidence.payload)
    # 11.
    found.hold(know_status)
    found.hold(lambda: _require_fresh(found, policy, at))
    found.hold(lambda: _require_own_status(found, policy, evidence))
    found.hold(lambda: _require_standing(found.status, evidence))
    # 12.
    found.hold(know_lineage)
    found.hold(lambda: _require_untainted(found, statement, policy))
    # 13.
    found.hold(lambda: _require_participation(found.lineage, policy))
    found.hold(lambda: content.require_content(model, statement.manifest, policy, found.warnings))


def _newest_status(found: Judgement, trust: Trust, given: Path | None, *, policy: Policy) -> Status | None:
    """The newest status there is, verified; step 11."""
    candidates = [trust.file.status] if trust.file.status is not None else []
    if given is not None:
        candidates.append(read_status(given))
    if candidates:
        return max((verify_status(data, trust=trust) for data in candidates), key=lambda s: (s.epoch, s.at))
    if policy.require_status or policy.max_status_age is not None:
        raise EvidenceMissing(
            "expected the status of the trust domain, the trust file has none",
            reason="status-missing",
            hint="fltrust trust export writes one; --status names one elsewhere",
        )
    found.warnings.append("nothing is known of revocation: the trust file has no status")
    return None


def _require_fresh(found: Judgement, policy: Policy, at: datetime) -> None:
    if found.status is None:
        return
    age = at - found.status.at
    if policy.max_status_age is not None and age < -_CLOCKS_APART:
        raise PolicyNotMet(
            f"expected a status of at most {policy.max_status_age}, it is of {to_rfc3339(found.status.at)}, "
            f"which is yet to come",
            reason="status-stale",
            hint="is the clock right?",
        )
    if policy.max_status_age is not None and age > policy.max_status_age:
        raise PolicyNotMet(
            f"expected a status of at most {policy.max_status_age}, it is of {to_rfc3339(found.status.at)}",
            reason="status-stale",
            hint="fetch the trust file anew: fltrust trust export",
        )
    if policy.max_status_age is None and age > _OLD_STATUS:
        found.warnings.append(f"the status is {age.days} days old: later revocations are not known")


def _require_own_status(found: Judgement, policy: Policy, signed: VerifiedStatement) -> None:
    """The status of a trust domain says nothing of signers that another one, or nobody's, vouches for."""
    if found.status is None or signed.issuer == f"spiffe://{found.status.domain}":
        return
    what = f"the status is of {found.status.domain} and says nothing of {signed.signer}"
    if policy.require_status or policy.max_status_age is not None:
        raise EvidenceMissing(
            f"expected the status of the signer's trust domain; {what}",
            reason="status-missing",
            hint="verify with the trust file of the signer's federation",
        )
    found.warnings.append(f"nothing is known of the signer's revocation: {what}")


def verify_status(data: bytes, *, trust: Trust) -> Status:
    """A status statement, verified as any statement is, and signed by the domain's coordinator."""
    found = verify_bundle(data, trust=trust)
    status = Status.from_payload(found.payload)
    domain = trust.file.domain or status.domain
    coordinator = SpiffeId(domain, Role.COORDINATOR, None)
    if status.domain != domain or not IdentityRule(str(coordinator)).matches(found.signer, found.issuer):
        raise EvidenceInvalid(
            f"expected the status of {domain} signed by {coordinator}, got one of {status.domain} "
            f"signed by {found.signer}",
            reason="status-signer",
        )
    return status


def _require_standing(status: Status | None, signed: VerifiedStatement) -> None:
    revoked = (
        None
        if status is None
        else status.revocation_of(signed.signer, signed.certificate, signed_at=signed.signed_at)
    )
    if revoked is None:
        return
    since = revoked.compromised_since
    raise Revoked(
        f"expected {signed.signer} in good standing at {to_rfc3339(signed.signed_at)}; revoked at "
        f"{to_rfc3339(revoked.at)} ({revoked.reason})"
        + (f", compromised since {to_rfc3339(since)}" if since is not None else ""),
        reason="signer-revoked",
        hint="ask for the model to be signed anew, by somebody in good standing",
    )


def _lineage(
    found: Judgement, statement: ModelStatement, path: Path, *, is_given: bool, trust: Trust, policy: Policy
) -> Lineage | None:
    """The lineage that the statement names, verified; step 12."""
    link, is_there = statement.lineage, path.is_file()
    if link is None or not is_there:
        what = "the signature names none" if link is None else f"there is no {path.name}"
        if policy.demands_lineage or is_given:
            raise EvidenceMissing(
                f"expected the lineage of the model, {what}",
                reason="lineage-missing",
                hint="fltrust sign binds it, where the coordinator knows the aggregate",
            )
        if is_there or link is not None:
            found.warnings.append(f"the lineage is not verified: {what}")
        return None
    lineage = verify_lineage_file(
        path, head=link.aggregate, trust=trust, status=found.status, aggregators=policy.aggregators
    )
    head = lineage.head
    told = (link.run_id, link.step, link.log_index, link.bundle, link.count)
    if told != (head.place.run_id, head.place.step, head.log_index, head.bundle, len(lineage.steps)):
        raise EvidenceInvalid(
            "expected the lineage that the signature names, found another", reason="lineage-of-another-model"
        )
    sets = [file.tensors.set for file in statement.manifest.tensors.values()]
    if sets and link.aggregate not in sets:
        raise EvidenceInvalid(
            f"expected the aggregate {link.aggregate} among the model's tensors, it is not",
            reason="lineage-of-another-model",
        )
    if not sets:
        found.warnings.append(
            "that these files hold the aggregate rests on the signer's word: only safetensors are compared"
        )
    return lineage


def verify_lineage_file(
    path: Path,
    *,
    head: Digest | None,
    trust: Trust,
    status: Status | None,
    aggregators: tuple[IdentityRule, ...] = (),
) -> Lineage:
    """The lineage in a file, verified as one chain (`fltrust.artifacts.lineage.verify_lineage`).

    Each link is verified as any signature of the trust file's domain, by one of `aggregators` (none named:
    by any aggregator or signer of the domain) who was in good standing then, and logged.
    """
    from fltrust.artifacts.lineage import SignedProvenance, read_lineage, verify_lineage

    domain = _domain_of(trust, status)
    # A signer can only have stated a replay: `Provenance` names who may make what.
    builders = aggregators or tuple(
        IdentityRule(f"spiffe://{domain}/{role}/*") for role in (Role.AGGREGATOR, Role.SIGNER)
    )

    def verified(bundle: bytes) -> SignedProvenance:
        signed = verify_bundle(bundle, trust=trust)
        require_identity(builders, signed.signer, signed.issuer)
        _require_standing(status, signed)
        if signed.log_index is None:
            raise EvidenceMissing("expected a log entry of each provenance, found none", reason="log-missing")
        return SignedProvenance(
            signed.payload, SpiffeId.parse(signed.signer), signed.signed_at, signed.log_index
        )

    return verify_lineage(read_lineage(path), head=head, verify_bundle=verified, domain=domain)


def _domain_of(trust: Trust, status: Status | None) -> TrustDomain:
    if trust.file.domain is not None:
        return trust.file.domain
    if status is not None:
        return status.domain
    raise EvidenceMissing(
        "expected a trust file that names its trust domain, to verify the lineage against",
        reason="trust-domain",
        hint="use the trust file of 'fltrust trust export' in place of a trusted_root.json",
    )


def _require_untainted(found: Judgement, statement: ModelStatement, policy: Policy) -> None:
    if found.status is None:
        return
    tensors: list[Digest] = [file.tensors.set for file in statement.manifest.tensors.values()]
    if statement.lineage is not None:
        tensors.append(statement.lineage.aggregate)
    if found.lineage is not None:
        tensors.extend(step.provenance.tensors for step in found.lineage.steps)
    taint = found.status.taint_of(tensors, statement.subject)
    if taint is None:
        if found.status.tainted_aggregates and not tensors:
            found.warnings.append(
                "whether it is tainted is not known: the signature names neither tensors nor lineage"
            )
        return
    what = (
        f"the aggregate of step {taint.step} of run {taint.run_id}"
        if isinstance(taint, TaintedAggregate)
        else f"the model {taint.name}"
    )
    how = "contains compromised updates" if taint.is_direct else "descends from compromised updates"
    if policy.on_taint is OnTaint.WARN:
        found.warnings.append(f"tainted: {what} {how}")
        return
    raise Tainted(
        f"expected a model free of compromised updates; {what} {how}",
        hint="ask for the repaired model; 'fltrust rounds replay' makes one",
    )


def _require_participation(lineage: Lineage | None, policy: Policy) -> None:
    """Step 13, what the policy demands of the lineage. Without one, step 12 has refused already."""
    if lineage is None:
        return
    if lineage.rounds < policy.min_rounds:
        raise PolicyNotMet(
            f"expected at least {policy.min_rounds} rounds of training, the lineage has {lineage.rounds}",
            reason="too-few-rounds",
        )
    if len(lineage.participants) < policy.min_participants:
        raise PolicyNotMet(
            f"expected at least {policy.min_participants} participants, "
            f"the lineage has {len(lineage.participants)}",
            reason="too-few-participants",
        )
    others = lineage.app_hashes - policy.app_hashes
    if policy.app_hashes and others:
        raise PolicyNotMet(
            f"expected rounds of the policy's apps alone, one ran {min(others) or 'an unnamed app'}",
            reason="app-not-allowed",
        )

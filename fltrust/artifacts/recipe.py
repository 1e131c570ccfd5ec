"""Verifying a model: one recipe, offline, from one trust file.

The steps are those of `docs/reference/verification.md`, and numbered in the code:

1. Bounds: the model is there, and so is its signature (else ``unsigned``); neither the signature, nor the
   trust file, nor the policy is larger than its format allows.
2. The trust file is read: certificate authorities, logs, timestamp authorities, status.
3. The signature is a Sigstore bundle around one DSSE envelope with one signature, one certificate and at
   most one log entry.
4. The envelope's signature is that of the certificate's key.
5. Time: every timestamp verifies, by an authority of the trust file and within its window; there is at
   least one verified time. The log's own signed time counts, unless the policy demands a timestamp.
6. At every verified time the certificate has a path to an authority of the trust file and is valid; it is
   for code signing. One of ours keeps exactly to our profile, and leads to an authority of its own domain.
7. A certificate log of the trust file has promised the certificate (SCT).
8. The log entry is about exactly this signature, certificate and statement; it is in the tree of a
   checkpoint that a log of the trust file signed; the policy's witnesses cosigned it.
9. The signer is one whom the caller or the policy names. Without a name nothing is verified.
10. The statement is that of a model: OMS v1.0.
11. Status: it is signed by the coordinator of the trust file's domain and no older than the policy
    allows; the signature does not fall under a revocation of its signer; neither the model nor anything
    it comes from is tainted.
12. Lineage, where it is there or demanded: it is the one that the statement names, and one chain back to
    the first arrays, each link signed by an aggregator whom the policy allows and logged.
13. The policy's demands on rounds, participants, apps and content are met.
14. The bytes are the signed ones: every file, no more and no fewer.
15. Where the policy refuses pickles: no file begins as one does, or is a zip archive that has one in it or
   cannot be looked into.

Steps 1 to 8 and 14 say whether the evidence is genuine, the others whether it will do. A policy in
``advisory`` mode lets the others tell what they would refuse, in `VerifiedModel.refusals`; what is
not genuine is always refused.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fltrust.artifacts import content, measuring
from fltrust.artifacts.bundle import MAX_BUNDLE
from fltrust.artifacts.evidence import Trust, VerifiedStatement, verify_bundle
from fltrust.artifacts.hashing import Progress
from fltrust.artifacts.identity import IdentityRule
from fltrust.artifacts.judgement import Judgement, judge
from fltrust.artifacts.manifest import lineage_beside, sidecar_paths
from fltrust.artifacts.oms import ModelStatement, parse_statement
from fltrust.artifacts.policy import Mode, Policy
from fltrust.artifacts.status import Status
from fltrust.artifacts.trustfile import TrustFile
from fltrust.clock import SystemClock
from fltrust.errors import EvidenceMissing, FltrustError, Malformed, NotFound, PolicyNotMet, UntrustedSigner
from fltrust.files import read_bounded
from fltrust.identity import Digest

if TYPE_CHECKING:
    from fltrust.artifacts.lineage import Lineage

TrustSource = Trust | TrustFile | bytes | str | Path
PolicySource = Policy | str | Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedModel:
    """A model whose evidence is genuine; in ``enforce`` mode there are no `refusals`."""

    path: Path
    statement: ModelStatement
    evidence: VerifiedStatement
    policy: Policy
    lineage: Lineage | None
    status: Status | None
    warnings: tuple[str, ...]
    refusals: tuple[FltrustError, ...] = ()
    bundle: Digest
    """SHA-256 of the signature's file."""

    @property
    def is_accepted(self) -> bool:
        return not self.refusals

    @property
    def signer(self) -> str:
        return self.evidence.signer

    @property
    def issuer(self) -> str | None:
        return self.evidence.issuer

    @property
    def signed_at(self) -> datetime:
        return self.evidence.signed_at

    @property
    def subject(self) -> Digest:
        return self.statement.subject

    @property
    def rounds(self) -> int | None:
        return None if self.lineage is None else self.lineage.rounds

    @property
    def participants(self) -> tuple[str, ...] | None:
        return None if self.lineage is None else tuple(sorted(self.lineage.participants))


def verify(
    path: str | Path,
    *,
    trust: TrustSource,
    policy: PolicySource = None,
    identity: str | IdentityRule | None = None,
    issuer: str | None = None,
    signature: str | Path | None = None,
    lineage: str | Path | None = None,
    status: str | Path | None = None,
    at: datetime | None = None,
    ignore: Collection[str] = (),
    workers: int | None = None,
    progress: Progress | None = None,
) -> VerifiedModel:
    """Return the verified model, or raise why it is refused. Reads files alone: no network, no clock but
    `at` (default: now), which ages the status.

    `identity` (a SPIFFE ID, in whose path ``*`` is allowed, or a name with its `issuer`) or the policy's
    signers must name who may have signed. Sidecars lie beside the model unless given, and the lineage of a
    signature that is given beside that. All steps are in this module's docstring; nothing of the model but
    its size is read before step 14, and nothing is ever deserialised.
    """
    found = verify_signature(
        path,
        trust=trust,
        policy=policy,
        identity=identity,
        issuer=issuer,
        signature=signature,
        lineage=lineage,
        status=status,
        at=at,
    )
    files = found.statement.manifest
    measuring.verify_files(found.path, files, ignore=ignore, workers=workers, progress=progress)  # 14.
    if ignore:
        note = f"ignored, and so not verified: {', '.join(sorted(ignore))}"
        found = replace(found, warnings=(*found.warnings, note))
    if not found.policy.allow_pickles:  # 15.
        try:
            content.require_no_pickles(found.path, files)
        except PolicyNotMet as refusal:
            if found.policy.mode is not Mode.ADVISORY:
                raise
            return replace(found, refusals=(*found.refusals, refusal))
    return found


def verify_signature(
    path: str | Path,
    *,
    trust: TrustSource,
    policy: PolicySource = None,
    identity: str | IdentityRule | None = None,
    issuer: str | None = None,
    signature: str | Path | None = None,
    lineage: str | Path | None = None,
    status: str | Path | None = None,
    at: datetime | None = None,
) -> VerifiedModel:
    """Steps 1 to 13: all but the model's bytes. For those who read the bytes themselves, once
    (`fltrust.artifacts.loading`); whoever stops here knows nothing of the bytes."""
    # 1.
    model = Path(path)
    if not model.exists():
        raise NotFound(f"expected a model at {model}, found nothing")
    rules = (
        policy if isinstance(policy, Policy) else Policy() if policy is None else Policy.read(Path(policy))
    )
    signers = signers_of(rules, identity, issuer)
    sidecars = sidecar_paths(model)
    data = _read_signature(Path(signature) if signature is not None else sidecars.signature)
    # 2.
    trusted = load_trust(trust)
    # 3. to 8.
    evidence = verify_bundle(
        data,
        trust=trusted,
        require_log=rules.require_log,
        require_timestamp=rules.require_timestamp,
        witnesses=rules.witnesses,
        min_witnesses=rules.min_witnesses,
    )
    # 9. to 13.
    judgement = Judgement(is_advisory=rules.mode is Mode.ADVISORY)
    judge(
        judgement,
        model=model,
        evidence=evidence,
        signers=signers,
        policy=rules,
        trust=trusted,
        lineage=Path(lineage) if lineage is not None else None,
        default_lineage=sidecars.lineage if signature is None else lineage_beside(Path(signature)),
        status=Path(status) if status is not None else None,
        at=at or SystemClock().now(),
    )
    return VerifiedModel(
        path=model,
        statement=judgement.statement or parse_statement(evidence.payload),
        evidence=evidence,
        policy=rules,
        lineage=judgement.lineage,
        status=judgement.status,
        warnings=tuple(judgement.warnings),
        refusals=tuple(judgement.refusals),
        bundle=Digest.sha256_of(data),
    )


def load_trust(source: TrustSource) -> Trust:
    """Read a trust file once; what comes back serves any number of verifications (step 2)."""
    if isinstance(source, Trust):
        return source
    if isinstance(source, TrustFile):
        return Trust.of(source)
    return Trust.of(TrustFile.parse(source) if isinstance(source, bytes) else TrustFile.read(Path(source)))


def signers_of(
    policy: Policy, identity: str | IdentityRule | None, issuer: str | None
) -> tuple[IdentityRule, ...]:
    """Who may have signed: whom the caller names, else whom the policy names, else `UntrustedSigner`
    (``identity-required``)."""
    if isinstance(identity, str):
        return (IdentityRule(identity, issuer),)
    if identity is not None:
        return (identity,)
    if issuer is not None:
        raise Malformed("expected an identity beside the issuer, got none")
    if not policy.signers:
        raise UntrustedSigner(
            "expected an identity, or a policy that names signers: anybody can sign a model",
            reason="identity-required",
            hint="--identity spiffe://<trust domain>/signer/<name>, or [[signers]] in the policy",
        )
    return policy.signers


def _read_signature(path: Path) -> bytes:
    if not path.is_file():
        raise EvidenceMissing(
            f"expected the model's signature at {path}, found none",
            reason="unsigned",
            hint="fltrust sign writes it; --signature names one elsewhere",
        )
    return read_bounded(path, limit=MAX_BUNDLE)

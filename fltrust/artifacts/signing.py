"""Signing a model at the coordinator's desk: hash, state, sign with a key that dies with the process, log.

What is written lies beside the model: the lineage first, the signature last. A signature that is there
is whole, was verified, and finds its lineage beside it; a crash before that leaves the old pair, or an
old signature beside a newer lineage, which then does not verify.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fltrust.artifacts.bundle import SigstoreBundle
from fltrust.artifacts.envelope import SignedEnvelope
from fltrust.artifacts.evidence import Trust, VerifiedStatement, verify_bundle
from fltrust.artifacts.hashing import Progress
from fltrust.artifacts.judgement import verify_status
from fltrust.artifacts.lineage import write_lineage
from fltrust.artifacts.manifest import lineage_beside, sidecar_paths
from fltrust.artifacts.measuring import build_manifest
from fltrust.artifacts.oms import LineageLink, ModelStatement
from fltrust.artifacts.ports import EntryKind, LineageArchive, SigningDesk, StepOfRun
from fltrust.artifacts.provenance import Provenance
from fltrust.artifacts.status import TaintedAggregate, TaintedModel
from fltrust.artifacts.trustfile import TrustFile
from fltrust.errors import EvidenceInvalid, EvidenceMissing, Malformed, NotFound
from fltrust.files import write_durably
from fltrust.identity import Digest
from fltrust.keys.file import generate
from fltrust.pki.csr import create_csr


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedModel:
    """What was written beside the model."""

    path: Path
    signature: Path
    lineage: Path | None
    statement: ModelStatement
    evidence: VerifiedStatement
    bundle: Digest
    """SHA-256 of the signature's file."""
    taint: TaintedAggregate | TaintedModel | None = None
    """What the status of the moment says of it: verifiers with a new trust file refuse a tainted model."""

    @property
    def signer(self) -> str:
        return self.evidence.signer


@dataclass(frozen=True, slots=True)
class FoundLineage:
    """Bundles of provenance, the newest first, and what the statement says of them."""

    link: LineageLink
    bundles: tuple[bytes, ...]


def sign(
    path: str | Path,
    *,
    desk: SigningDesk,
    lineage: LineageArchive | None = None,
    run: StepOfRun | None = None,
    trust: TrustFile | Trust | None = None,
    entry_kind: EntryKind = EntryKind.HASHEDREKORD,
    out: str | Path | None = None,
    ignore: Collection[str] = (),
    with_tensors: bool = True,
    shard_bytes: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> SignedModel:
    """Sign a file or a directory, and write signature and lineage beside it (or the signature to `out`).

    1. Hash every file, and every tensor of safetensors files; nothing that changed meanwhile is signed.
       One digest of a large file is one pass on one core: `shard_bytes` (`measuring.SHARD_BYTES`) takes
       one of each shard instead, on all cores. Without tensors (`with_tensors`), no lineage is found.
    2. Find the lineage: that of the aggregate whose tensors a safetensors file holds, or of `run`. None is
       no fault, but with `run` it is `EvidenceMissing`.
    3. State it (OMS v1.0, `fltrust.artifacts.oms`), and sign with a key made for this one statement, for
       which the desk gives a certificate. The key never leaves this process.
    4. Have it timestamped and logged.
    5. Verify the bundle against the trust file (of `lineage`, unless given): it is about the statement that
       was signed. Nothing is written before.
    6. Write the lineage, then the signature, each whole or not at all.

    Raises what hashing, the desk and the verification raise; the model itself is never written to.
    """
    model = Path(path)
    # 1.
    manifest = build_manifest(
        model,
        ignore=ignore,
        with_tensors=with_tensors,
        shard_bytes=shard_bytes,
        workers=workers,
        progress=progress,
    )
    # 2.
    sets = tuple(file.tensors.set for file in manifest.tensors.values())
    found = None if lineage is None else find_lineage(lineage, sets, run)
    if run is not None and found is None:
        raise EvidenceMissing(
            f"expected the lineage of step {run.step} of run {run.run_id}, the coordinator has none",
            reason="lineage-missing",
        )
    # 3.
    statement = ModelStatement(
        name=model.resolve().name,
        manifest=manifest,
        ignored=tuple(sorted(ignore)),
        lineage=None if found is None else found.link,
    )
    signer = generate()
    certificate = desk.certify_signer(create_csr(signer))[0]
    envelope = SignedEnvelope.sign(statement.encode(), signer=signer)
    # 4.
    bundle = desk.countersign(envelope.to_json(), certificate, entry_kind=entry_kind)
    # 5.
    trusted = _trust(trust, lineage)
    evidence = _check_own(bundle, envelope, trusted)
    # 6.
    sidecars = sidecar_paths(model)
    signature = sidecars.signature if out is None else Path(out)
    beside = None
    if found is not None:
        beside = sidecars.lineage if out is None else lineage_beside(signature)
        write_lineage(beside, found.bundles)
    write_durably(signature, bundle, mode=0o644)
    return SignedModel(
        path=model,
        signature=signature,
        lineage=beside,
        statement=statement,
        evidence=evidence,
        bundle=Digest.sha256_of(bundle),
        taint=_taint(trusted, statement),
    )


def find_lineage(
    archive: LineageArchive, tensor_sets: Collection[Digest], run: StepOfRun | None
) -> FoundLineage | None:
    """The lineage of the aggregate that the model holds, or of `run`; None where there is none.

    Of a model with several safetensors files, the first one that is an aggregate decides. Where `run` is
    given, the aggregate must be among the model's tensors, if it has any: `EvidenceInvalid` otherwise.
    """
    for query in (run,) if run is not None else tensor_sets:
        try:
            bundles = tuple(archive.find_lineage(query))
        except NotFound:
            continue
        if not bundles:
            continue
        newest = SigstoreBundle.parse(bundles[0])
        said = Provenance.from_payload(newest.envelope.payload)
        if not newest.entries:
            raise Malformed("expected a log entry in the newest provenance, found none")
        if tensor_sets and said.tensors not in tensor_sets:
            raise EvidenceInvalid(
                f"expected the aggregate of step {said.step} of run {said.run_id} in the model, "
                f"its tensors are others",
                reason="lineage-of-another-model",
                hint="was the model changed after training? sign it without --run, or the right step",
            )
        link = LineageLink(
            aggregate=said.tensors,
            run_id=said.run_id,
            step=said.step,
            log_index=newest.entries[0].index,
            bundle=Digest.sha256_of(bundles[0]),
            count=len(bundles),
        )
        return FoundLineage(link, bundles)
    return None


def _trust(trust: TrustFile | Trust | None, lineage: LineageArchive | None) -> Trust:
    if isinstance(trust, Trust):
        return trust
    if trust is None:
        if lineage is None:
            raise Malformed("expected a trust file to verify the new signature against, got none")
        trust = TrustFile.parse(lineage.trust_file())
    return Trust.of(trust)


def _taint(trust: Trust, statement: ModelStatement) -> TaintedAggregate | TaintedModel | None:
    if trust.file.status is None:
        return None
    tensors = [*statement.tensor_sets.values()]
    if statement.lineage is not None:
        tensors.append(statement.lineage.aggregate)
    return verify_status(trust.file.status, trust=trust).taint_of(tensors, statement.subject)


def _check_own(bundle: bytes, envelope: SignedEnvelope, trust: Trust) -> VerifiedStatement:
    """Step 5: what came back verifies, and is about what was sent."""
    evidence = verify_bundle(bundle, trust=trust)
    if SigstoreBundle.parse(bundle).envelope != envelope:
        raise EvidenceInvalid("expected a bundle of the statement that was signed, got one of another")
    return evidence

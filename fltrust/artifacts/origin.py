"""Lineage by itself, without a verdict on the model: as it claims to be, or verified against a trust file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fltrust.artifacts.bundle import SigstoreBundle
from fltrust.artifacts.evidence import Trust
from fltrust.artifacts.judgement import verify_lineage_file, verify_status
from fltrust.artifacts.lineage import Lineage, SignedProvenance, read_lineage, verify_lineage
from fltrust.artifacts.manifest import sidecar_paths
from fltrust.artifacts.measuring import build_manifest
from fltrust.artifacts.provenance import Provenance
from fltrust.artifacts.status import Status
from fltrust.errors import EvidenceInvalid, EvidenceMissing, Malformed
from fltrust.identity import Digest


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model comes from.

    `is_verified`: every statement is genuine. `is_the_models`: the model's own tensors are the newest
    aggregate; None where it has none that could be compared. `status` is the trust file's, if it has one.
    """

    lineage: Lineage
    is_verified: bool
    is_the_models: bool | None
    status: Status | None

    @property
    def taints(self) -> dict[Digest, bool]:
        """Tainted tensor sets in the lineage; True for those that hold compromised updates themselves."""
        known = () if self.status is None else self.status.tainted_aggregates
        mine = {step.provenance.tensors for step in self.lineage.steps}
        return {item.tensors: item.is_direct for item in known if item.tensors in mine}


def claimed_origin(model: Path, *, lineage: Path | None = None) -> Origin:
    """What the lineage file claims; it fits together, and no signature in it was checked."""
    path = _path(model, lineage)
    first = next(read_lineage(path), None)
    if first is None:
        raise EvidenceMissing(f"expected provenance in {path.name}, found none")
    domain = _claimed(first).signer.domain
    found = verify_lineage(read_lineage(path), head=None, verify_bundle=_claimed, domain=domain)
    return Origin(found, False, _is_the_models(model, found), None)


def verified_origin(model: Path, *, trust: Trust, lineage: Path | None = None) -> Origin:
    """The lineage of a model, verified offline.

    1. The trust file names its trust domain; its status, where it has one, verifies.
    2. The lineage verifies as one chain, each link by a builder of the domain who was in good standing
       (`fltrust.artifacts.judgement.verify_lineage_file`).
    3. The model's tensors are the newest aggregate: `EvidenceInvalid` if it has tensors, and others.

    Says nothing about who released the model: that is `fltrust.artifacts.verify`.
    """
    status = None if trust.file.status is None else verify_status(trust.file.status, trust=trust)  # 1
    found = verify_lineage_file(_path(model, lineage), head=None, trust=trust, status=status)  # 2
    is_the_models = _is_the_models(model, found)  # 3
    if is_the_models is False:
        raise EvidenceInvalid(
            f"expected the tensors of {model.name} to be the aggregate {found.head.provenance.name}, "
            "they are others",
            reason="lineage-of-another-model",
        )
    return Origin(found, True, is_the_models, status)


def _path(model: Path, lineage: Path | None) -> Path:
    return sidecar_paths(model).lineage if lineage is None else lineage


def _claimed(bundle: bytes) -> SignedProvenance:
    """What a bundle says of itself."""
    parsed = SigstoreBundle.parse(bundle)
    if not parsed.entries:
        raise Malformed("expected a log entry in each bundle of a lineage, found none")
    said = Provenance.from_payload(parsed.envelope.payload)
    return SignedProvenance(parsed.envelope.payload, said.builder, said.finished_at, parsed.entries[0].index)


def _is_the_models(model: Path, lineage: Lineage) -> bool | None:
    """Whether a safetensors file of the model holds the newest aggregate; None where it has none."""
    if not model.exists():
        return None
    sets = [file.tensors.set for file in build_manifest(model).tensors.values()]
    return lineage.head.provenance.tensors in sets if sets else None

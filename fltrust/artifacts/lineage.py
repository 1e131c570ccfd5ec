"""The lineage of a model: the provenance of its aggregate and of every one before, back to the first arrays.

A lineage file holds one Sigstore bundle a line, the newest first. `fltrust.artifacts.manifest.sidecar_paths`
says where it lies.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fltrust.artifacts.inputs import ModelInput, UpdateInput
from fltrust.artifacts.ports import StepOfRun
from fltrust.artifacts.provenance import MAX_PROVENANCE_BYTES, Provenance
from fltrust.errors import EvidenceInvalid, EvidenceMissing, Malformed, Oversized, StorageUnavailable
from fltrust.files import write_durably
from fltrust.identity import Digest, Epoch, RunId, SpiffeId, TrustDomain

MAX_STEPS = 100_000
"""Statements of one lineage."""
MAX_LINE = 2 * MAX_PROVENANCE_BYTES
"""Bytes of one bundle: the payload in base64, and what makes it verifiable."""


@dataclass(frozen=True, slots=True)
class SignedProvenance:
    """What verifying one bundle gives: the statement's bytes, who signed them, when, and where in the log."""

    payload: bytes
    signer: SpiffeId
    signed_at: datetime
    log_index: int


VerifyBundle = Callable[[bytes], SignedProvenance]
"""Verifies one bundle as of its own time of signing, and raises where it does not hold: path, certificate
transparency, timestamp, log entry, signature (`fltrust.artifacts.recipe`)."""


@dataclass(frozen=True, slots=True)
class LineageStep:
    """One statement of a lineage. `bundle` is the SHA-256 of the line it stands in."""

    provenance: Provenance
    bundle: Digest
    signed_at: datetime
    log_index: int

    @property
    def place(self) -> StepOfRun:
        return StepOfRun(self.provenance.run_id, self.provenance.step)


@dataclass(frozen=True, slots=True)
class Lineage:
    """A chain of statements, the newest first; there is at least one."""

    steps: tuple[LineageStep, ...]

    @property
    def head(self) -> LineageStep:
        """The aggregate that the model is."""
        return self.steps[0]

    @property
    def origin(self) -> LineageStep:
        """The arrays that training began with."""
        return self.steps[-1]

    @property
    def rounds(self) -> int:
        """Rounds of training that the model went through, across runs; replayed ones count."""
        return sum(not step.provenance.is_initial for step in self.steps)

    @property
    def runs(self) -> tuple[RunId, ...]:
        """The runs that it went through, the newest first."""
        return tuple(dict.fromkeys(step.provenance.run_id for step in self.steps))

    @property
    def updates(self) -> Iterator[tuple[LineageStep, UpdateInput]]:
        """Every update in it, with the step that admitted it."""
        return ((step, update) for step in self.steps for update in step.provenance.updates)

    @property
    def participants(self) -> frozenset[str]:
        """Public names of everybody whose update is in it."""
        return frozenset(update.public_name for _, update in self.updates)

    @property
    def fewest_participants(self) -> int:
        """Participants of its smallest round; 0 where there is no round."""
        return min((len(s.provenance.updates) for s in self.steps if s.provenance.updates), default=0)

    @property
    def app_hashes(self) -> frozenset[str]:
        """Flower's hashes of the apps that ran in its rounds; "" stands for an app without one."""
        apps = (step.provenance.app for step in self.steps if not step.provenance.is_initial)
        return frozenset("" if app is None else app.fab_hash for app in apps)

    @property
    def builders(self) -> frozenset[SpiffeId]:
        return frozenset(step.provenance.builder for step in self.steps)

    @property
    def epochs(self) -> tuple[Epoch, Epoch] | None:
        """The lowest and the highest epoch that its rounds were sealed at."""
        found = [step.provenance.sealed.epoch for step in self.steps if step.provenance.sealed is not None]
        return (min(found), max(found)) if found else None

    @property
    def replaces(self) -> tuple[ModelInput, ...]:
        """The tainted aggregates that replayed steps stand in for, the newest first."""
        found = (step.provenance.tainted for step in self.steps)
        return tuple(tainted for tainted in found if tainted is not None)


def verify_lineage(
    bundles: Iterable[bytes], *, head: Digest | None, verify_bundle: VerifyBundle, domain: TrustDomain
) -> Lineage:
    """Verify a whole lineage: from the aggregate whose tensor set is `head` back to its beginning.

    1. There is a statement, none is larger than `MAX_LINE`, and there are at most `MAX_STEPS`.
    2. Each bundle verifies as of when it was signed (`verify_bundle`), states provenance of `domain` in its
       one byte form, and is signed by the builder that it names.
    3. The first is about `head`: the tensor set of the model (None: of whatever it is about).
    4. Each next one is the very one that the one before names: run, step, tensor set, model and place in the
       log. So nothing is left out, put in or exchanged.
    5. Each stands in the log after what it names, and epochs never rise on the way back through a run.
       (A round names an aggregate of its own run: `Provenance` sees to that.)
    6. The last one names none before it, and nothing follows it.

    Raises `EvidenceMissing` where it ends early, `EvidenceInvalid` with ``lineage-…`` where it does not fit
    together, and what `verify_bundle` raises.
    """
    steps: list[LineageStep] = []
    for bundle in bundles:
        _check_size(bundle, len(steps))  # 1
        step = _step(bundle, verify_bundle, domain)  # 2
        if steps:
            _check_link(steps[-1].provenance, step)  # 4
        else:
            _check_head(step, head)  # 3
        _check_order(step, steps[-1] if steps else None)  # 5
        steps.append(step)
    if not steps:
        raise EvidenceMissing(
            "expected the lineage of the model, found none", hint="ask who released it for the lineage file"
        )
    before = steps[-1].provenance.previous
    if before is not None:  # 6
        raise EvidenceMissing(
            f"expected the lineage to go on to step {before.step} of run {before.run_id}, it ends before",
            reason="lineage-incomplete",
        )
    return Lineage(tuple(steps))


def read_lineage(path: Path) -> Iterator[bytes]:
    """The bundles in a lineage file, the newest first, one at a time: none of them verified.

    `EvidenceMissing` without a file; `Oversized` past a bound, before more is read.
    """
    try:
        with path.open("rb") as file:
            for number in range(MAX_STEPS + 1):
                line = file.readline(MAX_LINE + 2)
                if not line:
                    return
                bundle = line.removesuffix(b"\n")
                _check_size(bundle, number)
                yield bundle
    except FileNotFoundError:
        raise EvidenceMissing(
            f"expected the lineage of the model in {path.name}, found no such file",
            hint="ask who released the model for it",
        ) from None
    except OSError as error:
        raise StorageUnavailable(f"could not read {path}: {error.strerror or error}") from error


def write_lineage(path: Path, bundles: Iterable[bytes]) -> None:
    """Write a lineage file, whole or not at all; it is no secret (0644)."""
    lines = tuple(bundles)
    for number, line in enumerate(lines):
        _check_size(line, number)
        if b"\n" in line or not line:
            raise Malformed("expected bundles without line breaks to write a lineage")
    write_durably(path, b"".join(line + b"\n" for line in lines), mode=0o644)


def _check_size(bundle: bytes, number: int) -> None:
    if number >= MAX_STEPS:
        raise Oversized(f"expected a lineage of at most {MAX_STEPS} statements, got more")
    if len(bundle) > MAX_LINE:
        raise Oversized(f"expected bundles of at most {MAX_LINE} bytes in a lineage, got a larger one")


def _step(bundle: bytes, verify_bundle: VerifyBundle, domain: TrustDomain) -> LineageStep:
    signed = verify_bundle(bundle)
    provenance = Provenance.from_payload(signed.payload)
    if provenance.domain != domain:
        raise EvidenceInvalid(
            f"expected provenance of {domain} in the lineage, got one of {provenance.domain}",
            reason="lineage-domain",
        )
    if signed.signer != provenance.builder:
        raise EvidenceInvalid(
            f"expected provenance signed by its builder {provenance.builder}, {signed.signer} signed it",
            reason="lineage-signer",
        )
    return LineageStep(provenance, Digest.sha256_of(bundle), signed.signed_at, signed.log_index)


def _check_head(step: LineageStep, head: Digest | None) -> None:
    if head is not None and not hmac.compare_digest(step.provenance.tensors.value, head.value):
        raise EvidenceInvalid(
            f"expected the lineage of the tensors {head}, it is that of {step.provenance.tensors}",
            reason="lineage-of-another-model",
        )


def _check_link(newer: Provenance, step: LineageStep) -> None:
    named = newer.previous
    if named is None:
        raise EvidenceInvalid(
            "expected nothing after the model that training began with, found more statements",
            reason="lineage-surplus",
        )
    if step.provenance.as_input(log_index=step.log_index) != named:
        raise EvidenceInvalid(
            f"expected {newer.name} to be followed by step {named.step} of run {named.run_id} "
            f"(entry {named.log_index}), got {step.provenance.name} (entry {step.log_index})",
            reason="lineage-broken",
        )


def _check_order(step: LineageStep, newer: LineageStep | None) -> None:
    said = step.provenance
    named = [model.log_index for model in (said.previous, said.tainted) if model is not None]
    named += [] if said.sealed is None else [said.sealed.log_index]
    if any(index >= step.log_index for index in named):
        raise EvidenceInvalid(
            f"expected {said.name} to stand in the log after what it names, it stands at {step.log_index}",
            reason="lineage-order",
        )
    after = None if newer is None or newer.provenance.run_id != said.run_id else newer.provenance.sealed
    if after is not None and said.sealed is not None and said.sealed.epoch > after.epoch:
        raise EvidenceInvalid(
            f"expected epochs to rise from {said.name} on, they fall to {after.epoch}", reason="lineage-order"
        )

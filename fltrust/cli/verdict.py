"""How a verdict on a model is told: to people in lines, to scripts in one JSON document."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fltrust.cli.output import Row, say, shown, text_of

if TYPE_CHECKING:
    from fltrust.artifacts.policy import Policy
    from fltrust.artifacts.recipe import VerifiedModel
    from fltrust.errors import FltrustError

VERDICT_TYPE = "urn:fltrust:verdict:v1"
_NAMES_SHOWN = 12


def lines_of(found: VerifiedModel) -> Iterator[str]:
    """Who, when, what, rounds, participants."""
    evidence, statement = found.evidence, found.statement
    files = statement.manifest.files
    yield f"{'Verified' if found.is_accepted else 'Not accepted:'} {found.path}"
    yield f"  signed by     {evidence.signer}" + (
        "" if evidence.signer.startswith("spiffe://") else f" (issuer {evidence.issuer})"
    )
    entry = "" if evidence.log_index is None else f", log entry {evidence.log_index}"
    witnessed = f", witnessed by {len(evidence.witnesses)}" if evidence.witnesses else ""
    yield f"  at            {text_of(evidence.signed_at)}{entry}{witnessed}"
    yield f"  content       {len(files)} file{'s' if len(files) != 1 else ''}, {_size(found)}"
    yield f"  digest        {statement.subject}"
    if found.lineage is not None:
        names = sorted(name.rpartition("/")[2] for name in found.lineage.participants)
        shown = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
        runs = [str(run) for run in found.lineage.runs]
        yield f"  rounds        {found.lineage.rounds} (run{'s' if len(runs) != 1 else ''} {', '.join(runs)})"
        yield f"  participants  {len(names)}: {shown}" if names else "  participants  0"
    if found.status is not None:
        yield f"  status        epoch {int(found.status.epoch)} of {text_of(found.status.at)}"


def fields_of(
    path: Path,
    policy: Policy,
    found: VerifiedModel | None,
    refusals: tuple[FltrustError, ...],
    *,
    at: datetime,
) -> Row:
    """The document of ``--json``: every key is always there, null where it is not known."""
    evidence = None if found is None else found.evidence
    statement = None if found is None else found.statement
    lineage = None if found is None else found.lineage
    status = None if found is None else found.status
    return {
        "type": VERDICT_TYPE,
        "path": str(path),
        "verdict": "refused" if refusals else "accepted",
        "mode": policy.mode.value,
        "at": at,
        "policy": str(policy.digest),
        "signer": evidence and evidence.signer,
        "issuer": evidence and evidence.issuer,
        "signedAt": evidence and evidence.signed_at,
        "logIndex": evidence and evidence.log_index,
        "witnesses": sorted(evidence.witnesses) if evidence else None,
        "statement": evidence and str(evidence.payload_digest),
        "signature": found and str(found.bundle),
        "subject": statement and str(statement.subject),
        "files": statement and len(statement.manifest.files),
        "size": statement and statement.manifest.total_bytes if statement and statement.is_ours else None,
        "tensors": (
            {name: str(digest) for name, digest in statement.tensor_sets.items()} if statement else None
        ),
        "rounds": lineage and lineage.rounds,
        "runs": [str(int(run)) for run in lineage.runs] if lineage else None,
        "participants": sorted(lineage.participants) if lineage else None,
        "status": {"epoch": str(int(status.epoch)), "at": status.at} if status else None,
        "warnings": list(found.warnings) if found else [],
        "refusals": [
            {
                "reason": refusal.reason,
                "error": type(refusal).__name__,
                "message": refusal.message,
                "hint": refusal.hint,
            }
            for refusal in refusals
        ],
    }


def explain(error: FltrustError) -> None:
    say(f"  [{error.reason}]: {shown(error.message)}")
    if error.hint:
        say(f"    {error.hint}")


def _size(found: VerifiedModel) -> str:
    if not found.statement.is_ours:
        return "size not stated"
    size = float(found.statement.manifest.total_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"

"""What a coordinator does with its notary: signing, lineage, trust file, audit; put together."""

from __future__ import annotations

from dataclasses import dataclass

from fltrust.coordinator.audit import AuditDesk
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.counters import Counters
from fltrust.coordinator.countersigner import Countersigner
from fltrust.coordinator.ledger import Ledger
from fltrust.coordinator.lineage import LineageDesk
from fltrust.coordinator.notary import NotaryKeys
from fltrust.coordinator.public_names import PublicNaming
from fltrust.coordinator.sequencer import Sequencer
from fltrust.coordinator.signing import SigningOffice
from fltrust.coordinator.taint import TaintDesk
from fltrust.coordinator.trusting import TrustDesk
from fltrust.tlog.note import NoteKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Desks:
    """Everything that a session asks beside enrollment, standing and rounds."""

    signing: SigningOffice
    lineage: LineageDesk
    trust: TrustDesk
    audit: AuditDesk
    taints: TaintDesk


def open_desks(
    *,
    ledger: Ledger,
    sequencer: Sequencer,
    ca: CurrentCa,
    notary: NotaryKeys,
    names: PublicNaming,
    log_key: NoteKey,
    counters: Counters,
) -> Desks:
    """Put the desks of one authority together."""
    countersigner = Countersigner(ca=ca, notary=notary, log_key=log_key)
    taints = TaintDesk(ledger)
    return Desks(
        signing=SigningOffice(
            ledger=ledger,
            sequencer=sequencer,
            ca=ca,
            countersigner=countersigner,
            taints=taints,
            names=names,
            counters=counters,
        ),
        lineage=LineageDesk(ledger=ledger, names=names),
        trust=TrustDesk(
            ledger=ledger,
            sequencer=sequencer,
            countersigner=countersigner,
            notary=notary,
            ca=ca,
            names=names,
            log_key=log_key,
        ),
        audit=AuditDesk(ledger=ledger, log_key=log_key),
        taints=taints,
    )

"""The written record, verified outside Flower and without the coordinator: receipts, links, evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fltrust.clock import to_rfc3339
from fltrust.errors import FltrustError
from fltrust.identity import Digest, SpiffeId
from fltrust.pki.types import TrustBundle, VerifiedCertificate
from fltrust.revocation.events import EventKind, TrustEvent
from fltrust.revocation.state import TrustState
from fltrust.rounds.admission import Offer
from fltrust.rounds.evidence import CandidateRefused, check_candidate
from fltrust.rounds.types import RoundKey, RoundRecord, RoundStatus
from fltrust.updates.receipt import SealedRoundStatement
from fltrust.updates.signing import MAX_SEALED_SIGNED_BYTES, SignedStatement
from fltrust.updates.verify import VerifiedReceipt, Verifier, claimed_at


@dataclass(slots=True)
class RoundCheck:
    """What was found out about one round. No problem means: everything said of it was verified."""

    key: RoundKey
    status: RoundStatus
    index: int | None = None
    epoch: int | None = None
    admitted: tuple[SpiffeId, ...] = ()
    refused: tuple[tuple[SpiffeId, str], ...] = ()
    tainted: tuple[SpiffeId, ...] = ()
    """Admitted, but revoked later as compromised since before they signed: consider the round spoilt."""
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ChainReport:
    """The outcome for all rounds given. `gaps` are indexes of the chain that were not among them, as
    (first, last): they may belong to other runs, and the links across them were not checked."""

    rounds: tuple[RoundCheck, ...]
    gaps: tuple[tuple[int, int], ...]

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(f"step {r.key.step}: {problem}" for r in self.rounds for problem in r.problems)

    @property
    def is_good(self) -> bool:
        """Whether every round that was sealed verifies, and none is tainted."""
        return not any(check.problems or check.tainted for check in self.rounds)

    def lines(self) -> tuple[str, ...]:
        """The report for people."""
        written: list[str] = []
        for check in self.rounds:
            where = f"step {check.key.step} (round {check.key.round}, {check.key.phase})"
            if check.index is None and not check.problems:
                written.append(f"{where}: {check.status}, nothing was sealed")
                continue
            verdict = "FAILED" if check.problems else "tainted" if check.tainted else "verified"
            written.append(
                f"{where}: {verdict}, receipt {check.index}, epoch {check.epoch}, "
                f"{len(check.admitted)} admitted, {len(check.refused)} refused"
            )
            written.extend(f"  {problem}" for problem in check.problems)
            written.extend(f"  {who} was compromised when it signed" for who in check.tainted)
        written.extend(
            f"receipts {first} to {last} are not in this record (other runs): links across not checked"
            for first, last in self.gaps
        )
        return tuple(written)

    def as_fields(self) -> dict[str, object]:
        """The report for programs."""
        return {
            "good": self.is_good,
            "rounds": [
                {
                    "run_id": str(int(check.key.run_id)),
                    "step": check.key.step,
                    "round": check.key.round,
                    "phase": check.key.phase.value,
                    "status": check.status.value,
                    "index": check.index,
                    "epoch": check.epoch,
                    "admitted": [str(who) for who in check.admitted],
                    "refused": {str(who): reason for who, reason in check.refused},
                    "tainted": [str(who) for who in check.tainted],
                    "problems": list(check.problems),
                }
                for check in self.rounds
            ],
            "gaps": [list(gap) for gap in self.gaps],
        }


def verify_chain(
    records: Sequence[RoundRecord], bundle: TrustBundle, *, events: Iterable[TrustEvent] = ()
) -> ChainReport:
    """Verify rounds as anybody can who has the record and the roots; report, never raise for what is in it.

    For each sealed round:

    1. The receipt is the coordinator's, signed with a certificate valid at its `sealed_at`
       (`Verifier.verify_receipt`), and is about this round: key, aggregator, time of opening.
    2. It links to the receipt before it, by index and by SHA-256 of the payload, where that one is
       among the records; no index stands twice; epochs never go back.
    3. For every update that it admits there is evidence, and none beyond: instruction and update verify
       against the cohort (`check_candidate`), each at the time it was signed, and are the ones named.
    4. Given the trust feed (`events`, from epoch 1): as of the receipt's epoch everybody admitted stood
       well, and the run had been opened.
    5. Given the trust feed, whoever was revoked later, as compromised since before it signed, is tainted.

    Without `events`, 4 and 5 are left out: revocations are not part of the rounds' own record.
    """
    feed, verifier = tuple(events), Verifier(bundle)
    checks: list[RoundCheck] = []
    sealed: list[tuple[RoundCheck, VerifiedReceipt]] = []
    for record in records:
        check = RoundCheck(record.key, record.status)
        checks.append(check)
        receipt = _check_receipt(record, check, verifier)  # 1.
        if receipt is None:
            continue
        sealed.append((check, receipt))
        offers = _check_evidence(record, receipt.statement, check, verifier)  # 3.
        if feed:
            _check_standing(receipt.statement, offers, check, feed)  # 4.
            check.tainted = tuple(who for who, offer in offers.items() if _is_tainted(offer, feed))  # 5.
    return ChainReport(tuple(checks), _check_links(sealed))  # 2.


def _check_receipt(record: RoundRecord, check: RoundCheck, verifier: Verifier) -> VerifiedReceipt | None:
    if record.receipt is None:
        if record.status is RoundStatus.SEALED or record.evidence:
            check.problems.append("expected a receipt, found none")
        return None
    try:
        signed = SignedStatement.from_bytes(record.receipt, limit=MAX_SEALED_SIGNED_BYTES)
        receipt = verifier.verify_receipt(signed, at=claimed_at(signed), judge=_no_judge)
    except FltrustError as error:
        check.problems.append(f"receipt: {error.message}")
        return None
    said = receipt.statement
    check.index, check.epoch = said.index, int(said.epoch)
    check.admitted = tuple(entry.participant for entry in said.admitted)
    check.refused = said.refused
    key = RoundKey(said.run_id, said.step, said.round, said.phase)
    if (key, said.aggregator, said.opened_at) != (record.key, record.aggregator, record.opened_at):
        check.problems.append("the receipt is about another round than the record")
    if record.status is not RoundStatus.SEALED:
        check.problems.append(f"expected a sealed round where there is a receipt, found {record.status}")
    return receipt


def _check_evidence(
    record: RoundRecord, said: SealedRoundStatement, check: RoundCheck, verifier: Verifier
) -> dict[SpiffeId, Offer]:
    cohort = {member.participant: member for member in record.cohort}
    offers: dict[SpiffeId, Offer] = {}
    for candidate in record.evidence:
        try:
            offer = check_candidate(
                candidate,
                key=record.key,
                aggregator=said.aggregator,
                opened_at=said.opened_at,
                cohort=cohort,
                verifier=verifier,
                now=said.sealed_at,
            )
        except CandidateRefused as refusal:
            check.problems.append(f"evidence of {refusal.participant or 'nobody'}: {refusal.error.message}")
            continue
        if offer.participant in offers:
            check.problems.append(f"{offer.participant}: evidence of more than one update")
        offers[offer.participant] = offer
    named = {entry.participant: entry for entry in said.admitted}
    for who, entry in named.items():
        if who not in offers:
            check.problems.append(f"{who}: admitted without evidence that verifies")
        elif offers[who].entry != entry:
            check.problems.append(f"{who}: the evidence is of another update than the one admitted")
    check.problems.extend(f"{who}: evidence, but not admitted" for who in offers if who not in named)
    return {who: offer for who, offer in offers.items() if who in named}


def _check_standing(
    said: SealedRoundStatement, offers: dict[SpiffeId, Offer], check: RoundCheck, feed: Sequence[TrustEvent]
) -> None:
    try:
        state = TrustState.replay(event for event in feed if event.epoch <= said.epoch)
    except FltrustError as error:
        check.problems.append(f"trust feed: {error.message}")
        return
    if state.epoch != said.epoch:
        check.problems.append(f"expected the trust feed up to epoch {said.epoch}, it ends at {state.epoch}")
        return
    if said.run_id not in state.open_runs:
        check.problems.append(f"run {said.run_id} was not open at epoch {said.epoch}")
    for who, offer in offers.items():
        try:
            state.judge(offer.certificate)
        except FltrustError as error:
            check.problems.append(f"{who}: admitted, but {error.message}")


def _is_tainted(offer: Offer, feed: Sequence[TrustEvent]) -> bool:
    return any(
        event.kind is EventKind.REVOKED
        and event.compromised_since is not None
        and event.compromised_since <= offer.signed_at
        and event.subject == offer.participant
        and _names(event, offer.certificate)
        for event in feed
    )


def _names(event: TrustEvent, certificate: VerifiedCertificate) -> bool:
    return event.identity_wide or certificate.serial in event.serials or certificate.key_id in event.keys


def _check_links(sealed: Sequence[tuple[RoundCheck, VerifiedReceipt]]) -> tuple[tuple[int, int], ...]:
    gaps: list[tuple[int, int]] = []
    expected, epoch = 0, 0
    previous: Digest | None = None
    for check, receipt in sorted(sealed, key=lambda pair: pair[1].statement.index):
        said = receipt.statement
        if said.index < expected:
            check.problems.append(f"receipt {said.index} of the chain stands twice")
        elif said.index > expected:
            gaps.append((expected, said.index - 1))
        elif said.previous != previous:
            check.problems.append(f"receipt {said.index} does not link to the one before")
        if said.epoch < epoch:
            check.problems.append(
                f"receipt {said.index}, sealed at {to_rfc3339(said.sealed_at)}, names an earlier epoch "
                f"({said.epoch}) than the one before ({epoch})"
            )
        expected, epoch = said.index + 1, int(said.epoch)
        previous = receipt.payload_digest
    return tuple(gaps)


def _no_judge(_certificate: VerifiedCertificate) -> None:
    """Standing is a matter of the trust feed: steps 4 and 5."""

"""The written record, verified outside Flower and without the coordinator: receipts, log, evidence."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography import x509

from fltrust.clock import to_rfc3339
from fltrust.errors import FltrustError
from fltrust.identity import SpiffeId, TrustDomain
from fltrust.pki.types import TrustBundle, VerifiedCertificate
from fltrust.revocation.events import EventKind, TrustEvent
from fltrust.revocation.state import TrustState
from fltrust.rounds.admission import Offer
from fltrust.rounds.evidence import CandidateRefused, check_candidate
from fltrust.rounds.logged import LogEvidence, VerifiedLog
from fltrust.rounds.types import RoundKey, RoundRecord, RoundStatus
from fltrust.updates.receipt import SealedRoundStatement
from fltrust.updates.second import demand_second
from fltrust.updates.signing import MAX_SEALED_SIGNED_BYTES, SignedStatement
from fltrust.updates.verify import VerifiedReceipt, Verifier, claimed_at

_V1 = b'"urn:fltrust:statement:sealed-round:v1"'


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
    signed_twice: tuple[SpiffeId, ...] = ()
    """Admitted, with a second signature (ML-DSA-65) that verified too; looked at where a root is given."""
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ChainReport:
    """The outcome for all rounds given. `log` is the tree that their receipts were found in; None if no
    proofs were given, or if its checkpoint does not verify (`log_problem`)."""

    rounds: tuple[RoundCheck, ...]
    log: VerifiedLog | None
    log_problem: str | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        about_log = () if self.log_problem is None else (f"log: {self.log_problem}",)
        return about_log + tuple(
            f"step {r.key.step}: {problem}" for r in self.rounds for problem in r.problems
        )

    @property
    def is_good(self) -> bool:
        """Whether every round that was sealed verifies, and none is tainted."""
        return not self.problems and not any(check.tainted for check in self.rounds)

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
                f"{where}: {verdict}, entry {check.index}, epoch {check.epoch}, "
                f"{len(check.admitted)} admitted, {len(check.refused)} refused"
                + (f", {len(check.signed_twice)} signed twice" if check.signed_twice else "")
            )
            written.extend(f"  {problem}" for problem in check.problems)
            written.extend(f"  {who} was compromised when it signed" for who in check.tainted)
        if self.log_problem is not None:
            written.append(f"log: FAILED, {self.log_problem}")
        elif self.log is None:
            written.append("log: no proofs were given, so places in the log were not checked")
        else:
            root = b64encode(self.log.head.root).decode()
            written.append(f"log: {self.log.origin}, {self.log.head.size} entries, root {root}")
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
                    "signed_twice": [str(who) for who in check.signed_twice],
                    "problems": list(check.problems),
                }
                for check in self.rounds
            ],
            "log": None
            if self.log is None
            else {
                "origin": self.log.origin,
                "key": self.log.key_id,
                "size": self.log.head.size,
                "root": b64encode(self.log.head.root).decode(),
            },
            "log_problem": self.log_problem,
        }


def verify_chain(
    records: Sequence[RoundRecord],
    bundle: TrustBundle,
    *,
    log: LogEvidence | None = None,
    events: Iterable[TrustEvent] = (),
    foreign: Sequence[TrustBundle] = (),
    second_roots: Mapping[TrustDomain, x509.Certificate] | None = None,
) -> ChainReport:
    """Verify rounds as anybody can who has the record and the roots; report, never raise for what is in it.

    For each sealed round:

    1. The receipt is the coordinator's, signed with a certificate valid at its `sealed_at`
       (`Verifier.verify_receipt`), and is about this round: key, aggregator, time of opening.
    2. Given the log's checkpoint and proofs (`log`): the checkpoint is signed by the key that the receipt
       names, and the receipt stands in its tree where it says (`VerifiedLog.check`). No index stands
       twice; in the order of the log, epochs never go back.
    3. For every update that it admits there is evidence, and none beyond: instruction and update verify
       against the cohort (`check_candidate`), each at the time it was signed, and are the ones named.
    4. Given the trust feed (`events`, from epoch 1): as of the receipt's epoch everybody admitted stood
       well, and the run had been opened.
    5. Given the trust feed, whoever was revoked later, as compromised since before it signed, is tainted.
    6. Given roots of the second chain (`second_roots`, by trust domain), every update that was admitted has
       a second signature by its participant, valid when it was signed (`demand_second`).

    Without `events`, 4 and 5 are left out: revocations are not part of the rounds' own record. Without
    `log`, the rounds' places are taken as said: rounds may have been left out. `foreign` are the roots of
    domains whose participants took part.
    """
    feed, verifier = tuple(events), Verifier(bundle, foreign=foreign)
    tree, log_problem = _read_log(log, bundle)
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
        if second_roots is not None:
            _check_second(offers, check, second_roots)  # 6.
    _check_places(sealed, tree)  # 2.
    return ChainReport(tuple(checks), tree, log_problem)


def _read_log(log: LogEvidence | None, bundle: TrustBundle) -> tuple[VerifiedLog | None, str | None]:
    if log is None:
        return None, None
    try:
        return VerifiedLog.of(log, bundle.domain), None
    except FltrustError as error:
        return None, error.message


def _check_receipt(record: RoundRecord, check: RoundCheck, verifier: Verifier) -> VerifiedReceipt | None:
    if record.receipt is None:
        if record.status is RoundStatus.SEALED or record.evidence:
            check.problems.append("expected a receipt, found none")
        return None
    try:
        signed = SignedStatement.from_bytes(record.receipt, limit=MAX_SEALED_SIGNED_BYTES)
        receipt = verifier.verify_receipt(signed, at=claimed_at(signed), judge=_no_judge)
    except FltrustError as error:
        check.problems.append(f"receipt: {_version_1(record.receipt) or error.message}")
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


def _version_1(receipt: bytes) -> str | None:
    try:
        signed = SignedStatement.from_bytes(receipt, limit=MAX_SEALED_SIGNED_BYTES)
        if _V1 not in signed.envelope.payload:
            return None
    except FltrustError:
        return None
    return "it is of version 1, a link of the chain that the log replaced; the fltrust that made it reads it"


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


def _check_second(
    offers: Mapping[SpiffeId, Offer], check: RoundCheck, roots: Mapping[TrustDomain, x509.Certificate]
) -> None:
    for who, offer in offers.items():
        payload = SignedStatement.from_bytes(offer.candidate.update).envelope.payload
        try:
            demand_second(offer.candidate.second, payload=payload, who=who, roots=roots, at=offer.signed_at)
        except FltrustError as error:
            check.problems.append(f"{who}: {error.message}")
        else:
            check.signed_twice += (who,)


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


def _check_places(sealed: Sequence[tuple[RoundCheck, VerifiedReceipt]], tree: VerifiedLog | None) -> None:
    last, epoch = -1, 0
    for check, receipt in sorted(sealed, key=lambda pair: pair[1].statement.index):
        said = receipt.statement
        if said.index == last:
            check.problems.append(f"entry {said.index} of the log stands twice")
        if said.epoch < epoch:
            check.problems.append(
                f"entry {said.index}, sealed at {to_rfc3339(said.sealed_at)}, names an earlier epoch "
                f"({said.epoch}) than a round before it ({epoch})"
            )
        last, epoch = said.index, int(said.epoch)
        if tree is None:
            continue
        try:
            tree.check(said, payload=receipt.payload_digest)
        except FltrustError as error:
            check.problems.append(f"log: {error.message}")


def _no_judge(_certificate: VerifiedCertificate) -> None:
    """Standing is a matter of the trust feed: steps 4 and 5."""

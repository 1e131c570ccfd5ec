"""Open, seal, close: the round machine run against the store, one transaction each."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from fltrust.artifacts.keeping import ContributionRecord
from fltrust.coordinator.certificate_record import CertificateRecords
from fltrust.coordinator.counters import Counters
from fltrust.coordinator.ledger import Ledger, Work
from fltrust.errors import CertificateRefused, Conflict, NotFound, Oversized, PermissionDenied, Refusal
from fltrust.identity import Digest, Role, RunId, SpiffeId, TrustDomain
from fltrust.keys.signer import Signer
from fltrust.pki.federated import TrustSet
from fltrust.pki.types import VerifiedCertificate
from fltrust.revocation.events import EventKind
from fltrust.rounds.admission import Offer, RefusedList
from fltrust.rounds.evidence import CandidateRefused, check_candidate
from fltrust.rounds.logged import LogEvidence, prove_places
from fltrust.rounds.machine import (
    Abandon,
    AnswerAgain,
    Close,
    Open,
    RecordRound,
    Round,
    Seal,
    SignReceipt,
    StartRun,
    advance,
    request_digest,
)
from fltrust.rounds.ports import RunRecord
from fltrust.rounds.types import Candidate, CohortMember, Opened, RoundKey, RoundRecord, RoundStatus
from fltrust.tlog.checkpoint import sign_checkpoint
from fltrust.tlog.note import NoteKey
from fltrust.updates.dsse import MAX_SEALED_ENVELOPE_BYTES, Envelope
from fltrust.updates.receipt import MAX_COHORT, SealedRoundStatement
from fltrust.updates.signing import SignedStatement, sign_statement
from fltrust.updates.verify import Verifier

_REASONS = frozenset(reason.value for reason in Refusal)


class SigningIdentity(NamedTuple):
    """Whose name stands under a receipt."""

    signer: Signer
    chain_der: tuple[bytes, ...]


class RoundDesk:
    """Rounds of one trust domain. Every method is durable when it returns."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        domain: TrustDomain,
        records: CertificateRecords,
        trust: Callable[[], TrustSet],
        identity: SigningIdentity,
        log_key: NoteKey,
        counters: Counters,
    ) -> None:
        self._ledger = ledger
        self._log_key = log_key
        self._domain = domain
        self._records = records
        self._trust = trust
        self._counters = counters
        self.identity = identity

    def open_round(
        self, caller: VerifiedCertificate, key: RoundKey, cohort: tuple[CohortMember, ...]
    ) -> Opened:
        """Open a round for the caller; with a run's first round, the run is the caller's."""
        with self._ledger.writing() as work:
            work.state.judge(caller)
            run = work.tx.rounds.run(key.run_id)
            event = Open(
                key=key,
                aggregator=caller.spiffe_id,
                cohort=cohort,
                domain=self._domain,
                run_owner=None if run is None else run.aggregator,
                run_closed=run is not None and run.closed_epoch is not None,
                state=work.state,
            )
            opened, commands = advance(_round(work.tx.rounds.get(key.run_id, key.step)), event)
            refused: RefusedList = ()
            for command in commands:
                match command:
                    case StartRun():
                        self._start_run(opened, work)
                    case RecordRound(refused):
                        work.tx.rounds.open(_record(opened, work))
            for _, reason in refused:
                self._counters.add(f"refused.{reason}")
            return Opened(work.tx.events.head, refused)

    def seal_round(
        self,
        caller: VerifiedCertificate,
        key: RoundKey,
        candidates: tuple[Candidate, ...],
        refused: RefusedList,
    ) -> bytes:
        """Decide which updates the round admits; see `RoundAuthority.seal_round`.

        1. Bounds, before anything is parsed.
        2. Both statements of each candidate are verified, outside the lock: it takes a while and
           depends on nothing that changes.
        3. Under the head's lock, at the epoch read there: the caller is judged, the machine admits.
        4. The receipt is signed for the place in the log that this transaction takes, and stored with the
           evidence.
        """
        # 1.
        if max(len(candidates), len(refused)) > MAX_COHORT:
            raise Oversized(f"expected at most {MAX_COHORT} candidates and refusals in a seal")
        # 2.
        request = request_digest(key, candidates)
        checked = self._verify(key, candidates, now=self._ledger.now())
        with self._ledger.writing() as work:
            # 3.
            work.state.judge(caller)
            record = work.tx.rounds.get(key.run_id, key.step)
            current = _round(record, request=work.tx.rounds.seal_request(key.run_id, key.step))
            is_open = current is not None and current.key == key and current.status is RoundStatus.OPEN
            if checked is None and is_open:
                raise Conflict("the round was opened while it was to be sealed: seal it after it is open")
            offers, bad = checked or ((), ())
            event = Seal(
                key=key,
                aggregator=caller.spiffe_id,
                request=request,
                offers=offers,
                refused=tuple(dict.fromkeys((*refused, *bad))),
                state=work.state,
            )
            _, commands = advance(current, event)
            if record is None:  # the machine refused that
                raise NotFound(f"no round at step {key.step} of run {key.run_id}")
            # 4.
            for command in commands:
                match command:
                    case AnswerAgain() if record.receipt is not None:
                        return record.receipt
                    case SignReceipt():
                        return self._store_receipt(record, command, request, work)
        raise Conflict("the round machine gave no answer to a seal")

    def close_run(self, caller: VerifiedCertificate, run_id: RunId) -> None:
        """Close a run, by its owner or an operator; what is still open is abandoned. Idempotent."""
        with self._ledger.writing() as work:
            work.state.judge(caller)
            run, who = work.tx.rounds.run(run_id), caller.spiffe_id
            if run is None:
                raise NotFound(f"no round of run {run_id} was opened here")
            if who != run.aggregator and who.role is not Role.OPERATOR:
                raise PermissionDenied(f"run {run_id} belongs to {run.aggregator}, {who} asked to close it")
            if run.closed_epoch is not None:
                return
            event = work.emit(EventKind.RUN_CLOSED, actor=who, run_id=run_id)
            work.tx.rounds.close_run(run_id, epoch=event.epoch)
            for record in work.tx.rounds.all(run_id):
                if record.status is RoundStatus.OPEN:
                    _, commands = advance(_round(record), Close())
                    if Abandon() in commands:
                        work.tx.rounds.abandon(record.key)

    def list_rounds(self, run_id: RunId | None) -> tuple[RoundRecord, ...]:
        with self._ledger.reading() as tx:
            return tx.rounds.all(run_id)

    def get_round(self, run_id: RunId, step: int) -> RoundRecord:
        with self._ledger.reading() as tx:
            record = tx.rounds.get(run_id, step)
        if record is None:
            raise NotFound(f"no round at step {step} of run {run_id}")
        return record

    def prove_rounds(self, run_id: RunId) -> LogEvidence:
        """Prove where the run's sealed rounds stand in the log, under a checkpoint of this moment."""
        with self._ledger.reading() as tx:
            if tx.rounds.run(run_id) is None:
                raise NotFound(f"no round of run {run_id} was opened here")
            head = tx.tlog.head
            proofs = prove_places(tx.tlog, head.size, tx.rounds.places(run_id))
        return LogEvidence(str(self._log_key.verifier), sign_checkpoint(head, self._log_key), proofs)

    def _verify(
        self, key: RoundKey, candidates: tuple[Candidate, ...], *, now: datetime
    ) -> tuple[tuple[Offer, ...], RefusedList] | None:
        """Sort candidates into offers and refusals; None if there is no open round to verify them for."""
        with self._ledger.reading() as tx:
            record = tx.rounds.get(key.run_id, key.step)
        if record is None or record.key != key or record.status is not RoundStatus.OPEN:
            return None  # the machine answers under the lock, from the record alone
        offers: list[Offer] = []
        refused: list[tuple[SpiffeId, str]] = []
        cohort = {member.participant: member for member in record.cohort}
        trust = self._trust()
        for candidate in candidates:
            try:
                offer = check_candidate(
                    candidate,
                    key=key,
                    aggregator=record.aggregator,
                    opened_at=record.opened_at,
                    cohort=cohort,
                    verifier=Verifier(trust.home, foreign=trust.foreign),
                    now=now,
                )
                self._check_on_record(offer)
            except CandidateRefused as refusal:
                # One that cannot be laid at anybody's door is counted, and named nowhere.
                if refusal.participant is not None:
                    refused.append((refusal.participant, refusal.error.reason))
                else:
                    self._counters.add(f"refused.{refusal.error.reason}")
            else:
                offers.append(offer)
        return tuple(offers), tuple(refused)

    def _check_on_record(self, offer: Offer) -> None:
        """A statement under a certificate that nobody was given here says nothing, whatever CA signed it."""
        if offer.participant.domain != self._domain or self._records.knows(offer.certificate):
            return  # a foreign one is on record at its own coordinator
        try:
            with self._ledger.reading() as tx:
                self._records.check(offer.certificate, tx)
        except CertificateRefused as error:
            raise CandidateRefused(None, error) from None

    def _store_receipt(self, record: RoundRecord, sealed: SignReceipt, request: Digest, work: Work) -> bytes:
        head, key, identity = work.tx.tlog.head, record.key, self.identity
        statement = SealedRoundStatement(
            domain=self._domain,
            index=head.size,
            root=Digest("sha256", head.root) if head.size else None,
            log=self._log_key.signer.key_id,
            run_id=key.run_id,
            round=key.round,
            phase=key.phase,
            step=key.step,
            epoch=sealed.epoch,
            opened_at=record.opened_at,
            sealed_at=work.now,
            aggregator=record.aggregator,
            admitted=tuple(offer.entry for offer in sealed.admitted),
            refused=sealed.refused,
            certificate=Digest.sha256_of(identity.chain_der[0]),
        )
        signed = sign_statement(statement, signer=identity.signer, chain=identity.chain_der)
        receipt = signed.to_bytes()
        place = work.log(work.book.sealed(statement, payload=_payload_digest(signed))).index
        work.tx.rounds.seal(
            record,
            sealed_at=work.now,
            index=place,
            receipt=receipt,
            request=request,
            admitted=tuple((offer.participant, offer.candidate) for offer in sealed.admitted),
        )
        work.tx.contributions.add_all(_contribution(key, offer, place) for offer in sealed.admitted)
        for _, reason in sealed.refused:
            # Some are the aggregator's words: only those that are ours name a counter.
            self._counters.add(f"refused.{reason if reason in _REASONS else 'other'}")
        self._counters.add("updates.admitted", len(sealed.admitted))
        return receipt

    def _start_run(self, opened: Round, work: Work) -> None:
        event = work.emit(EventKind.RUN_OPENED, actor=opened.aggregator, run_id=opened.key.run_id)
        work.tx.rounds.add_run(
            RunRecord(opened.key.run_id, opened.aggregator, opened_epoch=event.epoch, closed_epoch=None)
        )


def _contribution(key: RoundKey, offer: Offer, log_index: int) -> ContributionRecord:
    return ContributionRecord(
        run_id=key.run_id,
        step=key.step,
        participant=offer.participant,
        signed_at=offer.signed_at,
        update=offer.update,
        certificate=offer.certificate.fingerprint,
        log_index=log_index,
    )


def _payload_digest(signed: SignedStatement) -> Digest:
    return Envelope.from_json(signed.envelope_json, limit=MAX_SEALED_ENVELOPE_BYTES).payload_digest


def _round(record: RoundRecord | None, *, request: Digest | None = None) -> Round | None:
    if record is None:
        return None
    return Round(
        key=record.key,
        status=record.status,
        aggregator=record.aggregator,
        cohort=record.cohort,
        request=request,
    )


def _record(opened: Round, work: Work) -> RoundRecord:
    return RoundRecord(
        key=opened.key,
        status=opened.status,
        aggregator=opened.aggregator,
        opened_at=work.now,
        opened_epoch=work.tx.events.head,
        cohort=opened.cohort,
        receipt=None,
        evidence=(),
    )

"""Enrollment, renewal and tokens in bulk: the same decisions as for one, many to a transaction.

What is decided for each on its own is written a few at a time, so that a revocation waits for none of it.
The same items again give the same certificates: whoever was cut off sends them again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.enroller import Enroller
from fltrust.coordinator.ledger import Ledger, Work
from fltrust.coordinator.requests import RequestDesk
from fltrust.coordinator.together import Approved, enroll_new, pick_new
from fltrust.coordinator.tokens import TokenOffice
from fltrust.enrollment.bulk import (
    MAX_ITEMS,
    BulkAnswer,
    BulkEvidence,
    BulkItem,
    BulkResult,
    Refusal,
)
from fltrust.enrollment.registration import CheckedRequest, check_request
from fltrust.enrollment.renewal_proof import check_renewal_proof
from fltrust.enrollment.requests import Assignment, Request
from fltrust.enrollment.types import Approval, EnrollmentProtocol, EnrollRequest, Issued, JoinToken, Pending
from fltrust.errors import Conflict, FltrustError, LimitExceeded, Revoked
from fltrust.identity import SpiffeId, TrustDomain
from fltrust.pki.profiles import Profiles
from fltrust.pki.types import VerifiedCertificate
from fltrust.revocation.state import Standing

KIND = "bulk"
"""The kind of evidence in the record: an operator's word."""
TOGETHER = 128
"""Items in one transaction, where each is decided on its own."""

_Checked = CheckedRequest | FltrustError
_Act = Callable[[BulkItem, CheckedRequest, Work], BulkResult]
_ActOnMany = Callable[[Sequence[BulkItem], Sequence[_Checked], Work], dict[int, BulkResult]]


class BulkOffice:
    """Implements what a session needs of `BulkDesk`."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        ca: CurrentCa,
        domain: TrustDomain,
        enroller: Enroller,
        tokens: TokenOffice,
        profiles: Profiles,
    ) -> None:
        self._ledger = ledger
        self._ca = ca
        self._domain = domain
        self._enroller = enroller
        self._tokens = tokens
        self._profiles = profiles

    def enroll(self, items: Sequence[BulkItem], *, atomic: bool, caller: VerifiedCertificate) -> BulkAnswer:
        """Enroll each on the operator's word, as the policy of approvals has it for ``bulk``.

        1. At most `MAX_ITEMS`; each request's own signatures are checked before anything is written.
        2. A name that stands twice in the call is refused the second time.
        3. The operator stands well, under the lock, in every transaction.
        4. What was issued to this key for this name before is given again; a request that waits, waits on.
        5. Else it is decided as any enrollment: `admit_enrollment`, or operators where the policy asks.
        """

        def act(item: BulkItem, checked: CheckedRequest, work: Work) -> BulkResult:
            return self._enroll(item, checked, work, caller=caller)

        def act_on_many(
            part: Sequence[BulkItem], checked: Sequence[_Checked], work: Work
        ) -> dict[int, BulkResult]:
            return self._enroll_new(part, checked, work, caller=caller)

        return self._each(items, act, act_on_many, atomic=atomic, caller=caller)

    def renew(self, items: Sequence[BulkItem], *, atomic: bool, caller: VerifiedCertificate) -> BulkAnswer:
        """Issue the next certificate of each, whose present key signed the new request (`proof`).

        An operator carries the request, and cannot make one: without the proof, one operator alone could
        have a certificate in anybody's name.
        """

        def act(item: BulkItem, checked: CheckedRequest, work: Work) -> BulkResult:
            return self._renew(item, checked, work)

        return self._each(items, act, None, atomic=atomic, caller=caller)

    def create_tokens(
        self, items: Sequence[Assignment], *, ttl: timedelta, caller: VerifiedCertificate
    ) -> tuple[JoinToken, ...]:
        """Make a token for each, all in one transaction or none."""
        _bound(len(items))
        return self._tokens.create_many(items, ttl=ttl, caller=caller)

    def _each(
        self,
        items: Sequence[BulkItem],
        act: _Act,
        act_on_many: _ActOnMany | None,
        *,
        atomic: bool,
        caller: VerifiedCertificate,
    ) -> BulkAnswer:
        """Decide each with `act`, but for those that `act_on_many` has decided together."""
        _bound(len(items))  # 1.
        checked = _check_all(items, with_node_keys=act_on_many is not None)
        if atomic and (refused := next((c for c in checked if isinstance(c, FltrustError)), None)):
            raise refused
        results: list[BulkResult] = []
        step = len(items) if atomic else TOGETHER
        for start in range(0, len(items), max(1, step)):
            with self._ledger.writing() as work:
                work.state.judge(caller)  # 3.
                part, found = items[start : start + step], checked[start : start + step]
                decided = act_on_many(part, found, work) if act_on_many is not None else {}
                results += [
                    decided.get(place) or self._one(item, checks, work, act, atomic=atomic)
                    for place, (item, checks) in enumerate(zip(part, found, strict=True))
                ]
        ca = self._ca.now
        above = (ca.svids.certificate, *ca.above(ca.svids.certificate))
        issuers = tuple(certificate.public_bytes(Encoding.DER) for certificate in above)
        return BulkAnswer(results=tuple(results), issuers=issuers, bundle=self._ca.bundle)

    def _one(self, item: BulkItem, found: _Checked, work: Work, act: _Act, *, atomic: bool) -> BulkResult:
        if isinstance(found, FltrustError):
            return _refused(self._id_of(item.who), found)
        if atomic:
            return act(item, found, work)
        try:
            with work.attempt():
                return act(item, found, work)
        except FltrustError as error:
            return _refused(self._id_of(item.who), error)

    def _enroll_new(
        self,
        part: Sequence[BulkItem],
        checked: Sequence[_Checked],
        work: Work,
        *,
        caller: VerifiedCertificate,
    ) -> dict[int, BulkResult]:
        """Those of the part, by their place, of which nothing is on record and that nobody has to approve."""
        places, wanted = [], []
        for place, (item, found) in enumerate(zip(part, checked, strict=True)):
            approval = _approval_of(item, caller)
            if isinstance(found, CheckedRequest) and not self._needed(approval):
                places.append(place)
                wanted.append(Approved(approval, found))
        chosen = sorted(pick_new(wanted, work, domain=self._domain, profiles=self._profiles))
        leaves = enroll_new(
            [wanted[n] for n in chosen], work, enroller=self._enroller, domain=self._domain, evidence=KIND
        )
        return {
            places[n]: BulkResult(spiffe_id=self._id_of(part[places[n]].who), certificate=der)
            for n, der in zip(chosen, leaves, strict=True)
        }

    def _needed(self, approval: Approval) -> int:
        policy = self._enroller.requests.policy
        return policy.needed(approval, evidence=KIND, protocol=EnrollmentProtocol.BULK)

    def _enroll(
        self, item: BulkItem, checked: CheckedRequest, work: Work, *, caller: VerifiedCertificate
    ) -> BulkResult:
        who, requests = self._id_of(item.who), self._enroller.requests
        if (again := _issued_before(who, checked, work)) is not None:  # 4.
            return BulkResult(spiffe_id=who, certificate=again)
        request = _request_of(item)
        if (known := requests.find(request, checked, work)) is not None:
            return self._resume(known, requests, work, who=who)
        approval = _approval_of(item, caller)  # 5.
        if self._needed(approval):
            self._enroller.check(approval, checked, work, KIND)
            pending = requests.keep(request, checked, approval, work, evidence=KIND)
            return BulkResult(spiffe_id=who, request_id=pending.request_id)
        issued = self._enroller.admit(approval, checked, work, evidence=KIND)
        return BulkResult(spiffe_id=who, certificate=issued.chain_der[0])

    def _resume(self, known: Request, requests: RequestDesk, work: Work, *, who: SpiffeId) -> BulkResult:
        outcome = self._enroller.resume(known, work)
        if isinstance(outcome, Issued):
            requests.deliver(known.request_id, work)
            if outcome.spiffe_id != who:
                raise Conflict(f"expected this key to be asked for {who}, it is {outcome.spiffe_id}'s")
            return BulkResult(spiffe_id=who, certificate=outcome.chain_der[0])
        if isinstance(outcome, Pending):
            return BulkResult(spiffe_id=who, request_id=outcome.request_id)
        raise outcome

    def _renew(self, item: BulkItem, checked: CheckedRequest, work: Work) -> BulkResult:
        who = self._id_of(item.who)
        if (again := _issued_before(who, checked, work)) is not None:
            return BulkResult(spiffe_id=who, certificate=again)
        if not work.state.is_active(who):
            raise Revoked(f"{who} is not enrolled, on hold, or revoked", reason="not-active")
        check_renewal_proof(
            item.proof or b"",
            csr_der=item.csr_der,
            who=who,
            certificates=[
                record
                for record in work.tx.certificates.unexpired_of(who, now=work.now)
                if work.state.serial_standing(record.serial) is Standing.ACTIVE
                and work.state.key_standing(record.key_id) is Standing.ACTIVE
            ],
        )
        issued = self._enroller.issue_next(who, checked, work)
        return BulkResult(spiffe_id=who, certificate=issued.chain_der[0])

    def _id_of(self, who: Assignment) -> SpiffeId:
        return SpiffeId(self._domain, who.role, who.name)


def _approval_of(item: BulkItem, caller: VerifiedCertificate) -> Approval:
    return Approval(
        item.who.role,
        item.who.name,
        item.who.replace,
        granted_by=caller.spiffe_id,
        dns_names=item.who.dns_names,
    )


def _bound(count: int) -> None:
    if count > MAX_ITEMS:
        raise LimitExceeded(f"expected at most {MAX_ITEMS} items in one call, got {count}")


def _check_all(items: Sequence[BulkItem], *, with_node_keys: bool) -> list[_Checked]:
    """Each request's own signatures; and 2., no name twice."""
    seen: set[tuple[str, str]] = set()
    found: list[_Checked] = []
    for item in items:
        name = (item.who.role, item.who.name)
        try:
            if name in seen:
                raise Conflict(f"expected {name[0]}/{name[1]} once in one call, got it twice", reason="twice")
            seen.add(name)
            found.append(check_request(_request_of(item, with_node_key=with_node_keys)))
        except FltrustError as error:
            found.append(error)
    return found


def _request_of(item: BulkItem, *, with_node_key: bool = True) -> EnrollRequest:
    return EnrollRequest(
        BulkEvidence(),
        item.csr_der,
        item.node_key if with_node_key else None,
        item.node_key_proof if with_node_key else None,
        EnrollmentProtocol.BULK,
    )


def _issued_before(who: SpiffeId, checked: CheckedRequest, work: Work) -> bytes | None:
    """The certificate of this key, if it is this identity's and good for something still."""
    record = work.tx.certificates.by_key(checked.key_id)
    if (
        record is None
        or record.spiffe_id != who
        or record.not_after <= work.now
        or not work.state.is_active(who)
        or work.state.serial_standing(record.serial) is not Standing.ACTIVE
    ):
        return None
    return record.der


def _refused(who: SpiffeId, error: FltrustError) -> BulkResult:
    return BulkResult(spiffe_id=who, refused=Refusal(reason=error.reason, message=error.message))

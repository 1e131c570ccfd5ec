from __future__ import annotations

from dataclasses import replace

import pytest
from authority_world import DOMAIN, START, Authorities, FakeClock, Member

from fltrust.errors import Conflict, FltrustError, PermissionDenied
from fltrust.identity import Digest, Epoch, Role, RunId, SpiffeId
from fltrust.keys import generate, spki_der
from fltrust.pki import Draft, verify_certificate
from fltrust.revocation import EventKind, TrustEvent, TrustState
from fltrust.rounds.admission import Offer, admit, admit_all
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
from fltrust.rounds.types import Candidate, CohortMember, RoundKey, RoundStatus
from fltrust.updates import Phase

KEY = RoundKey(RunId(1), 1, 1, Phase.TRAIN)
AGGREGATOR = SpiffeId.of(DOMAIN, Role.AGGREGATOR, "main")
CA = Authorities.make()


def _member(name: str) -> Member:
    who, signer = SpiffeId.of(DOMAIN, Role.PARTICIPANT, name), generate()
    leaf = CA.issuer.redeem(Draft.of(who, signer.public_key, now=START))
    chain = (leaf, CA.issuer.certificate)
    certificate = verify_certificate(chain, bundle=CA.bundle, at=FakeClock().now())
    return Member(who, signer, (), certificate, node=generate())


A, B = _member("site-a"), _member("site-b")


def _enrolled(*members: Member) -> TrustState:
    events = (
        TrustEvent(
            epoch=Epoch(number),
            kind=EventKind.ENROLLED,
            at=START,
            subject=member.spiffe_id,
            node_key=spki_der(member.node.public_key),  # type: ignore[union-attr]
        )
        for number, member in enumerate(members, start=1)
    )
    return TrustState.replay(events)


def _seat(member: Member) -> CohortMember:
    return CohortMember(
        member.spiffe_id, member.node_id, member.node_key, Digest.sha256_of(member.name.encode())
    )


def _offer(member: Member, text: bytes = b"update") -> Offer:
    return Offer(
        candidate=Candidate(b"i" + member.name.encode(), text),
        participant=member.spiffe_id,
        node_id=member.node_id,
        instruction=Digest.sha256_of(member.name.encode()),
        update=Digest.sha256_of(text),
        content=Digest("fltrust-content-v1", b"c" * 32),
        signed_at=START,
        certificate=member.certificate,
    )


def _open(**changes: object) -> Open:
    asked = Open(
        key=KEY,
        aggregator=AGGREGATOR,
        cohort=(_seat(A), _seat(B)),
        domain=DOMAIN,
        run_owner=None,
        run_closed=False,
        state=_enrolled(A, B),
    )
    return replace(asked, **changes)  # type: ignore[arg-type]


def _seal(*offers: Offer, **changes: object) -> Seal:
    asked = Seal(
        key=KEY,
        aggregator=AGGREGATOR,
        request=request_digest(KEY, (offer.candidate for offer in offers)),
        offers=offers,
        refused=(),
        state=_enrolled(A, B),
    )
    return replace(asked, **changes)  # type: ignore[arg-type]


@pytest.fixture
def opened() -> Round:
    return advance(None, _open())[0]


def test_the_first_round_starts_the_run_and_the_next_does_not() -> None:
    round_, commands = advance(None, _open())
    assert commands == (StartRun(), RecordRound(()))
    assert round_.status is RoundStatus.OPEN
    assert advance(None, _open(run_owner=AGGREGATOR))[1] == (RecordRound(()),)


def test_a_seal_signs_what_it_admits_and_the_same_seal_is_answered_again(opened: Round) -> None:
    sealed, (command,) = advance(opened, _seal(_offer(A), _offer(B)))
    assert command == SignReceipt((_offer(A), _offer(B)), (), Epoch(2))
    assert sealed.status is RoundStatus.SEALED
    assert advance(sealed, _seal(_offer(B), _offer(A)))[1] == (AnswerAgain(),)
    with pytest.raises(Conflict, match="sealed already"):
        advance(sealed, _seal(_offer(A)))


def test_refusals_of_the_aggregator_and_of_the_machine_stand_together_once(opened: Round) -> None:
    state = _enrolled(A)
    event = _seal(_offer(A), _offer(B), refused=((B.spiffe_id, "unknown-identity"),), state=state)
    (command,) = advance(opened, event)[1]
    assert command == SignReceipt((_offer(A),), ((B.spiffe_id, "unknown-identity"),), Epoch(1))


def test_a_closed_round_is_abandoned_and_neither_sealed_nor_closed_again(opened: Round) -> None:
    closed, commands = advance(opened, Close())
    assert (closed.status, commands) == (RoundStatus.ABANDONED, (Abandon(),))
    for event in (_seal(_offer(A)), Close(), _open(run_owner=AGGREGATOR)):
        with pytest.raises(Conflict):
            advance(closed, event)
    with pytest.raises(Conflict):
        advance(None, Close())
    with pytest.raises(Conflict):
        advance(None, _open(run_closed=True, run_owner=AGGREGATOR))


def test_only_the_owner_acts(opened: Round) -> None:
    other = SpiffeId.of(DOMAIN, Role.AGGREGATOR, "other")
    for current, event in ((None, _open(run_owner=other)), (opened, _seal(_offer(A), aggregator=other))):
        with pytest.raises(PermissionDenied):
            advance(current, event)


def test_the_machine_gives_the_same_answer_every_time(opened: Round) -> None:
    event = _seal(_offer(A), _offer(A, b"other"), _offer(B))
    assert advance(opened, event) == advance(opened, event)


def test_each_way_not_to_count_has_its_own_reason() -> None:
    cohort, state = {A.spiffe_id: _seat(A)}, _enrolled(A, B)
    revoked = _enrolled(A, B)
    revoked.apply(TrustEvent(Epoch(3), EventKind.REVOKED, START, subject=A.spiffe_id, identity_wide=True))
    rekeyed = _enrolled(replace(A, node=generate()))
    other_node = replace(_offer(A), node_id=B.node_id)
    cases: tuple[tuple[Offer, dict[str, object], str], ...] = (
        (_offer(B), {}, "wrong-participant"),
        (other_node, {}, "wrong-node"),
        (replace(_offer(A), instruction=Digest.sha256_of(b"?")), {}, "wrong-instruction"),
        (_offer(A), {"state": revoked}, "revoked"),
        (replace(_offer(A), instructed_by=B.certificate), {"state": _enrolled(A)}, "unknown-identity"),
        (_offer(A), {"state": TrustState()}, "unknown-identity"),
        (_offer(A), {"state": rekeyed}, "wrong-node"),
        (_offer(A), {"taken": {A.spiffe_id: Digest.sha256_of(b"first")}}, "duplicate"),
    )
    for offer, changes, reason in cases:
        with pytest.raises(FltrustError) as refusal:
            admit(offer, **({"cohort": cohort, "taken": {}, "state": state} | changes))  # type: ignore[arg-type]
        assert refusal.value.reason == reason
    admit(_offer(A), cohort=cohort, taken={}, state=state)


def test_admission_does_not_depend_on_the_order_of_participants() -> None:
    cohort, state = {m.spiffe_id: _seat(m) for m in (A, B)}, _enrolled(A, B)
    one, _ = admit_all((_offer(A), _offer(B)), cohort=cohort, state=state)
    other, _ = admit_all((_offer(B), _offer(A)), cohort=cohort, state=state)
    assert set(one) == set(other)


def test_a_seal_request_is_named_by_its_round_and_candidates_in_any_order() -> None:
    one, two = Candidate(b"a", b"b"), Candidate(b"c", b"d")
    assert request_digest(KEY, (one, two)) == request_digest(KEY, (two, one))
    names = {
        request_digest(KEY, (one,)),
        request_digest(KEY, (one, one)),
        request_digest(KEY, (one, two)),
        request_digest(KEY, (Candidate(b"ab", b""),)),
        request_digest(replace(KEY, step=2), (one,)),
        request_digest(KEY, ()),
    }
    assert len(names) == 6

"""What a participant's agent takes, and what it refuses: before training, and before its key signs."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from agent_world import DOMAIN, MAIN, NODE, OTHER, RUN, SITE, START, Scene, content, model, scene
from second_world import DAY, SecondChain

from fltrust.agent.journal import Journal
from fltrust.agent.ports import ReceivedInstruction
from fltrust.enrollment.second import SecondPair
from fltrust.errors import (
    CertificateRefused,
    FltrustError,
    NotFound,
    Refusal,
    Revoked,
    StaleView,
    StatementRefused,
)
from fltrust.identity import NodeId, Role, RunId, SpiffeId
from fltrust.keys import generate
from fltrust.pki.second import second_roots_of
from fltrust.revocation import EventKind
from fltrust.revocation.view import ReachMode, ReachPolicy
from fltrust.updates.dsse import Envelope
from fltrust.updates.second import demand_second
from fltrust.updates.signing import SignedStatement
from fltrust.updates.statement import Phase
from fltrust.updates.verify import ExpectedUpdate, Verifier


@pytest.fixture
def here() -> Scene:
    return scene()


def refusal(here: Scene, received: ReceivedInstruction) -> str:
    """The reason for which both requests refuse this instruction; each refusal is counted."""
    before = dict(here.participant.refusals)
    with pytest.raises(FltrustError) as checked:
        here.participant.check_instruction(received)
    with pytest.raises(FltrustError) as signed:
        here.participant.sign_update(received, reply=content(9), reply_type=received.message_type)
    assert checked.value.reason == signed.value.reason
    reason = checked.value.reason
    assert here.participant.refusals[reason] == before.get(reason, 0) + 2
    return reason


def test_a_good_instruction_is_taken_and_its_reply_verifies_at_the_aggregator(here: Scene) -> None:
    received = here.instruction()
    here.participant.check_instruction(received)
    signed = here.participant.sign_update(received, reply=content(9), reply_type="train")
    verifier, at, judge = Verifier(here.world.bundle), here.world.clock.now(), here.world.view.judge
    asked = verifier.open(
        SignedStatement.from_bytes(received.signed), at=at, role=Role.AGGREGATOR, judge=judge
    )
    update = verifier.verify_update(
        SignedStatement.from_bytes(signed),
        at=at,
        judge=judge,
        expected=ExpectedUpdate.answering(asked.statement, instruction=asked.payload_digest),  # type: ignore[arg-type]
        content=content(9),
    )
    assert update.certificate.spiffe_id == SITE
    assert update.statement.model == model(2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run_id": RunId(99)}, Refusal.WRONG_RUN),
        ({"node_id": NodeId(99)}, Refusal.WRONG_NODE),
        ({"message_type": "evaluate"}, Refusal.WRONG_PHASE),
        ({"content": content(7)}, Refusal.DIGEST_MISMATCH),
        ({"model": model(7)}, Refusal.WRONG_MODEL),
        ({"signed": b"fltrust-signed-v1\x00"}, Refusal.MALFORMED),
        ({"signed": b"x" * 200_000}, Refusal.OVERSIZED),
    ],
)
def test_an_instruction_received_with_something_else_is_refused(
    here: Scene, changes: dict[str, object], reason: str
) -> None:
    assert refusal(here, replace(here.instruction(), **changes)) == reason  # type: ignore[arg-type]


def test_an_instruction_for_another_participant_is_refused(here: Scene) -> None:
    here.world.enroll(OTHER)
    assert refusal(here, here.instruction(participant=OTHER)) == Refusal.WRONG_PARTICIPANT


def test_an_instruction_for_another_node_key_is_refused(here: Scene) -> None:
    assert refusal(here, here.instruction(node_key=generate().key_id)) == Refusal.WRONG_NODE


def test_an_instruction_for_a_run_that_is_not_open_is_refused(here: Scene) -> None:
    assert refusal(here, here.instruction(run_id=RunId(5))) == Refusal.RUN_NOT_OPEN


def test_an_instruction_for_a_run_that_was_closed_is_refused(here: Scene) -> None:
    received = here.instruction()
    here.world.say(EventKind.RUN_CLOSED, run_id=RUN)
    assert refusal(here, received) == Refusal.RUN_NOT_OPEN


def test_an_aggregator_cannot_instruct_in_the_run_of_another(here: Scene) -> None:
    """Else it could have a site train for it, and a high round of its would lock the run's owner out."""
    rogue = here.world.aggregator(here.world.enroll(SpiffeId.of(DOMAIN, Role.AGGREGATOR, "rogue")))
    draft = here.world.draft(round=2**31 - 1)
    (signed,) = rogue.sign_instructions((draft,))
    assert refusal(here, replace(here.instruction(round=2**31 - 1), signed=signed)) == Refusal.WRONG_RUN
    here.participant.check_instruction(here.instruction())


def test_a_run_whose_owner_is_not_known_is_nobodys(here: Scene) -> None:
    here.world.say(EventKind.RUN_OPENED, run_id=RunId(6))
    assert refusal(here, here.instruction(run_id=RunId(6))) == Refusal.WRONG_RUN


def test_an_instruction_that_is_faster_than_the_feed_waits_for_its_run() -> None:
    here = scene(patience=30.0)
    later = RunId(5)
    received = here.instruction(run_id=later)
    opener = threading.Timer(0.05, lambda: here.world.say(EventKind.RUN_OPENED, run_id=later, actor=MAIN))
    opener.start()
    here.participant.check_instruction(received)
    opener.join()


def test_an_expired_instruction_is_refused(here: Scene) -> None:
    received = here.instruction(lifetime=timedelta(seconds=10))
    here.world.clock.advance(timedelta(seconds=41))
    here.world.beat()
    assert refusal(here, received) == Refusal.EXPIRED


def test_an_instruction_of_a_revoked_aggregator_is_refused(here: Scene) -> None:
    received = here.instruction()
    here.world.revoke(MAIN)
    assert refusal(here, received) == Refusal.REVOKED


def test_an_instruction_of_an_aggregator_that_was_never_enrolled_is_refused(here: Scene) -> None:
    stranger = SpiffeId.of(DOMAIN, Role.AGGREGATOR, "stranger")
    here.main.current  # noqa: B018 - the real one stays
    impostor = replace(here, aggregator=here.world.aggregator(here.main))
    impostor.aggregator._credentials = type(here.main)(here.world.issue(stranger, generate()))
    impostor.aggregator._view = type(
        "Blind", (), {"require_fresh": lambda _: True, "judge": lambda *_: None}
    )()
    assert refusal(here, impostor.instruction()) == Refusal.UNKNOWN_IDENTITY


def test_an_altered_instruction_is_refused(here: Scene) -> None:
    received = here.instruction()
    signed = SignedStatement.from_bytes(received.signed)
    envelope = Envelope.from_json(signed.envelope_json)
    altered = replace(envelope, payload=envelope.payload.replace(b'"round":1', b'"round":2'))
    forged = replace(signed, envelope_json=altered.to_json()).to_bytes()
    assert refusal(here, replace(received, signed=forged)) == Refusal.SIGNATURE_INVALID


def test_a_participants_own_signature_does_not_make_an_instruction(here: Scene) -> None:
    received = here.instruction()
    update = here.participant.sign_update(received, reply=content(9), reply_type="train")
    assert refusal(here, replace(received, signed=update)) == Refusal.WRONG_ROLE


def test_a_stale_view_refuses_by_default_and_recovers_with_the_next_word(here: Scene) -> None:
    received = here.instruction()
    here.world.clock.advance(timedelta(seconds=31))
    assert refusal(here, received) == Refusal.STALE_VIEW
    here.world.beat()
    here.participant.check_instruction(received)


def test_a_stale_view_goes_on_where_the_policy_says_so() -> None:
    here = scene(policy=ReachPolicy(ReachMode.SOFT_FAIL))
    received = here.instruction()
    here.world.clock.advance(timedelta(minutes=9))
    here.participant.check_instruction(received)
    here.world.clock.advance(timedelta(minutes=2))
    with pytest.raises(StaleView):
        here.participant.check_instruction(received)


def test_a_revoked_participant_signs_nothing_more(here: Scene) -> None:
    received = here.instruction()
    here.world.revoke(SITE)
    assert refusal(here, received) == Refusal.REVOKED


def test_a_participant_on_hold_signs_again_after_its_release(here: Scene) -> None:
    received = here.instruction()
    here.world.say(EventKind.HELD, subject=SITE, identity_wide=True)
    assert refusal(here, received) == Refusal.HELD
    here.world.say(EventKind.RELEASED, subject=SITE, identity_wide=True)
    here.participant.sign_update(received, reply=content(9), reply_type="train")


def test_a_participant_that_was_told_of_its_revocation_needs_no_feed_to_refuse(here: Scene) -> None:
    received = here.instruction()
    here.participant.halt(Revoked("site-a is revoked as of epoch 9"))
    assert refusal(here, received) == Refusal.REVOKED


def test_a_reply_of_another_type_is_not_signed(here: Scene) -> None:
    with pytest.raises(StatementRefused) as caught:
        here.participant.sign_update(here.instruction(), reply=content(9), reply_type="evaluate")
    assert caught.value.reason == Refusal.WRONG_PHASE


def test_the_same_reply_again_gives_the_same_bytes_and_another_one_is_refused(here: Scene) -> None:
    received = here.instruction()
    first = here.participant.sign_update(received, reply=content(9), reply_type="train")
    here.world.clock.advance(timedelta(seconds=3))
    assert here.participant.sign_update(received, reply=content(9), reply_type="train") == first
    with pytest.raises(StatementRefused) as caught:
        here.participant.sign_update(received, reply=content(8), reply_type="train")
    assert caught.value.reason == Refusal.DUPLICATE


def test_an_instruction_of_an_earlier_round_is_refused_after_a_later_one_was_answered(here: Scene) -> None:
    old, new = here.instruction(round=1, step=1), here.instruction(round=2, step=2)
    here.participant.sign_update(new, reply=content(9), reply_type="train")
    assert refusal(here, old) == Refusal.REPLAYED


def test_rounds_are_counted_for_each_phase_and_run(here: Scene) -> None:
    here.world.say(EventKind.RUN_OPENED, run_id=RunId(8), actor=MAIN)
    here.participant.sign_update(here.instruction(round=2), reply=content(9), reply_type="train")
    evaluate = {"phase": Phase.EVALUATE, "message_type": "evaluate"}
    for received in (here.instruction(round=1, **evaluate), here.instruction(round=1, run_id=RunId(8))):
        here.participant.check_instruction(received)


def test_an_answered_instruction_may_be_asked_again_after_a_later_round(here: Scene) -> None:
    old, new = here.instruction(round=1), here.instruction(round=2)
    first = here.participant.sign_update(old, reply=content(9), reply_type="train")
    here.participant.sign_update(new, reply=content(9), reply_type="train")
    assert here.participant.sign_update(old, reply=content(9), reply_type="train") == first


def test_two_instructions_of_one_content_are_two_questions(here: Scene) -> None:
    one, two = here.instruction(), here.instruction()
    assert one.signed != two.signed
    signatures = {here.participant.sign_update(r, reply=content(9), reply_type="train") for r in (one, two)}
    assert len(signatures) == 2


def test_many_threads_that_sign_different_replies_get_one_signature(here: Scene) -> None:
    received = here.instruction()
    outcomes: list[bytes | str] = []

    def sign(seed: int) -> None:
        try:
            outcomes.append(here.participant.sign_update(received, reply=content(seed), reply_type="train"))
        except StatementRefused as error:
            outcomes.append(error.reason)

    threads = [threading.Thread(target=sign, args=(n % 4,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 16
    assert len({o for o in outcomes if isinstance(o, bytes)}) == 1
    assert {o for o in outcomes if isinstance(o, str)} == {Refusal.DUPLICATE}


def test_the_aggregator_signs_nothing_once_revoked_or_cut_off(here: Scene) -> None:
    here.world.clock.advance(timedelta(seconds=31))
    with pytest.raises(StaleView):
        here.instruction()
    here.world.revoke(MAIN)
    with pytest.raises(Revoked):
        here.instruction()
    assert here.aggregator.refusals == {Refusal.STALE_VIEW: 1, Refusal.REVOKED: 1}


def test_the_aggregator_refuses_instructions_without_a_sensible_end(here: Scene) -> None:
    for lifetime in (timedelta(0), timedelta(seconds=-1), timedelta(days=8)):
        with pytest.raises(FltrustError, match="lifetime"):
            here.instruction(lifetime=lifetime)


def test_the_identity_of_a_participant_names_its_node_key(here: Scene) -> None:
    identity = here.participant.identity()
    assert (identity.spiffe_id, identity.node_key) == (SITE, here.world.node_key())
    assert here.aggregator.identity().node_key is None
    assert here.world.draft().node_id == NODE


# --- a second signature


@pytest.fixture(scope="module")
def chain() -> SecondChain:
    return SecondChain(DOMAIN, now=START)


def give_second(here: Scene, pair: SecondPair, journal: Journal | None = None) -> None:
    here.participant = here.world.participant(here.site, journal, second=lambda: pair)


def test_an_answer_is_signed_a_second_time_over_the_same_statement(here: Scene, chain: SecondChain) -> None:
    give_second(here, chain.pair(SITE))
    signed = here.participant.sign_update(here.instruction(), reply=content(9), reply_type="train")
    payload = SignedStatement.from_bytes(signed).envelope.payload
    roots, now = second_roots_of([chain.root]), here.world.clock.now()
    second = here.participant.sign_second(signed)
    assert demand_second(second, payload=payload, who=SITE, roots=roots, at=now).spiffe_id == SITE


def test_an_old_answer_is_not_signed_with_a_key_that_came_later() -> None:
    """Whoever reads the record holds the second certificate to the time of the answer."""
    journal = Journal(None)
    here = scene(journal)
    received = here.instruction()
    signed = here.participant.sign_update(received, reply=content(9), reply_type="train")
    here.world.clock.advance(DAY / 8)
    here.world.beat()
    give_second(here, SecondChain(DOMAIN, now=here.world.clock.now()).pair(SITE), journal)
    with pytest.raises(CertificateRefused) as refused:
        here.participant.sign_second(signed)
    assert refused.value.reason == "certificate-not-yet-valid"


def test_nothing_is_signed_a_second_time_that_was_not_signed_once(here: Scene, chain: SecondChain) -> None:
    """Neither another participant's answer, nor an instruction, nor an answer with another signature."""
    give_second(here, chain.pair(SITE))
    received = here.instruction()
    signed = here.participant.sign_update(received, reply=content(9), reply_type="train")
    stranger = scene()
    theirs = stranger.participant.sign_update(stranger.instruction(), reply=content(9), reply_type="train")
    mine = SignedStatement.from_bytes(signed)
    resigned = Envelope.sign(mine.envelope.payload, signer=here.site.current.signer)
    again = SignedStatement(resigned.to_json(), mine.chain_der).to_bytes()
    for other in (theirs, received.signed, again):
        with pytest.raises(StatementRefused) as refused:
            here.participant.sign_second(other)
        assert refused.value.reason == "unknown-answer"
    assert here.participant.refusals["unknown-answer"] == 3


def test_a_second_key_of_another_identity_signs_nothing(here: Scene, chain: SecondChain) -> None:
    give_second(here, chain.pair(OTHER))
    signed = here.participant.sign_update(here.instruction(), reply=content(9), reply_type="train")
    with pytest.raises(NotFound):
        here.participant.sign_second(signed)


def test_without_a_second_key_it_says_so(here: Scene) -> None:
    signed = here.participant.sign_update(here.instruction(), reply=content(9), reply_type="train")
    with pytest.raises(NotFound) as refused:
        here.participant.sign_second(signed)
    assert refused.value.reason == "second-key-missing"


def test_a_second_certificate_that_ran_out_signs_nothing(here: Scene, chain: SecondChain) -> None:
    give_second(here, chain.pair(SITE, life=DAY / 24))
    signed = here.participant.sign_update(here.instruction(), reply=content(9), reply_type="train")
    here.world.clock.advance(DAY / 12)
    here.world.beat()
    with pytest.raises(CertificateRefused) as refused:
        here.participant.sign_second(signed)
    assert refused.value.reason == "certificate-expired"


def test_who_is_revoked_signs_nothing_a_second_time_either(here: Scene, chain: SecondChain) -> None:
    give_second(here, chain.pair(SITE))
    signed = here.participant.sign_update(here.instruction(), reply=content(9), reply_type="train")
    here.world.revoke(SITE)
    with pytest.raises(Revoked):
        here.participant.sign_second(signed)
    here.participant.halt(Revoked("revoked"))
    with pytest.raises(Revoked):
        here.participant.sign_second(signed)

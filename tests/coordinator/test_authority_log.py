"""Every act of the authority is in the log, in the transaction of the act."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from authority_world import DOMAIN, RUN, Exchange, World
from sqlalchemy import text

from fltrust.coordinator.enroller import MAX_REFUSALS
from fltrust.coordinator.public_names import PublicNaming
from fltrust.enrollment.types import JoinToken, TokenStatus
from fltrust.errors import Conflict, Malformed, TokenRefused
from fltrust.identity import Digest, Epoch, Role, SpiffeId
from fltrust.keys.ed25519 import generate_note_key
from fltrust.revocation import EventKind
from fltrust.storage import CommitStep
from fltrust.tlog.entries import (
    CertificateLeaf,
    EnrollmentRefused,
    Entry,
    LogOpened,
    ParticipantCertificate,
    PublicName,
    PublicNames,
    SealedRound,
    TrustEventEntry,
    parse_entry,
)
from fltrust.tlog.ports import LoggedEntry


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    world = World(database_url)
    yield world
    world.close()


def logged(world: World) -> tuple[LoggedEntry, ...]:
    with world.store.reading() as tx:
        return tx.tlog.find(limit=10_000)


def entries(world: World) -> list[Entry]:
    return [parse_entry(entry.data) for entry in logged(world)]


def kinds(world: World) -> list[str]:
    return [entry.kind for entry in logged(world)]


def test_the_log_begins_with_its_opening_and_the_coordinators_certificate(world: World) -> None:
    opened, *others = entries(world)
    assert isinstance(opened, LogOpened)
    assert opened.domain == DOMAIN
    assert opened.origin == "hospitals.example/log"
    assert opened.log_key == str(world.authority.log_key.verifier)
    assert (opened.public_names, opened.imported) == (PublicNames.SPIFFE, 0)
    own = [entry.certificate for entry in others if isinstance(entry, CertificateLeaf)]
    assert world.identity.chain_der[0] in own


def test_an_enrollment_logs_the_certificate_and_the_event_and_is_found_by_name(world: World) -> None:
    before = len(logged(world))
    site = world.join("site-a")
    certificate, event = logged(world)[before:]
    leaf, said = parse_entry(certificate.data), parse_entry(event.data)
    assert isinstance(leaf, CertificateLeaf)
    assert leaf.certificate == site.chain[0]
    assert isinstance(said, TrustEventEntry)
    assert (said.event, said.subject, said.epoch) == ("enrolled", str(site.spiffe_id), world.authority.head)
    with world.store.reading() as tx:
        assert tx.tlog.find(subject=str(site.spiffe_id)) == (certificate, event)


def test_a_renewal_logs_its_certificate(world: World) -> None:
    site = world.renew(world.join("site-a"))
    leaf = entries(world)[-1]
    assert isinstance(leaf, CertificateLeaf)
    assert leaf.certificate == site.chain[0]


def test_revoking_holding_and_releasing_are_logged_with_all_that_they_say(world: World) -> None:
    site, other = world.join("site-a"), world.join("site-b")
    since = world.clock.now() - timedelta(minutes=5)
    revoked = world.revoke(site, compromised_since=since)
    world.op.hold(other.target, reason=revoked.reason)  # type: ignore[arg-type]
    world.op.release(other.target)
    first, held, released = [e for e in entries(world) if isinstance(e, TrustEventEntry)][-3:]
    assert first == TrustEventEntry.of(
        epoch=revoked.epoch,
        event="revoked",
        at=revoked.at,
        actor=str(world.operator.spiffe_id),
        subject=str(site.spiffe_id),
        identity_wide=True,
        serials=revoked.serials,
        reason="key-compromise",
        compromised_since=since,
    )
    assert [held.event, released.event] == ["held", "released"]


def test_a_run_its_rounds_and_its_end_are_logged_and_found_by_run_and_participant(world: World) -> None:
    main, site = world.join("main", Role.AGGREGATOR), world.join("site-a")
    exchange = Exchange(world, main)
    exchange.open(site)
    receipt = exchange.seal(exchange.answer(site), refused=())
    main_session = world.session(main)
    main_session.close_run(RUN)
    with world.store.reading() as tx:
        of_run = tx.tlog.find(subject=f"run:{int(RUN)}")
        of_site = tx.tlog.find(subject=str(site.spiffe_id), kinds=("sealed-round",))
        contributions = tx.contributions.of_round(RUN, 1)
    assert [e.kind for e in of_run] == ["trust-event", "sealed-round", "trust-event"]
    sealed = parse_entry(of_run[1].data)
    assert isinstance(sealed, SealedRound)
    assert sealed.receipt == Digest.sha256_of(receipt.to_payload())
    assert (sealed.step, sealed.epoch, sealed.admitted, sealed.refused) == (1, receipt.epoch, 1, 0)
    assert [e.index for e in of_site] == [receipt.index]
    (mine,) = contributions
    (admitted,) = receipt.admitted
    assert (mine.participant, mine.update, mine.certificate, mine.log_index) == (
        site.spiffe_id,
        admitted.update,
        admitted.certificate,
        receipt.index,
    )
    assert str(site.spiffe_id).encode() not in of_run[1].data  # the cohort is the receipt's to name


def test_contributions_are_found_across_runs_from_a_time_on(world: World) -> None:
    main, site = world.join("main", Role.AGGREGATOR), world.join("site-a")
    times = []
    for step in (1, 2, 3):
        exchange = Exchange(world, main, step=step)
        exchange.open(site)
        times.append(world.clock.now())
        exchange.seal(exchange.answer(site))
        world.clock.advance(timedelta(minutes=1))
    with world.store.reading() as tx:
        assert [c.step for c in tx.contributions.of(site.spiffe_id, since=times[1])] == [2, 3]
        assert tx.contributions.of(main.spiffe_id, since=times[0]) == ()


def test_a_refused_enrollment_with_a_known_token_is_logged_up_to_a_bound(world: World) -> None:
    token = world.token("site-a")
    world.join("site-a", token=token)
    for _ in range(MAX_REFUSALS + 3):
        with pytest.raises(TokenRefused):
            world.join("site-a", token=token)
    refusals = [e for e in entries(world) if isinstance(e, EnrollmentRefused)]
    assert len(refusals) == MAX_REFUSALS
    assert {(r.name, r.reason) for r in refusals} == {
        (str(SpiffeId.of(DOMAIN, Role.PARTICIPANT, "site-a")), "token-used")
    }
    assert token.secret not in b"".join(e.data for e in logged(world))


def test_a_refusal_that_leaves_the_token_unspent_is_logged_too(world: World) -> None:
    world.join("site-a")
    token = world.token("site-a")  # without `replace`
    with pytest.raises(Conflict):
        world.join("site-a", token=token)
    refusal = entries(world)[-1]
    assert isinstance(refusal, EnrollmentRefused)
    assert refusal.reason == "already-enrolled"


def test_an_unknown_token_leaves_no_entry(world: World) -> None:
    before = kinds(world)
    made_up = JoinToken("localhost:1", "localhost:2", world.token("x").root_der, secrets.token_bytes(32))
    with pytest.raises(TokenRefused):
        world.join("stranger", token=made_up)
    assert kinds(world) == before


@pytest.mark.parametrize("step", CommitStep)
def test_an_act_and_its_entries_share_one_fate(world: World, step: CommitStep) -> None:
    token, before = world.token("site-a"), len(logged(world))

    def crash(reached: CommitStep) -> None:
        if reached is step:
            raise OSError("crash")

    world.store.on_commit = crash
    with pytest.raises(OSError, match="crash"):
        world.join("site-a", token=token)
    world.store.on_commit = None
    world.reopen()
    enrolled = [e for e in world.authority.events(Epoch(0), 99, reader=None) if e.subject is not None]
    is_enrolled = any(e.subject and e.subject.name == "site-a" for e in enrolled)
    assert is_enrolled is (step is CommitStep.AFTER)
    assert len(logged(world)) == before + (2 if is_enrolled else 0)


def test_the_log_opens_once(world: World) -> None:
    world.reopen()
    world.reopen()
    assert kinds(world).count("log-opened") == 1


def test_another_log_key_is_refused(world: World) -> None:
    before = kinds(world)
    world.notary.note = generate_note_key()
    with pytest.raises(Conflict) as refusal:
        world.reopen()
    assert refusal.value.reason == "log-key"
    assert kinds(world) == before


# --- a database from before the log ----------------------------------------------------------------


def forget_the_log(world: World) -> None:
    """Put the database back to where the migration leaves one that had no log."""
    with world.store._engine.begin() as connection:
        for statement in (
            "DELETE FROM log_entries",
            "DELETE FROM log_hashes",
            "DELETE FROM log_subjects",
            "DELETE FROM contributions",
            "UPDATE head SET log_size = 0, log_peaks = NULL",
            "UPDATE rounds SET log_index = NULL",
        ):
            connection.execute(text(statement))


def test_what_was_recorded_before_there_was_a_log_is_imported_and_said_to_be(world: World) -> None:
    main, site = world.join("main", Role.AGGREGATOR), world.join("site-a")
    exchange = Exchange(world, main)
    exchange.open(site)
    receipt = exchange.seal(exchange.answer(site))
    events = world.authority.events(Epoch(0), 99, reader=None)
    forget_the_log(world)
    world.reopen()
    opened, *everything = entries(world)
    assert isinstance(opened, LogOpened)
    history = everything[: opened.imported]
    assert [type(e) for e in everything[opened.imported :]] == [CertificateLeaf]  # the timestamp authority's
    assert [e.epoch for e in history if isinstance(e, TrustEventEntry)] == [e.epoch for e in events]
    leaves = {e.certificate for e in history if isinstance(e, CertificateLeaf)}
    assert leaves == {world.identity.chain_der[0], world.operator.chain[0], main.chain[0], site.chain[0]}
    (sealed,) = (e for e in history if isinstance(e, SealedRound))
    assert sealed.receipt == Digest.sha256_of(receipt.to_payload())
    with world.store.reading() as tx:
        (index,) = tx.rounds.places(RUN)
        assert parse_entry(tx.tlog.read(index, index + 1)[0].data) == sealed
        (mine,) = tx.contributions.of_round(RUN, 1)
    assert (mine.participant, mine.update) == (site.spiffe_id, receipt.admitted[0].update)
    world.join("site-b")  # and it goes on
    assert kinds(world)[-2:] == ["certificate", "trust-event"]


# --- pseudonyms --------------------------------------------------------------------------------------


@pytest.fixture
def hidden(tmp_path: Path) -> Iterator[World]:
    """A coordinator with pseudonyms from its first entry on."""
    tmp_path.chmod(0o700)
    world = World(f"sqlite:///{tmp_path / 'hidden.db'}", names=PublicNaming(b"k" * 32))
    yield world
    world.close()


def test_with_pseudonyms_no_participant_is_named_in_the_log(hidden: World) -> None:
    main, site = hidden.join("main", Role.AGGREGATOR), hidden.join("site-a")
    exchange = Exchange(hidden, main)
    exchange.open(site)
    exchange.seal(exchange.answer(site))
    hidden.revoke(site)
    with pytest.raises(TokenRefused):
        hidden.join("site-a", token=_spent(hidden))
    everything = b"".join(entry.data for entry in logged(hidden))
    assert b"site-a" not in everything
    assert b"aggregator/main" in everything
    certificates = [e for e in entries(hidden) if isinstance(e, ParticipantCertificate)]
    name = hidden.names.of(site.spiffe_id)
    assert [(c.name, c.certificate) for c in certificates] == [(name, Digest.sha256_of(site.chain[0]))]
    events = [e for e in entries(hidden) if isinstance(e, TrustEventEntry)]
    assert {e.subject for e in events if e.event in (EventKind.REVOKED,)} == {name}
    with hidden.store.reading() as tx:
        found = tx.tlog.find(subject=str(site.spiffe_id))
    assert len(found) >= 4  # the operator finds everything by the name itself
    assert hidden.names.open(name, among=[main.spiffe_id, site.spiffe_id]) == site.spiffe_id


def _spent(world: World) -> JoinToken:
    token = world.token("site-a", replace=True)
    (waiting,) = (t for t in world.op.list_tokens() if t.status is TokenStatus.PENDING)
    world.op.cancel_token(waiting.token_id)
    return token


def test_the_choice_of_names_is_for_good(hidden: World) -> None:
    hidden.names = PublicNaming()
    with pytest.raises(Conflict) as refusal:
        hidden.reopen()
    assert refusal.value.reason == "public-names"


def test_a_pseudonym_is_the_same_for_good_and_says_nothing_without_the_key() -> None:
    site = SpiffeId.of(DOMAIN, Role.PARTICIPANT, "site-a")
    one, other = PublicNaming(b"k" * 32), PublicNaming(b"l" * 32)
    assert one.of(site) == PublicNaming(b"k" * 32).of(site)
    assert one.of(site) != other.of(site)
    assert one.of(site).is_pseudonym
    assert other.open(one.of(site), among=[site]) is None
    assert one.open(PublicName(str(site)), among=()) == site
    for role in (Role.AGGREGATOR, Role.OPERATOR, Role.SIGNER):
        who = SpiffeId.of(DOMAIN, role, "main")
        assert one.of(who) == str(who)
    with pytest.raises(Malformed):
        PublicNaming(b"short")

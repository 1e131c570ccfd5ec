"""Rounds in which every answer must be signed twice: with the first key, and with an ML-DSA-65 one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from app_world import QUICK, honest, refusals, train, trusted, weights
from flwr.app import Message
from second_world import SecondChain

from fltrust.errors import CertificateRefused, Malformed, Refusal
from fltrust.flower import _private
from fltrust.flower.policy import TrustPolicy
from fltrust.flower.records import RESERVED, Carried, attach, detach
from fltrust.pki import root_fingerprint
from fltrust.rounds.chain import verify_chain
from fltrust.testing import LocalFederation, ScratchCoordinator
from fltrust.testing.federation import LocalParticipant
from fltrust.updates import SignedStatement, UpdateStatement, sign_statement, unverified_statement
from fltrust.updates.second import SecondSignature
from fltrust.wire.record import export_record, verify_record

_Mischief = Callable[[Message, Message], Message | None]


class Twice:
    """A federation whose sites have second keys, and the policy that asks for them."""

    def __init__(self, federation: LocalFederation, folder: Path) -> None:
        self.federation, self.folder = federation, folder
        self.chain = SecondChain(federation.coordinator.bundle.domain, now=federation.clock.now())
        self.policy = TrustPolicy(waits=QUICK, second_roots=(self.chain.write_root(folder),))
        for site in federation.participants:
            site.second = self.chain.pair(site.spiffe_id)

    @property
    def site(self) -> LocalParticipant:
        return self.federation["site-0"]

    def refusal_of_site(self) -> str | None:
        """Why the first site's answer does not count in a round, if it does not; the other's always does."""
        _, (report,) = train(self.federation, policy=self.policy)
        assert "site-1" in report.admitted
        return refusals(report).get("site-0")


@pytest.fixture
def twice(tmp_path: Path) -> Iterator[Twice]:
    with LocalFederation(honest(), 2) as federation:
        yield Twice(federation, tmp_path)


def with_second(make: Callable[[Carried], bytes | None]) -> _Mischief:
    """Send the reply with another second signature."""

    def send(_instruction: Message, reply: Message) -> Message:
        bare, carried = detach(reply.content)
        assert carried is not None
        return _private.copy_message(reply, attach(bare, Carried(carried.statement, second=make(carried))))

    return send


def test_every_admitted_answer_is_signed_twice_and_the_record_proves_it_offline(twice: Twice) -> None:
    result, reports = train(twice.federation, policy=twice.policy, rounds=2, evaluate=True)
    assert weights(result.arrays) == [2.0] * 4
    assert [len(report.admitted) for report in reports] == [2] * 4
    record = twice.federation.rounds()
    assert all(candidate.second for kept in record for candidate in kept.evidence)
    operator, bundle = twice.federation.coordinator.as_operator(), twice.federation.coordinator.bundle
    data = export_record(operator, bundle, twice.federation.run_id)
    roots = [root_fingerprint(root) for root in bundle.roots]
    report = verify_record(data, twice.federation.run_id, roots=roots, second_roots=[twice.chain.root])
    assert report.is_good, report.problems
    assert [len(check.signed_twice) for check in report.rounds] == [2] * 4
    assert "2 signed twice" in report.lines()[0]


def test_todays_reader_of_a_record_verifies_the_first_signatures_as_ever(twice: Twice) -> None:
    train(twice.federation, policy=twice.policy)
    report = verify_chain(twice.federation.rounds(), twice.federation.coordinator.bundle)
    assert report.is_good
    assert [check.signed_twice for check in report.rounds] == [()]


def test_where_nobody_asks_nothing_is_signed_twice(twice: Twice) -> None:
    train(twice.federation)
    (record,) = twice.federation.rounds()
    assert [candidate.second for candidate in record.evidence] == [None, None]
    assert set(twice.site.sent[0].content[RESERVED]) == {"statement"}


def test_a_second_signature_that_nobody_asked_for_is_not_kept(twice: Twice) -> None:
    twice.site.mischief = with_second(lambda _carried: b"whatever this is, nobody has looked at it")
    train(twice.federation)
    (record,) = twice.federation.rounds()
    assert [candidate.second for candidate in record.evidence] == [None, None]


def test_a_site_without_a_second_key_is_refused_and_the_round_goes_on(twice: Twice) -> None:
    twice.site.second = None
    assert twice.refusal_of_site() == Refusal.NO_REPLY  # its agent refused: Flower makes an error of that


def test_an_answer_whose_second_signature_was_taken_away_is_refused(twice: Twice) -> None:
    twice.site.mischief = with_second(lambda _carried: None)
    assert twice.refusal_of_site() == "second-signature-missing"


def test_the_second_signature_of_another_round_is_refused(twice: Twice) -> None:
    kept: list[bytes] = []

    def replay(carried: Carried) -> bytes:
        kept.append(carried.second)
        return kept[0]

    twice.site.mischief = with_second(replay)
    assert twice.refusal_of_site() is None
    assert twice.refusal_of_site() == Refusal.DIGEST_MISMATCH


def test_a_second_signature_by_another_participant_is_refused(twice: Twice) -> None:
    other = twice.chain.pair(twice.federation["site-1"].spiffe_id)

    def sign(carried: Carried) -> bytes:
        payload = SecondSignature.of_update(carried.second or b"").payload
        return SecondSignature.sign(payload, signer=other.signer, chain=other.chain_der).to_json()

    twice.site.mischief = with_second(sign)
    assert twice.refusal_of_site() == Refusal.UNKNOWN_IDENTITY


def test_a_second_key_under_a_root_of_the_sites_own_is_refused(twice: Twice) -> None:
    own = SecondChain(twice.site.spiffe_id.domain, now=twice.federation.clock.now())
    twice.site.second = own.pair(twice.site.spiffe_id)
    assert twice.refusal_of_site() == Refusal.CERTIFICATE_PATH


def test_a_flipped_bit_of_the_second_signature_is_refused(twice: Twice) -> None:
    def flip(carried: Carried) -> bytes:
        second = SecondSignature.of_update(carried.second or b"")
        signature = bytes([second.signature[0] ^ 1]) + second.signature[1:]
        return SecondSignature(second.payload, second.key_id, signature, second.chain_der).to_json()

    twice.site.mischief = with_second(flip)
    assert twice.refusal_of_site() == Refusal.SIGNATURE_INVALID


@pytest.mark.parametrize("junk", [b"{}", b"\x00" * 1000, b"x" * 200_000])
def test_junk_in_its_place_costs_its_sender_the_round_and_nobody_else(twice: Twice, junk: bytes) -> None:
    twice.site.mischief = with_second(lambda _carried: junk)
    assert twice.refusal_of_site() in {Refusal.MALFORMED, Refusal.OVERSIZED}


def test_who_takes_the_question_away_makes_the_answer_be_refused(twice: Twice) -> None:
    """The question is not signed; a SuperLink that strips it gains nothing but a lost answer."""

    def before(message: Message) -> None:
        bare, carried = detach(message.content)
        assert carried is not None
        assert carried.asks_second
        message.content = attach(bare, Carried(carried.statement))

    twice.site.before = before
    assert twice.refusal_of_site() == "second-signature-missing"


def test_a_record_with_an_answer_signed_once_is_not_good_where_two_are_demanded(twice: Twice) -> None:
    train(twice.federation)
    bundle = twice.federation.coordinator.bundle
    report = verify_chain(twice.federation.rounds(), bundle, second_roots={bundle.domain: twice.chain.root})
    assert not report.is_good
    assert len(report.problems) == 2
    assert "got none" in report.problems[0]
    assert json.loads(json.dumps(report.as_fields()))["rounds"][0]["signed_twice"] == []


def test_a_file_that_is_no_root_of_the_second_chain_is_refused(twice: Twice, tmp_path: Path) -> None:
    pem = tmp_path / "first-root.pem"
    from cryptography.hazmat.primitives.serialization import Encoding

    pem.write_bytes(twice.federation.coordinator.bundle.roots[0].public_bytes(Encoding.PEM))
    policy = TrustPolicy(waits=QUICK, second_roots=(pem,))
    with pytest.raises(CertificateRefused):
        trusted(twice.federation, policy)


def test_the_run_config_names_a_root_and_so_demands_both(tmp_path: Path) -> None:
    root = str(tmp_path / "root.pem")
    assert TrustPolicy.from_config({"fltrust-second-root": root}).second_roots == (Path(root),)
    assert TrustPolicy.from_config({"fltrust-second-root": ""}).second_roots == ()
    for no_path in (False, 0):
        with pytest.raises(Malformed):
            TrustPolicy.from_config({"fltrust-second-root": no_path})
    assert TrustPolicy(second_roots=(path for path in [root])).second_roots == (Path(root),)  # type: ignore[arg-type]


def test_an_answer_dated_back_into_the_life_of_a_second_certificate_that_is_over_is_refused(
    twice: Twice,
) -> None:
    signer, now = twice.site.identity.credentials, twice.federation.clock.now()
    over = SecondChain(twice.site.spiffe_id.domain, now=now - timedelta(minutes=2))
    twice.policy = TrustPolicy(waits=QUICK, second_roots=(over.write_root(twice.folder),))
    pair = over.pair(twice.site.spiffe_id, life=timedelta(seconds=119))
    twice.federation["site-1"].second = over.pair(twice.federation["site-1"].spiffe_id)

    def date_back(_instruction: Message, reply: Message) -> Message:
        bare, carried = detach(reply.content)
        assert carried is not None
        statement = unverified_statement(SignedStatement.from_bytes(carried.statement))
        assert isinstance(statement, UpdateStatement)
        earlier = replace(statement, signed_at=now - timedelta(seconds=20))
        signed = sign_statement(earlier, signer=signer.signer, chain=signer.chain_der)
        second = SecondSignature.sign(signed.envelope.payload, signer=pair.signer, chain=pair.chain_der)
        return _private.copy_message(reply, attach(bare, Carried(signed.to_bytes(), second=second.to_json())))

    twice.site.mischief = date_back
    assert twice.refusal_of_site() == Refusal.CERTIFICATE_EXPIRED


def test_an_answer_dated_outside_the_second_certificates_life_is_refused_as_the_record_would_be(
    twice: Twice,
) -> None:
    """Else one site could have a round admitted whose record never verifies."""
    signer = twice.site.identity.credentials
    ends_soon = twice.chain.pair(twice.site.spiffe_id, life=timedelta(seconds=20))

    def post_date(_instruction: Message, reply: Message) -> Message:
        bare, carried = detach(reply.content)
        assert carried is not None
        statement = unverified_statement(SignedStatement.from_bytes(carried.statement))
        assert isinstance(statement, UpdateStatement)
        later = replace(statement, signed_at=statement.signed_at + timedelta(seconds=25))
        signed = sign_statement(later, signer=signer.signer, chain=signer.chain_der)
        second = SecondSignature.sign(
            signed.envelope.payload, signer=ends_soon.signer, chain=ends_soon.chain_der
        )
        return _private.copy_message(reply, attach(bare, Carried(signed.to_bytes(), second=second.to_json())))

    twice.site.mischief = post_date
    assert twice.refusal_of_site() == Refusal.CERTIFICATE_EXPIRED


def test_a_guest_signs_twice_under_its_own_domains_second_root(tmp_path: Path) -> None:
    theirs = ScratchCoordinator("clinics.example")
    with LocalFederation(honest(), 1, guests={"clinic": theirs}) as federation:
        now = federation.clock.now()
        chains = {
            d: SecondChain(d, now=now) for d in (federation.coordinator.bundle.domain, theirs.bundle.domain)
        }
        roots = []
        for domain, chain in chains.items():
            (tmp_path / domain).mkdir()
            roots.append(chain.write_root(tmp_path / domain))
        for site in federation.participants:
            site.second = chains[site.spiffe_id.domain].pair(site.spiffe_id)
        both = TrustPolicy(waits=QUICK, second_roots=tuple(roots))
        _, (report,) = train(federation, policy=both)
        assert len(report.admitted) == 2
        home_alone = TrustPolicy(waits=QUICK, second_roots=(roots[0],))
        _, (report,) = train(federation, policy=home_alone)
        assert list(refusals(report).values()) == ["second-root-missing"]
    theirs.close()

"""The root's ceremony: a quorum signs and opens, fewer do nothing, and the transcript tells."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from fltrust import strictjson
from fltrust.ceremony.files import Act, Answer, Request
from fltrust.ceremony.holders import Holder, HolderCard, create_holder, open_holder
from fltrust.ceremony.room import Adopted, Room
from fltrust.ceremony.transcript import Transcript, verify_transcripts
from fltrust.ceremony.unlock import MAX_HOLDERS, Roster, open_sealed, seal
from fltrust.errors import Conflict, FltrustError, Malformed, NotFound, Oversized, Refused, SignatureInvalid
from fltrust.identity import Digest, Name, Serial, TrustDomain
from fltrust.keys import generate
from fltrust.pki import create_csr, create_root, root_fingerprint
from fltrust.pki.ca_certificates import (
    RootSuccession,
    check_authority,
    check_root_succession,
    is_issued_by,
)
from fltrust.pki.pointers import PublicUrl
from fltrust.pki.profiles import CaKind
from fltrust.pki.root_crl import create_root_crl, revoked_entry

DOMAIN = TrustDomain("hospitals.example")
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NAMES = ("alice", "bob", "carol")


class Clock:
    """Each look at it is a second later."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Holder]:
    home, found = tmp_path_factory.mktemp("holders"), {}
    for name in (*NAMES, "mallory"):
        create_holder(home / name, Name(name), passphrase=name.encode())
        found[name] = open_holder(home / name, passphrase=name.encode())
    return found


def roster(people: dict[str, Holder], names: Sequence[str] = NAMES, threshold: int = 2) -> Roster:
    return Roster.of([people[name].card for name in names], threshold=threshold)


@pytest.fixture
def room(tmp_path: Path, people: dict[str, Holder]) -> Room:
    who = [people["alice"], people["bob"]]
    return Room.create(tmp_path / "room", DOMAIN, roster=roster(people), holders=who, clock=Clock())


def request(**more: Any) -> Request:
    how: dict[str, Any] = {"act": Act.ISSUING, "domain": DOMAIN, "at": START}
    if "act" not in more:
        how["csr_der"] = create_csr(generate())
    return Request(**{**how, **more})


def pair(people: dict[str, Holder], *names: str) -> list[Holder]:
    return [people[name] for name in names]


@pytest.mark.parametrize("names", [("alice", "bob"), ("carol", "alice"), NAMES])
def test_any_quorum_has_an_issuing_ca_signed(
    room: Room, people: dict[str, Holder], names: Sequence[str]
) -> None:
    asked = request(public_url=PublicUrl("http://pki.hospitals.example"))
    answer = Answer.from_json(room.perform(asked, pair(people, *names)).to_json())
    (issuing,) = answer.certificates
    check_authority(issuing, CaKind.ISSUING)
    assert is_issued_by(issuing, room.root)
    assert issuing.public_key() == x509.load_der_x509_csr(asked.csr_der or b"").public_key()
    assert issuing.extensions.get_extension_for_class(x509.CRLDistributionPoints) is not None
    assert (answer.act, answer.domain, answer.request) == (Act.ISSUING, DOMAIN, asked.digest)
    told = room.told()
    assert [one.opening.act for one in told] == [Act.INIT, Act.ISSUING]
    assert told[-1].holders == tuple(map(Name, names))
    assert told[-1].opening.request == asked.digest
    assert answer.transcript == told[-1].digest


@pytest.mark.parametrize("names", [(), ("alice",), ("alice", "alice"), ("alice", "mallory"), ("mallory",)])
def test_fewer_than_a_quorum_sign_nothing(
    room: Room, people: dict[str, Holder], names: Sequence[str]
) -> None:
    with pytest.raises(Refused) as refused:
        room.perform(request(), pair(people, *names))
    assert refused.value.reason in ("no-quorum", "holder-unknown")
    assert len(room.transcripts()) == 1


def test_the_key_opens_to_a_quorum_alone_whatever_the_program_says(
    people: dict[str, Holder],
) -> None:
    """Below the software's own check: one holder's envelopes open only with the other holder's key."""
    secret = b"s" * 32
    envelopes = seal(secret, roster(people), room="r")
    assert len(envelopes) == 3
    assert all(secret not in envelope.sealed for envelope in envelopes)
    assert open_sealed(envelopes, pair(people, "bob", "carol"), room="r") == secret
    with pytest.raises(Refused):
        open_sealed(envelopes, pair(people, "bob"), room="r")
    with pytest.raises(Refused):
        open_sealed(envelopes, pair(people, "bob", "carol"), room="another")
    alone = [replace(envelope, names=envelope.names[:1]) for envelope in envelopes]
    with pytest.raises(Refused):
        open_sealed(alone, pair(people, *NAMES), room="r")
    posing = replace(people["mallory"], card=people["alice"].card)
    with pytest.raises(Refused):
        open_sealed(envelopes, [posing, people["bob"]], room="r")


def test_nothing_in_a_room_opens_its_key_and_everything_in_it_is_private(
    room: Room, people: dict[str, Holder], tmp_path: Path
) -> None:
    room.perform(request(), pair(people, "alice", "bob"))
    for path in (tmp_path / "room").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
        if path.is_file():
            assert b"BEGIN PRIVATE KEY" not in path.read_bytes()
    assert list((tmp_path / "room").rglob("*.key"))


def test_a_root_rolls_over_and_the_next_request_is_signed_by_the_new_one(
    room: Room, people: dict[str, Holder], tmp_path: Path
) -> None:
    old = room.root
    answer = room.perform(request(act=Act.ROLLOVER), pair(people, "alice", "carol"))
    succession = RootSuccession(*answer.certificates)
    check_root_succession(succession)
    assert (succession.old, succession.new) == (old, room.root)
    (crl,) = answer.crls
    assert crl.is_signature_valid(succession.new.public_key())  # type: ignore[arg-type]
    again = Room(tmp_path / "room", clock=Clock())
    assert again.root == succession.new
    assert len(list((tmp_path / "room").glob("keys-*"))) == 1
    room._clock.time += timedelta(days=1)  # type: ignore[attr-defined]
    (issuing,) = room.perform(request(), pair(people, "bob", "carol")).certificates
    assert is_issued_by(issuing, succession.new)
    assert not is_issued_by(issuing, old)
    assert [one.closing.root for one in room.told()] == [
        root_fingerprint(old),
        root_fingerprint(succession.new),
        root_fingerprint(succession.new),
    ]


def test_revocations_on_the_roots_crl_add_up(room: Room, people: dict[str, Holder]) -> None:
    for serial in (7, 9):
        asked = request(act=Act.CRL, revoke=((Serial(serial), "ca-compromise"),))
        (crl,) = room.perform(asked, pair(people, "alice", "bob")).crls
    assert sorted(entry.serial_number for entry in crl) == [7, 9]
    (again,) = room.perform(request(act=Act.CRL), pair(people, "alice", "bob")).crls
    assert sorted(entry.serial_number for entry in again) == [7, 9]


def test_another_domains_root_is_certified_within_what_it_may_speak_of(
    room: Room, people: dict[str, Holder]
) -> None:
    theirs = create_root(TrustDomain("b.example"), signer=generate(), now=START)
    der = theirs.public_bytes(serialization_der())
    asked = request(act=Act.CROSS, subject_der=der, permitted=("b.example",), path_length=1)
    assert any("b.example" in line for line in asked.words())
    (cross,) = room.perform(asked, pair(people, "alice", "bob")).certificates
    check_authority(cross, CaKind.CROSS)
    assert cross.public_key() == theirs.public_key()
    constraints = cross.extensions.get_extension_for_class(x509.NameConstraints).value
    assert x509.DNSName("b.example") in (constraints.permitted_subtrees or [])


def serialization_der() -> Any:
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.DER


def test_holders_are_replaced_by_a_quorum_of_those_before_and_are_none_afterwards(
    room: Room, people: dict[str, Holder], tmp_path: Path
) -> None:
    kept = tmp_path / "copy"
    after = roster(people, ("bob", "mallory"), 2)
    with pytest.raises(Refused):
        room.change_holders(after, pair(people, "bob", "mallory"))
    room.change_holders(after, pair(people, "alice", "bob"))
    shutil.copytree(tmp_path / "room", kept)
    again = Room(kept, clock=Clock())
    again._clock.time += timedelta(hours=1)  # type: ignore[attr-defined]
    with pytest.raises(Refused):
        again.perform(request(), pair(people, "alice", "bob"))
    assert again.perform(request(), pair(people, "bob", "mallory")).certificates
    assert again.roster == after


def test_a_root_from_before_is_taken_in_with_what_it_revoked(
    tmp_path: Path, people: dict[str, Holder]
) -> None:
    signer = generate()
    root = create_root(DOMAIN, signer=signer, now=START)
    entry = revoked_entry(5, at=START, reason=x509.ReasonFlags.ca_compromise)
    crl = create_root_crl(root=root, signer=signer, now=START, revoked=[entry])
    who = pair(people, "alice", "bob")
    how: dict[str, Any] = {"roster": roster(people), "holders": who, "clock": Clock()}
    room = Room.create(tmp_path / "room", DOMAIN, adopt=Adopted(root, signer, tuple(crl)), **how)
    assert room.root == root
    (crl,) = room.perform(request(act=Act.CRL), who).crls
    assert [entry.serial_number for entry in crl] == [5]
    with pytest.raises(Conflict):
        Adopted(root, generate())
    with pytest.raises(Conflict):
        Room.create(tmp_path / "b", TrustDomain("b.example"), adopt=Adopted(root, signer), **how)


def test_a_room_is_made_once_by_a_quorum_or_not_at_all(tmp_path: Path, people: dict[str, Holder]) -> None:
    how: dict[str, Any] = {"roster": roster(people), "clock": Clock()}
    with pytest.raises(Refused):
        Room.create(tmp_path / "room", DOMAIN, holders=pair(people, "alice"), **how)
    assert list(tmp_path.iterdir()) == []
    who = pair(people, "alice", "bob")
    Room.create(tmp_path / "room", DOMAIN, holders=who, **how)
    with pytest.raises(Conflict):
        Room.create(tmp_path / "room", DOMAIN, holders=who, **how)
    with pytest.raises(NotFound):
        Room(tmp_path / "elsewhere", clock=Clock())


def test_a_request_of_another_domain_is_refused(room: Room, people: dict[str, Holder]) -> None:
    with pytest.raises(Refused) as refused:
        room.perform(request(domain=TrustDomain("b.example")), pair(people, "alice", "bob"))
    assert refused.value.reason == "wrong-domain"


# ---- the transcript ----


def told_room(room: Room, people: dict[str, Holder]) -> list[Transcript]:
    room.perform(request(), pair(people, "alice", "bob"))
    room.perform(request(act=Act.CRL), pair(people, "alice", "carol"))
    return room.transcripts()


def test_a_transcript_that_is_left_out_changed_or_moved_shows(room: Room, people: dict[str, Holder]) -> None:
    whole = told_room(room, people)
    assert len(verify_transcripts(whole)) == 3
    for broken in (whole[1:], [whole[0], whole[2]], [whole[0], whole[2], whole[1]], [*whole, whole[1]], []):
        with pytest.raises(Refused) as refused:
            verify_transcripts(broken)
        assert refused.value.reason == "transcript-broken"
    with pytest.raises(Refused):
        verify_transcripts(whole, first_root=Digest.sha256_of(b"another root"))
    verify_transcripts(whole, first_root=root_fingerprint(room.root))


def test_no_word_of_a_transcript_can_be_changed(room: Room, people: dict[str, Holder]) -> None:
    whole = told_room(room, people)
    for part in ("opening", "closing"):
        signed = getattr(whole[1], part)
        forged = replace(signed, payload=signed.payload.replace(b"2026", b"2027"))
        with pytest.raises(FltrustError):
            verify_transcripts([whole[0], replace(whole[1], **{part: forged}), whole[2]])
        fewer = replace(signed, signatures=signed.signatures[:1])
        with pytest.raises(Refused):
            verify_transcripts([whole[0], replace(whole[1], **{part: fewer})])
        twice = replace(signed, signatures=(signed.signatures[0],) * 2)
        with pytest.raises(Refused):
            verify_transcripts([whole[0], replace(whole[1], **{part: twice})])
        swapped = replace(signed, signatures=tuple(reversed([*signed.signatures])))
        with pytest.raises((Refused, SignatureInvalid)):
            verify_transcripts([whole[0], replace(whole[1], **{part: swapped})])
    with pytest.raises(Refused):
        verify_transcripts([whole[0], replace(whole[1], closing=whole[2].closing)])


def test_a_room_whose_holders_were_swapped_behind_the_transcript_does_nothing(
    room: Room, people: dict[str, Holder], tmp_path: Path
) -> None:
    lock = tmp_path / "room" / "keys-0001" / "unlock.json"
    fields = json.loads(lock.read_bytes())
    fields["roster"] = roster(people, ("alice", "mallory"), 1).to_value()
    lock.write_bytes(strictjson.encode(fields))
    swapped = Room(tmp_path / "room", clock=Clock())
    swapped._clock.time += timedelta(hours=1)  # type: ignore[attr-defined]
    with pytest.raises(Refused) as refused:
        swapped.perform(request(), pair(people, "mallory"))
    assert refused.value.reason == "transcript-broken"


def test_a_ceremony_that_breaks_off_leaves_no_transcript_and_can_be_held_again(
    room: Room, people: dict[str, Holder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = room.root

    def power_cut(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Room, "_write", power_cut)
        with pytest.raises(KeyboardInterrupt):
            room.perform(request(act=Act.ROLLOVER), pair(people, "alice", "bob"))
    again = Room(tmp_path / "room", clock=Clock())
    again._clock.time += timedelta(hours=1)  # type: ignore[attr-defined]
    assert (again.root, len(again.transcripts())) == (old, 1)
    assert again.perform(request(act=Act.ROLLOVER), pair(people, "alice", "bob")).certificates[0] == old
    assert os.listdir(tmp_path / "room" / "transcripts")


# ---- files ----


def test_requests_read_back_as_they_were_written_and_no_other_words_do() -> None:
    asked = request(public_url=PublicUrl("http://pki.hospitals.example"))
    assert Request.from_json(asked.to_json()) == asked
    fields = json.loads(asked.to_json())
    for change in (
        {"type": "urn:fltrust:ceremony-request:v2"},
        {"act": "destroy"},
        {"act": "init"},
        {"act": "root-crl"},
        {"extra": 1},
        {"csr": None},
        {"csr": "AAAA"},
        {"domain": "A B"},
        {"publicUrl": "https://pki.hospitals.example/"},
        {"revoke": [{"serial": "07", "reason": "ca-compromise"}]},
        {"pathLength": 1},
    ):
        with pytest.raises(FltrustError):
            Request.from_json(strictjson.encode({**fields, **change}))
    for junk in (b"", b"[]", b"{}", asked.to_json() + b" ", b"x" * 300_000):
        with pytest.raises((Malformed, Oversized)):
            Request.from_json(junk)


def test_a_request_whose_key_did_not_sign_it_is_refused() -> None:
    der = bytearray(create_csr(generate()))
    der[-1] ^= 1
    with pytest.raises(SignatureInvalid):
        request(csr_der=bytes(der))


def test_reasons_and_names_that_a_certificate_cannot_carry_are_refused() -> None:
    theirs = create_root(TrustDomain("b.example"), signer=generate(), now=START)
    with pytest.raises(Malformed):
        request(act=Act.CRL, revoke=((Serial(1), "whim"),))
    for names in ((), ("*.b.example",)):
        with pytest.raises(Malformed):
            request(act=Act.CROSS, subject_der=theirs.public_bytes(serialization_der()), permitted=names)


def test_a_card_is_of_one_piece(people: dict[str, Holder]) -> None:
    value = people["alice"].card.to_value()
    read = HolderCard.from_fields(strictjson.Fields(value, "a card"))
    assert read == people["alice"].card
    other = people["bob"].card.to_value()
    for field in ("name", "signing", "unlock", "signature"):
        with pytest.raises(FltrustError):
            HolderCard.from_fields(strictjson.Fields({**value, field: other[field]}, "a card"))


def test_a_holders_keys_are_never_overwritten_and_open_with_their_own_passphrase(tmp_path: Path) -> None:
    create_holder(tmp_path / "dora", Name("dora"), passphrase=b"one")
    with pytest.raises(Conflict):
        create_holder(tmp_path / "dora", Name("dora"), passphrase=b"one")
    with pytest.raises(Refused):
        open_holder(tmp_path / "dora", passphrase=b"two")
    create_holder(tmp_path / "emil", Name("emil"), passphrase=b"one")
    shutil.copy(tmp_path / "emil" / "card.json", tmp_path / "dora" / "card.json")
    with pytest.raises(Conflict):
        open_holder(tmp_path / "dora", passphrase=b"one")


def test_a_roster_has_each_holder_once_and_a_threshold_that_can_be_met(people: dict[str, Holder]) -> None:
    alice, bob = people["alice"].card, people["bob"].card
    for cards, threshold in (([], 1), ([alice], 0), ([alice], 2), ([alice, alice], 1)):
        with pytest.raises(Malformed):
            Roster.of(cards, threshold=threshold)
    with pytest.raises(Malformed):
        Roster((bob, alice), 1)
    with pytest.raises(Malformed):
        Roster.of([alice, replace(bob, unlock=alice.unlock)], threshold=1)
    assert MAX_HOLDERS == 9

"""What is tried against a CA that is replaced while it serves, and against what is said of certificates."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from authority_world import Authorities, World
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.x509 import ocsp
from status_world import asked, complete, leaf_serial, number, question
from test_coordinator_folder import PASSPHRASE as PHRASE
from test_coordinator_folder import make
from test_succession import Living, added, b64, succession_of

from fltrust.clock import SystemClock
from fltrust.coordinator.ca_home import CaFolder
from fltrust.coordinator.process import _opened
from fltrust.coordinator.succession import CHANGE_ANCHORS, ROLL_ISSUING, Succession
from fltrust.errors import CertificateRefused, Conflict, FltrustError, Refusal
from fltrust.keys import generate
from fltrust.pki.bundle import root_fingerprint
from fltrust.pki.ca_certificates import RootSuccession, create_root_succession
from fltrust.pki.profiles import CaKind, builtin
from fltrust.pki.rollover import accept_root, prepare_issuing, sign_next_issuing


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Living]:
    living = Living(tmp_path)
    yield living
    living.close()


def replace_root(world: Living) -> RootSuccession:
    """The first root's place taken by another, the first one dropped."""
    succession, signer = succession_of(world)
    world.propose(CHANGE_ANCHORS, added(succession))
    certificate = world.next_issuing(root=succession.new, signer=signer)
    world.propose(ROLL_ISSUING, {"certificate": b64(certificate)})
    world.operator = world.renew(world.operator)
    world.propose(CHANGE_ANCHORS, {"remove": str(root_fingerprint(succession.old))})
    return succession


def turned(succession: RootSuccession) -> RootSuccession:
    return RootSuccession(succession.new, succession.old, succession.old_with_new, succession.new_with_old)


def test_a_dropped_root_does_not_come_back_by_cross_certificates_that_everybody_has(
    world: Living,
) -> None:
    back = turned(replace_root(world))
    with pytest.raises(Conflict):
        world.propose(CHANGE_ANCHORS, added(back))
    with pytest.raises(Conflict):
        accept_root(world.folder, back)
    world.restart()
    assert world.authority.bundle().roots == (back.old,)


def test_a_root_beyond_the_profile_is_refused_before_it_is_approved_and_the_coordinator_starts(
    world: Living,
) -> None:
    profiles = builtin()
    root = profiles.authorities[CaKind.ROOT]
    wide = replace(
        profiles,
        authorities={**profiles.authorities, CaKind.ROOT: replace(root, path_length=root.path_length + 1)},
    )
    succession = create_root_succession(
        old=world.authority.bundle().roots[0],
        old_signer=world.root_signer,
        new_signer=generate(),
        now=world.clock.now(),
        profiles=wide,
    )
    head = world.authority.head
    with pytest.raises(FltrustError):
        world.propose(CHANGE_ANCHORS, added(succession))
    assert world.authority.head == head
    world.restart()


def test_a_crash_between_the_cross_certificates_and_the_bundle_is_made_good(
    world: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    succession, _ = succession_of(world)
    with monkeypatch.context() as crash:
        crash.setattr("fltrust.pki.rollover.change_roots", lambda *_, **__: 1 / 0)
        world.propose(CHANGE_ANCHORS, added(succession))
    world.restart()
    assert world.authority.bundle().roots == (succession.old, succession.new)


def test_what_cannot_be_done_any_more_does_not_keep_the_coordinator_from_starting(
    world: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as crash:
        crash.setattr(CaFolder, "switch_issuing", lambda *_: 1 / 0)
        world.roll()
    with monkeypatch.context() as late:
        late.setattr("fltrust.pki.rollover.check_issuing", _ended)
        world.restart()


def _ended(*_: object, **__: object) -> None:
    raise CertificateRefused("ended", reason=Refusal.CERTIFICATE_EXPIRED)


def test_one_ca_says_nothing_of_another_cas_timestamping_certificate(world: Living) -> None:
    (chain,) = world.notary._history[:1]
    tsa = chain[0].serial_number
    old = world.authority.ca.issuer.certificate
    assert asked(world, tsa, issuer=old).certificate_status is ocsp.OCSPCertStatus.GOOD
    certificate = world.roll()
    assert asked(world, tsa, issuer=certificate).certificate_status is ocsp.OCSPCertStatus.UNKNOWN


def test_an_answer_is_kept_for_those_alone_who_ask_in_the_same_words(world: Living) -> None:
    site = world.join("site-a")
    asked_for = question(leaf_serial(site), world.ca.issuer.certificate, algorithm=SHA1())
    sha1_null, sha1_bare = bytes.fromhex("300906052b0e03021a0500"), bytes.fromhex("300706052b0e03021a")
    bare = _shortened(asked_for, sha1_null, sha1_bare)
    first = world.authority.status.answer(bare).der
    assert sha1_bare in first
    second = world.authority.status.answer(asked_for).der
    assert sha1_null in second


def _shortened(der: bytes, old: bytes, new: bytes) -> bytes:
    """The same request with a part that is two bytes shorter: five SEQUENCEs hold it, all of short form."""
    at = der.index(old)
    changed = bytearray(der.replace(old, new))
    position = 0
    while position < at:
        assert changed[position] == 0x30
        changed[position + 1] -= 2
        position += 2
    return bytes(changed)


def test_a_database_from_a_backup_numbers_no_list_below_one_that_was_published(tmp_path: Path) -> None:
    ca = Authorities.make()
    world = World(f"sqlite:///{tmp_path / 'state.db'}", ca=ca)
    complete(world)
    world.store.close()
    shutil.copytree(tmp_path, tmp_path.with_name("backup"))
    world.open()
    for name in ("site-a", "site-b"):
        world.clock.advance(timedelta(minutes=1))
        world.revoke(world.join(name))
        published = number(complete(world))
    world.store.close()
    for path in tmp_path.iterdir():
        path.unlink()
    shutil.copytree(tmp_path.with_name("backup"), tmp_path, dirs_exist_ok=True)
    world.open()
    world.clock.advance(timedelta(minutes=1))
    assert number(complete(world)) > published
    world.close()


def test_a_ca_that_has_ended_is_answered_for_by_nobody(world: Living) -> None:
    site = world.join("site-a")
    old = world.authority.ca.issuer.certificate
    world.roll()
    world.clock.advance(timedelta(days=366))
    answer = world.authority.status.answer(question(leaf_serial(site), old))
    assert ocsp.load_der_ocsp_response(answer.der).response_status is ocsp.OCSPResponseStatus.TRY_LATER


def test_a_ca_that_takes_over_at_a_start_vouches_for_who_signs_receipts_and_that_is_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "c")
    home, clock = tmp_path / "c" / "ca", SystemClock()
    prepare_issuing(home, passphrase=PHRASE)
    following = sign_next_issuing(home, root_passphrase=PHRASE, clock=clock)
    with monkeypatch.context() as crashed:  # what an executed operation left to do
        crashed.setattr(Succession, "settle", lambda self, _tx: self.take_over(following))
        with _opened(tmp_path / "c", PHRASE, clock) as (authority, keeper):
            shown = keeper.current.certificate
            assert shown.chain[1] == following
            assert tuple(authority.rounds.identity.chain_der) == keeper.current.chain_der
            with authority.ledger.reading() as tx:
                assert tx.certificates.by_serial(shown.serial) is not None

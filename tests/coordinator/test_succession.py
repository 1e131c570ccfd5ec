"""The CA of a live federation replaced: rolled over, ended, and its roots changed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from authority_world import DOMAIN, START, Authorities, Exchange, Member, World, receipt_of
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from registrar_world import operation, signed

from fltrust.artifacts.trustroot import parse_trusted_root
from fltrust.clock import to_rfc3339
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.ca_home import CaFolder
from fltrust.coordinator.identity import issue_identity
from fltrust.coordinator.succession import CHANGE_ANCHORS, REVOKE_ISSUING, ROLL_ISSUING
from fltrust.enrollment.operation import Verdict
from fltrust.errors import CertificateRefused, Conflict, FltrustError, Malformed, NotFound, Unavailable
from fltrust.identity import Epoch, Role, TrustDomain
from fltrust.keys import generate
from fltrust.keys.file import load
from fltrust.pki import create_csr, init_ca, load_bundle, load_issuer, verify_certificate
from fltrust.pki.authority import CaFiles
from fltrust.pki.bundle import root_fingerprint
from fltrust.pki.ca_certificates import RootSuccession, create_issuing, create_root_succession
from fltrust.pki.csr import parse_csr
from fltrust.pki.leaf import ca_key_id
from fltrust.pki.profiles import builtin
from fltrust.pki.rollover import load_cross_certificates, load_former_roots
from fltrust.revocation.events import EventKind
from fltrust.revocation.state import TrustState
from fltrust.strictbase64 import to_base64
from fltrust.testing import FakeClock

PASSPHRASE = b"issuing"


class _ClockOf:
    """The clock of a world that is being made."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> datetime:
        return self._world.clock.now()

    def monotonic(self) -> float:
        return 0.0


class Living(World):
    """A world whose CA lies in a folder, with the root's key beside it."""

    def __init__(self, folder: Path) -> None:
        clock = FakeClock()
        clock.advance(-timedelta(days=1))
        self.folder = folder / "ca"
        init_ca(self.folder, DOMAIN, root_passphrase=b"root", issuing_passphrase=PASSPHRASE, clock=clock)
        issuer = load_issuer(self.folder, passphrase=PASSPHRASE, clock=clock)
        self.root_signer = load(CaFiles(self.folder).root_key, passphrase=b"root")
        home = CaFolder(
            self.folder, passphrase=PASSPHRASE, clock=_ClockOf(self), profiles=builtin(), public_url=None
        )
        super().__init__(
            f"sqlite:///{folder / 'state.db'}", ca=Authorities(load_bundle(self.folder), issuer), home=home
        )

    def restart(self) -> None:
        """A new process: what is in force is read from the folder again."""
        self.store.close()
        issuer = load_issuer(self.folder, passphrase=PASSPHRASE, clock=self.clock)
        bundle = load_bundle(self.folder)
        self.in_force = CurrentCa(issuer, bundle, cross=load_cross_certificates(self.folder))
        self.identity = issue_identity(issuer, bundle, clock=self.clock)
        self.open()

    def operation(self, kind: str, parameters: dict[str, Any]) -> tuple[bytes, bytes]:
        wanted = operation(self, self.operator, kind, parameters)
        return wanted.to_payload(), signed(self, self.operator, wanted, Verdict.PROPOSE)

    def propose(self, kind: str, parameters: dict[str, Any]) -> Any:
        payload, proposal = self.operation(kind, parameters)
        return self.authority.operations.propose(payload, proposal, caller=self.operator.certificate)

    def next_issuing(self, root: x509.Certificate | None = None, signer: Any = None) -> x509.Certificate:
        assert self.home is not None
        return create_issuing(
            root=root or self.authority.bundle().roots[0],
            root_signer=signer or self.root_signer,
            public_key=parse_csr(self.home.request()),
            now=self.clock.now(),
        )

    def roll(self) -> x509.Certificate:
        certificate = self.next_issuing()
        self.propose(ROLL_ISSUING, {"certificate": b64(certificate)})
        return certificate

    def revoke_issuing(self, certificate: x509.Certificate | None, **changes: Any) -> Any:
        issuer = ca_key_id(self.authority.ca.issuer.certificate.public_key())
        return self.propose(
            REVOKE_ISSUING,
            {
                "issuer": issuer,
                "reason": "key-compromise",
                "compromisedSince": None,
                "certificate": None if certificate is None else b64(certificate),
                **changes,
            },
        )


def b64(certificate: x509.Certificate) -> str:
    return to_base64(certificate.public_bytes(Encoding.DER))


def succession_of(world: Living) -> tuple[RootSuccession, Any]:
    signer = generate()
    succession = create_root_succession(
        old=world.authority.bundle().roots[0],
        old_signer=world.root_signer,
        new_signer=signer,
        now=world.clock.now(),
    )
    return succession, signer


def added(succession: RootSuccession) -> dict[str, Any]:
    return {
        "add": {
            "old": b64(succession.old),
            "new": b64(succession.new),
            "newWithOld": b64(succession.new_with_old),
            "oldWithNew": b64(succession.old_with_new),
        }
    }


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Living]:
    living = Living(tmp_path)
    yield living
    living.close()


def seal(world: Living, aggregator: Member, *sites: Member, step: int = 1) -> Any:
    exchange = Exchange(world, aggregator, step=step)
    exchange.open(*sites)
    answers = tuple(exchange.answer(site) for site in sites)
    return receipt_of(exchange.session.seal_round(exchange.key, answers, ()))


def test_after_a_rollover_the_new_ca_issues_and_what_the_old_one_issued_stays_good(world: Living) -> None:
    aggregator, old = world.join("main", Role.AGGREGATOR), world.join("site-a")
    certificate = world.roll()
    new = world.join("site-b")
    assert new.certificate.chain[1] == certificate == world.authority.ca.issuer.certificate
    for member in (old, new, aggregator):
        world.authority.judge(member.certificate)
    receipt = seal(world, aggregator, old, new)
    assert len(receipt.admitted) == 2


def test_a_rollover_is_told_in_the_feed_and_survives_a_restart(world: Living) -> None:
    certificate = world.roll()
    events = world.authority.events(Epoch(0), 100, reader=None)
    assert (events[-1].kind, events[-1].issuer) == (
        EventKind.BUNDLE_CHANGED,
        ca_key_id(certificate.public_key()),
    )
    world.restart()
    assert world.authority.ca.issuer.certificate == certificate
    world.join("site-b")


def test_a_crash_between_the_commit_and_the_folder_is_made_good_at_the_next_start(
    world: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.authority.ca.issuer.certificate
    with monkeypatch.context() as crash:
        crash.setattr(CaFolder, "switch_issuing", lambda *_: 1 / 0)
        certificate = world.roll()
    assert world.authority.ca.issuer.certificate == before
    world.restart()
    assert world.authority.ca.issuer.certificate == certificate


@pytest.mark.parametrize(
    "case", ["another root", "another key", "the present key", "no certificate", "field"]
)
def test_a_successor_that_is_not_ours_is_refused_and_changes_nothing(world: Living, case: str) -> None:
    before, head = world.authority.ca.issuer, world.authority.head
    other = Authorities.make()
    strange = {
        "another root": lambda: {"certificate": b64(other.issuer.certificate)},
        "another key": lambda: {
            "certificate": b64(
                create_issuing(
                    root=world.bundle.roots[0],
                    root_signer=world.root_signer,
                    public_key=generate().public_key,
                    now=START,
                )
            )
        },
        "the present key": lambda: {"certificate": b64(before.certificate)},
        "no certificate": lambda: {"certificate": "AAAA"},
        "field": lambda: {"certificate": b64(world.next_issuing()), "force": True},
    }[case]()
    with pytest.raises(FltrustError):
        world.propose(ROLL_ISSUING, strange)
    assert world.authority.ca.issuer is before
    assert world.authority.head == head


def test_the_end_of_a_ca_bars_everything_under_it_and_everybody_on_record_comes_over(world: Living) -> None:
    aggregator, site = world.join("main", Role.AGGREGATOR), world.join("site-a")
    minted = world.mint(site)
    certificate = world.next_issuing()
    world.revoke_issuing(certificate)
    assert world.authority.ca.issuer.certificate == certificate
    for lost in (site, minted, aggregator, world.operator):
        with pytest.raises(CertificateRefused) as refused:
            world.authority.judge(lost.certificate)
        assert refused.value.reason == "issuer-revoked"
    with pytest.raises(CertificateRefused) as refused:
        world.renew(minted)
    assert refused.value.reason == "unknown-certificate"
    aggregator, site = world.renew(aggregator), world.renew(site)
    assert len(seal(world, aggregator, site).admitted) == 1


def test_a_coordinator_that_the_revoked_ca_vouches_for_is_not_believed_by_any_follower(world: Living) -> None:
    impostor = world.identity.certificate
    world.revoke_issuing(world.next_issuing())
    state = TrustState.replay(world.authority.events(Epoch(0), 100, reader=None))
    with pytest.raises(CertificateRefused):
        state.judge(impostor)


def test_the_ca_in_force_is_not_ended_without_a_successor(world: Living) -> None:
    with pytest.raises(Conflict, match="next issuing CA"):
        world.revoke_issuing(None)
    with pytest.raises(NotFound):
        world.revoke_issuing(None, issuer="0a" * 20)
    with pytest.raises(Malformed, match="future"):
        world.revoke_issuing(
            world.next_issuing(), compromisedSince=to_rfc3339(world.clock.now() + timedelta(seconds=1))
        )


def test_an_earlier_ca_is_ended_on_its_own_and_only_once(world: Living) -> None:
    first = ca_key_id(world.authority.ca.issuer.certificate.public_key())
    site = world.join("site-a")
    world.roll()
    fresh = world.renew(site)
    world.operator = world.renew(world.operator)
    world.revoke_issuing(None, issuer=first)
    world.authority.judge(fresh.certificate)
    with pytest.raises(CertificateRefused):
        world.authority.judge(site.certificate)
    with pytest.raises(Conflict, match="already"):
        world.revoke_issuing(None, issuer=first)


def test_a_successor_does_not_come_with_the_end_of_an_earlier_ca(world: Living) -> None:
    first = ca_key_id(world.authority.ca.issuer.certificate.public_key())
    site, second = world.join("site-a"), world.roll()
    with pytest.raises(Conflict, match="in force") as refused:
        world.revoke_issuing(world.next_issuing(), issuer=first)
    assert refused.value.reason == "not-in-force"
    world.authority.judge(site.certificate)
    assert world.authority.ca.issuer.certificate == second


def test_updates_that_were_sealed_under_certificates_nobody_was_issued_are_tainted(
    world: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fltrust.coordinator.certificate_record import CertificateRecords

    aggregator, honest, robbed = (
        world.join("main", Role.AGGREGATOR),
        world.join("site-a"),
        world.join("site-b"),
    )
    exchange = Exchange(world, aggregator)
    exchange.open(honest, robbed)
    answers = (exchange.answer(honest), exchange.answer(world.mint(robbed)))
    with monkeypatch.context() as older:  # as a coordinator did that did not look into the record
        older.setattr(CertificateRecords, "knows", lambda *_: True)
        exchange.session.seal_round(exchange.key, answers, ())
    record = world.revoke_issuing(
        world.next_issuing(), compromisedSince=to_rfc3339(START - timedelta(days=1))
    )
    assert b'"forged":1' in record.result
    with world.authority.ledger.reading() as tx:
        taints = tx.tlog.find(kinds=("taint",))
    assert len(taints) == 1
    assert str(robbed.spiffe_id).encode() in taints[0].data


def test_roots_are_added_used_and_dropped_while_everybody_goes_on(world: Living) -> None:
    aggregator, site = world.join("main", Role.AGGREGATOR), world.join("site-a")
    old_bundle = world.authority.bundle()
    succession, signer = succession_of(world)
    world.propose(CHANGE_ANCHORS, added(succession))
    bundle = world.authority.bundle()
    assert (bundle.roots, bundle.sequence) == ((succession.old, succession.new), old_bundle.sequence + 1)
    assert len(seal(world, aggregator, site).admitted) == 1
    certificate = world.next_issuing(root=succession.new, signer=signer)
    world.propose(ROLL_ISSUING, {"certificate": b64(certificate)})
    fresh = world.session(site).renew(create_csr(generate()))
    # Who knows the old root alone still follows the chain that came with it; so does who knows the new one.
    for roots in (old_bundle, bundle):
        verify_certificate(fresh.chain_der, bundle=roots, at=world.clock.now())
    site, aggregator = world.renew(site), world.renew(aggregator)
    world.operator = world.renew(world.operator)
    assert len(seal(world, aggregator, site, step=2).admitted) == 1
    world.propose(CHANGE_ANCHORS, {"remove": str(root_fingerprint(succession.old))})
    assert world.authority.bundle().roots == (succession.new,)
    assert len(seal(world, aggregator, site, step=3).admitted) == 1
    world.bundle = world.authority.bundle()
    assert world.join("site-b").certificate.chain[-1] == certificate
    world.restart()
    assert world.authority.bundle().roots == (succession.new,)


def test_the_root_in_use_is_not_dropped(world: Living) -> None:
    succession, _ = succession_of(world)
    world.propose(CHANGE_ANCHORS, added(succession))
    with pytest.raises(Conflict, match="root that stays"):
        world.propose(CHANGE_ANCHORS, {"remove": str(root_fingerprint(succession.old))})
    with pytest.raises(NotFound):
        world.propose(CHANGE_ANCHORS, {"remove": "sha256:" + "00" * 32})


def test_a_root_that_none_of_ours_certified_is_not_added(world: Living) -> None:
    other = Authorities.make()
    succession, _ = succession_of(world)
    for change in (
        {"old": b64(other.bundle.roots[0])},
        {"new": b64(other.bundle.roots[0])},
        {"newWithOld": b64(succession.old_with_new)},
    ):
        parameters = {"add": {**added(succession)["add"], **change}}
        with pytest.raises(FltrustError):
            world.propose(CHANGE_ANCHORS, parameters)
    assert world.authority.bundle().roots == (succession.old,)


def test_a_crash_before_the_bundle_is_written_is_made_good_and_a_dropped_root_does_not_come_back(
    world: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    succession, signer = succession_of(world)
    with monkeypatch.context() as crash:
        crash.setattr(CaFolder, "accept_root", lambda *_: 1 / 0)
        world.propose(CHANGE_ANCHORS, added(succession))
    assert world.authority.bundle().roots == (succession.old,)
    world.restart()
    assert world.authority.bundle().roots == (succession.old, succession.new)
    certificate = world.next_issuing(root=succession.new, signer=signer)
    world.propose(ROLL_ISSUING, {"certificate": b64(certificate)})
    world.operator = world.renew(world.operator)
    world.propose(CHANGE_ANCHORS, {"remove": str(root_fingerprint(succession.old))})
    world.restart()
    world.restart()
    assert world.authority.bundle().roots == (succession.new,)


def test_a_ca_that_was_ended_issues_nothing_until_its_successor_takes_over(
    world: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, token = world.join("site-a"), world.token("site-b")
    with monkeypatch.context() as full_disk:
        full_disk.setattr(CaFolder, "switch_issuing", lambda *_: 1 / 0)
        world.revoke_issuing(world.next_issuing())
    head, issued = world.authority.head, len(certificates_of(world))
    for act in (lambda: world.join("site-b", token=token), lambda: world.renew(site)):
        with pytest.raises(Unavailable) as refused:
            act()
        assert refused.value.reason == "issuer-ended"
    assert (world.authority.head, len(certificates_of(world))) == (head, issued)
    world.restart()
    assert world.renew(site).certificate.chain[-1] == world.authority.ca.issuer.certificate
    world.join("site-b", token=token)  # which was not spent


def certificates_of(world: Living) -> Any:
    with world.authority.ledger.reading() as tx:
        return tx.certificates.all()


def test_what_a_foreign_domain_says_of_a_key_of_ours_ends_nothing_here(world: Living) -> None:
    ours = ca_key_id(world.authority.ca.issuer.certificate.public_key())
    with world.authority.ledger.writing() as work:
        work.emit(EventKind.ISSUER_REVOKED, actor=None, domain=TrustDomain("elsewhere.example"), issuer=ours)
    world.join("site-a")
    world.revoke_issuing(world.next_issuing())  # it is not taken for ended already


def windows(world: Living) -> dict[tuple[x509.Certificate, x509.Certificate], Any]:
    """Of each issuing CA under each root: until when verifiers of models trust it."""
    root = parse_trusted_root(world.authority.desks.trust.trusted_root())
    return {(c.certificates[0], c.anchor): c.end for c in root.certificate_authorities}


def test_what_was_signed_under_a_root_that_was_dropped_goes_on_verifying(world: Living) -> None:
    old_root, old_issuing = world.authority.bundle().roots[0], world.authority.ca.issuer.certificate
    succession, signer = succession_of(world)
    world.propose(CHANGE_ANCHORS, added(succession))
    certificate = world.next_issuing(root=succession.new, signer=signer)
    world.propose(ROLL_ISSUING, {"certificate": b64(certificate)})
    world.operator = world.renew(world.operator)
    world.propose(CHANGE_ANCHORS, {"remove": str(root_fingerprint(old_root))})
    found = windows(world)
    assert found[old_issuing, old_root] == old_issuing.not_valid_after_utc
    assert (certificate, succession.new) in found
    world.authority.desks.trust.trust_file()
    assert load_former_roots(world.folder) == (old_root,)  # and so it is after a restart


def test_verifiers_of_models_trust_an_ended_ca_until_it_was_ended(world: Living) -> None:
    root, old = world.authority.bundle().roots[0], world.authority.ca.issuer.certificate
    world.clock.advance(timedelta(hours=1))
    world.operator = world.renew(world.operator)
    certificate = world.next_issuing()
    world.revoke_issuing(certificate)
    found = windows(world)
    assert found[old, root] == world.clock.now()
    assert found[certificate, root] == certificate.not_valid_after_utc

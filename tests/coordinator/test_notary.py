"""The notary's keys: made once, kept whole, private, and renewed before they are needed."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.coordinator import notary as notary_module
from fltrust.coordinator.authority import Authority, AuthoritySettings
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.identity import issue_identity
from fltrust.coordinator.notary import NotaryKeys, open_notary
from fltrust.errors import Conflict, Malformed, Refused, StorageUnavailable
from fltrust.identity import Role, Serial, SpiffeId, TrustDomain
from fltrust.keys import generate, save, verify_signature
from fltrust.pki import TrustBundle, init_ca, load_bundle, load_issuer, renew_issuing
from fltrust.pki.timestamps import verify_timestamp
from fltrust.storage import Store, open_store
from fltrust.tlog.entries import CertificateLeaf, LogKind, parse_entry

PASSPHRASE = b"for the tests"
DOMAIN = TrustDomain("hospitals.example")


class SetClock:
    def __init__(self) -> None:
        self.at = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return 0.0


class Home:
    """A coordinator's folder with a CA."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, SetClock()
        folder.mkdir(mode=0o700)
        init_ca(
            folder / "ca", DOMAIN, root_passphrase=b"root", issuing_passphrase=PASSPHRASE, clock=self.clock
        )

    def open(self, passphrase: bytes = PASSPHRASE) -> NotaryKeys:
        issuer = load_issuer(self.folder / "ca", passphrase=PASSPHRASE, clock=self.clock)
        ca = CurrentCa(issuer, self.bundle)
        return open_notary(self.folder, ca, passphrase=passphrase, clock=self.clock)

    @property
    def bundle(self) -> TrustBundle:
        return load_bundle(self.folder / "ca")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "coordinator")


def test_the_first_start_makes_keys_and_every_later_one_reads_the_same(home: Home) -> None:
    first, again = home.open(), home.open()
    assert first.note.key_id == again.note.key_id
    assert first.ct.key_id == again.ct.key_id
    assert first.timestamps.certificate == again.timestamps.certificate
    names = {str(path.relative_to(home.folder)) for path in home.folder.rglob("*") if path.is_file()}
    serial = Serial(first.timestamps.certificate.serial_number).hex
    assert names >= {"log/note.key", "log/ct.key", "tsa/tsa.key", "tsa/tsa.pem", f"tsa/{serial}.pem"}
    assert not [name for name in names if "incomplete" in name]


def test_everything_is_private_and_no_key_lies_in_the_clear(home: Home) -> None:
    home.open()
    for path in home.folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
        if path.is_file():
            assert b"BEGIN PRIVATE KEY" not in path.read_bytes()
            assert PASSPHRASE not in path.read_bytes()


def test_a_wrong_passphrase_is_told(home: Home) -> None:
    home.open()
    with pytest.raises(Refused) as refused:
        home.open(b"another")
    assert refused.value.reason == "passphrase-wrong"
    assert "another" not in refused.value.message.replace("got another", "")


@pytest.mark.parametrize("at", ["save_note", "save", "rename"])
def test_an_interrupted_start_leaves_nothing_half_and_the_next_one_finishes(
    home: Home, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    def fail(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os if at == "rename" else notary_module, at, fail)
        with pytest.raises(StorageUnavailable):
            home.open()
    assert not (home.folder / "log").exists()
    assert not [path for path in home.folder.iterdir() if path.name.startswith(".")]
    home.open()


def test_a_start_that_is_cut_off_before_the_certificate_gets_one_next_time(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(notary_module, "_keep", lambda _folder, _chain: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            home.open()
    assert (home.folder / "tsa" / "tsa.key").exists()
    assert home.open().timestamps.timestamp(b"x")


def test_the_authority_is_renewed_at_two_thirds_and_keeps_its_history(home: Home) -> None:
    notary = home.open()
    first = notary.timestamps.certificate
    home.clock.at += timedelta(days=59)
    assert notary.timestamps.certificate == first
    home.clock.at += timedelta(days=2)
    second = notary.timestamps.certificate
    assert second != first
    assert second.public_key() == first.public_key()
    assert [chain[0] for chain in notary.tsa_history] == [first, second]
    assert [chain[0] for chain in home.open().tsa_history] == [first, second]
    stored = (home.folder / "tsa" / "tsa.pem").read_bytes()
    assert stored.startswith(second.public_bytes(Encoding.PEM))


def test_one_that_ran_out_while_nobody_served_is_renewed_at_start(home: Home) -> None:
    first = home.open().timestamps.certificate
    home.clock.at += timedelta(days=120)
    notary = home.open()
    assert notary.timestamps.certificate != first
    assert notary.timestamps.timestamp(b"x")


def test_a_new_issuing_certificate_brings_a_new_one_of_the_authority(home: Home) -> None:
    before = home.open()
    old_token = before.timestamps.timestamp(b"a signature")
    signed_at = home.clock.at
    home.clock.at += timedelta(days=30)
    issuing = renew_issuing(home.folder / "ca", root_passphrase=b"root", clock=home.clock)
    notary = home.open()
    assert notary.timestamps.chain == (issuing,)
    assert len(notary.issuing_history) == 2
    assert notary.issuing_history[-1] == issuing
    # Both authorities stand in the trusted root, each under the issuing certificate of its time.
    root = notary.trusted_root(home.bundle)
    assert len(root.certificate_authorities) == len(root.timestamp_authorities) == 2
    verified = verify_timestamp(old_token, message=b"a signature", authorities=root.timestamp_authorities)
    assert verified == signed_at
    token = notary.timestamps.timestamp(b"another")
    assert (
        verify_timestamp(token, message=b"another", authorities=root.timestamp_authorities) == home.clock.at
    )


def test_one_that_the_issuing_certificate_cuts_short_is_not_made_again_and_again(home: Home) -> None:
    home.clock.at += timedelta(days=340)
    notary = home.open()
    certificate = notary.timestamps.certificate
    assert certificate.not_valid_after_utc == notary.issuing_history[-1].not_valid_after_utc
    home.clock.at += timedelta(days=24)
    assert notary.timestamps.certificate == certificate
    assert len(notary.tsa_history) == 1


def test_a_full_disk_at_renewal_leaves_the_old_one_in_use_while_it_lasts(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    notary = home.open()
    first = notary.timestamps.certificate

    def full(*_args: object) -> None:
        raise StorageUnavailable("no space left")

    monkeypatch.setattr(notary_module, "_keep", full)
    home.clock.at += timedelta(days=61)
    assert notary.timestamps.certificate == first
    assert [chain[0] for chain in notary.tsa_history] == [first]
    home.clock.at += timedelta(days=60)
    with pytest.raises(StorageUnavailable):
        _ = notary.timestamps
    monkeypatch.undo()
    assert notary.timestamps.certificate != first


def test_a_key_that_is_not_the_certificates_is_noticed(home: Home) -> None:
    home.open()
    save(generate(), home.folder / "tsa" / "tsa.key", passphrase=PASSPHRASE)
    with pytest.raises(Conflict):
        home.open()


def test_a_damaged_certificate_is_noticed(home: Home) -> None:
    home.open()
    whole = (home.folder / "tsa" / "tsa.pem").read_bytes()
    end = b"-----END CERTIFICATE-----\n"
    (home.folder / "tsa" / "tsa.pem").write_bytes(whole[: whole.index(end) + len(end)])
    with pytest.raises(Malformed):
        home.open()


def test_promises_are_signed_by_the_certificate_logs_key(home: Home) -> None:
    notary = home.open()
    line = notary.sign_promise("hospitals.example/log\n1\nAAAA\n")
    assert line.name == notary.log_name == "hospitals.example/log"
    assert line.key_id == notary.ct_log_id[:4]
    verify_signature(notary.ct.public_key, line.signature, b"hospitals.example/log\n1\nAAAA\n")


def logged(authority: Authority) -> list[bytes]:
    """Certificates of the timestamp authority that stand in the log, in order."""
    coordinator = SpiffeId(DOMAIN, Role.COORDINATOR, None)
    with authority.ledger.reading() as tx:
        found = tx.tlog.find(subject=str(coordinator), kinds=[LogKind.CERTIFICATE])
    leaves = [parse_entry(entry.data) for entry in found]
    read = [leaf.read() for leaf in leaves if isinstance(leaf, CertificateLeaf)]
    return [c.public_bytes(Encoding.DER) for c in read if "timestamp authority" in c.subject.rfc4514_string()]


def stamping(home: Home) -> list[bytes]:
    return [chain[0].public_bytes(Encoding.DER) for chain in home.open().tsa_history]


def authority_of(home: Home, store: Store) -> Authority:
    issuer = load_issuer(home.folder / "ca", passphrase=PASSPHRASE, clock=home.clock)
    identity = issue_identity(issuer, home.bundle, clock=home.clock)
    return Authority(
        store=store,
        ca=CurrentCa(issuer, home.bundle),
        signer=identity.signer,
        chain=identity.chain_der,
        notary=home.open(),
        clock=home.clock,
        settings=AuthoritySettings(domain=DOMAIN, bootstrap="a:1", address="a:2"),
    )


def test_every_certificate_of_the_authority_stands_in_the_log_once_and_before_it_stamps(home: Home) -> None:
    url = f"sqlite:///{home.folder / 'state.db'}"
    with open_store(url) as store:
        authority = authority_of(home, store)
        assert logged(authority) == stamping(home)
        home.clock.at += timedelta(days=61)
        stamped = authority.notary.timestamps.certificate.public_bytes(Encoding.DER)
        assert logged(authority)[-1] == stamped
        assert logged(authority) == stamping(home)
    with open_store(url) as store:
        assert logged(authority_of(home, store)) == stamping(home)
    renew_issuing(home.folder / "ca", root_passphrase=b"root", clock=home.clock)
    with open_store(url) as store:
        assert logged(authority_of(home, store)) == stamping(home)
    assert len(stamping(home)) == 3


def test_a_certificate_that_cannot_be_logged_is_not_used(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(f"sqlite:///{home.folder / 'state.db'}") as store:
        authority = authority_of(home, store)
        before = authority.notary.timestamps.certificate

        def full(_certificate: object) -> None:
            raise StorageUnavailable("no space left")

        monkeypatch.setattr(authority.notary, "on_issued", full)
        home.clock.at += timedelta(days=61)
        assert authority.notary.timestamps.certificate == before
        assert len(authority.notary.tsa_history) == 1

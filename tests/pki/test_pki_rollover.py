"""The next issuing CA and the next root: beside the present ones first, then in their place, whole."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.errors import CertificateRefused, Conflict, Malformed, NotFound, Refusal, Refused
from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.keys import generate, load
from fltrust.pki import (
    CaFiles,
    Draft,
    Issuer,
    TrustBundle,
    chain_to_pem,
    create_issuing,
    create_root,
    init_ca,
    load_bundle,
    load_issuer,
    load_issuing_history,
    renew_issuing,
    root_fingerprint,
    verify_certificate,
)
from fltrust.pki import rollover as module
from fltrust.pki.ca_certificates import (
    RootSuccession,
    check_authority,
    create_cross_certificate,
    create_root_succession,
)
from fltrust.pki.profiles import CaKind
from fltrust.pki.rollover import (
    accept_issuing,
    accept_root,
    change_roots,
    drop_root,
    issuing_request,
    load_cross_certificates,
    load_retired_issuers,
    prepare_issuing,
    roll_root,
    sign_next_issuing,
    switch_issuing,
)
from fltrust.pki.root_crl import create_root_crl, crl_from_der
from fltrust.pki.root_revocation import accept_root_crl, load_root_crls, revoke_under_root

DOMAIN = TrustDomain("hospitals.example")
START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
PASS, ROOT = b"issuing", b"root"


class Home:
    """A CA's folder and a clock that stands, and is set."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.time = folder, START
        self.bundle = init_ca(folder, DOMAIN, root_passphrase=ROOT, issuing_passphrase=PASS, clock=self)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return 0.0

    def issuer(self) -> Issuer:
        return load_issuer(self.folder, passphrase=PASS, clock=self)

    def leaf(self, issuer: Issuer) -> list[x509.Certificate]:
        draft = Draft.of(
            SpiffeId.of(DOMAIN, Role.PARTICIPANT, "site-a"), generate().public_key, now=self.time
        )
        return [issuer.redeem(draft), issuer.certificate]

    def verifies(self, chain: list[x509.Certificate], bundle: TrustBundle) -> bool:
        try:
            verify_certificate(chain, bundle=bundle, at=self.time)
        except CertificateRefused:
            return False
        return True

    def next_issuing(self) -> Issuer:
        prepare_issuing(self.folder, passphrase=PASS)
        sign_next_issuing(self.folder, root_passphrase=ROOT, clock=self)
        return switch_issuing(self.folder, passphrase=PASS, clock=self)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "ca")


def test_after_the_switch_the_new_key_issues_and_what_the_old_one_issued_stays_good(home: Home) -> None:
    before = home.issuer()
    old = home.leaf(before)
    after = home.next_issuing()
    assert after.certificate.public_key() != before.certificate.public_key()
    assert home.issuer().certificate == after.certificate
    assert home.verifies(old, home.bundle)
    assert home.verifies(home.leaf(after), home.bundle)
    assert load_issuing_history(home.folder) == (before.certificate, after.certificate)
    assert load_bundle(home.folder) == home.bundle


def test_the_old_key_is_kept_for_its_crls_until_its_certificate_is_over(home: Home) -> None:
    before = home.issuer()
    home.next_issuing()
    kept = load_retired_issuers(home.folder, passphrase=PASS, at=home.time)
    assert [issuer.certificate for issuer in kept] == [before.certificate]
    end = before.certificate.not_valid_after_utc
    assert load_retired_issuers(home.folder, passphrase=PASS, at=end + timedelta(seconds=1)) == ()
    with pytest.raises(Refused):
        load_retired_issuers(home.folder, passphrase=b"wrong", at=home.time)


def test_two_switches_keep_both_earlier_keys_and_a_renewal_between_keeps_the_key(home: Home) -> None:
    first = home.issuer().certificate
    home.time += timedelta(minutes=1)
    second = home.next_issuing().certificate
    home.time += timedelta(days=1)
    renewed = renew_issuing(home.folder, root_passphrase=ROOT, clock=home)
    assert renewed.public_key() == second.public_key()
    third = home.next_issuing().certificate
    kept = load_retired_issuers(home.folder, passphrase=PASS, at=home.time)
    assert [issuer.certificate for issuer in kept] == [first, renewed]
    assert load_issuing_history(home.folder)[-1] == third
    for path in home.folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0
    assert not list(home.folder.glob("next-*"))


def test_asking_again_before_the_switch_gives_the_same_keys_request(home: Home) -> None:
    request = prepare_issuing(home.folder, passphrase=PASS)
    key = x509.load_der_x509_csr(request).public_key()
    assert x509.load_der_x509_csr(prepare_issuing(home.folder, passphrase=PASS)).public_key() == key
    assert x509.load_der_x509_csr(issuing_request(home.folder)).public_key() == key


def test_there_is_no_request_before_a_key_and_no_switch_before_a_certificate(home: Home) -> None:
    with pytest.raises(NotFound):
        issuing_request(home.folder)
    prepare_issuing(home.folder, passphrase=PASS)
    with pytest.raises(NotFound, match="next-issuing") as refused:
        switch_issuing(home.folder, passphrase=PASS, clock=home)
    assert "ceremony" in (refused.value.hint or "")


def test_a_wrong_passphrase_makes_no_key(home: Home) -> None:
    with pytest.raises(Refused):
        prepare_issuing(home.folder, passphrase=b"wrong")
    assert not list(home.folder.glob("next-*"))


def forged_issuing(
    home: Home, *, key: Any = None, root_signer: Any = None, domain: str = DOMAIN, at: datetime | None = None
) -> x509.Certificate:
    signer = root_signer or load(CaFiles(home.folder).root_key, passphrase=ROOT)
    root = (
        home.bundle.roots[0]
        if root_signer is None
        else create_root(TrustDomain(domain), signer=signer, now=at or home.time)
    )
    public = key or x509.load_der_x509_csr(issuing_request(home.folder)).public_key()
    return create_issuing(root=root, root_signer=signer, public_key=public, now=at or home.time)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda home: forged_issuing(home, key=generate().public_key), "conflict"),
        (lambda home: forged_issuing(home, root_signer=generate()), Refusal.CERTIFICATE_PATH),
        (
            lambda home: forged_issuing(home, root_signer=generate(), domain="other.example"),
            Refusal.WRONG_DOMAIN,
        ),
        (
            lambda home: forged_issuing(home, at=START - timedelta(days=400)),
            Refusal.CERTIFICATE_EXPIRED,
        ),
        (
            lambda home: forged_issuing(home, at=START + timedelta(days=4)),
            Refusal.CERTIFICATE_NOT_YET_VALID,
        ),
    ],
)
def test_a_certificate_that_is_not_the_answer_to_the_request_is_not_accepted(
    home: Home, make: Callable[[Home], x509.Certificate], reason: str
) -> None:
    prepare_issuing(home.folder, passphrase=PASS)
    with pytest.raises((CertificateRefused, Conflict)) as refused:
        accept_issuing(home.folder, make(home), clock=home)
    assert refused.value.reason == reason
    assert not CaFiles(home.folder).next_issuing_certificate.exists()


def test_a_root_as_the_next_issuing_ca_is_not_accepted(home: Home) -> None:
    request = prepare_issuing(home.folder, passphrase=PASS)
    key = load(CaFiles(home.folder).next_issuing_key, passphrase=PASS)
    assert x509.load_der_x509_csr(request).public_key() == key.public_key
    with pytest.raises(CertificateRefused) as refused:
        accept_issuing(home.folder, create_root(DOMAIN, signer=key, now=START), clock=home)
    assert refused.value.reason == Refusal.CERTIFICATE_PROFILE


@pytest.mark.parametrize("stop", range(5))
def test_a_crash_in_the_switch_leaves_the_old_issuing_ca_or_the_new_one_and_can_be_finished(
    home: Home, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    old = home.issuer().certificate
    prepare_issuing(home.folder, passphrase=PASS)
    new = sign_next_issuing(home.folder, root_passphrase=ROOT, clock=home)
    real, count = module.write_durably, 0

    def crash(path: Path, data: bytes, **more: Any) -> None:
        nonlocal count
        if count == stop:
            raise KeyboardInterrupt
        count += 1
        real(path, data, **more)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_durably", crash)
        with pytest.raises(KeyboardInterrupt):
            switch_issuing(home.folder, passphrase=PASS, clock=home)
    assert home.issuer().certificate == (new if stop > 3 else old)
    if stop <= 3:
        assert switch_issuing(home.folder, passphrase=PASS, clock=home).certificate == new
    third = home.next_issuing().certificate
    kept = load_retired_issuers(home.folder, passphrase=PASS, at=home.time)
    assert {issuer.certificate for issuer in kept} == {old, new}
    assert home.issuer().certificate == third


def test_a_new_root_is_trusted_beside_the_old_one_and_then_alone(home: Home) -> None:
    old_leaf = home.leaf(home.issuer())
    both = roll_root(home.folder, root_passphrase=ROOT, clock=home)
    assert (both.sequence, len(both.roots), both.roots[0]) == (2, 2, home.bundle.roots[0])
    assert load_bundle(home.folder) == both
    assert home.verifies(home.leaf(home.issuer()), both)
    with pytest.raises(Conflict) as refused:
        drop_root(home.folder, root_fingerprint(both.roots[0]))
    assert refused.value.reason == "root-in-use"
    issuer = home.next_issuing()
    new_leaf = home.leaf(issuer)
    assert issuer.certificate.issuer == both.roots[1].subject
    assert home.verifies(new_leaf, both)
    assert home.verifies(old_leaf, both)
    alone = drop_root(home.folder, root_fingerprint(both.roots[0]))
    assert (alone.sequence, alone.roots) == (3, both.roots[1:])
    assert home.verifies(new_leaf, alone)
    assert not home.verifies(old_leaf, alone)
    assert home.issuer().certificate == issuer.certificate
    home.time += timedelta(days=200)
    renew_issuing(home.folder, root_passphrase=ROOT, clock=home)
    assert home.verifies(home.leaf(home.issuer()), alone)


def test_cross_certificates_lead_from_either_root_to_what_the_other_issued(
    home: Home, tmp_path: Path
) -> None:
    old_leaf = home.leaf(home.issuer())
    both = roll_root(home.folder, root_passphrase=ROOT, clock=home)
    new_leaf = home.leaf(home.next_issuing())
    crosses = list(load_cross_certificates(home.folder))
    assert len(crosses) == 2
    only_old, only_new = home.bundle, TrustBundle(DOMAIN, both.roots[1:], 3)
    assert not home.verifies(new_leaf, only_old)
    assert home.verifies([*new_leaf, *crosses], only_old)
    assert home.verifies([*old_leaf, *crosses], only_new)
    for leaf, root in ((new_leaf, both.roots[0]), (old_leaf, both.roots[1])):
        (tmp_path / "leaf").write_bytes(chain_to_pem(leaf[:1]))
        (tmp_path / "between").write_bytes(chain_to_pem([leaf[1], *crosses]))
        (tmp_path / "root").write_bytes(chain_to_pem([root]))
        command = ["openssl", "verify", "-x509_strict", "-attime", str(int(home.time.timestamp()))]
        files = ["-CAfile", "root", "-untrusted", "between", "leaf"]
        done = subprocess.run([*command, *files], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def succession(home: Home, **changes: Any) -> RootSuccession:
    how: dict[str, Any] = {
        "old": home.bundle.roots[0],
        "old_signer": load(CaFiles(home.folder).root_key, passphrase=ROOT),
        "new_signer": generate(),
        "now": home.time,
    }
    return create_root_succession(**{**how, **changes})


def test_a_succession_made_elsewhere_is_accepted_once(home: Home) -> None:
    made = succession(home)
    assert accept_root(home.folder, made).roots == (made.old, made.new)
    with pytest.raises(Conflict):
        accept_root(home.folder, made)
    assert load_bundle(home.folder).sequence == 2


@pytest.mark.parametrize("field", ["old", "new", "new_with_old", "old_with_new"])
def test_a_succession_with_one_part_of_another_is_refused(home: Home, field: str) -> None:
    made, other = succession(home), succession(home)
    stranger = create_root(DOMAIN, signer=generate(), now=home.time)
    parts = {name: getattr(made, name) for name in ("old", "new", "new_with_old", "old_with_new")}
    parts[field] = stranger if field == "old" else getattr(other, field)
    with pytest.raises((CertificateRefused, Conflict)):
        accept_root(home.folder, RootSuccession(**parts))
    assert load_bundle(home.folder) == home.bundle


def test_a_whole_succession_of_a_strangers_root_is_refused(home: Home) -> None:
    signer = generate()
    theirs = create_root(DOMAIN, signer=signer, now=home.time)
    with pytest.raises(Conflict):
        accept_root(home.folder, succession(home, old=theirs, old_signer=signer))


def test_a_root_is_not_succeeded_by_its_own_key_or_after_its_end_or_by_whoever_lacks_its_key(
    home: Home,
) -> None:
    signer = load(CaFiles(home.folder).root_key, passphrase=ROOT)
    with pytest.raises(Conflict):
        succession(home, new_signer=signer)
    with pytest.raises(Conflict):
        succession(home, old_signer=generate())
    with pytest.raises(CertificateRefused):
        succession(home, now=home.time + timedelta(days=4000))


def test_the_bundle_takes_no_root_of_another_domain_no_root_twice_and_never_ends_up_empty(
    home: Home,
) -> None:
    with pytest.raises(CertificateRefused):
        change_roots(
            home.folder, add=[create_root(TrustDomain("b.example"), signer=generate(), now=home.time)]
        )
    with pytest.raises(Conflict):
        change_roots(home.folder, add=home.bundle.roots)
    with pytest.raises(Conflict):
        change_roots(home.folder, remove=home.bundle.roots)
    with pytest.raises(Conflict):
        change_roots(home.folder, remove=[create_root(DOMAIN, signer=generate(), now=home.time)])
    assert load_bundle(home.folder) == home.bundle


def test_a_bundle_of_another_domain_in_the_folder_is_refused(home: Home, tmp_path: Path) -> None:
    roll_root(home.folder, root_passphrase=ROOT, clock=home)
    other = tmp_path / "other"
    init_ca(other, TrustDomain("b.example"), root_passphrase=ROOT, issuing_passphrase=PASS, clock=home)
    shutil.copy(CaFiles(home.folder).bundle, CaFiles(other).bundle)
    with pytest.raises(Conflict):
        load_bundle(other)
    CaFiles(other).bundle.write_text("{}")
    with pytest.raises(Malformed):
        load_bundle(other)


# ---- certificates of CAs, linted ----


def theirs(domain: str = "b.example") -> x509.Certificate:
    return create_root(TrustDomain(domain), signer=generate(), now=START)


def permit(domain: str = "b.example") -> x509.NameConstraints:
    return x509.NameConstraints([x509.UniformResourceIdentifier(domain)], None)


def cross(home: Home, **changes: Any) -> x509.Certificate:
    how: dict[str, Any] = {
        "subject": theirs(),
        "issuer": home.bundle.roots[0],
        "signer": load(CaFiles(home.folder).root_key, passphrase=ROOT),
        "constraints": permit(),
        "now": START,
    }
    return create_cross_certificate(**{**how, **changes})


def test_a_cross_certificate_carries_their_name_and_key_under_our_constraints(home: Home) -> None:
    subject = theirs()
    made = cross(home, subject=subject, path_length=1, lifetime=timedelta(days=30))
    assert (made.subject, made.public_key()) == (subject.subject, subject.public_key())
    assert made.extensions.get_extension_for_class(x509.NameConstraints).critical
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 1
    assert made.not_valid_after_utc == START + timedelta(days=30)
    check_authority(made, CaKind.CROSS)


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": theirs(DOMAIN)},
        {"constraints": x509.NameConstraints(None, [x509.UniformResourceIdentifier("c.example")])},
        {"lifetime": timedelta(days=1097)},
        {"path_length": 3},
        {"path_length": -1},
    ],
)
def test_a_cross_certificate_beyond_its_profile_is_refused(home: Home, changes: dict[str, Any]) -> None:
    with pytest.raises(CertificateRefused) as refused:
        cross(home, **changes)
    assert refused.value.reason == Refusal.CERTIFICATE_PROFILE


def test_each_kind_of_ca_certificate_keeps_to_its_own_profile_and_to_no_other(home: Home) -> None:
    made = succession(home)
    ours = {
        CaKind.ROOT: made.new,
        CaKind.ISSUING: home.issuer().certificate,
        CaKind.ROLLOVER: made.new_with_old,
        CaKind.CROSS: cross(home),
    }
    for kind, certificate in ours.items():
        check_authority(certificate, kind)
    for kind, other in ((CaKind.ISSUING, CaKind.ROOT), (CaKind.CROSS, CaKind.ROOT)):
        with pytest.raises(CertificateRefused):
            check_authority(ours[other], kind)
    with pytest.raises(CertificateRefused):
        check_authority(ours[CaKind.CROSS], CaKind.ROLLOVER)
    with pytest.raises(CertificateRefused):
        check_authority(home.leaf(home.issuer())[0], CaKind.ISSUING)


def test_a_root_revokes_on_its_own_crl_and_does_not_forget(home: Home) -> None:
    issuing, root = home.issuer().certificate, home.bundle.roots[0]
    (empty,) = load_root_crls(home.folder)
    assert list(empty) == []
    home.time += timedelta(days=1)
    (crl,) = revoke_under_root(home.folder, [issuing], root_passphrase=ROOT, clock=home)
    assert crl.is_signature_valid(root.public_key())  # type: ignore[arg-type]
    assert crl.get_revoked_certificate_by_serial_number(issuing.serial_number) is not None
    home.time += timedelta(days=1)
    (again,) = revoke_under_root(home.folder, root_passphrase=ROOT, clock=home)
    assert [entry.serial_number for entry in again] == [issuing.serial_number]
    assert again.get_revoked_certificate_by_serial_number(issuing.serial_number).revocation_date_utc == (  # type: ignore[union-attr]
        START + timedelta(days=1)
    )
    assert load_root_crls(home.folder) == (again,)
    for older in (empty, crl):
        with pytest.raises(Conflict):
            accept_root_crl(home.folder, older)


def test_a_crl_that_no_root_of_ours_signed_is_not_kept(home: Home) -> None:
    signer = generate()
    theirs = create_root(DOMAIN, signer=signer, now=START)
    stranger = create_root_crl(root=theirs, signer=signer, now=START + timedelta(days=1))
    with pytest.raises(Malformed):
        accept_root_crl(home.folder, stranger)
    with pytest.raises(Conflict):
        create_root_crl(root=home.bundle.roots[0], signer=signer, now=START)
    with pytest.raises(NotFound):
        revoke_under_root(home.folder, [theirs], root_passphrase=ROOT, clock=home)
    for junk in (b"", b"junk", theirs.public_bytes(Encoding.DER)):
        with pytest.raises(Malformed):
            crl_from_der(junk)

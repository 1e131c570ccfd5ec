"""A second key is made where it signs, and certified on the word of the first certificate alone."""

from __future__ import annotations

import json
import os
import stat
from base64 import b64decode, b64encode
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from second_world import DAY, SecondChain

from fltrust.enrollment.second import MAX_REQUEST, SecondHome, VerifiedRequest, verify_request
from fltrust.errors import (
    CertificateRefused,
    FltrustError,
    Malformed,
    NotFound,
    Oversized,
    Refused,
    SignatureInvalid,
    StorageUnavailable,
)
from fltrust.identity import Digest, SpiffeId
from fltrust.keys import generate
from fltrust.pki import TrustBundle, bundle_to_json, create_csr, root_fingerprint
from fltrust.testing import FakeClock, ScratchCa, scratch_identity

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DOMAIN = "hospitals.example"


class Site:
    """An enrolled site with a state folder, and who issues second certificates."""

    def __init__(self, folder: Path, *, passphrase: bytes | None = None) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self.ca = ScratchCa.make(DOMAIN, now=NOW)
        self.identity = scratch_identity("site-a", ca=self.ca, lifetime=DAY, clock=FakeClock(NOW))
        self.home = SecondHome(folder, self.who, passphrase=passphrase)
        self.chain = SecondChain(self.who.domain, now=NOW)

    @property
    def who(self) -> SpiffeId:
        return self.identity.spiffe_id

    @property
    def fingerprint(self) -> Digest:
        return root_fingerprint(self.identity.credentials.bundle.roots[0])

    def ask(self) -> bytes:
        current = self.identity.credentials
        return self.home.request(current.signer, current.certificate.chain, current.bundle)

    def verify(self, data: bytes, *, at: datetime = NOW) -> VerifiedRequest:
        return verify_request(data, roots=[self.fingerprint], at=at)

    def certify(self, data: bytes, *, life: timedelta = DAY) -> bytes:
        found = self.verify(data)
        return self.chain.certify(found.who, found.public_key, life=life)

    def install(self, pem: bytes) -> None:
        self.home.install(pem, root=self.chain.root, at=NOW)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "state")


def changed(data: bytes, **fields: object) -> bytes:
    """The request with other fields, in the canonical form."""
    found = {**json.loads(data), **fields}
    kept = {name: value for name, value in found.items() if value is not None}
    return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()


def test_a_key_is_asked_for_certified_and_installed(site: Site) -> None:
    data = site.ask()
    assert site.verify(data).who == site.who
    site.install(site.certify(data))
    pair = site.home.load()
    assert pair.leaf.public_key == pair.signer.public_key == site.verify(data).public_key
    assert sorted(path.name for path in site.folder.iterdir()) == ["second.pem"]
    assert stat.S_IMODE((site.folder / "second.pem").stat().st_mode) == 0o600


def test_the_key_never_leaves_the_folder(site: Site) -> None:
    data = site.ask()
    assert stat.S_IMODE((site.folder / "second-next.pem").stat().st_mode) == 0o600
    assert b"PRIVATE" not in data
    assert set(json.loads(data)) == {"bundle", "chain", "csr", "signature", "type"}


def test_with_a_passphrase_it_is_encrypted_at_rest(tmp_path: Path) -> None:
    site = Site(tmp_path / "state", passphrase=b"correct horse")
    data = site.ask()
    assert b"ENCRYPTED" in (site.folder / "second-next.pem").read_bytes()
    site.install(site.certify(data))
    assert b"ENCRYPTED PRIVATE KEY" in (site.folder / "second.pem").read_bytes()
    assert site.home.load().leaf.spiffe_id == site.who
    with pytest.raises(Refused) as refused:
        SecondHome(site.folder, site.who, passphrase=None).load()
    assert refused.value.reason == "passphrase-missing"


def test_asking_again_asks_for_the_same_key_until_it_has_a_certificate(site: Site) -> None:
    first, again = site.verify(site.ask()), site.verify(site.ask())
    assert first.public_key == again.public_key
    site.install(site.certify(site.ask()))
    assert site.verify(site.ask()).public_key != first.public_key


def test_a_pair_that_was_replaced_is_read_anew_and_one_that_was_not_is_kept(site: Site) -> None:
    site.install(site.certify(site.ask()))
    first = site.home.load()
    assert site.home.load() is first
    site.install(site.certify(site.ask()))
    assert site.home.load().signer.key_id != first.signer.key_id


def test_without_a_pair_it_says_what_to_do(site: Site) -> None:
    with pytest.raises(NotFound, match="fltrust second request") as refused:
        site.home.load()
    assert refused.value.reason == "second-key-missing"


def test_a_request_under_another_root_is_refused(site: Site, tmp_path: Path) -> None:
    other = Site(tmp_path / "other")
    with pytest.raises(CertificateRefused):
        verify_request(site.ask(), roots=[other.fingerprint], at=NOW)


def test_a_request_by_a_certificate_that_ran_out_is_refused(site: Site) -> None:
    with pytest.raises(CertificateRefused) as refused:
        site.verify(site.ask(), at=NOW + 2 * DAY)
    assert refused.value.reason == "certificate-expired"


def test_a_thief_of_a_request_cannot_have_another_key_certified(site: Site, tmp_path: Path) -> None:
    thief = Site(tmp_path / "thief")
    csr = json.loads(thief.ask())["csr"]
    with pytest.raises(SignatureInvalid):
        site.verify(changed(site.ask(), csr=csr))


def test_a_participant_cannot_ask_in_the_name_of_another(site: Site, tmp_path: Path) -> None:
    """It can show another's chain, and cannot sign for it."""
    thief = Site(tmp_path / "thief")
    mine = json.loads(thief.ask())
    with pytest.raises(SignatureInvalid):
        site.verify(changed(site.ask(), csr=mine["csr"], signature=mine["signature"]))


def test_a_key_that_somebody_else_asked_for_is_not_certified_to_another(site: Site) -> None:
    """Nothing in a request is secret: another site of the same federation may take the CSR out of it."""
    other = scratch_identity("site-b", ca=site.ca, lifetime=DAY, clock=FakeClock(NOW)).credentials
    data = site.ask()
    csr = b64decode(json.loads(data)["csr"])
    taken = changed(
        data,
        signature=b64encode(other.signer.sign(b"fltrust-second-request-v1\n" + csr)).decode(),
        chain=[b64encode(der).decode() for der in other.chain_der],
    )
    with pytest.raises(CertificateRefused) as refused:
        site.verify(taken)
    assert refused.value.reason == "unknown-identity"


def test_what_the_first_key_signed_alone_proves_no_possession(site: Site) -> None:
    """A CSR whose own signature is broken, vouched for all the same; and what is no CSR, or too large."""
    current = site.identity.credentials
    csr = bytearray(b64decode(json.loads(site.ask())["csr"]))
    csr[-1] ^= 1
    for der, kind in ((bytes(csr), SignatureInvalid), (b"no DER", Malformed), (bytes(17_000), Oversized)):
        signature = current.signer.sign(b"fltrust-second-request-v1\n" + der)
        with pytest.raises(kind):
            site.verify(
                changed(site.ask(), csr=b64encode(der).decode(), signature=b64encode(signature).decode())
            )


def test_flipped_bits_anywhere_in_the_request_are_refused(site: Site) -> None:
    data = site.ask()
    assert changed(data) == data
    site.verify(data)
    for position in range(0, len(data), 37):
        altered = bytearray(data)
        altered[position] ^= 1 << position % 7
        with pytest.raises(FltrustError):
            site.verify(bytes(altered))


def test_a_root_speaks_for_its_own_domain_alone(site: Site, tmp_path: Path) -> None:
    """Who pins the roots of two domains must not let the CA of one name somebody of the other."""
    elsewhere = ScratchCa.make("elsewhere.example", now=NOW)
    bundle = TrustBundle(site.who.domain, elsewhere.bundle.roots, 1)
    data = changed(site.ask(), bundle=bundle_to_json(bundle).decode())
    roots = [site.fingerprint, root_fingerprint(elsewhere.bundle.roots[0])]
    with pytest.raises(CertificateRefused, match="expected a root"):
        verify_request(data, roots=roots, at=NOW)


def test_after_a_crash_between_installing_and_tidying_a_new_key_is_asked_for(site: Site) -> None:
    data = site.ask()
    pem = (site.folder / "second-next.pem").read_bytes()
    site.install(site.certify(data))
    (site.folder / "second-next.pem").write_bytes(pem)
    (site.folder / "second-next.pem").chmod(0o600)
    assert site.verify(site.ask()).public_key != site.home.load().signer.public_key


def test_two_who_ask_at_once_ask_for_one_key(site: Site) -> None:
    with ThreadPoolExecutor(4) as pool:
        asked = [found.result() for found in [pool.submit(site.ask) for _ in range(8)]]
    assert len({site.verify(data).public_key.public_bytes_raw() for data in asked}) == 1


def test_a_waiting_key_that_is_damaged_says_which_file_to_remove(site: Site) -> None:
    site.ask()
    (site.folder / "second-next.pem").write_bytes(b"")
    with pytest.raises(Malformed, match=r"remove .*second-next\.pem"):
        site.ask()


def test_a_folder_that_is_gone_is_said_in_our_words(site: Site, tmp_path: Path) -> None:
    gone = SecondHome(tmp_path / "nowhere", site.who, passphrase=None)
    current = site.identity.credentials
    with pytest.raises(StorageUnavailable):
        gone.request(current.signer, current.certificate.chain, current.bundle)


def test_what_is_no_file_in_the_pairs_place_is_refused_at_once(site: Site) -> None:
    os.mkfifo(site.folder / "second.pem", 0o600)
    with pytest.raises(Malformed):
        site.home.load()


def test_a_key_of_another_kind_is_refused(site: Site) -> None:
    current = site.identity.credentials
    csr = create_csr(generate())
    signature = current.signer.sign(b"fltrust-second-request-v1\n" + csr)
    with pytest.raises(Malformed, match="ML-DSA-65"):
        site.verify(changed(site.ask(), csr=b64encode(csr).decode(), signature=b64encode(signature).decode()))


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "urn:fltrust:second-request:v2"},
        {"more": "1"},
        {"csr": None},
        {"chain": []},
        {"bundle": "{}"},
    ],
)
def test_a_request_of_another_form_is_refused(site: Site, fields: dict[str, object]) -> None:
    with pytest.raises((Malformed, CertificateRefused)):
        site.verify(changed(site.ask(), **fields))


def test_a_request_beyond_its_bound_is_refused_before_it_is_read(site: Site) -> None:
    with pytest.raises(Oversized):
        site.verify(b"{" * (MAX_REQUEST + 1))


def test_the_certificate_of_another_is_not_installed(site: Site, tmp_path: Path) -> None:
    data = site.ask()
    who = SpiffeId.of(site.who.domain, site.who.role, "site-b")
    stranger = site.chain.certify(who, site.verify(data).public_key)
    with pytest.raises(CertificateRefused):
        site.install(stranger)
    other = Site(tmp_path / "other")
    with pytest.raises(CertificateRefused):  # ours, for our key, under a root that is not the one we gave
        site.install(other.chain.certify(site.who, site.verify(data).public_key))
    assert not (site.folder / "second.pem").exists()


def test_the_certificate_of_another_key_is_not_installed(site: Site) -> None:
    old = site.certify(site.ask())
    site.install(old)
    site.ask()
    with pytest.raises(CertificateRefused) as refused:
        site.install(old)
    assert refused.value.reason == "wrong-certificate"


def test_a_certificate_that_nobody_asked_for_is_not_installed(site: Site) -> None:
    pem = site.certify(site.ask())
    (site.folder / "second-next.pem").unlink()
    with pytest.raises(NotFound):
        site.install(pem)


def test_a_pair_that_others_may_read_is_refused(site: Site) -> None:
    site.install(site.certify(site.ask()))
    (site.folder / "second.pem").chmod(0o640)
    with pytest.raises(Refused) as refused:
        SecondHome(site.folder, site.who, passphrase=None).load()
    assert refused.value.reason == "state-exposed"


def test_a_pair_of_another_identity_is_refused(site: Site) -> None:
    site.install(site.certify(site.ask()))
    other = SpiffeId.of(site.who.domain, site.who.role, "site-b")
    with pytest.raises(CertificateRefused):
        SecondHome(site.folder, other, passphrase=None).load()

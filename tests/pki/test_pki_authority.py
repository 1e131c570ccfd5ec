"""The CA on disk: made whole or not at all, never over another."""

from __future__ import annotations

import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fltrust.errors import (
    CertificateRefused,
    Conflict,
    Malformed,
    NotFound,
    Refusal,
    Refused,
    StorageUnavailable,
)
from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.keys import generate, load
from fltrust.pki import (
    CaFiles,
    Draft,
    TrustBundle,
    create_issuing,
    create_root,
    init_ca,
    load_bundle,
    load_issuer,
    load_issuing_history,
    renew_issuing,
    verify_certificate,
)

DOMAIN = TrustDomain("hospitals.example")
START = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)


class Fixed:
    def __init__(self, now: datetime = START) -> None:
        self.time = now

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return 0.0


def make(folder: Path, **changes: Any) -> TrustBundle:
    how: dict[str, Any] = {"root_passphrase": b"root", "issuing_passphrase": b"issuing", "clock": Fixed()}
    return init_ca(folder, DOMAIN, **{**how, **changes})


def test_a_new_ca_issues_at_once_and_what_it_issues_verifies(tmp_path: Path) -> None:
    bundle = make(tmp_path / "ca")
    issuer = load_issuer(tmp_path / "ca", passphrase=b"issuing", clock=Fixed())
    draft = Draft.of(SpiffeId.of(DOMAIN, Role.PARTICIPANT, "site-a"), generate().public_key, now=START)
    chain = [issuer.redeem(draft), issuer.certificate]
    assert verify_certificate(chain, bundle=bundle, at=START).spiffe_id.name == "site-a"
    assert load_bundle(tmp_path / "ca") == bundle
    assert (bundle.domain, bundle.sequence, issuer.domain) == (DOMAIN, 1, DOMAIN)


def test_all_files_are_private_and_both_keys_encrypted(tmp_path: Path) -> None:
    make(tmp_path / "ca")
    files = CaFiles(tmp_path / "ca")
    found = sorted((tmp_path / "ca").iterdir())
    assert found == sorted(
        [
            files.root_certificate,
            files.root_key,
            files.root_crl(load_bundle(tmp_path / "ca").roots[0]),
            files.issuing_certificate,
            files.issuing_key,
        ]
    )
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o600}
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700
    for key in (files.root_key, files.issuing_key):
        assert b"BEGIN ENCRYPTED PRIVATE KEY" in key.read_bytes()
    load(files.root_key, passphrase=b"root")
    assert list(tmp_path.iterdir()) == [tmp_path / "ca"]


def test_a_ca_is_never_overwritten(tmp_path: Path) -> None:
    bundle = make(tmp_path / "ca")
    with pytest.raises(Conflict, match="never overwritten"):
        make(tmp_path / "ca")
    assert load_bundle(tmp_path / "ca") == bundle
    assert list(tmp_path.iterdir()) == [tmp_path / "ca"]


def test_part_of_a_ca_or_any_other_file_is_not_overwritten_either(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / "root.key").write_text("precious")
    with pytest.raises(Conflict):
        make(tmp_path / "ca")
    assert (tmp_path / "ca" / "root.key").read_text() == "precious"


def test_of_two_that_race_one_wins_whole(tmp_path: Path) -> None:
    made: list[TrustBundle] = []
    refused: list[Conflict] = []
    start = threading.Barrier(6)

    def race() -> None:
        start.wait()
        try:
            made.append(make(tmp_path / "ca"))
        except Conflict as error:
            refused.append(error)

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (1, 5)
    assert load_bundle(tmp_path / "ca") == made[0]
    load_issuer(tmp_path / "ca", passphrase=b"issuing", clock=Fixed())
    assert list(tmp_path.iterdir()) == [tmp_path / "ca"]


def test_an_init_that_cannot_finish_leaves_no_ca(tmp_path: Path) -> None:
    with pytest.raises(Malformed):
        make(tmp_path / "ca", issuing_passphrase=b"")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotFound, match="coordinator init"):
        load_bundle(tmp_path / "ca")


def test_a_place_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(StorageUnavailable):
        make(Path("/proc/self/ca"))


def test_a_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "ca"):
        with pytest.raises((StorageUnavailable, Conflict)):
            make(place)


def test_the_root_key_is_not_needed_to_issue(tmp_path: Path) -> None:
    make(tmp_path / "ca")
    CaFiles(tmp_path / "ca").root_key.unlink()
    load_issuer(tmp_path / "ca", passphrase=b"issuing", clock=Fixed())


def test_the_wrong_passphrase_loads_no_issuer(tmp_path: Path) -> None:
    make(tmp_path / "ca")
    with pytest.raises(Refused) as refused:
        load_issuer(tmp_path / "ca", passphrase=b"root", clock=Fixed())
    assert refused.value.reason == "passphrase-wrong"


def test_files_of_two_cas_do_not_mix(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b")
    a, b = CaFiles(tmp_path / "a"), CaFiles(tmp_path / "b")
    a.issuing_key.replace(tmp_path / "kept")
    b.issuing_key.replace(a.issuing_key)
    with pytest.raises(Conflict):
        load_issuer(tmp_path / "a", passphrase=b"issuing", clock=Fixed())
    (tmp_path / "kept").replace(a.issuing_key)
    b.root_certificate.replace(a.root_certificate)
    with pytest.raises(CertificateRefused) as refused:
        load_issuer(tmp_path / "a", passphrase=b"issuing", clock=Fixed())
    assert refused.value.reason == Refusal.CERTIFICATE_PATH


def test_an_issuing_ca_that_is_over_is_not_loaded(tmp_path: Path) -> None:
    make(tmp_path / "ca")
    with pytest.raises(CertificateRefused) as refused:
        load_issuer(tmp_path / "ca", passphrase=b"issuing", clock=Fixed(START + timedelta(days=366)))
    assert refused.value.reason == Refusal.CERTIFICATE_EXPIRED


def test_a_renewed_issuing_ca_carries_on_and_what_it_issued_before_stays_good(tmp_path: Path) -> None:
    bundle = make(tmp_path / "ca")
    before = load_issuer(tmp_path / "ca", passphrase=b"issuing", clock=Fixed())
    later = START + timedelta(days=365) - timedelta(minutes=30)
    who = SpiffeId.of(DOMAIN, Role.PARTICIPANT, "site-a")
    old = before.redeem(Draft.of(who, generate().public_key, now=later, lifetime=timedelta(minutes=30)))
    assert renew_issuing(tmp_path / "ca", root_passphrase=b"root", clock=Fixed(later)) != before.certificate
    after = load_issuer(tmp_path / "ca", passphrase=b"issuing", clock=Fixed(later))
    new = after.redeem(Draft.of(who, generate().public_key, now=later))
    for chain in ([old, before.certificate], [old, after.certificate], [new, after.certificate]):
        assert verify_certificate(chain, bundle=bundle, at=later).spiffe_id == who
    with pytest.raises(Refused):
        renew_issuing(tmp_path / "ca", root_passphrase=b"issuing", clock=Fixed(later))


def test_damaged_files_are_malformed(tmp_path: Path) -> None:
    make(tmp_path / "ca")
    path = CaFiles(tmp_path / "ca").issuing_certificate
    for damage in (b"", b"junk", path.read_bytes()[:-100]):
        path.write_bytes(damage)
        with pytest.raises(Malformed):
            load_issuer(tmp_path / "ca", passphrase=b"issuing", clock=Fixed())


def test_an_issuing_ca_does_not_outlive_its_root_or_share_its_key() -> None:
    signer = generate()
    root = create_root(DOMAIN, signer=signer, now=START)
    how: dict[str, Any] = {"root": root, "root_signer": signer}
    with pytest.raises(CertificateRefused, match="end before its root"):
        create_issuing(**how, public_key=generate().public_key, now=START + timedelta(days=9 * 365 + 200))
    with pytest.raises(CertificateRefused, match="own"):
        create_issuing(**how, public_key=signer.public_key, now=START)
    with pytest.raises(Conflict):
        create_issuing(root=root, root_signer=generate(), public_key=generate().public_key, now=START)


def test_a_domain_of_the_longest_kind_fits(tmp_path: Path) -> None:
    longest = TrustDomain(".".join(["a" * 60, "b" * 60, "cdefg"]))
    bundle = init_ca(tmp_path / "ca", longest, root_passphrase=b"r", issuing_passphrase=b"i", clock=Fixed())
    issuer = load_issuer(tmp_path / "ca", passphrase=b"i", clock=Fixed())
    who = SpiffeId.of(longest, Role.AGGREGATOR, "n" * 63)
    leaf = issuer.redeem(Draft.of(who, generate().public_key, now=START))
    assert verify_certificate([leaf, issuer.certificate], bundle=bundle, at=START).spiffe_id == who


def test_earlier_certificates_of_the_issuing_ca_are_kept_in_order(tmp_path: Path) -> None:
    clock = Fixed()
    init_ca(tmp_path / "ca", DOMAIN, root_passphrase=b"r", issuing_passphrase=b"i", clock=clock)
    history = list(load_issuing_history(tmp_path / "ca"))
    assert len(history) == 1
    for _ in range(2):
        clock.time += timedelta(days=300)
        history.append(renew_issuing(tmp_path / "ca", root_passphrase=b"r", clock=clock))
        assert load_issuing_history(tmp_path / "ca") == tuple(history)
    assert load_issuer(tmp_path / "ca", passphrase=b"i", clock=clock).certificate == history[-1]
    for path in (tmp_path / "ca").iterdir():
        assert path.stat().st_mode & 0o077 == 0

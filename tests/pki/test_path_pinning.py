"""Pins with backups."""

from __future__ import annotations

from datetime import timedelta

import pytest
from path_world import DAY, NOW, Domain, make_domain

from fltrust.errors import CertificateRefused, Malformed
from fltrust.identity import KeyId
from fltrust.keys import generate
from fltrust.pki.path import RevocationMode, ValidatedPath
from fltrust.pki.path.pinning import PinSet, keys_of

BACKUP = KeyId("ab" * 32)


@pytest.fixture(scope="module")
def path() -> ValidatedPath:
    return validated(make_domain())


def validated(domain: Domain) -> ValidatedPath:
    return domain.validate(domain.issue(), revocation=RevocationMode.BEST_EFFORT)


def test_a_path_through_a_pinned_key_passes_and_another_cas_does_not(path: ValidatedPath) -> None:
    pins = PinSet.of(path, pinned=[1], backups=[BACKUP], expires=NOW + DAY)
    found = pins.check(path)
    assert (found.keys, found.only_backup) == ((keys_of(path)[1],), False)
    with pytest.raises(CertificateRefused) as refused:
        pins.check(validated(make_domain()))
    assert refused.value.reason == "pin-mismatch"


def test_a_path_through_a_backup_alone_passes_and_asks_for_a_new_backup(path: ValidatedPath) -> None:
    lost = generate().key_id
    pins = PinSet(pins=frozenset({lost}), backups=frozenset({keys_of(path)[2]}), expires=NOW + DAY)
    assert pins.check(path).only_backup


def test_pins_that_are_over_let_nothing_pass(path: ValidatedPath) -> None:
    pins = PinSet.of(path, pinned=[1], backups=[BACKUP], expires=NOW - timedelta(seconds=1))
    with pytest.raises(CertificateRefused) as refused:
        pins.check(path)
    assert refused.value.reason == "pins-expired"


def test_there_is_no_pin_without_a_backup_that_is_kept_apart(path: ValidatedPath) -> None:
    with pytest.raises(Malformed):
        PinSet.of(path, pinned=[1], backups=[], expires=NOW + DAY)
    with pytest.raises(Malformed):
        PinSet.of(path, pinned=[1], backups=[keys_of(path)[0]], expires=NOW + DAY)
    with pytest.raises(Malformed):
        PinSet.of(path, pinned=[], backups=[BACKUP], expires=NOW + DAY)
    many = [KeyId(f"{number:064x}") for number in range(16)]
    with pytest.raises(Malformed):
        PinSet.of(path, pinned=[0], backups=many, expires=NOW + DAY)


def test_pins_are_read_back_in_one_form_only(path: ValidatedPath) -> None:
    pins = PinSet.of(path, pinned=[0, 1], backups=[BACKUP], expires=NOW + DAY)
    data = pins.to_json()
    assert PinSet.from_json(data) == pins
    for wrong in (
        data + b" ",
        data.replace(b"pins:v1", b"pins:v2"),
        data.replace(b"backups", b"backup"),
        b"{}",
    ):
        with pytest.raises(Malformed):
            PinSet.from_json(wrong)

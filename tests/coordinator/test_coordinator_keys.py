"""A coordinator whose keys are in a token: made, counted, and what becomes of a key that ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from key_kinds import Kind, made

from fltrust.clock import SystemClock
from fltrust.coordinator.key_choices import KeyChoices
from fltrust.coordinator.key_destruction import DestructionReason, destroy_and_record
from fltrust.coordinator.key_usage import KeyUsageReports
from fltrust.coordinator.process import CoordinatorSettings, _opened, destroy_key, initialise
from fltrust.errors import Conflict, Malformed, NotFound, StorageUnavailable
from fltrust.identity import KeyId, Name, TrustDomain
from fltrust.keys.homes import generate_key, open_key
from fltrust.tlog.entries import LogKind, parse_entry
from fltrust.tlog.keyacts import KeyDestroyed, KeyUsed

PASSPHRASE = b"of the folder"
SETTINGS = CoordinatorSettings(
    domain=TrustDomain("hospitals.example"), bootstrap="127.0.0.1:1", address="127.0.0.1:2"
)


@pytest.fixture
def token(tmp_path: Path) -> Iterator[Kind]:
    (tmp_path / "token").mkdir()
    with made("pkcs11", tmp_path / "token") as kind:
        yield kind


@pytest.fixture
def folder(tmp_path: Path, token: Kind, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLTRUST_HOME", str(tmp_path / "home"))
    keys = KeyChoices(
        **{name: generate_key(token.uri(name)) for name in ("root", "issuing", "tsa", "ct")},
        note=generate_key(token.uri("note"), ed25519=True),
    )
    where = tmp_path / "coordinator"
    initialise(
        where,
        SETTINGS,
        operator=Name("admin"),
        root_passphrase=PASSPHRASE,
        issuing_passphrase=PASSPHRASE,
        keys=keys,
    )
    return where


def entries(folder: Path, *kinds: LogKind) -> list[object]:
    with _opened(folder, PASSPHRASE, SystemClock()) as (authority, _), authority.ledger.reading() as tx:
        return [parse_entry(found.data) for found in tx.tlog.find(kinds=kinds, limit=100)]


def test_no_private_key_of_ca_log_and_timestamps_lies_in_the_folder(folder: Path) -> None:
    keys = sorted(path.relative_to(folder) for path in folder.rglob("*.key"))
    pointers = [str(key) for key in keys if (folder / key).read_bytes().startswith(b"fltrust-key-v1 pkcs11:")]
    assert pointers == ["ca/issuing.key", "ca/root.key", "log/ct.key", "log/note.key", "tsa/tsa.key"]


def test_use_is_logged_key_by_key_and_counted_once(folder: Path) -> None:
    with _opened(folder, PASSPHRASE, SystemClock()) as (authority, _):
        counts = {use.name: use.since_last for use in authority.key_usage.look()}
        assert counts["issuing"] > 0
        with KeyUsageReports(authority.key_usage):
            pass
        assert {use.name: use.since_last for use in authority.key_usage.look()}["issuing"] == 0
    found = [entry for entry in entries(folder, LogKind.KEY_USED) if isinstance(entry, KeyUsed)]
    assert {entry.key: entry.signatures for entry in found}["issuing"] == counts["issuing"]
    assert {entry.home for entry in found} == {"pkcs11"}


def test_a_count_that_cannot_be_written_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _opened(folder, PASSPHRASE, SystemClock()) as (authority, _):
        before = authority.key_usage.look()

        def full() -> None:
            raise StorageUnavailable("the disk is full")

        monkeypatch.setattr(authority.key_usage._ledger, "writing", full)
        with KeyUsageReports(authority.key_usage):  # does not raise: it is tried again
            pass
        assert authority.key_usage.look() == before


def test_a_coordinator_whose_token_is_gone_does_not_start(folder: Path, token: Kind) -> None:
    token.remove(token.uri("issuing"))
    with pytest.raises(NotFound) as refused, _opened(folder, PASSPHRASE, SystemClock()):
        pass
    assert refused.value.reason == "key-gone"


def test_a_key_is_destroyed_and_the_log_says_so(folder: Path, token: Kind) -> None:
    uri = generate_key(token.uri("old"))
    key_id = open_key(uri).key_id
    done = destroy_key(
        folder, uri, reason=DestructionReason.RETIRED, expect=None, issuing_passphrase=PASSPHRASE
    )
    assert (done.key_id, done.was_there, done.home) == (key_id, True, "pkcs11")
    with pytest.raises(NotFound):
        open_key(uri)
    assert entries(folder, LogKind.KEY_DESTROYED) == [done]


def test_one_that_is_gone_is_recorded_by_its_id(folder: Path, token: Kind) -> None:
    uri, key_id = token.uri("never"), KeyId("ab" * 32)
    with _opened(folder, PASSPHRASE, SystemClock()) as (authority, _):
        with pytest.raises(NotFound):
            destroy_and_record(authority, uri, reason=DestructionReason.OTHER)
        entry = destroy_and_record(authority, uri, reason=DestructionReason.OTHER, expect=key_id)
    assert isinstance(entry, KeyDestroyed)
    assert (entry.key_id, entry.was_there) == (key_id, False)


def test_a_key_in_use_is_not_destroyed(folder: Path, token: Kind) -> None:
    with _opened(folder, PASSPHRASE, SystemClock()) as (authority, _):
        for purpose in ("root", "issuing", "tsa", "ct", "note"):
            with pytest.raises(Conflict) as refused:
                destroy_and_record(authority, token.uri(purpose), reason=DestructionReason.RETIRED)
            assert refused.value.reason == "key-in-use", purpose


def test_another_key_than_was_meant_is_not_destroyed(folder: Path, token: Kind) -> None:
    uri = generate_key(token.uri("meant"))
    with _opened(folder, PASSPHRASE, SystemClock()) as (authority, _):
        with pytest.raises(Conflict) as refused:
            destroy_and_record(authority, uri, reason=DestructionReason.RETIRED, expect=KeyId("cd" * 32))
        assert refused.value.reason == "another-key"
    open_key(uri)


@pytest.mark.parametrize(
    "choices",
    [
        ["issuing"],
        ["agent=tpm:handle=0x81010001"],
        ["issuing=tpm:handle=0x81010001", "issuing=tpm:handle=0x81010002"],
        ["issuing=tpm:handle=0x81010001", "tsa=tpm:handle=0x81010001"],
        ["note=tpm:handle=0x81010001"],
        ["tsa=https://example.com"],
    ],
)
def test_a_choice_of_keys_that_makes_no_sense_is_refused(choices: list[str]) -> None:
    with pytest.raises(Malformed):
        KeyChoices.parse(choices)

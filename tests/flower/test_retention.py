"""Retained updates: kept encrypted, bounded, whole, and opened with the recovery key alone."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fltrust.errors import Conflict, EvidenceMissing, FltrustError, Malformed, Refused, Tampered
from fltrust.flower import Retention, TrustPolicy, retention
from fltrust.flower.records import to_content
from fltrust.flower.retained import open_round
from fltrust.flower.retention import Kept, Retainer
from fltrust.identity import Digest, RunId
from fltrust.keys.recovery import RecoveryKey, RecoveryRecipient
from fltrust.updates import Content, content_digest
from fltrust.updates.packing import pack, unpack

RUN = RunId(2**63 + 1)


def content(size: int = 100) -> Content:
    return to_content(
        RecordDict(
            {
                "arrays": ArrayRecord(
                    {"w": Array(np.arange(size, dtype=np.float32)), "n": Array(np.array(7))}
                ),
                "metrics": MetricRecord({"loss": 0.5, "num-examples": 3, "curve": [1.0, float("inf")]}),
                "config": ConfigRecord(
                    {"t": "text", "b": b"bytes", "flag": True, "empty": [], "blobs": [b"a", b""], "i": -5}
                ),
            }
        )
    )


def kept(name: str = "site-a", size: int = 100) -> Kept:
    made = content(size)
    return Kept(name, Digest.sha256_of(name.encode()), content_digest(made), made)


@pytest.fixture
def key(tmp_path: Path) -> RecoveryKey:
    return RecoveryKey.create(tmp_path / "recovery.pem", passphrase=b"long enough")


@pytest.fixture
def policy(tmp_path: Path, key: RecoveryKey) -> Retention:
    """Sealed to `key`."""
    return Retention(folder=tmp_path / "kept", recipient=tmp_path / "recovery.pem.pub", max_bytes=2**20)


def test_a_content_survives_packing() -> None:
    made = content()
    back = unpack(b"".join(bytes(part) for part in pack(made)))
    assert content_digest(back) == content_digest(made)
    assert [record.name for record in back.records] == ["arrays", "metrics", "config"]


def test_a_packed_content_that_is_cut_or_longer_is_refused() -> None:
    data = b"".join(bytes(part) for part in pack(content(4)))
    for size in (*range(0, len(data), 7), len(data) - 1):
        with pytest.raises(FltrustError):
            unpack(data[:size])
    with pytest.raises(Malformed):
        unpack(data + b"x")


def test_what_is_kept_is_opened_in_order(policy: Retention, key: RecoveryKey) -> None:
    Retainer(policy, RUN).keep(3, 2, [kept("site-b"), kept("site-a")])
    found = list(open_round(policy.folder, RUN, 3, key=key))
    assert [(update.participant, update.round) for update in found] == [("site-b", 2), ("site-a", 2)]
    assert found[0].digest == kept("site-b").digest
    assert found[0].update == kept("site-b").update


def test_nothing_of_an_update_lies_there_in_the_clear(policy: Retention) -> None:
    Retainer(policy, RUN).keep(3, 2, [kept()])
    for path in policy.folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
        if path.is_file():
            assert b"num-examples" not in path.read_bytes()
            assert np.arange(8, dtype=np.float32).tobytes() not in path.read_bytes()


def test_another_key_opens_nothing(policy: Retention, tmp_path: Path) -> None:
    Retainer(policy, RUN).keep(3, 2, [kept()])
    key = RecoveryKey.create(tmp_path / "another.pem", passphrase=b"long enough")
    with pytest.raises(Refused) as refusal:
        list(open_round(policy.folder, RUN, 3, key=key))
    assert refusal.value.reason == "recovery-key"


@pytest.mark.parametrize("size", [0, 1, 10, 24, 48])
def test_large_contents_are_kept_in_chunks(
    policy: Retention, key: RecoveryKey, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(retention, "CHUNK", 512)
    monkeypatch.setattr("fltrust.flower.retained.CHUNK", 512)
    Retainer(policy, RUN).keep(1, 1, [kept(size=size * 128)])
    (found,) = open_round(policy.folder, RUN, 1, key=key)
    assert found.digest == kept(size=size * 128).digest


def test_any_change_to_a_file_is_found(
    policy: Retention, key: RecoveryKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "CHUNK", 512)
    monkeypatch.setattr("fltrust.flower.retained.CHUNK", 512)
    Retainer(policy, RUN).keep(1, 1, [kept(size=300)])
    (path,) = policy.folder.rglob("*.update")
    good = path.read_bytes()
    changes = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(0, len(good), 11)]
    ends = good.index(b"}") + 1
    chunk = 512 + 16
    changes += [
        good[:-1],
        good + b"x",
        good[: ends + chunk],  # the last chunks are gone
        good[:ends] + good[ends + chunk :],  # the first one is
        good[:ends]
        + good[ends + chunk : ends + 2 * chunk]
        + good[ends : ends + chunk]
        + good[ends + 2 * chunk :],
    ]
    for changed in changes:
        path.write_bytes(changed)
        with pytest.raises(FltrustError):
            list(open_round(policy.folder, RUN, 1, key=key))
    path.write_bytes(good)
    assert len(list(open_round(policy.folder, RUN, 1, key=key))) == 1


def test_a_file_cannot_be_put_into_another_round(policy: Retention, key: RecoveryKey) -> None:
    retainer = Retainer(policy, RUN)
    retainer.keep(1, 1, [kept()])
    retainer.keep(2, 2, [kept()])
    (one,) = (policy.folder / str(int(RUN)) / "1").iterdir()
    (two,) = (policy.folder / str(int(RUN)) / "2").iterdir()
    two.write_bytes(one.read_bytes())
    with pytest.raises(Tampered):
        list(open_round(policy.folder, RUN, 2, key=key))


def test_older_runs_make_room_and_a_round_that_does_not_fit_is_left_out(policy: Retention) -> None:
    small = Retention(folder=policy.folder, recipient=policy.recipient, max_bytes=260_000)
    for number, run in enumerate((RunId(1), RunId(2))):
        assert Retainer(small, run).keep(1, 1, [kept(size=5_000)]) is None
        os.utime(small.folder / str(int(run)), (1_000 + number, 1_000 + number))
    big = [kept(f"site-{n}", size=20_000) for n in range(2)]
    assert Retainer(small, RunId(3)).keep(1, 1, big) is None
    assert sorted(path.name for path in small.folder.iterdir()) == ["1", "2", "3"]
    assert Retainer(small, RunId(3)).keep(2, 2, [kept("x", size=20_000)]) is None
    assert sorted(path.name for path in small.folder.iterdir()) == ["3"]
    why = Retainer(small, RunId(3)).keep(3, 3, big)
    assert why is not None
    assert "260000" in why
    assert sorted(path.name for path in (small.folder / "3").iterdir()) == ["1", "2"]


def test_a_round_is_kept_whole_or_not_at_all(
    policy: Retention, key: RecoveryKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    retainer = Retainer(policy, RUN)
    written = retention.Retainer._write_file
    calls = []

    def fail_on_the_second(self: Retainer, *args: object, **kwargs: object) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        written(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(retention.Retainer, "_write_file", fail_on_the_second)
    why = retainer.keep(1, 1, [kept("a"), kept("b")])
    assert why is not None
    assert "No space left" in why
    assert list(policy.folder.rglob("*.update")) == []
    with pytest.raises(EvidenceMissing):
        list(open_round(policy.folder, RUN, 1, key=key))


def test_what_a_process_that_died_left_behind_is_no_round(policy: Retention, key: RecoveryKey) -> None:
    retainer = Retainer(policy, RUN)
    retainer.keep(1, 1, [kept()])
    left = policy.folder / str(int(RUN)) / ".2.part"
    left.mkdir()
    (left / "00000-x.update").write_bytes(b"half")
    with pytest.raises(EvidenceMissing):
        list(open_round(policy.folder, RUN, 2, key=key))
    assert retainer.keep(2, 2, [kept()]) is None
    assert not left.exists()


def test_a_folder_that_others_can_read_is_refused(policy: Retention) -> None:
    policy.folder.mkdir(mode=0o755)
    policy.folder.chmod(0o755)
    with pytest.raises(FltrustError):
        Retainer(policy, RUN)


def test_a_private_key_is_no_recipient(tmp_path: Path) -> None:
    RecoveryKey.create(tmp_path / "k", passphrase=b"long enough")
    with pytest.raises(Malformed):
        RecoveryRecipient.read(tmp_path / "k")


def test_a_recovery_key_is_never_overwritten_and_needs_its_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "k"
    made = RecoveryKey.create(path, passphrase=b"long enough")
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in path.read_bytes()
    with pytest.raises(Conflict):
        RecoveryKey.create(path, passphrase=b"another one")
    with pytest.raises(Refused):
        RecoveryKey.load(path, passphrase=b"wrong")
    with pytest.raises(Refused):
        RecoveryKey.load(path, passphrase=None)
    loaded = RecoveryKey.load(path, passphrase=b"long enough")
    assert loaded.recipient.key_id == made.recipient.key_id
    sealed = RecoveryRecipient.read(tmp_path / "k.pub").seal(b"secret", context=b"c")
    assert loaded.open(sealed, context=b"c") == b"secret"
    with pytest.raises(Refused):
        loaded.open(sealed, context=b"d")


def test_retention_asks_for_lineage(policy: Retention) -> None:
    with pytest.raises(Malformed):
        TrustPolicy(lineage=False, retention=policy)
    with pytest.raises(Malformed):
        Retention(folder=policy.folder, recipient=policy.recipient, max_bytes=0)

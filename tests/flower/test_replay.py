"""A run made again without one of its participants, from what was retained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from app_world import QUICK, answering, honest, model, weights
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, Strategy

from fltrust import artifacts
from fltrust.artifacts.origin import claimed_origin
from fltrust.errors import (
    Conflict,
    EvidenceInvalid,
    EvidenceMissing,
    NotFound,
    Refused,
    Tainted,
    Tampered,
)
from fltrust.flower import Retention, TrustedStrategy, TrustPolicy
from fltrust.flower.records import tensor_set_of_record
from fltrust.flower.replay import Replayed
from fltrust.keys.recovery import RecoveryKey
from fltrust.testing import LocalFederation

BAD = "site-2"


def poison(message: Message) -> RecordDict:
    """Honest in the first two rounds."""
    late = int(message.content["config"]["server-round"]) > 2  # type: ignore[index]
    add = 100 if late else 1
    arrays = ArrayRecord({key: Array(a.numpy() + add) for key, a in message.content["arrays"].items()})
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 3, "loss": 0.5})})


class World:
    """A federation of four with a poisoner, that has trained."""

    def __init__(self, folder: Path, strategy: Callable[[], Strategy], *, rounds: int = 4) -> None:
        self.key = RecoveryKey.create(folder / "recovery.pem", passphrase=b"long enough")
        self.retained = folder / "kept"
        self.make_strategy = strategy
        self.federation = LocalFederation(honest(), 4, apps={BAD: answering(poison)})
        policy = TrustPolicy(
            waits=QUICK, retention=Retention(folder=self.retained, recipient=folder / "recovery.pem.pub")
        )
        self.strategy = TrustedStrategy(strategy(), policy=policy)
        self.result = self.strategy.start(
            self.federation.grid, initial_arrays=model(1, 2, 3, 4), num_rounds=rounds
        )

    def replay(self, without: str = BAD, **options: object) -> Replayed:
        chosen = {"strategy": self.make_strategy, "retained": self.retained, "key": self.key, **options}
        return self.federation.replay(without, **chosen)  # type: ignore[arg-type]

    def signed_at(self, round_: int) -> datetime:
        """Right before the updates of this round."""
        from fltrust.updates import MAX_SEALED_SIGNED_BYTES, SignedStatement, unverified_statement

        (report,) = [r for r in self.strategy.reports if r.key.round == round_ and r.key.phase == "train"]
        assert report.receipt is not None
        receipt = SignedStatement.from_bytes(report.receipt, limit=MAX_SEALED_SIGNED_BYTES)
        return unverified_statement(receipt).opened_at  # type: ignore[union-attr,no-any-return]


def fedavg() -> Strategy:
    return FedAvg(fraction_evaluate=0.0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, fedavg)
    with made.federation:
        yield made


def test_the_round_of_the_first_poison_is_made_again_and_is_the_end(world: World) -> None:
    assert weights(world.result.arrays)[0] > 50
    found = world.replay(since=world.signed_at(3))
    # Two rounds as they were (each adds one), and the third without the poisoner.
    np.testing.assert_allclose(weights(found.arrays), [4, 5, 6, 7], rtol=1e-6)
    assert found.reproduced == 2
    (step,) = found.steps
    assert (step.round, len(step.kept)) == (3, 3)
    assert [name.rpartition("/")[2] for name in step.dropped] == [BAD]


def test_later_rounds_hold_what_the_others_took_over(world: World) -> None:
    found = world.replay(since=world.signed_at(3), all_rounds=True)
    assert [step.round for step in found.steps] == [3, 4]
    # Round 4 trained from the poisoned model of round 3: leaving the poisoner out does not undo that.
    assert weights(found.arrays)[0] > 50


def test_without_a_time_it_is_left_out_from_its_first_update(world: World) -> None:
    found = world.replay()
    assert [step.round for step in found.steps] == [1]
    np.testing.assert_allclose(weights(found.arrays), [2, 3, 4, 5], rtol=1e-6)


def test_the_repaired_model_is_accepted_where_the_poisoned_one_is_refused(
    world: World, tmp_path: Path
) -> None:
    federation, since = world.federation, world.signed_at(3)
    assert federation.sign(tmp_path / "poisoned.safetensors", world.result.arrays).taint is None
    identity = str(federation.signer)
    assert artifacts.verify(
        tmp_path / "poisoned.safetensors", trust=federation.trust_file(), identity=identity
    ).is_accepted
    federation.revoke(BAD, compromised_since=since)
    with pytest.raises(Tainted):
        artifacts.verify(tmp_path / "poisoned.safetensors", trust=federation.trust_file(), identity=identity)
    taint = federation.sign(tmp_path / "again.safetensors", world.result.arrays).taint
    assert taint is not None  # the signer is told at once, not by the first who verifies
    assert taint.is_direct

    found = world.replay(since=since)
    repaired = tmp_path / "repaired.safetensors"
    federation.sign(repaired, found.arrays)
    verified = artifacts.verify(repaired, trust=federation.trust_file(), identity=identity)
    assert verified.lineage is not None
    assert verified.rounds == 3
    (replaced,) = verified.lineage.replaces
    assert (replaced.run_id, replaced.step) == (federation.run_id, found.steps[0].step)
    head = verified.lineage.head.provenance
    assert head.builder == federation.signer
    assert [name.rpartition("/")[2] for name in head.without] == [BAD]
    assert claimed_origin(repaired).is_the_models is True


def test_training_goes_on_from_the_repaired_model_and_its_lineage_says_so(
    world: World, tmp_path: Path
) -> None:
    since = world.signed_at(3)
    world.federation.revoke(BAD, compromised_since=since)
    found = world.replay(since=since)
    sites = ("site-4", "site-5", "site-6")
    with LocalFederation(honest(), sites, coordinator=world.federation.coordinator, run_id=77) as later:
        strategy = TrustedStrategy(fedavg(), policy=TrustPolicy(waits=QUICK))
        result = strategy.start(later.grid, initial_arrays=found.arrays, num_rounds=2)
        signed = later.sign(tmp_path / "m.safetensors", result.arrays)
        trust = later.trust_file()
        verified = artifacts.verify(signed.path, trust=trust, identity=str(later.signer))
    np.testing.assert_allclose(weights(result.arrays), [6, 7, 8, 9], rtol=1e-6)
    assert verified.lineage is not None
    assert verified.rounds == 5
    assert len(verified.lineage.runs) == 3


@pytest.mark.parametrize(
    "make", [lambda: FedAdam(fraction_evaluate=0.0), lambda: FedMedian(fraction_evaluate=0.0)]
)
def test_strategies_with_a_state_are_made_again_from_the_first_arrays(
    tmp_path: Path, make: Callable[[], Strategy]
) -> None:
    world = World(tmp_path, make)
    with world.federation:
        found = world.replay(since=world.signed_at(3))
        assert found.reproduced == 2
        assert np.isfinite(weights(found.arrays)).all()
        assert found.steps[0].tensors == tensor_set_of_record(found.arrays)


def test_another_strategy_than_the_run_s_own_is_found_out(world: World) -> None:
    with pytest.raises(Conflict) as refusal:
        world.replay(since=world.signed_at(3), strategy=lambda: FedMedian(fraction_evaluate=0.0))
    assert refusal.value.reason == "not-reproduced"


def test_somebody_who_is_in_no_round_cannot_be_left_out(world: World) -> None:
    with pytest.raises(NotFound):
        world.replay(since=datetime.now(UTC) + timedelta(hours=1))


def test_another_recovery_key_opens_nothing(world: World, tmp_path: Path) -> None:
    key = RecoveryKey.create(tmp_path / "another.pem", passphrase=b"long enough")
    with pytest.raises(Refused):
        world.replay(key=key)


def test_what_was_not_retained_is_said(world: World) -> None:
    run = world.retained / str(int(world.federation.run_id))
    next((run / "1").iterdir()).unlink()
    with pytest.raises(EvidenceMissing):
        world.replay()
    for path in (run / "0").iterdir():
        path.unlink()
    with pytest.raises(EvidenceMissing):
        world.replay()


def test_an_update_that_no_round_admitted_is_refused(world: World, tmp_path: Path) -> None:
    """Whoever has the public key can write a file; it is not in the record."""
    from fltrust.flower.records import to_content
    from fltrust.flower.retention import Kept, Retainer
    from fltrust.identity import Digest
    from fltrust.updates import content_digest

    forged = to_content(
        RecordDict({"arrays": model(9, 9, 9, 9), "metrics": MetricRecord({"num-examples": 9})})
    )
    policy = Retention(folder=world.retained, recipient=tmp_path / "recovery.pem.pub")
    step = world.strategy.reports[0].key.step
    kept = Kept("site-0", Digest.sha256_of(b"x"), content_digest(forged), forged)
    Retainer(policy, world.federation.run_id).keep(step, 1, [kept])
    with pytest.raises(EvidenceInvalid) as refusal:
        world.replay()
    assert refusal.value.reason == "not-admitted"


def test_other_arrays_than_the_run_began_with_are_refused(world: World, tmp_path: Path) -> None:
    """Whoever has the public key can write these, too: the model, where nothing else is left of a round."""
    from fltrust.flower.records import to_content
    from fltrust.flower.retention import INITIAL, Kept, Retainer
    from fltrust.updates import content_digest

    begun = tensor_set_of_record(model(1, 2, 3, 4))
    forged = to_content(RecordDict({"arrays": model(9, 9, 9, 9)}))
    policy = Retention(folder=world.retained, recipient=tmp_path / "recovery.pem.pub")
    kept = Kept(INITIAL, begun, content_digest(forged), forged)
    Retainer(policy, world.federation.run_id).keep(0, 0, [kept])
    with pytest.raises(EvidenceInvalid):
        world.replay()


def test_a_retained_update_that_was_altered_is_refused(world: World) -> None:
    (path, *_) = sorted((world.retained / str(int(world.federation.run_id)) / "1").iterdir())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Tampered):
        world.replay()

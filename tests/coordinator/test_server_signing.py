"""Signing, lineage, trust and audit over gRPC, as people call them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from artifact_world import model_payload
from server_world import Person, ServedWorld, served

from fltrust.artifacts.envelope import SignedEnvelope
from fltrust.artifacts.evidence import Trust, verify_bundle
from fltrust.artifacts.logkeys import log_keys_of
from fltrust.artifacts.ports import StepOfRun
from fltrust.artifacts.trustfile import TrustFile
from fltrust.coordinator.serving import ServerSettings
from fltrust.coordinator.statements import open_statement
from fltrust.errors import LimitExceeded, NotFound, PermissionDenied, Revoked
from fltrust.identity import Role, RunId
from fltrust.keys import generate
from fltrust.pki import create_csr
from fltrust.tlog.checkpoint import CheckpointPolicy
from fltrust.wire import methods
from fltrust.wire.artifacts import AuditQuery
from fltrust.wire.audit import AuditLine
from fltrust.wire.errors import error_from_call


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorld]:
    with served(tmp_path_factory.mktemp("signing")) as world:
        yield world


@pytest.fixture(scope="module")
def signer(world: ServedWorld) -> Person:
    return world.join("release", Role.SIGNER)


def sign(person: Person, payload: bytes) -> bytes:
    key = generate()
    certificate = person.client.certify_signer(create_csr(key))[0]
    return person.client.countersign(SignedEnvelope.sign(payload, signer=key).to_json(), certificate)


def test_a_signer_signs_and_anybody_verifies_with_the_trust_file(world: ServedWorld, signer: Person) -> None:
    bundle = sign(signer, model_payload())
    trust = Trust.of(TrustFile.parse(world.join("reader").client.trust_file()))
    assert verify_bundle(bundle, trust=trust).signer == str(signer.spiffe_id)


def test_a_statement_far_above_the_usual_message_is_taken(signer: Person, world: ServedWorld) -> None:
    from fltrust.artifacts.manifest import FileEntry, Manifest
    from fltrust.artifacts.oms import ModelStatement

    files = tuple(FileEntry(f"layer/{n:06d}", (n.to_bytes(32, "big"),), 1) for n in range(20_000))
    payload = ModelStatement("large", Manifest(files, (), {})).encode()
    assert len(payload) > 2 * 2**20
    bundle = sign(signer, payload)
    verify_bundle(bundle, trust=Trust.of(TrustFile.parse(signer.client.trust_file())))


def test_a_revocation_does_not_wait_for_a_statement_that_is_being_read(
    world: ServedWorld, signer: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement about 100,000 files takes seconds to read; whoever sends many must not hold up a stop."""
    reading, goes_on = threading.Event(), threading.Event()

    def slowly(*args: Any, **kwargs: Any) -> Any:
        reading.set()
        assert goes_on.wait(30)
        return open_statement(*args, **kwargs)

    monkeypatch.setattr("fltrust.coordinator.signing.open_statement", slowly)
    done: list[bytes] = []
    thread = threading.Thread(target=lambda: done.append(sign(signer, model_payload())))
    thread.start()
    try:
        assert reading.wait(30)
        world.revoke(world.join("in-a-hurry"))
        assert not done
    finally:
        goes_on.set()
        thread.join()
    assert done


def test_an_audit_streams_every_entry_with_its_proof(world: ServedWorld, signer: Person) -> None:
    for number in range(30):
        world.join(f"many-{number}")
    policy = CheckpointPolicy(log_keys_of(TrustFile.parse(world.operator.client.trust_file())))
    lines = [AuditLine.parse(data) for data in world.operator.client.audit(AuditQuery())]
    sizes = {line.verify(policy)[1].head.size for line in lines}
    assert [line.index for line in lines] == list(range(sizes.pop()))
    assert not sizes
    mine = [AuditLine.parse(d) for d in world.operator.client.audit(AuditQuery(participant=signer.spiffe_id))]
    assert {line.kind for line in mine} >= {"certificate", "trust-event", "precertificate", "statement"}
    assert all(str(signer.spiffe_id) in line.subjects for line in mine)
    cut = AuditQuery(since=lines[5].at, until=lines[9].at)
    assert [AuditLine.parse(d).index for d in world.operator.client.audit(cut)] == [
        line.index for line in lines if lines[5].at <= line.at < lines[9].at
    ]


def test_streams_are_for_those_who_may_and_their_errors_are_ours(world: ServedWorld, signer: Person) -> None:
    with pytest.raises(PermissionDenied):
        next(signer.client.audit(AuditQuery()))
    with pytest.raises(NotFound):
        next(signer.client.find_lineage(StepOfRun(RunId(4), 1)))
    with pytest.raises(PermissionDenied):
        next(world.join("site").client.find_lineage(StepOfRun(RunId(4), 1)))


def test_a_stream_that_nobody_takes_ends_and_its_slot_is_free_again(tmp_path: Path) -> None:
    settings = ServerSettings(large_per_identity=1, rate=10_000, burst=10_000, bootstrap_burst=10_000)
    with served(tmp_path, settings=settings) as world:
        for number in range(20):
            world.join(f"s-{number}")
        for _ in range(3):
            stream = world.operator.client.audit(AuditQuery())
            next(stream)
            stream.close()  # type: ignore[attr-defined]
        deadline = 50
        while deadline:
            try:
                assert len(list(world.operator.client.audit(AuditQuery()))) > 40
                return
            except LimitExceeded:
                deadline -= 1
        pytest.fail("expected the slot of a stream that was closed to be free")


def test_a_signer_that_is_revoked_is_refused_by_every_method(world: ServedWorld) -> None:
    person = world.join("short-lived", Role.SIGNER)
    world.revoke(person)
    with pytest.raises(Revoked):
        person.client.certify_signer(create_csr(generate()))
    with pytest.raises(Revoked):
        person.client.trust_file()
    with pytest.raises(Revoked):
        next(person.client.find_lineage(StepOfRun(RunId(4), 1)))


def test_large_calls_have_their_own_few_slots(tmp_path: Path) -> None:
    settings = ServerSettings(large=0, rate=10_000, burst=10_000)
    with served(tmp_path, settings=settings) as world:
        person = world.join("release", Role.SIGNER)
        with world.channel(person.credentials) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(methods.COUNTERSIGN)(b"", timeout=10)
        assert error_from_call(caught.value).reason == "too-many-large-calls"
        person.client.trust_file()

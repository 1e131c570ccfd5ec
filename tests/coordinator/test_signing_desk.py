"""The coordinator countersigns what its caller may say, and nothing else."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from artifact_world import Leaf, Studio, model_digest, model_payload, tensors_digest
from authority_world import Authorities, Member, World

from fltrust.artifacts.bundle import SigstoreBundle
from fltrust.artifacts.envelope import SignedEnvelope
from fltrust.artifacts.evidence import Trust, verify_bundle
from fltrust.artifacts.ports import EntryKind, StepOfRun
from fltrust.artifacts.provenance import BuildType, Provenance
from fltrust.artifacts.trustfile import TrustFile
from fltrust.artifacts.vsa import verification_summary
from fltrust.coordinator import signing
from fltrust.errors import (
    CertificateRefused,
    Conflict,
    FltrustError,
    LimitExceeded,
    Malformed,
    NotFound,
    Oversized,
    PermissionDenied,
    Revoked,
    SignatureInvalid,
    StatementRefused,
)
from fltrust.identity import Digest, Epoch, Role, RunId
from fltrust.keys import generate
from fltrust.pki import create_csr
from fltrust.tlog.entries import LogKind

RUN = RunId(77)


@pytest.fixture
def world(ca: Authorities) -> Iterator[World]:
    """In memory: what is refused is refused before a database is asked. See test_taint for both of them."""
    world = World("sqlite://", ca=ca)
    yield world
    world.close()


@pytest.fixture
def signer(world: World) -> Member:
    return world.join("release", Role.SIGNER)


@pytest.fixture
def studio(world: World, aggregator: Member, signer: Member) -> Studio:
    return Studio(world, aggregator, signer)


@pytest.fixture
def sites(world: World) -> list[Member]:
    return [world.join(name) for name in ("a", "b")]


def size_of(world: World) -> int:
    with world.authority.ledger.reading() as tx:
        return tx.tlog.head.size


# What is good.


@pytest.mark.parametrize("kind", list(EntryKind))
def test_a_countersigned_model_verifies_offline_years_later(
    world: World, studio: Studio, signer: Member, kind: EntryKind
) -> None:
    bundle = studio.sign(signer, model_payload(), kind=kind)
    trust = world.session(signer).trust_file()
    world.clock.advance(timedelta(days=2_000))  # certificates of the signer, the issuer and the authority end
    found = verify_bundle(bundle, trust=Trust.of(TrustFile.parse(trust)))
    assert (found.signer, found.issuer) == (str(signer.spiffe_id), f"spiffe://{signer.spiffe_id.domain}")


def test_everything_stands_in_the_log_in_the_order_of_what_happened(
    world: World, studio: Studio, signer: Member
) -> None:
    before = size_of(world)
    bundle = SigstoreBundle.parse(studio.sign(signer, model_payload()))
    with world.authority.ledger.reading() as tx:
        kinds = [entry.kind for entry in tx.tlog.read(before, before + 9)]
        (entry,) = tx.tlog.read(before + 1, before + 2)
        (record,) = tx.models.all()
    assert kinds == [LogKind.PRECERTIFICATE, LogKind.STATEMENT]
    assert (entry.data, entry.index) == (bundle.entries[0].body, bundle.entries[0].index)
    assert (record.log_index, record.signer, record.name) == (entry.index, signer.spiffe_id, "m.bin")


def test_the_same_envelope_again_gives_the_same_bundle_also_after_its_certificate_ran_out(
    world: World, studio: Studio, signer: Member
) -> None:
    leaf = studio.leaf(signer)
    envelope = SignedEnvelope.sign(model_payload(), signer=leaf.signer)
    desk = world.session(signer)
    first = desk.countersign(envelope.to_json(), leaf.certificate)
    size = size_of(world)
    spaced = json.dumps(json.loads(envelope.to_json()), indent=1).encode()
    assert desk.countersign(spaced, leaf.certificate) == first
    world.clock.advance(timedelta(hours=1))
    assert desk.countersign(envelope.to_json(), leaf.certificate) == first
    assert size_of(world) == size
    with pytest.raises(CertificateRefused):  # another kind of entry is another request
        desk.countersign(envelope.to_json(), leaf.certificate, entry_kind=EntryKind.DSSE)


def test_one_certificate_signs_several_statements_while_it_lives(studio: Studio, signer: Member) -> None:
    leaf = studio.leaf(signer)
    assert studio.sign(signer, model_payload("a"), leaf=leaf) != studio.sign(
        signer, model_payload("b"), leaf=leaf
    )


def test_a_verification_summary_is_logged(world: World, studio: Studio, signer: Member) -> None:
    summary = verification_summary(
        name="m",
        subject=tensors_digest(),
        is_passed=True,
        at=world.clock.now(),
        policy=tensors_digest(),
        policy_uri="policy.toml",
        inputs={"signature": tensors_digest()},
    )
    studio.verify(studio.sign(signer, summary))


# Who, and with what certificate.


@pytest.mark.parametrize("role", [Role.PARTICIPANT, Role.OPERATOR])
def test_a_participant_and_an_operator_sign_nothing(
    world: World, studio: Studio, signer: Member, role: Role
) -> None:
    member = world.operator if role is Role.OPERATOR else world.join("site")
    leaf = studio.leaf(signer)
    envelope = SignedEnvelope.sign(model_payload(), signer=leaf.signer).to_json()
    with pytest.raises(PermissionDenied):
        world.session(member).certify_signer(create_csr(generate()))
    with pytest.raises(PermissionDenied):
        world.session(member).countersign(envelope, leaf.certificate)


def test_names_come_from_the_callers_certificate_and_never_from_the_request(
    world: World, signer: Member
) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding

    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(f"spiffe://{signer.spiffe_id.domain}/coordinator")]
    )
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")]))
        .add_extension(names, critical=True)
        .sign(key, hashes.SHA256())
    )
    chain = world.session(signer).certify_signer(csr.public_bytes(Encoding.DER))
    leaf = x509.load_der_x509_certificate(chain[0])
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.UniformResourceIdentifier) == [str(signer.spiffe_id)]
    assert list(leaf.subject) == []


def test_a_key_is_certified_once(world: World, studio: Studio, signer: Member) -> None:
    csr = create_csr(generate())
    world.session(signer).certify_signer(csr)
    with pytest.raises(FltrustError, match="key"):
        world.session(signer).certify_signer(csr)
    with pytest.raises(FltrustError, match="key"):
        world.session(signer).certify_signer(create_csr(signer.signer))


def test_an_identity_has_a_bounded_number_of_certificates_to_sign_with(
    world: World, signer: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "MAX_LIVE_SIGNING", 3)
    world.session(signer).certify_signer(create_csr(generate()))
    world.session(signer).certify_signer(create_csr(generate()))
    with pytest.raises(LimitExceeded) as caught:
        world.session(signer).certify_signer(create_csr(generate()))
    assert caught.value.reason == "too-many-certificates"
    world.renew(signer)
    world.clock.advance(timedelta(minutes=11))
    world.session(signer).certify_signer(create_csr(generate()))


def test_a_certificate_of_somebody_else_signs_nothing_for_the_caller(
    world: World, studio: Studio, signer: Member
) -> None:
    other = world.join("other", Role.SIGNER)
    leaf = studio.leaf(other)
    with pytest.raises(CertificateRefused) as caught:
        studio.sign(signer, model_payload(), leaf=leaf)
    assert caught.value.reason == "wrong-certificate"


def test_the_bundle_of_somebody_else_is_not_given_away(world: World, studio: Studio, signer: Member) -> None:
    other, leaf = world.join("other", Role.SIGNER), studio.leaf(signer)
    studio.sign(signer, payload := model_payload(), leaf=leaf)
    with pytest.raises(CertificateRefused):
        studio.sign(other, payload, leaf=leaf)


def test_a_certificate_for_the_connection_is_none_to_sign_with(studio: Studio, signer: Member) -> None:
    with pytest.raises(CertificateRefused) as caught:
        studio.sign(signer, model_payload(), leaf=Leaf(signer.signer, signer.chain[0]))
    assert caught.value.reason == "certificate-profile"


def test_an_expired_certificate_signs_nothing(world: World, studio: Studio, signer: Member) -> None:
    leaf = studio.leaf(signer)
    world.clock.advance(timedelta(minutes=11))
    with pytest.raises(CertificateRefused) as caught:
        studio.sign(signer, model_payload(), leaf=leaf)
    assert caught.value.reason == "certificate-expired"


@pytest.mark.parametrize("data", [b"", b"\x30\x00", b"\x30" * 200])
def test_what_is_no_certificate_is_refused(studio: Studio, signer: Member, data: bytes) -> None:
    with pytest.raises(FltrustError):
        studio.sign(signer, model_payload(), leaf=Leaf(generate(), data or b"\x00"))


def test_a_revoked_signer_gets_no_certificate_and_no_countersignature(
    world: World, studio: Studio, signer: Member
) -> None:
    leaf = studio.leaf(signer)
    world.revoke(signer)
    with pytest.raises(Revoked):
        studio.leaf(signer)
    with pytest.raises(Revoked):
        studio.sign(signer, model_payload(), leaf=leaf)


def test_a_signing_certificate_stays_barred_when_its_owner_is_enrolled_anew(
    world: World, studio: Studio, signer: Member
) -> None:
    leaf = studio.leaf(signer)
    world.revoke(signer)
    again = world.join("release", Role.SIGNER, token=world.token("release", Role.SIGNER, replace=True))
    with pytest.raises(Revoked):
        studio.sign(again, model_payload(), leaf=leaf)
    studio.sign(again, model_payload())


# What is signed.


def test_a_signature_by_another_key_is_refused(studio: Studio, signer: Member) -> None:
    leaf = studio.leaf(signer)
    with pytest.raises(SignatureInvalid):
        studio.sign(signer, model_payload(), leaf=replace(leaf, signer=generate()))


def _envelope(payload: bytes, *, kind: str = "application/vnd.in-toto+json", signatures: int = 1) -> bytes:
    entry = {"sig": b64encode(b"\x30" * 70).decode()}
    return json.dumps(
        {"payload": b64encode(payload).decode(), "payloadType": kind, "signatures": [entry] * signatures}
    ).encode()


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        b"{}",
        b"[]",
        _envelope(b"{}", kind="text/plain"),
        _envelope(b"{}", signatures=0),
        _envelope(b"{}", signatures=2),
        _envelope(b"{}").replace(b'"payload"', b'"payload": "", "payload"', 1),
    ],
)
def test_an_envelope_that_is_not_strict_dsse_is_malformed(
    world: World, studio: Studio, signer: Member, envelope: bytes
) -> None:
    size, leaf = size_of(world), studio.leaf(signer)
    with pytest.raises(Malformed):
        world.session(signer).countersign(envelope, leaf.certificate)
    assert size_of(world) == size + 1  # the certificate alone


def test_an_envelope_is_bounded_before_it_is_parsed(world: World, signer: Member, studio: Studio) -> None:
    leaf = studio.leaf(signer)
    with pytest.raises(Oversized):
        world.session(signer).countersign(b"{" * (signing.MAX_ENVELOPE + 1), leaf.certificate)


def _statement(**changes: Any) -> bytes:
    return json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "predicateType": "urn:fltrust:statement:status:v1",
            "subject": [{"name": "x", "digest": {"sha256": "00" * 32}}],
            "predicate": {},
        }
        | changes
    ).encode()


@pytest.mark.parametrize(
    "payload",
    [
        b"hello",
        b"{}",
        _statement(),  # the coordinator's own
        _statement(predicateType="urn:fltrust:statement:update:v1"),
        _statement(predicateType="https://slsa.dev/provenance/v0.2"),
        _statement(predicateType="https://example.org/anything"),
        _statement(predicateType="https://slsa.dev/verification_summary/v1"),
        _statement(predicateType="https://slsa.dev/provenance/v1"),
        _statement(predicateType="https://model_signing/signature/v1.0"),
        _statement(_type="https://in-toto.io/Statement/v0.1"),
    ],
)
def test_a_statement_of_another_kind_is_refused_and_leaves_no_trace(
    world: World, studio: Studio, signer: Member, payload: bytes
) -> None:
    leaf = studio.leaf(signer)
    size = size_of(world)
    with pytest.raises((StatementRefused, Malformed)):
        studio.sign(signer, payload, leaf=leaf)
    assert size_of(world) == size


# Provenance.


def test_an_aggregate_is_recorded_with_its_round(world: World, studio: Studio, sites: list[Member]) -> None:
    start = studio.start(RUN)
    first = studio.train(RUN, 1, sites, start)
    with world.authority.ledger.reading() as tx:
        record = tx.aggregates.get(RUN, 1)
    assert record is not None
    assert (record.bundle, record.previous) == (first.bundle, start.as_input.model)
    assert list(world.session(studio.signer).find_lineage(StepOfRun(RUN, 1))) == [first.bundle, start.bundle]


def test_an_initial_model_may_be_stated_after_its_first_round_was_sealed(
    studio: Studio, sites: list[Member]
) -> None:
    initial = studio.initial(RUN)
    facts = studio.seal(RUN, 1, sites, initial.model)
    start = studio.record(initial)
    studio.record(studio.round_of(facts, start.as_input))


Lie = Callable[[Provenance], Provenance]


@pytest.mark.parametrize(
    "lie",
    [
        lambda s: replace(s, round=s.round + 1),
        lambda s: replace(s, sealed=replace(s.sealed, epoch=Epoch(int(s.sealed.epoch) + 1))),
        lambda s: replace(s, sealed=replace(s.sealed, receipt=tensors_digest())),
        lambda s: replace(s, sealed=replace(s.sealed, log_index=s.sealed.log_index + 1)),
        lambda s: replace(s, updates=s.updates[:1]),
        lambda s: replace(s, updates=(replace(s.updates[0], update=tensors_digest()), *s.updates[1:])),
        lambda s: replace(s, updates=(replace(s.updates[0], certificate=tensors_digest()), *s.updates[1:])),
        lambda s: replace(
            s, updates=(replace(s.updates[0], public_name=f"spiffe://{s.domain}/participant/z"), s.updates[1])
        ),
        lambda s: replace(s, trained_from=model_digest()),
        lambda s: replace(s, previous=replace(s.previous, model=model_digest())),
        lambda s: replace(s, previous=replace(s.previous, tensors=tensors_digest())),
        lambda s: replace(s, previous=replace(s.previous, log_index=s.previous.log_index + 1)),
        lambda s: replace(s, step=s.step + 1),
        lambda s: replace(s, run_id=RunId(5), previous=replace(s.previous, run_id=RunId(5))),
    ],
)
def test_provenance_that_lies_about_one_thing_is_refused(
    world: World, studio: Studio, sites: list[Member], lie: Lie
) -> None:
    start = studio.start(RUN)
    said = studio.round_of(studio.seal(RUN, 1, sites, start.as_input.model), start.as_input)
    leaf = studio.leaf(studio.aggregator)
    size = size_of(world)
    with pytest.raises((StatementRefused, NotFound)):
        studio.sign(studio.aggregator, lie(said).to_payload(), leaf=leaf)
    assert size_of(world) == size
    studio.record(said)


def test_a_parent_is_not_hidden_behind_another(studio: Studio, sites: list[Member]) -> None:
    """Who trained from step 1 and names step 0 as the model before would shake off step 1's taint."""
    start = studio.start(RUN)
    first = studio.train(RUN, 1, sites, start)
    facts = studio.seal(RUN, 2, sites, first.as_input.model)
    hiding = studio.round_of(facts, start.as_input)
    assert hiding.trained_from == first.as_input.model
    with pytest.raises(StatementRefused, match="trained from"):
        studio.record(hiding)


def test_another_aggregate_for_a_step_is_a_conflict(studio: Studio, sites: list[Member]) -> None:
    start = studio.start(RUN)
    facts = studio.seal(RUN, 1, sites, start.as_input.model)
    studio.record(studio.round_of(facts, start.as_input))
    with pytest.raises(Conflict) as caught:
        studio.record(studio.round_of(facts, start.as_input))
    assert caught.value.reason == "aggregate-recorded"
    with pytest.raises(Conflict):
        studio.start(RUN)


def test_the_aggregator_of_another_run_states_nothing_about_this_one(
    world: World, studio: Studio, sites: list[Member]
) -> None:
    start = studio.start(RUN)
    facts = studio.seal(RUN, 1, sites, start.as_input.model)
    other = world.join("second", Role.AGGREGATOR)
    with pytest.raises(PermissionDenied):
        world.session(other).describe_round(RUN, 1)
    said = studio.round_of(facts, start.as_input)
    with pytest.raises(StatementRefused):  # the honest statement names its builder
        studio.record(said, by=other)
    with pytest.raises(PermissionDenied):
        studio.record(replace(said, builder=other.spiffe_id), by=other)
    with pytest.raises(PermissionDenied):
        studio.record(replace(studio.initial(RUN, step=3), builder=other.spiffe_id), by=other)


def test_a_round_that_is_open_or_was_never_opened_has_no_provenance(
    studio: Studio, sites: list[Member]
) -> None:
    start = studio.start(RUN)
    facts = studio.seal(RUN, 1, sites, start.as_input.model)
    said = studio.round_of(replace(facts, step=2), start.as_input)
    with pytest.raises((StatementRefused, NotFound)):
        studio.record(said)


def test_a_signer_states_no_round_and_no_beginning(studio: Studio, sites: list[Member]) -> None:
    start = studio.start(RUN)
    said = studio.round_of(studio.seal(RUN, 1, sites, start.as_input.model), start.as_input)
    for payload in (said.to_payload(), studio.initial(RunId(9)).to_payload()):
        with pytest.raises((StatementRefused, PermissionDenied)):
            studio.sign(studio.signer, payload)


def test_a_replay_is_recorded_as_a_run_of_its_own(world: World, studio: Studio, sites: list[Member]) -> None:
    start = studio.start(RUN)
    facts = studio.seal(RUN, 1, sites, start.as_input.model)
    tainted = studio.record(studio.round_of(facts, start.as_input))
    replay = studio.replay_of(
        facts, tainted.as_input, start.as_input, sites[0], builder=studio.signer.spiffe_id
    )
    done = studio.record(replay, by=studio.signer)
    with world.authority.ledger.reading() as tx:
        kept = tx.contributions.of_round(replay.run_id, replay.step)
    assert [item.participant for item in kept] == [sites[1].spiffe_id]
    lineage = list(world.session(studio.signer).find_lineage(done.as_input.tensors))
    assert lineage == [done.bundle, start.bundle]


@pytest.mark.parametrize(
    "lie",
    [
        lambda s: replace(s, updates=(replace(s.updates[0], update=tensors_digest()),)),
        lambda s: replace(s, without=(f"spiffe://{s.domain}/participant/zz",)),
        lambda s: replace(s, sealed=replace(s.sealed, log_index=0)),
        lambda s: replace(s, round=9),
        lambda s: replace(s, tainted=replace(s.tainted, tensors=tensors_digest())),
        lambda s: replace(s, previous=replace(s.previous, tensors=tensors_digest())),
        lambda s: replace(s, trained_from=model_digest()),
    ],
)
def test_a_replay_that_lies_about_one_thing_is_refused(studio: Studio, sites: list[Member], lie: Lie) -> None:
    start = studio.start(RUN)
    facts = studio.seal(RUN, 1, sites, start.as_input.model)
    tainted = studio.record(studio.round_of(facts, start.as_input))
    replay = studio.replay_of(facts, tainted.as_input, start.as_input, sites[0])
    assert replay.build_type is BuildType.REPLAYED_ROUND
    with pytest.raises(StatementRefused):
        studio.record(lie(replay))


# Models and their lineage.


def test_a_model_may_name_the_aggregate_that_it_comes_from(world: World, studio: Studio) -> None:
    start = studio.start(RUN)
    index = studio.release(start)
    with world.authority.ledger.reading() as tx:
        (record,) = tx.models.of_aggregate(RUN, 0)
    assert record.log_index == index


def test_the_lineage_of_a_model_is_that_of_the_run_that_made_it(
    world: World, studio: Studio, sites: list[Member]
) -> None:
    """Another aggregator who begins a run with the same tensors cannot put its own in between."""
    made = studio.train(RUN, 1, sites, studio.start(RUN))
    other = world.join("second", Role.AGGREGATOR)
    same = {"tensors": made.as_input.tensors, "model": made.as_input.model, "builder": other.spiffe_id}
    studio.record(studio.initial(RunId(9), **same), by=other)
    lineage = world.session(studio.signer).find_lineage(made.as_input.tensors)
    assert next(lineage) == made.bundle


@pytest.mark.parametrize(
    "change",
    [
        {"aggregate": tensors_digest()},
        {"log_index": 0},
        {"bundle": Digest.sha256_of(b"another")},
        {"count": 2},
        {"step": 1},
        {"run_id": RunId(3)},
    ],
)
def test_a_model_that_lies_about_its_lineage_is_refused(studio: Studio, change: dict[str, Any]) -> None:
    start = studio.start(RUN)
    payload = model_payload(link=replace(start.link, **change))
    with pytest.raises(StatementRefused):
        studio.sign(studio.signer, payload)


# Crash and restart.


def test_what_was_countersigned_is_there_after_a_restart(database_url: str, ca: Authorities) -> None:
    world = World(database_url, ca=ca)
    signer = world.join("release", Role.SIGNER)
    studio = Studio(world, world.join("main", Role.AGGREGATOR), signer)
    leaf, payload = studio.leaf(signer), model_payload()
    envelope = SignedEnvelope.sign(payload, signer=leaf.signer).to_json()
    bundle = world.session(signer).countersign(envelope, leaf.certificate)
    world.reopen()
    assert world.session(signer).countersign(envelope, leaf.certificate) == bundle
    studio.verify(bundle)
    world.close()

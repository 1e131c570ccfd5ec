"""The recipe: what `verify` accepts, and with which word it refuses everything else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from signed_world import MAIN, RELEASE, EntryKind, SignedWorld, safetensors

from fltrust.artifacts.identity import IdentityRule
from fltrust.artifacts.policy import Mode, OnTaint, Policy
from fltrust.artifacts.recipe import verify, verify_signature
from fltrust.artifacts.status import RevokedName, Status, TaintedAggregate, TaintedModel
from fltrust.artifacts.trustfile import TrustFile
from fltrust.errors import (
    ArtifactRefused,
    EvidenceInvalid,
    EvidenceMissing,
    FltrustError,
    Malformed,
    NotFound,
    PolicyNotMet,
    Revoked,
    Tainted,
    Tampered,
    UntrustedSigner,
)
from fltrust.identity import Digest, Epoch, Role, RunId, SpiffeId
from fltrust.testing.desk import DOMAIN, ScratchDesk
from fltrust.tlog.checkpoint import CosignerKey


@pytest.fixture
def world(tmp_path: Path) -> SignedWorld:
    return SignedWorld.make(tmp_path)


def refusal(world: SignedWorld, **options: object) -> FltrustError:
    with pytest.raises(FltrustError) as caught:
        world.verify(**options)
    return caught.value


def status(world: SignedWorld, **changes: object) -> Status:
    known = Status(domain=DOMAIN, epoch=Epoch(7), at=world.desk.clock.now())
    return replace(known, **changes)


def revoked(
    name: str, at: datetime, *, since: datetime | None = None, certificates: frozenset[Digest] | None = None
) -> RevokedName:
    return RevokedName(name, at, since, certificates is None, certificates or frozenset(), "key-compromise")


@pytest.mark.parametrize("kind", EntryKind)
def test_a_signed_model_is_verified_with_either_kind_of_log_entry(
    world: SignedWorld, kind: EntryKind
) -> None:
    signed = world.sign(entry_kind=kind)
    found = world.verify()
    assert found.is_accepted
    assert (found.signer, found.issuer) == (RELEASE, f"spiffe://{DOMAIN}")
    assert found.signed_at == world.desk.clock.now()
    assert found.evidence.log_index == signed.evidence.log_index
    assert found.statement == signed.statement
    assert found.bundle == signed.bundle


def test_a_directory_is_verified_with_its_signature_inside(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    world = SignedWorld.make(folder, name="a.safetensors")
    world.model = folder
    world.sign()
    assert (folder / "model.sig").is_file()
    assert world.verify().is_accepted
    (folder / "extra.txt").write_text("more")
    assert isinstance(refusal(world), Tampered)


def test_a_model_signed_years_ago_verifies_after_every_certificate_ended(world: SignedWorld) -> None:
    world.sign()
    world.desk.clock.advance(timedelta(days=3000))  # type: ignore[attr-defined]
    assert world.verify(trust=world.desk.trust_file()).is_accepted


def test_a_lineage_is_verified_and_counted(world: SignedWorld) -> None:
    world.record_lineage()
    world.sign()
    found = world.verify()
    assert found.rounds == 2
    assert [name.rpartition("/")[2] for name in found.participants or ()] == ["site-a", "site-b", "site-c"]


# Step 1.


def test_a_model_that_is_not_there_is_not_found(world: SignedWorld) -> None:
    world.model.unlink()
    assert isinstance(refusal(world), NotFound)


def test_a_model_without_a_signature_is_unsigned(world: SignedWorld) -> None:
    found = refusal(world)
    assert isinstance(found, EvidenceMissing)
    assert found.reason == "unsigned"


def test_nothing_is_verified_without_a_name_to_expect(world: SignedWorld) -> None:
    world.sign()
    found = refusal(world, identity=None)
    assert isinstance(found, UntrustedSigner)
    assert found.reason == "identity-required"


def test_an_issuer_without_an_identity_is_a_mistake(world: SignedWorld) -> None:
    world.sign()
    assert isinstance(refusal(world, identity=None, issuer="https://accounts.example"), Malformed)


# Steps 4 to 8 are tried field by field in tests/property/test_evidence_properties.py.


def test_another_federation_signed_it(world: SignedWorld) -> None:
    world.sign()
    found = refusal(world, trust=ScratchDesk().trust_file())
    assert isinstance(found, UntrustedSigner)
    assert found.reason == "log-unknown"


def test_another_authority_under_the_same_log_signed_it(world: SignedWorld) -> None:
    world.sign()
    mine, other = (TrustFile.parse(desk.trust_file()) for desk in (world.desk, ScratchDesk()))
    authorities = other.trusted_root["certificateAuthorities"]
    mixed = replace(mine, trusted_root={**mine.trusted_root, "certificateAuthorities": authorities})
    found = refusal(world, trust=mixed)
    assert isinstance(found, UntrustedSigner)
    assert found.reason == "certificate-path"


@pytest.mark.parametrize(
    ("list_name", "reason", "cls"),
    [
        ("ctlogs", "sct-invalid", EvidenceInvalid),
        ("tlogs", "log-unknown", UntrustedSigner),
        ("timestampAuthorities", "timestamp-untrusted", EvidenceInvalid),
    ],
)
def test_a_trust_file_that_does_not_name_a_notary_refuses_what_it_made(
    world: SignedWorld, list_name: str, reason: str, cls: type[FltrustError]
) -> None:
    world.sign()
    mine = TrustFile.parse(world.desk.trust_file())
    found = refusal(world, trust=replace(mine, trusted_root={**mine.trusted_root, list_name: []}))
    assert isinstance(found, cls)
    assert found.reason == reason


@pytest.mark.parametrize(
    ("list_name", "reason"),
    [
        ("ctlogs", "sct-invalid"),
        ("tlogs", "log-unknown"),
        ("timestampAuthorities", "timestamp-untrusted"),
        ("certificateAuthorities", "certificate-path"),
    ],
)
def test_a_notary_whose_window_was_closed_before_is_not_believed(
    world: SignedWorld, list_name: str, reason: str
) -> None:
    world.sign()
    mine = TrustFile.parse(world.desk.trust_file())
    window = {"start": "2020-01-01T00:00:00Z", "end": "2021-01-01T00:00:00Z"}
    entries = []
    for entry in mine.trusted_root[list_name]:  # type: ignore[attr-defined]
        if "publicKey" in entry:
            entries.append({**entry, "publicKey": {**entry["publicKey"], "validFor": window}})
        else:
            entries.append({**entry, "validFor": window})
    found = refusal(world, trust=replace(mine, trusted_root={**mine.trusted_root, list_name: entries}))
    assert found.reason == reason


def test_a_timestamp_is_demanded_by_policy(world: SignedWorld) -> None:
    world.sign(entry_kind=EntryKind.DSSE)
    world.edit(lambda b: b["verificationMaterial"].pop("timestampVerificationData"))
    assert world.verify().is_accepted  # the log's own signed time will do
    assert refusal(world, policy=Policy(require_timestamp=True)).reason == "timestamp-missing"


def test_without_any_time_nothing_is_accepted(world: SignedWorld) -> None:
    world.sign()
    world.edit(lambda b: b["verificationMaterial"].pop("timestampVerificationData"))
    found = refusal(world)
    assert isinstance(found, EvidenceMissing)
    assert found.reason == "timestamp-missing"


def test_a_log_entry_is_demanded_unless_the_policy_says_otherwise(world: SignedWorld) -> None:
    world.sign()
    world.edit(lambda b: b["verificationMaterial"].update(tlogEntries=[]))
    assert refusal(world).reason == "log-missing"
    assert world.verify(policy=Policy(require_log=False)).evidence.log_index is None


def test_a_timestamp_after_the_certificate_ended_is_refused(world: SignedWorld) -> None:
    desk = world.desk
    world.sign()
    from fltrust.artifacts.bundle import SigstoreBundle

    old = SigstoreBundle.parse(world.signature.read_bytes())
    desk.clock.advance(timedelta(hours=2))  # type: ignore[attr-defined]
    late = desk.notary.timestamps.timestamp(old.envelope.signature)
    world.signature.write_bytes(replace(old, timestamps=(late,)).to_json())
    found = refusal(world)
    assert isinstance(found, EvidenceInvalid)
    assert found.reason == "certificate-expired"


def test_witnesses_are_counted_by_policy(world: SignedWorld) -> None:
    from fltrust.keys.ed25519 import generate_note_key

    one, two = (CosignerKey(f"witness.example/{n}", generate_note_key()) for n in (1, 2))
    world.desk.witnesses = [one]
    world.sign()
    keys = tuple(str(w.verifier) for w in (one, two))
    assert world.verify(policy=Policy(witnesses=keys, min_witnesses=1)).evidence.witnesses == {one.name}
    found = refusal(world, policy=Policy(witnesses=keys, min_witnesses=2))
    assert isinstance(found, PolicyNotMet)
    assert found.reason == "witnesses"


# Step 9.


@pytest.mark.parametrize(
    "pattern", [RELEASE, f"spiffe://{DOMAIN}/signer/*", f"spiffe://{DOMAIN}/signer/rel*"]
)
def test_a_signer_may_be_named_by_a_pattern(world: SignedWorld, pattern: str) -> None:
    world.sign()
    assert world.verify(identity=pattern).is_accepted
    assert world.verify(identity=None, policy=Policy(signers=(IdentityRule(pattern),))).is_accepted


@pytest.mark.parametrize(
    "pattern",
    [
        f"spiffe://{DOMAIN}/signer/other",
        f"spiffe://{DOMAIN}/*/other",
        "spiffe://other.example/signer/release",
        f"spiffe://{DOMAIN}/signer/releas",
    ],
)
def test_another_name_is_not_this_signer(world: SignedWorld, pattern: str) -> None:
    world.sign()
    found = refusal(world, identity=pattern)
    assert isinstance(found, UntrustedSigner)
    assert found.reason == "untrusted-signer"


def test_a_name_vouched_for_by_another_issuer_is_not_this_signer(world: SignedWorld) -> None:
    world.sign()
    found = refusal(world, identity=RELEASE, issuer="https://accounts.example")
    assert found.reason == "untrusted-signer"


def test_whom_the_caller_names_takes_the_place_of_the_policys_signers(world: SignedWorld) -> None:
    world.sign()
    policy = Policy(signers=(IdentityRule(RELEASE),))
    assert refusal(world, identity=f"spiffe://{DOMAIN}/signer/other", policy=policy).reason == (
        "untrusted-signer"
    )


# Step 10.


def test_a_statement_about_something_else_is_no_models(world: SignedWorld) -> None:
    world.signature.write_bytes(world.desk.sign(status(world).to_payload()))
    assert refusal(world).reason == "unknown-type"


# Step 11.


def test_a_signer_revoked_before_it_signed_is_refused(world: SignedWorld) -> None:
    world.sign()
    world.desk.status = status(world, revoked=(revoked(RELEASE, world.desk.clock.now()),))
    found = refusal(world)
    assert isinstance(found, Revoked)
    assert found.reason == "signer-revoked"


def test_a_signer_revoked_later_signed_well_unless_compromised_since(world: SignedWorld) -> None:
    world.sign()
    now = world.desk.clock.now()
    later = now + timedelta(days=1)
    world.desk.status = status(world, revoked=(revoked(RELEASE, later),))
    assert world.verify().is_accepted
    world.desk.status = status(world, revoked=(revoked(RELEASE, later, since=now - timedelta(hours=1)),))
    assert isinstance(refusal(world), Revoked)
    world.desk.status = status(world, revoked=(revoked(RELEASE, later, since=now + timedelta(hours=1)),))
    assert world.verify().is_accepted


def test_a_revoked_certificate_bars_what_it_signed_alone(world: SignedWorld) -> None:
    signed = world.sign()
    now = world.desk.clock.now()
    mine, other = signed.evidence.certificate, Digest.sha256_of(b"another")
    world.desk.status = status(world, revoked=(revoked(RELEASE, now, certificates=frozenset({other})),))
    assert world.verify().is_accepted
    world.desk.status = status(world, revoked=(revoked(RELEASE, now, certificates=frozenset({mine})),))
    assert isinstance(refusal(world), Revoked)


def test_an_aggregator_that_was_revoked_spoils_the_lineage(world: SignedWorld) -> None:
    world.record_lineage()
    world.sign()
    world.desk.status = status(world, revoked=(revoked(str(MAIN), world.desk.clock.now()),))
    assert isinstance(refusal(world), Revoked)


def test_a_status_that_another_than_the_coordinator_signed_is_refused(world: SignedWorld) -> None:
    world.sign()
    forged = world.desk.sign(status(world).to_payload())
    trust = replace(TrustFile.parse(world.desk.trust_file()), status=forged)
    found = refusal(world, trust=trust)
    assert isinstance(found, EvidenceInvalid)
    assert found.reason == "status-signer"


def test_a_status_is_demanded_and_aged_by_policy(world: SignedWorld) -> None:
    world.sign()
    assert "nothing is known of revocation" in world.verify().warnings[0]
    assert refusal(world, policy=Policy(require_status=True)).reason == "status-missing"
    week = Policy(max_status_age=timedelta(days=7))
    assert refusal(world, policy=week).reason == "status-missing"
    world.desk.status = status(world)
    now = world.desk.clock.now()
    assert world.verify(policy=week, at=now + timedelta(days=6)).is_accepted
    found = refusal(world, policy=week, at=now + timedelta(days=8))
    assert isinstance(found, PolicyNotMet)
    assert found.reason == "status-stale"
    assert "31 days old" in world.verify(at=now + timedelta(days=31)).warnings[0]


def test_the_newer_of_two_statuses_counts_whichever_was_given(world: SignedWorld) -> None:
    world.sign()
    old = status(world)
    new = status(world, epoch=Epoch(8), revoked=(revoked(RELEASE, world.desk.clock.now()),))
    beside = world.folder / "status.json"
    for mine, given in ((old, new), (new, old)):
        world.desk.status = mine
        beside.write_bytes(world.desk.sign_status(given))
        assert isinstance(refusal(world, status=beside), Revoked)
    world.desk.status = new
    whole = world.folder / "newer-trust.json"
    whole.write_bytes(world.desk.trust_file())
    world.desk.status = old
    assert isinstance(refusal(world, status=whole), Revoked)


def test_a_tainted_aggregate_taints_the_model_that_holds_it(world: SignedWorld) -> None:
    world.record_lineage()
    world.sign()
    taint = TaintedAggregate(world.tensors, RunId(1), 2, True)
    world.desk.status = status(world, tainted_aggregates=(taint,))
    assert isinstance(refusal(world), Tainted)
    warned = world.verify(policy=Policy(on_taint=OnTaint.WARN))
    assert any("tainted: the aggregate of step 2 of run 1" in warning for warning in warned.warnings)


def test_an_ancestor_that_is_tainted_taints_the_model(world: SignedWorld) -> None:
    world.record_lineage()
    world.sign()
    from lineage_world import sha

    world.desk.status = status(world, tainted_aggregates=(TaintedAggregate(sha("1/1"), RunId(1), 1, True),))
    assert isinstance(refusal(world), Tainted)


def test_a_tainted_model_is_known_by_its_subject(world: SignedWorld) -> None:
    signed = world.sign()
    world.desk.status = status(
        world, tainted_models=(TaintedModel(signed.statement.subject, "m.safetensors", False),)
    )
    assert isinstance(refusal(world), Tainted)


# Step 12.


def test_a_lineage_is_demanded_by_policy(world: SignedWorld) -> None:
    world.sign()
    for demand in (
        Policy(require_lineage=True),
        Policy(min_rounds=1),
        Policy(min_participants=1),
        Policy(app_hashes=frozenset({"ab" * 32})),
    ):
        found = refusal(world, policy=demand)
        assert isinstance(found, EvidenceMissing)
        assert found.reason == "lineage-missing"


def test_a_lineage_that_was_taken_away_is_told_and_refused_where_demanded(world: SignedWorld) -> None:
    world.record_lineage()
    signed = world.sign()
    assert signed.lineage is not None
    signed.lineage.unlink()
    assert any("lineage is not verified" in warning for warning in world.verify().warnings)
    assert refusal(world, policy=Policy(min_rounds=1)).reason == "lineage-missing"


def test_the_lineage_of_another_model_is_refused(world: SignedWorld, tmp_path: Path) -> None:
    world.record_lineage()
    signed = world.sign()
    (tmp_path / "other").mkdir()
    other = SignedWorld.make(tmp_path / "other", data=safetensors(b"\x00\x00\x00@" * 4))
    other.desk = world.desk
    other.record_lineage()
    theirs = other.sign()
    assert signed.lineage is not None
    assert theirs.lineage is not None
    shutil.copy(theirs.lineage, signed.lineage)
    assert refusal(world).reason == "lineage-of-another-model"


def test_a_lineage_that_was_cut_short_is_refused(world: SignedWorld) -> None:
    world.record_lineage()
    signed = world.sign()
    assert signed.lineage is not None
    lines = signed.lineage.read_bytes().splitlines(keepends=True)
    signed.lineage.write_bytes(b"".join(lines[:-1]))
    assert refusal(world).reason == "lineage-incomplete"


def test_an_aggregator_whom_the_policy_does_not_name_is_refused(world: SignedWorld) -> None:
    world.record_lineage()
    world.sign()
    rule = IdentityRule(f"spiffe://{DOMAIN}/aggregator/other")
    found = refusal(world, policy=Policy(aggregators=(rule,)))
    assert isinstance(found, UntrustedSigner)


def test_a_lineage_needs_a_trust_domain_to_be_of(world: SignedWorld) -> None:
    world.record_lineage()
    world.sign()
    plain = TrustFile(TrustFile.parse(world.desk.trust_file()).trusted_root)
    assert refusal(world, trust=plain).reason == "trust-domain"


# Step 13.


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (Policy(min_rounds=3), "too-few-rounds"),
        (Policy(min_participants=4), "too-few-participants"),
        (Policy(app_hashes=frozenset({"cd" * 32})), "app-not-allowed"),
        (Policy(formats=frozenset({".onnx"})), "format-not-allowed"),
        (Policy(max_size=10), "too-large"),
    ],
)
def test_a_demand_that_is_not_met_is_named(world: SignedWorld, policy: Policy, reason: str) -> None:
    world.record_lineage()
    world.sign()
    found = refusal(world, policy=policy)
    assert isinstance(found, PolicyNotMet)
    assert found.reason == reason


def test_demands_that_are_met_are_met(world: SignedWorld) -> None:
    world.record_lineage()
    world.sign()
    policy = Policy(
        min_rounds=2,
        min_participants=3,
        app_hashes=frozenset({"ab" * 32}),
        formats=frozenset({".safetensors"}),
        allow_pickles=False,
        max_size=10_000,
        aggregators=(IdentityRule(str(MAIN)),),
    )
    assert world.verify(policy=policy).is_accepted


# Steps 14 and 15.


def test_a_changed_byte_is_tampering(world: SignedWorld) -> None:
    world.sign()
    data = bytearray(world.model.read_bytes())
    data[-1] ^= 1
    world.model.write_bytes(data)
    found = refusal(world)
    assert isinstance(found, Tampered)
    assert found.reason == "file-changed"


def test_whoever_stops_before_the_bytes_knows_nothing_of_them(world: SignedWorld) -> None:
    world.sign()
    world.model.write_bytes(b"other")
    found = verify_signature(
        world.model, trust=world.desk.trust_file(), identity=RELEASE, at=world.desk.clock.now()
    )
    assert found.is_accepted


@pytest.mark.parametrize("name", ["m.pt", "m.bin"])
def test_a_pickle_by_name_is_refused_or_warned_of(tmp_path: Path, name: str) -> None:
    world = SignedWorld.make(tmp_path, name=name, data=b"anything")
    world.sign()
    assert any("can run code" in warning for warning in world.verify().warnings)
    assert refusal(world, policy=Policy(allow_pickles=False)).reason == "pickle"


def test_a_pickle_under_another_name_is_found_out(tmp_path: Path) -> None:
    import pickle

    world = SignedWorld.make(tmp_path, name="weights.dat", data=pickle.dumps({"a": 1}))
    world.sign()
    assert world.verify().is_accepted
    assert refusal(world, policy=Policy(allow_pickles=False)).reason == "pickle"
    told = world.verify(policy=Policy(allow_pickles=False, mode=Mode.ADVISORY))
    assert [found.reason for found in told.refusals] == ["pickle"]


def test_an_archive_that_cannot_be_looked_into_is_no_better_than_a_pickle(tmp_path: Path) -> None:
    world = SignedWorld.make(tmp_path, name="weights.dat", data=b"PK\x03\x04 and no directory at the end")
    world.sign()
    assert world.verify().is_accepted
    assert refusal(world, policy=Policy(allow_pickles=False)).reason == "pickle"


# Advisory.


def test_advisory_tells_every_refusal_and_still_gives_the_model(world: SignedWorld) -> None:
    world.record_lineage()
    world.sign()
    world.desk.status = status(
        world,
        revoked=(revoked(RELEASE, world.desk.clock.now()),),
        tainted_aggregates=(TaintedAggregate(world.tensors, RunId(1), 2, True),),
    )
    policy = Policy(mode=Mode.ADVISORY, min_rounds=9)
    found = world.verify(policy=policy, identity=f"spiffe://{DOMAIN}/signer/other")
    assert not found.is_accepted
    assert [told.reason for told in found.refusals] == [
        "untrusted-signer",
        "signer-revoked",
        "tainted",
        "too-few-rounds",
    ]
    assert found.rounds == 2


def test_advisory_does_not_take_forged_evidence_or_other_bytes(world: SignedWorld) -> None:
    world.sign()
    policy = Policy(mode=Mode.ADVISORY)
    world.edit(lambda b: b["verificationMaterial"].pop("timestampVerificationData"))
    assert isinstance(refusal(world, policy=policy), EvidenceMissing)
    world.sign()
    world.model.write_bytes(b"other")
    assert isinstance(refusal(world, policy=policy), Tampered)


def test_a_lineage_that_does_not_verify_is_no_lineage_in_advisory_mode(world: SignedWorld) -> None:
    world.record_lineage()
    signed = world.sign()
    assert signed.lineage is not None
    signed.lineage.write_bytes(signed.lineage.read_bytes().splitlines(keepends=True)[0])
    found = world.verify(policy=Policy(mode=Mode.ADVISORY))
    assert found.lineage is None
    assert [told.reason for told in found.refusals] == ["lineage-incomplete"]


def test_the_same_inputs_give_the_same_answer(world: SignedWorld) -> None:
    world.sign()
    trust = world.desk.trust_file()
    assert world.verify(trust=trust) == world.verify(trust=trust)


def test_a_policy_may_be_a_file(world: SignedWorld) -> None:
    world.sign()
    path = world.folder / "policy.toml"
    path.write_text(f'version = 1\n[[signers]]\nidentity = "{RELEASE}"\n')
    found = verify(world.model, trust=world.desk.trust_file(), policy=path, at=world.desk.clock.now())
    assert found.policy.digest == Digest.sha256_of(path.read_bytes())


def test_every_refusal_of_an_artifact_has_its_own_class() -> None:
    assert all(issubclass(cls, ArtifactRefused) for cls in (Tampered, UntrustedSigner, EvidenceMissing))


def test_the_coordinator_alone_may_not_release_models_unless_named(world: SignedWorld) -> None:
    coordinator = SpiffeId(DOMAIN, Role.COORDINATOR, None)
    world.desk = world.desk.acting_as(coordinator)
    world.sign()
    assert refusal(world).reason == "untrusted-signer"

"""sigstore-python, unchanged, takes our bundles with our trusted root, and refuses what it must."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

sigstore = pytest.importorskip("sigstore", reason="the extra 'sigstore' is not installed")

from sigstore.errors import VerificationError  # noqa: E402
from sigstore.models import Bundle, TrustedRoot  # noqa: E402
from sigstore.verify import Verifier  # noqa: E402
from sigstore.verify.policy import AllOf, Identity, OIDCIssuerV2  # noqa: E402
from sigstore_world import ISSUER, PAYLOAD_TYPE, SIGNER, SetClock, SigstoreWorld, statement  # noqa: E402

from fltrust.artifacts.ports import EntryKind  # noqa: E402
from fltrust.artifacts.trustroot import build_trusted_root  # noqa: E402
from fltrust.clock import SystemClock  # noqa: E402
from fltrust.identity import Role, SpiffeId  # noqa: E402

RIGHT = Identity(identity=str(SIGNER), issuer=ISSUER)


@pytest.fixture(scope="module")
def world() -> SigstoreWorld:
    return SigstoreWorld()


def verifier(root: bytes, folder: Path) -> Verifier:
    path = folder / "trusted_root.json"
    path.write_bytes(root)
    return Verifier(trusted_root=TrustedRoot.from_file(str(path)))


def check(world: SigstoreWorld, folder: Path, bundle: bytes, policy: Any = RIGHT) -> tuple[str, bytes]:
    found = verifier(world.trusted_root_json, folder).verify_dsse(Bundle.from_json(bundle), policy)
    return str(found[0]), bytes(found[1])


@pytest.mark.parametrize("kind", list(EntryKind))
def test_a_bundle_is_accepted_for_its_signer(world: SigstoreWorld, tmp_path: Path, kind: EntryKind) -> None:
    assert check(world, tmp_path, world.sign(kind=kind)) == (PAYLOAD_TYPE, statement())


@pytest.mark.parametrize("role", [Role.AGGREGATOR, Role.COORDINATOR])
def test_aggregators_and_the_coordinator_sign_as_well(
    world: SigstoreWorld, tmp_path: Path, role: Role
) -> None:
    who = SpiffeId.of(world.domain, role, None if role is Role.COORDINATOR else "main")
    policy = AllOf([Identity(identity=str(who)), OIDCIssuerV2(ISSUER)])
    assert check(world, tmp_path, world.sign(who=who), policy)[1] == statement()


@pytest.mark.parametrize(
    "policy",
    [
        Identity(identity="spiffe://hospitals.example/signer/other", issuer=ISSUER),
        Identity(identity=str(SIGNER), issuer="spiffe://other.example"),
        OIDCIssuerV2("spiffe://other.example"),
    ],
)
def test_another_identity_or_issuer_is_refused(world: SigstoreWorld, tmp_path: Path, policy: Any) -> None:
    with pytest.raises(VerificationError):
        check(world, tmp_path, world.sign(), policy)


def test_another_federations_trusted_root_is_refused(world: SigstoreWorld, tmp_path: Path) -> None:
    with pytest.raises(VerificationError):
        check(SigstoreWorld(), tmp_path, world.sign())


@pytest.mark.parametrize("part", ["certificate_authorities", "ct_logs", "tlogs", "timestamp_authorities"])
def test_each_part_of_the_trusted_root_counts(world: SigstoreWorld, tmp_path: Path, part: str) -> None:
    """With one part of another federation's, nothing verifies: none of them is decoration."""
    stranger = SigstoreWorld().trusted_root
    mixed = build_trusted_root(replace(world.trusted_root, **{part: getattr(stranger, part)}))
    with pytest.raises(VerificationError):
        verifier(mixed, tmp_path).verify_dsse(Bundle.from_json(world.sign()), RIGHT)


def tampered(bundle: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    value = json.loads(bundle)
    change(value)
    return json.dumps(value).encode()


def entry(value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = value["verificationMaterial"]["tlogEntries"][0]
    return found


def test_another_payload_checkpoint_or_timestamp_is_refused(world: SigstoreWorld, tmp_path: Path) -> None:
    bundle, other = world.sign(), json.loads(world.sign(statement("other")))

    def payload(value: dict[str, Any]) -> None:
        value["dsseEnvelope"]["payload"] = base64.b64encode(statement("other")).decode()

    def checkpoint(value: dict[str, Any]) -> None:
        entry(value)["inclusionProof"]["checkpoint"] = entry(other)["inclusionProof"]["checkpoint"]

    def timestamp(value: dict[str, Any]) -> None:
        stamps = "timestampVerificationData"
        value["verificationMaterial"][stamps] = other["verificationMaterial"][stamps]

    for change in (payload, checkpoint, timestamp):
        with pytest.raises(VerificationError):
            check(world, tmp_path, tampered(bundle, change))


def test_what_was_signed_long_ago_verifies_after_every_certificate_ended(tmp_path: Path) -> None:
    clock = SetClock(SystemClock().now() - timedelta(days=800))
    world = SigstoreWorld(clock=clock)
    bundle = world.sign()
    assert world.issuing.not_valid_after_utc < SystemClock().now()
    assert check(world, tmp_path, bundle)[1] == statement()


def test_a_timestamp_after_the_certificate_ended_is_refused(tmp_path: Path) -> None:
    from fltrust.artifacts.envelope import SignedEnvelope

    clock = SetClock(SystemClock().now() - timedelta(days=2))
    world = SigstoreWorld(clock=clock)
    key, certificate = world.certify()
    clock.at += timedelta(minutes=11)
    envelope = SignedEnvelope.sign(statement(), signer=key)
    late = world.bundle_of(envelope, certificate, kind=EntryKind.HASHEDREKORD)
    with pytest.raises(VerificationError):
        check(world, tmp_path, late)

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

from fltrust.artifacts.envelope import SignedEnvelope  # noqa: E402
from fltrust.artifacts.ports import EntryKind  # noqa: E402
from fltrust.artifacts.rekor import build_body  # noqa: E402
from fltrust.artifacts.trustroot import build_trusted_root  # noqa: E402
from fltrust.clock import SystemClock  # noqa: E402
from fltrust.identity import Role, SpiffeId  # noqa: E402
from fltrust.keys import generate  # noqa: E402
from fltrust.pki import create_csr  # noqa: E402
from fltrust.testing import FakeClock  # noqa: E402
from fltrust.testing.desk import DOMAIN, RELEASE, ScratchDesk, append_noise  # noqa: E402
from fltrust.updates.dsse import PAYLOAD_TYPE  # noqa: E402

ISSUER = f"spiffe://{DOMAIN}"

RIGHT = Identity(identity=str(RELEASE), issuer=ISSUER)


def statement(name: str = "model", digest: str = "11" * 32) -> bytes:
    """An in-toto statement about something."""
    return json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": name, "digest": {"sha256": digest}}],
            "predicateType": "https://example.com/predicate/v1",
            "predicate": {},
        }
    ).encode()


@pytest.fixture(scope="module")
def desk() -> ScratchDesk:
    return ScratchDesk(clock=SystemClock())


def verifier(root: bytes, folder: Path) -> Verifier:
    path = folder / "trusted_root.json"
    path.write_bytes(root)
    return Verifier(trusted_root=TrustedRoot.from_file(str(path)))


def check(desk: ScratchDesk, folder: Path, bundle: bytes, policy: Any = RIGHT) -> tuple[str, bytes]:
    found = verifier(build_trusted_root(desk.trusted_root), folder).verify_dsse(
        Bundle.from_json(bundle), policy
    )
    return str(found[0]), bytes(found[1])


@pytest.mark.parametrize("kind", list(EntryKind))
def test_a_bundle_is_accepted_for_its_signer(desk: ScratchDesk, tmp_path: Path, kind: EntryKind) -> None:
    assert check(desk, tmp_path, desk.sign(statement(), entry_kind=kind)) == (PAYLOAD_TYPE, statement())


@pytest.mark.parametrize("role", [Role.AGGREGATOR, Role.COORDINATOR])
def test_aggregators_and_the_coordinator_sign_as_well(desk: ScratchDesk, tmp_path: Path, role: Role) -> None:
    who = SpiffeId.of(desk.domain, role, None if role is Role.COORDINATOR else "main")
    policy = AllOf([Identity(identity=str(who)), OIDCIssuerV2(ISSUER)])
    assert check(desk, tmp_path, desk.acting_as(who).sign(statement()), policy)[1] == statement()


@pytest.mark.parametrize(
    "policy",
    [
        Identity(identity="spiffe://hospitals.example/signer/other", issuer=ISSUER),
        Identity(identity=str(RELEASE), issuer="spiffe://other.example"),
        OIDCIssuerV2("spiffe://other.example"),
    ],
)
def test_another_identity_or_issuer_is_refused(desk: ScratchDesk, tmp_path: Path, policy: Any) -> None:
    with pytest.raises(VerificationError):
        check(desk, tmp_path, desk.sign(statement()), policy)


def test_another_federations_trusted_root_is_refused(desk: ScratchDesk, tmp_path: Path) -> None:
    with pytest.raises(VerificationError):
        check(ScratchDesk(clock=SystemClock()), tmp_path, desk.sign(statement()))


@pytest.mark.parametrize("part", ["certificate_authorities", "ct_logs", "tlogs", "timestamp_authorities"])
def test_each_part_of_the_trusted_root_counts(desk: ScratchDesk, tmp_path: Path, part: str) -> None:
    """With one part of another federation's, nothing verifies: none of them is decoration."""
    stranger = ScratchDesk(clock=SystemClock()).trusted_root
    mixed = build_trusted_root(replace(desk.trusted_root, **{part: getattr(stranger, part)}))
    with pytest.raises(VerificationError):
        verifier(mixed, tmp_path).verify_dsse(Bundle.from_json(desk.sign(statement())), RIGHT)


def tampered(bundle: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    value = json.loads(bundle)
    change(value)
    return json.dumps(value).encode()


def entry(value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = value["verificationMaterial"]["tlogEntries"][0]
    return found


def test_another_payload_checkpoint_or_timestamp_is_refused(desk: ScratchDesk, tmp_path: Path) -> None:
    bundle, other = desk.sign(statement()), json.loads(desk.sign(statement("other")))

    def payload(value: dict[str, Any]) -> None:
        value["dsseEnvelope"]["payload"] = base64.b64encode(statement("other")).decode()

    def checkpoint(value: dict[str, Any]) -> None:
        entry(value)["inclusionProof"]["checkpoint"] = entry(other)["inclusionProof"]["checkpoint"]

    def timestamp(value: dict[str, Any]) -> None:
        stamps = "timestampVerificationData"
        value["verificationMaterial"][stamps] = other["verificationMaterial"][stamps]

    for change in (payload, checkpoint, timestamp):
        with pytest.raises(VerificationError):
            check(desk, tmp_path, tampered(bundle, change))


def test_an_entry_with_others_before_and_after_it_is_accepted(tmp_path: Path) -> None:
    desk, key = ScratchDesk(clock=SystemClock()), generate()
    certificate = desk.certify_signer(create_csr(key))[0]
    envelope = SignedEnvelope.sign(statement(), signer=key)
    body = build_body(envelope, certificate, kind=EntryKind.HASHEDREKORD)
    index = desk.tree.append(body)
    append_noise(desk, (b"third", b"fourth"))
    timestamp = desk.notary.timestamps.timestamp(envelope.signature)
    bundle = desk.bundle_of(envelope, certificate, (timestamp,), body, index)
    assert check(desk, tmp_path, bundle)[1] == statement()


def test_what_was_signed_long_ago_verifies_after_every_certificate_ended(tmp_path: Path) -> None:
    desk = ScratchDesk(clock=FakeClock(SystemClock().now() - timedelta(days=800)))
    bundle = desk.sign(statement())
    assert desk.issuer.certificate.not_valid_after_utc < SystemClock().now()
    assert check(desk, tmp_path, bundle)[1] == statement()


def test_a_timestamp_after_the_certificate_ended_is_refused(tmp_path: Path) -> None:
    clock, key = FakeClock(SystemClock().now() - timedelta(days=2)), generate()
    desk = ScratchDesk(clock=clock)
    certificate = desk.certify_signer(create_csr(key))[0]
    clock.advance(timedelta(minutes=11))
    late = desk.countersign(SignedEnvelope.sign(statement(), signer=key).to_json(), certificate)
    with pytest.raises(VerificationError):
        check(desk, tmp_path, late)

"""SCEP, from inside: what no well-behaved client sends. What one does send is tried by strongSwan."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from authority_world import Authorities, World
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.algorithms import AES128, AES256
from scep_world import KEY, Scep, certificate_in, challenge, message, own, request, said_of, sealed

from fltrust.clock import SystemClock
from fltrust.coordinator.scep.recipient import open_recipient
from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.enrollment.types import EnrollmentProtocol
from fltrust.errors import InvalidInput
from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.protocols.scep import asn1 as scep
from fltrust.protocols.scep.messages import FailInfo, MessageType, PkiStatus


@pytest.fixture
def world(tmp_path: Path, ca: Authorities) -> Iterator[World]:
    world = World(f"sqlite:///{tmp_path / 'c.sqlite'}", ca=ca)
    yield world
    world.close()


@pytest.fixture
def device(world: World) -> Scep:
    return Scep(world)


@pytest.mark.parametrize("algorithm", [AES128, AES256])
def test_a_device_enrolls_and_the_certificate_is_for_its_rsa_key(device: Scep, algorithm: Any) -> None:
    asked = message(sealed(request(challenge(device.world, "meter")), algorithm=algorithm), device.own)
    answer = device.responder.answer(asked, source="test")
    assert said_of(answer) == (PkiStatus.SUCCESS, None)
    made = certificate_in(answer, device.own, KEY)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://hospitals.example/device/meter"
    ]


def test_rsa_is_for_devices_alone(device: Scep) -> None:
    for role in (Role.OPERATOR, Role.SIGNER, Role.AGGREGATOR):
        content = sealed(request(challenge(device.world, f"x-{role}", role)))
        assert device.ask(content)[0] is PkiStatus.FAILURE
        who = SpiffeId.of("hospitals.example", role, f"x-{role}")
        assert who not in device.world.authority.ledger.identities()


def test_a_type_of_message_that_is_not_a_clients_is_never_let_through(device: Scep) -> None:
    secret = challenge(device.world, "meter")
    for kind in ("3", "0", "1", "2", "18", "21", "22", "99", "019", "PKCSReq"):
        refused = device.ask(sealed(request(secret)), kind=kind)
        assert refused == (PkiStatus.FAILURE, FailInfo.BAD_REQUEST), kind
    assert device.ask(sealed(request(secret)))[0] is PkiStatus.SUCCESS


def test_sha1_is_refused_and_so_is_an_envelope_in_des(device: Scep) -> None:
    secret = challenge(device.world, "meter")
    content = sealed(request(secret))
    assert device.ask(content, digest=scep.SHA1) == (PkiStatus.FAILURE, FailInfo.BAD_ALG)
    aes = asn1.encode_der(x509.ObjectIdentifier("2.16.840.1.101.3.4.1.42"))
    for other in ("1.3.14.3.2.7", "1.2.840.113549.3.7", "2.16.840.1.101.3.4.1.46"):
        oid = asn1.encode_der(x509.ObjectIdentifier(other))
        parsed = asn1.decode_der(scep.Envelope, content)
        parsed.content.content.algorithm.algorithm = x509.ObjectIdentifier(other)
        assert aes in content
        assert oid in asn1.encode_der(parsed)
        assert device.ask(asn1.encode_der(parsed)) == (PkiStatus.FAILURE, FailInfo.BAD_ALG)
    assert device.ask(content)[0] is PkiStatus.SUCCESS


def test_whatever_is_wrong_inside_of_an_envelope_is_answered_the_same_way(device: Scep) -> None:
    """Whoever recorded an envelope and signs it again learns nothing of what is in it."""
    other = rsa.generate_private_key(65_537, 2048)
    recorded = sealed(request(challenge(device.world, "meter"), key=other))
    wrong = [
        recorded,
        recorded[:-1] + bytes([recorded[-1] ^ 1]),
        sealed(b"no request"),
        sealed(request(None)),
        sealed(request("wrong")),
        sealed(b""),
        b"no envelope",
    ]
    assert {device.ask(content) for content in wrong} == {(PkiStatus.FAILURE, FailInfo.BAD_MESSAGE_CHECK)}


def test_a_message_that_its_signer_did_not_sign_or_that_was_touched_is_refused(device: Scep) -> None:
    content = sealed(request(challenge(device.world, "meter")))
    other = rsa.generate_private_key(65_537, 2048)
    assert device.ask(content, key=other)[1] is FailInfo.BAD_MESSAGE_CHECK
    der = message(content, device.own)
    swapped = der.replace(content, content[:-1] + bytes([content[-1] ^ 1]))
    assert said_of(device.responder.answer(swapped, source="test"))[1] is FailInfo.BAD_MESSAGE_CHECK
    assert device.ask(content, left_out=scep.MESSAGE_DIGEST)[1] is FailInfo.BAD_MESSAGE_CHECK
    assert device.ask(content, left_out=scep.CONTENT_TYPE)[1] is FailInfo.BAD_MESSAGE_CHECK


def test_what_is_no_message_is_refused_within_bounds(device: Scep) -> None:
    content = sealed(b"x")
    for left_out in (scep.MESSAGE_TYPE, scep.TRANSACTION_ID, scep.SENDER_NONCE):
        with pytest.raises(InvalidInput):
            device.responder.answer(message(content, device.own, left_out=left_out), source="test")
    for der in (b"", b"\x30\x80", bytes(70_000)):
        with pytest.raises(InvalidInput):
            device.responder.answer(der, source="test")


def test_a_certificate_of_ones_own_making_renews_nothing(device: Scep) -> None:
    content = sealed(request(None))
    assert device.ask(content, kind=MessageType.RENEWAL_REQ)[0] is PkiStatus.FAILURE
    assert device.world.authority.counters.get("scep.renewal_req") == 1


def test_what_waits_is_polled_for_by_its_own_signer(tmp_path: Path, ca: Authorities) -> None:
    policy = ApprovalPolicy(protocols={EnrollmentProtocol.SCEP: 1})
    world = World(f"sqlite:///{tmp_path / 'c.sqlite'}", ca=ca, approvals=policy)
    device = Scep(world)
    content = sealed(request(challenge(world, "meter")))
    assert device.ask(content) == (PkiStatus.PENDING, None)
    assert device.ask(content, transaction="again") == (PkiStatus.PENDING, None)
    poll: dict[str, Any] = {"kind": MessageType.CERT_POLL}
    assert device.ask(sealed(b"whose"), **poll) == (PkiStatus.PENDING, None)
    assert device.ask(sealed(b"whose"), transaction="another", **poll)[1] is FailInfo.BAD_CERT_ID
    other = rsa.generate_private_key(65_537, 2048)
    assert (
        device.ask(sealed(b"whose"), certificate=own(other, world), key=other, **poll)[1]
        is FailInfo.BAD_CERT_ID
    )
    (waiting,) = world.op.list_requests()
    colleague = world.session(world.join("colleague", Role.OPERATOR))
    colleague.approve_request(waiting.request.request_id, reason="I know this meter")
    assert device.ask(sealed(b"whose"), **poll) == (PkiStatus.SUCCESS, None)
    world.close()


def test_the_key_lies_encrypted_in_the_folder_and_is_made_anew_before_it_ends(tmp_path: Path) -> None:
    clock, domain = SystemClock(), TrustDomain("hospitals.example")
    made = open_recipient(tmp_path, domain, passphrase=b"secret", clock=clock)
    again = open_recipient(tmp_path, domain, passphrase=b"secret", clock=clock)
    assert again.certificate == made.certificate
    pem = (tmp_path / "scep.key").read_bytes()
    assert b"ENCRYPTED" in pem
    assert (tmp_path / "scep.key").stat().st_mode & 0o077 == 0

    class Later(SystemClock):
        def now(self) -> Any:
            return super().now() + timedelta(days=1_080)

    assert (
        open_recipient(tmp_path, domain, passphrase=b"secret", clock=Later()).certificate != made.certificate
    )


def test_a_renewal_with_the_same_key_that_somebody_recorded_renews_nothing_again(device: Scep) -> None:
    asked = message(sealed(request(challenge(device.world, "meter"))), device.own)
    made = certificate_in(device.responder.answer(asked, source="test"), device.own, KEY)
    recorded = message(sealed(request(None)), made, kind=MessageType.RENEWAL_REQ)
    answers = [said_of(device.responder.answer(recorded, source="test"))[0] for _ in range(3)]
    assert answers == [PkiStatus.SUCCESS, PkiStatus.FAILURE, PkiStatus.FAILURE]
    again = {"certificate": made, "kind": MessageType.RENEWAL_REQ}
    assert device.ask(sealed(request(None)), **again)[0] is PkiStatus.SUCCESS

"""SCEP in DES and SHA-1: refused unless switched on, attacked where it is. scepclient tries it for real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from authority_world import Authorities, World
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from scep_world import KEY, RECIPIENT, Scep, challenge, message, request, said_of, sealed

from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.enrollment.types import EnrollmentProtocol
from fltrust.identity import Role
from fltrust.protocols.der import der_sequence
from fltrust.protocols.scep import asn1 as scep
from fltrust.protocols.scep.des import open_des, seal_des
from fltrust.protocols.scep.messages import FailInfo, MessageType, PkiStatus
from fltrust.protocols.scep.suites import LEGACY, MODERN

BAD_ALG = (PkiStatus.FAILURE, FailInfo.BAD_ALG)
BAD_CHECK = (PkiStatus.FAILURE, FailInfo.BAD_MESSAGE_CHECK)
SUCCESS = (PkiStatus.SUCCESS, None)
CIPHERS = {"des": scep.DES_CBC, "des-ede3": scep.DES_EDE3_CBC}
Worlds = Callable[..., World]


@pytest.fixture
def worlds(tmp_path: Path, ca: Authorities) -> Iterator[Worlds]:
    made: list[World] = []

    def make(**options: Any) -> World:
        made.append(World(f"sqlite:///{tmp_path / str(len(made))}.sqlite", ca=ca, **options))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def device(worlds: Worlds) -> Scep:
    return Scep(worlds(), is_legacy_taken=True)


def in_des(data: bytes, cipher: x509.ObjectIdentifier = scep.DES_CBC) -> bytes:
    return seal_des(data, RECIPIENT.certificate, cipher)


def relabelled(content: bytes, cipher: str) -> bytes:
    envelope = asn1.decode_der(scep.Envelope, content)
    iv = bytes(envelope.content.content.algorithm.parameters.data)[:8]
    envelope.content.content.algorithm = scep.ContentAlgorithm(
        algorithm=x509.ObjectIdentifier(cipher),
        parameters=asn1.decode_der(asn1.TLV, asn1.encode_der(iv)),
    )
    return asn1.encode_der(envelope)


def addressed(content: bytes, times: int) -> bytes:
    envelope = asn1.decode_der(scep.Envelope, content)
    (recipient,) = envelope.content.recipients.as_list()
    envelope.content.recipients = asn1.SetOf([recipient] * times)
    return asn1.encode_der(envelope)


def envelope_in(answer: bytes) -> scep.EnvelopedData:
    content = asn1.decode_der(scep.SignedMessage, answer).content.content.content
    assert content is not None
    return asn1.decode_der(scep.Envelope, content).content


@pytest.mark.parametrize("cipher", CIPHERS.values(), ids=CIPHERS)
def test_a_device_is_answered_in_the_cipher_and_digest_that_it_used(
    device: Scep, cipher: x509.ObjectIdentifier
) -> None:
    asked = message(in_des(request(challenge(device.world, "meter")), cipher), device.own, suite=LEGACY)
    answer = device.responder.answer(asked, source="test")
    assert said_of(answer) == SUCCESS
    envelope = envelope_in(answer)
    assert envelope.content.algorithm.algorithm == cipher
    info = asn1.decode_der(scep.SignedMessage, answer).content.signers.as_list()[0]
    assert info.digest_algorithm.algorithm == scep.SHA1
    assert KEY.public_key().public_numbers().n.to_bytes(256, "big") in open_des(envelope, device.own, KEY)
    assert device.world.authority.counters.get("scep.legacy") == 1


@pytest.mark.parametrize("kind", [MessageType.PKCS_REQ, MessageType.RENEWAL_REQ, MessageType.CERT_POLL])
@pytest.mark.parametrize("cipher", CIPHERS.values(), ids=CIPHERS)
def test_without_the_switch_every_legacy_message_is_refused_and_spends_nothing(
    worlds: Worlds, cipher: x509.ObjectIdentifier, kind: MessageType
) -> None:
    device = Scep(worlds())
    asked = request(challenge(device.world, "meter"))
    assert device.ask(in_des(asked, cipher), suite=LEGACY, kind=kind) == BAD_ALG
    assert device.ask(in_des(asked, cipher), kind=kind) == BAD_ALG
    assert device.ask(sealed(asked)) == SUCCESS


@pytest.mark.parametrize("is_legacy_taken", [False, True])
def test_md5_rc2_rc4_null_and_unknown_ciphers_are_refused_with_and_without_the_switch(
    worlds: Worlds, is_legacy_taken: bool
) -> None:
    device = Scep(worlds(), is_legacy_taken=is_legacy_taken)
    asked = request(challenge(device.world, "meter"))
    md5_oid = x509.ObjectIdentifier("1.2.840.113549.2.5")
    for suite, content in ((MODERN, sealed(asked)), (LEGACY, in_des(asked))):
        assert device.ask(content, suite=suite, digest=md5_oid) == BAD_ALG
        for cipher in (
            "1.2.840.113549.3.2",  # RC2
            "1.2.840.113549.3.4",  # RC4
            "1.2.840.113549.1.9.16.3.5",  # none of them: a null cipher
            "2.16.840.1.101.3.4.1.22",  # AES-192
            "2.16.840.1.101.3.4.1.6",  # AES-128-GCM
            "1.3.14.3.2.6",  # DES in ECB
            "1.2.3.4",
        ):
            for kind in (MessageType.PKCS_REQ, MessageType.RENEWAL_REQ, MessageType.CERT_POLL):
                refused = device.ask(relabelled(content, cipher), suite=suite, kind=kind)
                assert refused == BAD_ALG, (suite.digest, cipher, kind)
    assert device.ask(sealed(asked)) == SUCCESS


def test_a_message_that_mixes_suites_is_refused_whatever_its_type(device: Scep) -> None:
    asked = request(challenge(device.world, "meter"))
    for kind in (MessageType.PKCS_REQ, MessageType.RENEWAL_REQ, MessageType.CERT_POLL):
        assert device.ask(sealed(asked), suite=LEGACY, kind=kind) == BAD_ALG
        for cipher in CIPHERS.values():
            assert device.ask(in_des(asked, cipher), suite=MODERN, kind=kind) == BAD_ALG
    # A SHA-1 digest signed with SHA-256, and the other way round.
    assert device.ask(in_des(asked), suite=MODERN, digest=scep.SHA1) == BAD_CHECK
    assert device.ask(in_des(asked), suite=LEGACY, digest=scep.SHA256) == BAD_CHECK
    assert device.ask(in_des(asked), suite=LEGACY) == SUCCESS


def test_a_key_that_was_served_in_aes_is_not_heard_in_des(device: Scep) -> None:
    first = request(challenge(device.world, "meter"))
    assert device.ask(sealed(first)) == SUCCESS
    again = request(challenge(device.world, "other"))
    assert device.ask(in_des(again), suite=LEGACY) == BAD_ALG
    assert device.ask(in_des(again), suite=LEGACY, kind=MessageType.CERT_POLL) == BAD_ALG
    assert device.world.authority.counters.get("scep.downgrade") == 2


def test_whoever_was_refused_in_aes_is_not_remembered(device: Scep) -> None:
    assert device.ask(sealed(request("wrong"))) == BAD_CHECK
    assert device.ask(in_des(request(challenge(device.world, "meter"))), suite=LEGACY) == SUCCESS


@pytest.mark.parametrize("algorithm", [AES128, None])
def test_a_recorded_aes_envelope_is_not_opened_in_another_cipher(device: Scep, algorithm: Any) -> None:
    """Its key of 16 or 32 bytes would make triple DES, and its padding an oracle for a stronger cipher."""
    options = {} if algorithm is None else {"algorithm": algorithm}
    recorded = sealed(request(challenge(device.world, "meter")), **options)
    for cipher in (scep.DES_CBC, scep.DES_EDE3_CBC):
        assert device.ask(relabelled(recorded, cipher.dotted_string), suite=LEGACY) == BAD_CHECK
    single = in_des(request(challenge(device.world, "other")))
    assert device.ask(relabelled(single, scep.DES_EDE3_CBC.dotted_string), suite=LEGACY) == BAD_CHECK
    assert device.ask(single, suite=LEGACY) == SUCCESS


@pytest.mark.parametrize("cipher", CIPHERS.values(), ids=CIPHERS)
def test_an_answer_tells_nothing_of_padding_key_recipient_or_what_is_inside(
    device: Scep, cipher: x509.ObjectIdentifier
) -> None:
    good = in_des(request(challenge(device.world, "meter")), cipher)
    parsed = asn1.decode_der(scep.Envelope, good).content
    transport = parsed.recipients.as_list()[0].parse(scep.KeyTransport)
    wrapped, data = transport.encrypted_key, bytes(parsed.content.content.data)
    wrong = [
        *(good.replace(data, data[:-at] + bytes([data[-at] ^ bit]) + data[len(data) - at + 1 :])
          for at in (1, 9, 16, len(data)) for bit in (1, 2, 0x80)),
        good.replace(wrapped, wrapped[:-1] + bytes([wrapped[-1] ^ 1])),
        good.replace(wrapped, bytes(len(wrapped))),
        seal_des(request(None), device.own, cipher),
        *(in_des(inside, cipher) for inside in (b"", b"no request", request(None), request("wrong"))),
        *(addressed(good, times) for times in (0, 2, 5)),
        b"no envelope",
        good[:-1],
    ]  # fmt: skip
    assert len({*wrong, good}) == len(wrong) + 1
    assert {device.ask(content, suite=LEGACY) for content in wrong} == {BAD_CHECK}
    assert device.ask(good, suite=LEGACY) == SUCCESS


def test_encrypted_content_in_pieces_is_read_and_nothing_else_under_its_tag(device: Scep) -> None:
    good = in_des(request(challenge(device.world, "meter")))
    envelope = asn1.decode_der(scep.Envelope, good)
    data = bytes(envelope.content.content.content.data)

    def carrying(tag: bytes, inside: bytes) -> bytes:
        envelope.content.content.content = asn1.decode_der(asn1.TLV, tag + der_sequence(inside)[1:])
        return asn1.encode_der(envelope)

    pieces = b"".join(asn1.encode_der(part) for part in (data[:13], data[13:]))
    for tag, inside in ((b"\xa0", data), (b"\x80", pieces), (b"\xa1", pieces), (b"\x04", data)):
        assert device.ask(carrying(tag, inside), suite=LEGACY) == BAD_CHECK
    assert device.ask(carrying(b"\xa0", pieces), suite=LEGACY) == SUCCESS


def test_a_legacy_message_that_was_touched_or_signed_by_another_is_refused(device: Scep) -> None:
    content = in_des(request(challenge(device.world, "meter")))
    der = message(content, device.own, suite=LEGACY)
    swapped = der.replace(content, content[:-1] + bytes([content[-1] ^ 1]))
    assert said_of(device.responder.answer(swapped, source="test")) == BAD_CHECK
    assert device.ask(content, suite=LEGACY, left_out=scep.MESSAGE_DIGEST) == BAD_CHECK
    assert device.ask(content, suite=LEGACY, kind="21")[1] is FailInfo.BAD_REQUEST
    assert (
        device.ask(in_des(request(None)), suite=LEGACY, kind=MessageType.RENEWAL_REQ)[0] is PkiStatus.FAILURE
    )


def test_what_a_client_chose_follows_our_nonce_in_what_we_sign_in_sha1(device: Scep) -> None:
    """Whoever could choose a prefix of what is signed could have two of it with one SHA-1."""
    for transaction in ("t", "t" * 15, "t" * 16, "t" * 128):
        asked = message(in_des(b"x"), device.own, suite=LEGACY, transaction=transaction)
        info = asn1.decode_der(scep.SignedMessage, device.responder.answer(asked, source="test")).content
        signed = asn1.encode_der(info.signers.as_list()[0].signed_attributes)
        before = signed[: signed.index(scep_oid(scep.SENDER_NONCE))]
        assert len(transaction) < 16 or transaction.encode() not in before
        assert scep_oid(scep.RECIPIENT_NONCE) not in before


def scep_oid(oid: x509.ObjectIdentifier) -> bytes:
    return asn1.encode_der(oid)


def test_what_waits_is_polled_for_in_des(worlds: Worlds) -> None:
    world = worlds(approvals=ApprovalPolicy(protocols={EnrollmentProtocol.SCEP: 1}))
    device = Scep(world, is_legacy_taken=True)
    asked = in_des(request(challenge(world, "meter")))
    assert device.ask(asked, suite=LEGACY) == (PkiStatus.PENDING, None)
    poll: dict[str, Any] = {"kind": MessageType.CERT_POLL, "suite": LEGACY}
    assert device.ask(in_des(b"whose"), **poll) == (PkiStatus.PENDING, None)
    (waiting,) = world.op.list_requests()
    colleague = world.session(world.join("colleague", Role.OPERATOR))
    colleague.approve_request(waiting.request.request_id, reason="I know this meter")
    assert device.ask(in_des(b"whose"), **poll) == SUCCESS

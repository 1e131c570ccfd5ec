"""CMP, from inside: what no well-behaved client sends. What one does send is tried by `openssl cmp`."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from authority_world import Authorities, Member, World
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fltrust.coordinator.cmp.responder import CmpResponder
from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.enrollment.mackeys import MacPurpose
from fltrust.enrollment.types import EnrollmentProtocol
from fltrust.errors import Revoked
from fltrust.identity import Name, Role
from fltrust.keys import FileSigner, generate
from fltrust.pki import create_csr, verify_certificate
from fltrust.pki.crmf import (
    ECDSA_WITH_SHA256,
    AlgorithmId,
    CertReqMsg,
    CertRequest,
    CertTemplate,
    PopoSigningKey,
    PublicKeyInfo,
)
from fltrust.protocols.cmp.asn1 import (
    CertConfirmContent,
    CertRepMessage,
    CertReqMessages,
    CertStatus,
    ErrorContent,
    Header,
    Message,
    PollRepContent,
    PollReq,
    PollReqContent,
    RevDetails,
    RevRepContent,
    RevReqContent,
    StatusInfo,
)
from fltrust.protocols.cmp.messages import REQUESTS, Body, Failure, directory_name, parts_of
from fltrust.protocols.cmp.protection import Pbm, as_tlv, password_of, protected_bytes
from fltrust.protocols.der import tagged

EMPTY = CertTemplate(
    version=None,
    serial_number=None,
    signing_algorithm=None,
    issuer=None,
    validity=None,
    subject=None,
    public_key=None,
    issuer_uid=None,
    subject_uid=None,
    extensions=None,
)


def template(**given: Any) -> CertTemplate:
    names = CertTemplate.__annotations__
    return CertTemplate(**{name: given.get(name, getattr(EMPTY, name)) for name in names})


def crmf(key: FileSigner, *, proof_by: FileSigner | None = None) -> bytes:
    """A CertReqMessages with one request."""
    spki = key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    public_key = asn1.decode_der(PublicKeyInfo, spki)
    request = as_tlv(
        asn1.encode_der(CertRequest(cert_req_id=0, template=template(public_key=public_key), controls=None))
    )
    proof = PopoSigningKey(
        algorithm=AlgorithmId(algorithm=ECDSA_WITH_SHA256, parameters=None),
        signature=asn1.BitString((proof_by or key).sign(asn1.encode_der(request)), 0),
    )
    return asn1.encode_der(CertReqMessages(one=CertReqMsg(request=request, proof=proof, reg_info=None)))


@dataclass
class Answer:
    kind: int
    content: bytes
    header: Header

    @property
    def failure(self) -> Failure:
        """Of an error, or of the one answer in a message."""
        if self.kind == Body.ERROR:
            info = asn1.decode_der(ErrorContent, self.content).status
        elif self.kind == Body.RP:
            info = asn1.decode_der(RevRepContent, self.content).status.one
        else:
            info = asn1.decode_der(CertRepMessage, self.content).response.one.status
        assert info.fail_info is not None, info.status
        octets = info.fail_info.as_bytes()
        return Failure(next(i for i in range(8 * len(octets)) if octets[i // 8] >> (7 - i % 8) & 1))

    @property
    def status(self) -> int:
        return asn1.decode_der(CertRepMessage, self.content).response.one.status.status

    @property
    def certificate(self) -> x509.Certificate:
        pair = asn1.decode_der(CertRepMessage, self.content).response.one.key_pair
        assert pair is not None
        return pair.certificate


@dataclass
class Client:
    """Sends messages under a credential's MAC or under a certificate's signature."""

    responder: CmpResponder
    credential: tuple[str, bytes] = ("", b"")
    signer: FileSigner | None = None
    chain: tuple[bytes, ...] = ()
    transaction: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    last: Answer | None = None

    def message(self, tag: int, content: bytes, **changed: Any) -> bytes:
        mac = Pbm.fresh(secrets.token_bytes(16)) if self.signer is None else None
        ecdsa = as_tlv(asn1.encode_der(AlgorithmId(algorithm=ECDSA_WITH_SHA256, parameters=None)))
        name = directory_name(x509.Name([]))
        given: dict[str, Any] = {
            "pvno": 2,
            "sender": name,
            "recipient": name,
            "message_time": None,
            "protection_alg": parts_of(mac.algorithm() if mac else ecdsa),
            "sender_kid": self.credential[0].encode() or None,
            "recip_kid": None,
            "transaction_id": self.transaction,
            "sender_nonce": secrets.token_bytes(16),
            "recip_nonce": None if self.last is None else self.last.header.sender_nonce,
            "free_text": None,
            "general_info": None,
            **changed,
        }
        header, body = as_tlv(asn1.encode_der(Header(**given))), as_tlv(tagged(tag, content))
        data = protected_bytes(header, body)
        tag_bytes = mac.tag(self.credential[1], data) if mac else self.signer.sign(data)  # type: ignore[union-attr]
        return asn1.encode_der(
            Message(
                header=header,
                body=body,
                protection=asn1.BitString(tag_bytes, 0),
                extra_certs=[as_tlv(der) for der in self.chain] or None,
            )
        )

    def send(self, tag: int, content: bytes, **changed: Any) -> Answer:
        return self.raw(self.message(tag, content, **changed))

    def raw(self, der: bytes) -> Answer:
        message = asn1.decode_der(Message, self.responder.answer(der, source="test"))
        header = message.header.parse(Header)
        answer = Answer(message.body.tag_bytes[0] & 0x1F, bytes(message.body.data), header)
        if answer.kind != Body.ERROR:
            self.last = answer
        return answer


@pytest.fixture
def world(tmp_path: Path, ca: Authorities) -> Iterator[World]:
    world = World(f"sqlite:///{tmp_path / 'c.sqlite'}", ca=ca)
    yield world
    world.close()


@pytest.fixture
def responder(world: World) -> CmpResponder:
    return CmpResponder(world.authority, world.clock)


def by_mac(world: World, responder: CmpResponder, name: str) -> Client:
    made = world.op.create_credential(MacPurpose.CMP, Role.DEVICE, Name(name), ttl=timedelta(minutes=5))
    return Client(responder, (made.credential_id, password_of(made.key).encode()))


def by_certificate(responder: CmpResponder, member: Member) -> Client:
    return Client(responder, signer=member.signer, chain=member.chain)


def is_good(world: World, certificate: x509.Certificate) -> bool:
    chain = [certificate, world.ca.issuer.certificate]
    try:
        world.authority.judge(verify_certificate(chain, bundle=world.bundle, at=world.clock.now()))
    except Revoked:
        return False
    return True


def test_a_kind_of_message_that_is_not_a_clients_is_never_let_through(
    world: World, responder: CmpResponder
) -> None:
    client = by_mac(world, responder, "cam")
    for tag in set(range(31)) - set(REQUESTS):
        answer = client.send(tag, crmf(generate()))
        assert (answer.kind, answer.failure) == (Body.ERROR, Failure.BAD_REQUEST), tag
    assert world.authority.counters.get("cmp.ir") == 0
    assert client.send(Body.IR, crmf(generate())).status == 0


def test_a_body_without_a_context_tag_is_refused(world: World, responder: CmpResponder) -> None:
    client = by_mac(world, responder, "cam")
    der = client.message(Body.IR, crmf(generate()))
    good = asn1.decode_der(Message, der)
    plain = asn1.encode_der(
        Message(
            header=good.header,
            body=as_tlv(b"\x30" + asn1.encode_der(good.body)[1:]),
            protection=good.protection,
            extra_certs=None,
        )
    )
    assert client.raw(plain).failure is Failure.BAD_REQUEST


@pytest.mark.parametrize("kind", [Body.CR, Body.KUR])
def test_a_mac_does_not_renew_and_a_signature_does_not_enroll(
    world: World, responder: CmpResponder, kind: Body
) -> None:
    assert by_mac(world, responder, "cam").send(kind, crmf(generate())).failure is Failure.NOT_AUTHORIZED
    device = world.join("dev", Role.DEVICE)
    assert by_certificate(responder, device).send(Body.IR, crmf(generate())).failure is Failure.NOT_AUTHORIZED


def test_a_credential_that_nobody_made_looks_like_a_wrong_password(
    world: World, responder: CmpResponder
) -> None:
    real = by_mac(world, responder, "cam")
    wrong = Client(responder, (real.credential[0], b"wrong"))
    for other in ("0" * 16, "nobody", "../..", "é"):
        key = (
            world.authority.mac_keys.key_of(MacPurpose.CMP, other)
            if other.isalnum() and other.isascii()
            else b""
        )
        nobody = Client(responder, (other, password_of(key).encode() if key else b"x"))
        said = [client.send(Body.IR, crmf(generate())) for client in (wrong, nobody)]
        assert {answer.failure for answer in said} == {Failure.BAD_MESSAGE_CHECK}
        assert said[0].content == said[1].content


def test_a_key_for_acme_opens_nothing_here(world: World, responder: CmpResponder) -> None:
    made = world.op.create_credential(
        MacPurpose.ACME, Role.SERVER, Name("web"), ttl=timedelta(minutes=5), dns_names=("web.example",)
    )
    client = Client(responder, (made.credential_id, password_of(made.key).encode()))
    assert client.send(Body.IR, crmf(generate())).failure is Failure.BAD_MESSAGE_CHECK


def test_a_bit_that_is_flipped_anywhere_enrolls_nobody(world: World, responder: CmpResponder) -> None:
    client = by_mac(world, responder, "cam")
    der = client.message(Body.IR, crmf(generate()))
    for at in range(0, len(der), 19):
        touched = bytearray(der)
        touched[at] ^= 0x10
        answer = asn1.decode_der(Message, responder.answer(bytes(touched), source="test"))
        assert answer.body.tag_bytes[0] & 0x1F == Body.ERROR, at
    assert client.raw(der).status == 0


def test_a_request_by_a_key_that_did_not_sign_it_is_refused_and_the_credential_stays_good(
    world: World, responder: CmpResponder
) -> None:
    client = by_mac(world, responder, "cam")
    stolen = crmf(generate(), proof_by=generate())
    assert client.send(Body.IR, stolen).failure is Failure.BAD_POP
    assert client.send(Body.IR, crmf(generate())).status == 0


def test_raverified_and_no_proof_at_all_are_refused(world: World, responder: CmpResponder) -> None:
    client = by_mac(world, responder, "cam")
    good = crmf(generate())
    request = asn1.decode_der(CertReqMessages, good).one.request
    for proof in (b"\x80\x00", b""):
        one = asn1.encode_der(request) + proof
        length = len(one)
        wrapped = b"\x30\x81" + bytes([length]) + one if length < 256 else pytest.fail("too long")
        content = b"\x30\x81" + bytes([len(wrapped)]) + wrapped
        assert client.send(Body.IR, content).failure is Failure.BAD_DATA_FORMAT


def test_a_lost_answer_is_given_again_and_a_transaction_is_not_anothers(
    world: World, responder: CmpResponder
) -> None:
    client = by_mac(world, responder, "cam")
    der = client.message(Body.IR, crmf(generate()))
    first, again = client.raw(der), client.raw(der)
    assert first.certificate == again.certificate
    other = by_mac(world, responder, "cam-2")
    other.transaction = client.transaction
    assert other.send(Body.IR, crmf(generate())).failure is Failure.TRANSACTION_ID_IN_USE
    confirm = _confirmation(first.certificate)
    other.last = client.last
    assert other.send(Body.CERT_CONF, confirm).failure is Failure.BAD_CERT_ID


def _confirmation(
    certificate: x509.Certificate, *, status: int | None = None, digest: bytes | None = None
) -> bytes:
    info = None if status is None else StatusInfo(status=status, status_string=None, fail_info=None)
    return asn1.encode_der(
        CertConfirmContent(
            one=CertStatus(
                cert_hash=digest or sha256(certificate.public_bytes(Encoding.DER)).digest(),
                cert_req_id=0,
                status=info,
                hash_alg=None,
            )
        )
    )


def test_a_confirmation_gives_our_nonce_back_and_names_the_certificate(
    world: World, responder: CmpResponder
) -> None:
    client = by_mac(world, responder, "cam")
    made = client.send(Body.IR, crmf(generate())).certificate
    assert client.send(Body.CERT_CONF, _confirmation(made), recip_nonce=bytes(16)).failure is (
        Failure.BAD_RECIPIENT_NONCE
    )
    assert client.send(Body.CERT_CONF, _confirmation(made), recip_nonce=None).failure is (
        Failure.BAD_RECIPIENT_NONCE
    )
    assert client.send(Body.CERT_CONF, _confirmation(made, digest=bytes(32))).failure is Failure.BAD_CERT_ID
    assert client.send(Body.CERT_CONF, _confirmation(made)).kind == Body.PKICONF
    assert is_good(world, made)


def test_a_certificate_that_its_holder_refuses_is_revoked(world: World, responder: CmpResponder) -> None:
    client = by_mac(world, responder, "cam")
    made = client.send(Body.IR, crmf(generate())).certificate
    assert client.send(Body.CERT_CONF, _confirmation(made, status=2)).kind == Body.PKICONF
    assert not is_good(world, made)


def test_one_revokes_ones_own_certificate_and_nobody_elses(world: World, responder: CmpResponder) -> None:
    one, other = world.join("one", Role.DEVICE), world.join("other", Role.DEVICE)

    def ask(member: Member, serial: int) -> Answer:
        content = RevReqContent(one=RevDetails(details=template(serial_number=serial), entry_details=None))
        return by_certificate(responder, member).send(Body.RR, asn1.encode_der(content))

    assert ask(one, int(other.certificate.serial)).failure is Failure.BAD_CERT_ID
    assert ask(one, int(world.operator.certificate.serial)).failure is Failure.BAD_CERT_ID
    assert ask(one, 4711).failure is Failure.BAD_CERT_ID
    assert is_good(world, other.certificate.leaf)
    accepted = ask(one, int(one.certificate.serial))
    assert asn1.decode_der(RevRepContent, accepted.content).status.one.status == 0
    assert not is_good(world, one.certificate.leaf)
    assert by_certificate(responder, one).send(Body.KUR, crmf(generate())).failure is Failure.CERT_REVOKED


def test_a_mac_revokes_nothing(world: World, responder: CmpResponder) -> None:
    device = world.join("one", Role.DEVICE)
    details = RevDetails(details=template(serial_number=int(device.certificate.serial)), entry_details=None)
    client = by_mac(world, responder, "cam")
    answer = client.send(Body.RR, asn1.encode_der(RevReqContent(one=details)))
    assert answer.failure is Failure.NOT_AUTHORIZED


def test_a_certificate_whose_key_did_not_sign_names_nobody(world: World, responder: CmpResponder) -> None:
    device = world.join("one", Role.DEVICE)
    thief = Client(responder, signer=generate(), chain=device.chain)
    assert thief.send(Body.KUR, crmf(generate())).failure is Failure.BAD_MESSAGE_CHECK
    bare = Client(responder, signer=generate())
    assert bare.send(Body.KUR, crmf(generate())).failure is Failure.BAD_MESSAGE_CHECK


def test_what_waits_is_polled_for_and_given_when_it_was_approved(tmp_path: Path, ca: Authorities) -> None:
    policy = ApprovalPolicy(protocols={EnrollmentProtocol.CMP: 1})
    world = World(f"sqlite:///{tmp_path / 'c.sqlite'}", ca=ca, approvals=policy)
    responder = CmpResponder(world.authority, world.clock)
    client = by_mac(world, responder, "cam")
    poll = asn1.encode_der(PollReqContent(one=PollReq(cert_req_id=-1)))
    assert client.send(Body.P10CR, create_csr(generate())).status == 3
    answer = client.send(Body.POLL_REQ, poll)
    assert asn1.decode_der(PollRepContent, answer.content).one.check_after >= 1
    (waiting,) = world.op.list_requests()
    colleague = world.session(world.join("colleague", Role.OPERATOR))
    colleague.approve_request(waiting.request.request_id, reason="I know this camera")
    answer = client.send(Body.POLL_REQ, poll)
    assert answer.status == 0
    assert is_good(world, answer.certificate)
    world.close()


@pytest.mark.parametrize("size", [0, 1, 100, 70_000])
def test_what_is_no_message_is_answered_with_an_error(
    world: World, responder: CmpResponder, size: int
) -> None:
    answer = asn1.decode_der(Message, responder.answer(bytes(size), source="test"))
    assert answer.body.tag_bytes[0] & 0x1F == Body.ERROR


@pytest.mark.parametrize(
    "changed",
    [
        {"pvno": 1},
        {"pvno": 4},
        {"transaction_id": None},
        {"transaction_id": b"short"},
        {"transaction_id": bytes(65)},
        {"sender_nonce": None},
        {"protection_alg": None},
    ],
)
def test_a_header_that_leaves_out_what_ties_messages_together_is_refused(
    world: World, responder: CmpResponder, changed: dict[str, Any]
) -> None:
    client = by_mac(world, responder, "cam")
    assert client.send(Body.IR, crmf(generate()), **changed).kind == Body.ERROR


@pytest.mark.parametrize("iterations", [1, 99, 10_001, 2**31])
def test_a_mac_that_would_keep_us_busy_is_refused(
    world: World, responder: CmpResponder, iterations: int
) -> None:
    client = by_mac(world, responder, "cam")
    mac = Pbm(bytes(16), "sha256", iterations, "sha256").algorithm()
    answer = client.send(Body.IR, crmf(generate()), protection_alg=parts_of(mac))
    assert answer.failure is Failure.BAD_DATA_FORMAT


def test_a_renewal_with_the_same_key_that_somebody_recorded_renews_nothing_again(
    world: World, responder: CmpResponder
) -> None:
    device = world.join("meter", Role.DEVICE)
    asks = by_certificate(responder, device)
    recorded = asks.message(Body.KUR, crmf(device.signer))
    assert asks.raw(recorded).status == 0
    for _ in range(2):  # sent again to a process that remembers no transactions
        answer = by_certificate(CmpResponder(world.authority, world.clock), device).raw(recorded)
        assert (answer.status, answer.failure) == (2, Failure.BAD_CERT_TEMPLATE)
    with world.authority.ledger.reading() as tx:
        assert len(tx.certificates.of(device.spiffe_id)) == 2
    assert by_certificate(responder, device).send(Body.KUR, crmf(device.signer)).status == 0

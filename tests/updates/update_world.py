"""A small trust domain for the tests of this room: a CA, its people, and statements that they sign."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.identity import Digest, Epoch, KeyId, NodeId, Role, RunId, SpiffeId, TrustDomain
from fltrust.keys.file import FileSigner, generate
from fltrust.pki.authority import create_issuing, create_root
from fltrust.pki.bundle import make_bundle
from fltrust.pki.issuing import Draft, Issuer
from fltrust.pki.types import TrustBundle, VerifiedCertificate
from fltrust.updates import (
    AdmittedUpdate,
    Content,
    ExpectedInstruction,
    ExpectedUpdate,
    InstructionStatement,
    Phase,
    Record,
    RecordKind,
    SealedRoundStatement,
    SignedStatement,
    Statement,
    Tensor,
    UpdateStatement,
    digest_content,
    sign_statement,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
DOMAIN = TrustDomain("hospitals.example")
NODE_KEY = KeyId("ab" * 32)
INSTRUCTION_ID = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class Person:
    """Someone with a key and a certificate chain."""

    spiffe_id: SpiffeId
    signer: FileSigner
    chain: tuple[bytes, ...]

    @property
    def certificate(self) -> Digest:
        return Digest.sha256_of(self.chain[0])

    def sign(self, statement: Statement) -> SignedStatement:
        return sign_statement(statement, signer=self.signer, chain=self.chain)


class World:
    """One trust domain at noon, whose certificates live for an hour."""

    def __init__(self, domain: TrustDomain = DOMAIN, *, start: datetime = NOW) -> None:
        self.domain = domain
        self.start = start
        root_signer, issuing_signer = generate(), generate()
        began = start - timedelta(days=1)
        root = create_root(domain, signer=root_signer, now=began)
        issuing = create_issuing(
            root=root, root_signer=root_signer, public_key=issuing_signer.public_key, now=began
        )
        self.bundle: TrustBundle = make_bundle(domain, [root])
        self._issuer = Issuer(certificate=issuing, signer=issuing_signer)
        self.aggregator = self.person(Role.AGGREGATOR, "main")
        self.site_a = self.person(Role.PARTICIPANT, "site-a")
        self.site_b = self.person(Role.PARTICIPANT, "site-b")
        self.coordinator = self.person(Role.COORDINATOR, None)

    def person(self, role: Role, name: str | None, *, now: datetime | None = None) -> Person:
        signer = generate()
        who = SpiffeId.of(self.domain, role, name)
        draft = Draft.of(who, signer.public_key, now=now or self.start, lifetime=timedelta(hours=1))
        leaf = self._issuer.redeem(draft)
        ders = tuple(c.public_bytes(Encoding.DER) for c in (leaf, self._issuer.certificate))
        return Person(who, signer, ders)

    def instruction(self, content: Content, **changes: Any) -> InstructionStatement:
        digests = digest_content(content)
        statement = InstructionStatement(
            domain=self.domain,
            run_id=RunId(2**64 - 1),
            round=2,
            phase=Phase.TRAIN,
            step=3,
            instruction_id=INSTRUCTION_ID,
            aggregator=self.aggregator.spiffe_id,
            participant=self.site_a.spiffe_id,
            node_id=NodeId(2**63 + 1),
            node_key=NODE_KEY,
            message_type="train",
            content=digests.content,
            model=digests.model,
            issued_at=self.start,
            expires_at=self.start + timedelta(minutes=10),
            certificate=self.aggregator.certificate,
        )
        return replace(statement, **changes)

    def update(self, content: Content, *, answers: InstructionStatement, **changes: Any) -> UpdateStatement:
        statement = UpdateStatement(
            domain=answers.domain,
            run_id=answers.run_id,
            round=answers.round,
            phase=answers.phase,
            step=answers.step,
            participant=self.site_a.spiffe_id,
            node_id=answers.node_id,
            node_key=answers.node_key,
            message_type=answers.message_type,
            instruction_id=answers.instruction_id,
            instruction=Digest.sha256_of(answers.to_payload()),
            model=answers.model,
            content=digest_content(content).content,
            signed_at=self.start + timedelta(minutes=1),
            certificate=self.site_a.certificate,
        )
        return replace(statement, **changes)

    def receipt(self, update: UpdateStatement, **changes: Any) -> SealedRoundStatement:
        statement = SealedRoundStatement(
            domain=self.domain,
            index=7,
            root=Digest.sha256_of(b"the log before"),
            log=KeyId("ef" * 32),
            run_id=update.run_id,
            round=update.round,
            phase=update.phase,
            step=update.step,
            epoch=Epoch(41),
            opened_at=self.start,
            sealed_at=self.start + timedelta(minutes=2),
            aggregator=self.aggregator.spiffe_id,
            admitted=(
                AdmittedUpdate(
                    participant=update.participant,
                    node_id=update.node_id,
                    update=Digest.sha256_of(update.to_payload()),
                    content=update.content,
                    certificate=update.certificate,
                ),
            ),
            refused=((self.site_b.spiffe_id, "revoked"),),
            certificate=self.coordinator.certificate,
        )
        return replace(statement, **changes)

    def expected_instruction(self, **changes: Any) -> ExpectedInstruction:
        expected = ExpectedInstruction(
            run_id=RunId(2**64 - 1),
            node_id=NodeId(2**63 + 1),
            participant=self.site_a.spiffe_id,
            message_type="train",
            node_key=NODE_KEY,
        )
        return replace(expected, **changes)

    @staticmethod
    def expected_update(answers: InstructionStatement, **changes: Any) -> ExpectedUpdate:
        expected = ExpectedUpdate.answering(answers, instruction=Digest.sha256_of(answers.to_payload()))
        return replace(expected, **changes)


def stands_well(_: VerifiedCertificate) -> None:
    """A judge that finds nothing."""


def npy(values: list[float], shape: tuple[int, ...], *, descr: str = "<f4", code: str = "<f") -> bytes:
    """What ``np.save`` writes, without numpy."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    body = b"".join(struct.pack(code, value) for value in values)
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def tensor(values: list[float], shape: tuple[int, ...]) -> Tensor:
    return Tensor("float32", shape, "numpy.ndarray", npy(values, shape))


def arrays(**tensors: Tensor) -> Record:
    return Record("arrays", RecordKind.ARRAYS, tuple(tensors.items()))


def content(*values: float) -> Content:
    """A model of one tensor, one metrics and one config record."""
    numbers = list(values or (1.0, 2.0, 3.0, 4.0))
    return Content(
        (
            arrays(weight=tensor(numbers, (len(numbers),)), bias=tensor([0.5], (1,))),
            Record("metrics", RecordKind.METRICS, (("num-examples", 10), ("loss", 0.25))),
            Record("config", RecordKind.CONFIG, (("lr", 0.1), ("name", "a"), ("flags", [True, False]))),
        )
    )

"""A trust domain with an authority in this process, and everybody who deals with it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.coordinator.authority import Authority, AuthoritySettings, Caller, Session
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.identity import CoordinatorIdentity, issue_identity
from fltrust.coordinator.notary import scratch_notary
from fltrust.coordinator.public_names import PublicNaming
from fltrust.coordinator.succession import CaHome
from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.enrollment.challenge import node_key_challenge
from fltrust.enrollment.types import EnrollRequest, Issued, JoinToken, JoinTokenEvidence
from fltrust.identity import Digest, KeyId, Name, NodeId, Role, RunId, SpiffeId, TrustDomain
from fltrust.keys import FileSigner, generate, spki_der
from fltrust.pki import (
    Draft,
    TrustBundle,
    VerifiedCertificate,
    create_csr,
    create_issuing,
    create_root,
    make_bundle,
    verify_certificate,
)
from fltrust.pki.issuing import Issuer
from fltrust.revocation.events import RevocationReason, TrustEvent
from fltrust.revocation.ports import RevocationTarget
from fltrust.rounds.types import Candidate, CohortMember, RoundKey
from fltrust.storage import Store, open_store
from fltrust.updates import (
    MAX_SEALED_SIGNED_BYTES,
    InstructionStatement,
    Phase,
    SealedRoundStatement,
    SignedStatement,
    UpdateStatement,
    sign_statement,
    unverified_statement,
)

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
DOMAIN = TrustDomain("hospitals.example")
RUN = RunId(2**64 - 7)


class FakeClock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self._now = START

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return (self._now - START).total_seconds()

    def advance(self, by: timedelta) -> None:
        self._now += by


@dataclass
class Member:
    """Somebody enrolled: keys, certificate, session."""

    spiffe_id: SpiffeId
    signer: FileSigner
    chain: tuple[bytes, ...]
    certificate: VerifiedCertificate
    node: FileSigner | None = None
    node_id: NodeId = field(default_factory=lambda: NodeId(secrets.randbits(64)))

    @property
    def name(self) -> Name:
        assert self.spiffe_id.name is not None
        return self.spiffe_id.name

    @property
    def node_key(self) -> KeyId:
        assert self.node is not None
        return self.node.key_id

    @property
    def target(self) -> RevocationTarget:
        return RevocationTarget(name=(self.spiffe_id.role, self.name))


@dataclass(frozen=True)
class Authorities:
    """A CA: made once, since it is the slow part."""

    bundle: TrustBundle
    issuer: Issuer

    @classmethod
    def make(cls) -> Authorities:
        root_signer, issuing_signer = generate(), generate()
        began = START - timedelta(days=1)
        root = create_root(DOMAIN, signer=root_signer, now=began)
        issuing = create_issuing(
            root=root, root_signer=root_signer, public_key=issuing_signer.public_key, now=began
        )
        return cls(make_bundle(DOMAIN, [root]), Issuer(certificate=issuing, signer=issuing_signer))


class World:
    """One coordinator on one database, with an operator; `reopen` is its crash and restart."""

    def __init__(
        self,
        url: str,
        *,
        ca: Authorities | None = None,
        names: PublicNaming | None = None,
        home: CaHome | None = None,
        approvals: ApprovalPolicy | None = None,
    ) -> None:
        self.url = url
        self.clock = FakeClock()
        self.ca = ca or Authorities.make()
        self.bundle = self.ca.bundle
        self.store: Store
        self.authority: Authority
        self.names = names or PublicNaming()
        self.home = home
        self.approvals = approvals or ApprovalPolicy()
        self.in_force = CurrentCa(self.ca.issuer, self.bundle)
        self.notary = scratch_notary(self.in_force, clock=self.clock)
        self.identity: CoordinatorIdentity = issue_identity(self.ca.issuer, self.bundle, clock=self.clock)
        self.open()
        signer, issued = self.authority.bootstrap_operator(Name("root"))
        self.operator = self._member(signer, issued)

    def open(self) -> None:
        self.store = open_store(self.url)
        self.authority = Authority(
            store=self.store,
            ca=self.in_force,
            signer=self.identity.signer,
            chain=self.identity.chain_der,
            notary=self.notary,
            names=self.names,
            home=self.home,
            clock=self.clock,
            settings=AuthoritySettings(
                domain=DOMAIN,
                bootstrap="localhost:1",
                address="localhost:2",
                approvals=self.approvals,
            ),
        )

    def reopen(self) -> None:
        self.store.close()
        self.open()

    def close(self) -> None:
        self.store.close()

    def session(self, member: Member) -> Session:
        return self.authority.session(Caller.of(member.certificate))

    @property
    def op(self) -> Session:
        return self.session(self.operator)

    def token(self, name: str, role: Role = Role.PARTICIPANT, **options: Any) -> JoinToken:
        return self.op.create_token(role, Name(name), ttl=timedelta(minutes=15), **options)

    def join(
        self,
        name: str,
        role: Role = Role.PARTICIPANT,
        *,
        token: JoinToken | None = None,
        signer: FileSigner | None = None,
        node: FileSigner | None = None,
    ) -> Member:
        token = token or self.token(name, role)
        signer = signer or generate()
        if role is Role.PARTICIPANT:
            node = node or generate()
        return self._member(signer, self.authority.enroll(request(token, signer, node)), node)

    def _member(self, signer: FileSigner, issued: Issued, node: FileSigner | None = None) -> Member:
        certificate = verify_certificate(issued.chain_der, bundle=self.bundle, at=self.clock.now())
        return Member(issued.spiffe_id, signer, issued.chain_der, certificate, node)

    def renew(self, member: Member, signer: FileSigner | None = None) -> Member:
        signer = signer or generate()
        issued = self.session(member).renew(create_csr(signer))
        return replace(self._member(signer, issued, member.node), node_id=member.node_id)

    def mint(self, member: Member) -> Member:
        """A certificate for `member` that the issuing CA's key signed and nobody issued."""
        signer = generate()
        draft = Draft.of(member.spiffe_id, signer.public_key, now=self.clock.now())
        chain = (self.ca.issuer.redeem(draft), self.ca.issuer.certificate)
        issued = Issued(member.spiffe_id, tuple(c.public_bytes(Encoding.DER) for c in chain), self.bundle)
        return replace(self._member(signer, issued, member.node), node_id=member.node_id)

    def revoke(self, member: Member, **options: Any) -> TrustEvent:
        (event,) = self.op.revoke(member.target, reason=RevocationReason.KEY_COMPROMISE, **options)
        return event


def request(token: JoinToken, signer: FileSigner, node: FileSigner | None) -> EnrollRequest:
    """What a site sends."""
    csr, evidence = create_csr(signer), JoinTokenEvidence(token.secret)
    if node is None:
        return EnrollRequest(evidence, csr)
    proof = node.sign(node_key_challenge(csr, evidence))
    return EnrollRequest(evidence, csr, spki_der(node.public_key), proof)


class Exchange:
    """One step of a run, as the aggregator conducts it."""

    def __init__(self, world: World, aggregator: Member, *, step: int = 1, run: RunId = RUN) -> None:
        self.world = world
        self.aggregator = aggregator
        self.key = RoundKey(run, step, step, Phase.TRAIN)
        self.instructions: dict[SpiffeId, InstructionStatement] = {}
        self.signed: dict[SpiffeId, bytes] = {}

    @property
    def session(self) -> Session:
        return self.world.session(self.aggregator)

    def instruct(self, member: Member, **changes: Any) -> CohortMember:
        now, content, model = self.world.clock.now(), secrets.token_bytes(32), secrets.token_bytes(32)
        statement = InstructionStatement(
            domain=DOMAIN,
            run_id=self.key.run_id,
            round=self.key.round,
            phase=self.key.phase,
            step=self.key.step,
            instruction_id=secrets.token_hex(16),
            aggregator=self.aggregator.spiffe_id,
            participant=member.spiffe_id,
            node_id=member.node_id,
            node_key=member.node_key,
            message_type="train",
            content=Digest("fltrust-content-v1", content),
            model=Digest("fltrust-model-v1", model),
            issued_at=now,
            expires_at=now + timedelta(hours=12),
            certificate=Digest.sha256_of(self.aggregator.chain[0]),
        )
        statement = replace(statement, **changes)
        signed = sign_statement(statement, signer=self.aggregator.signer, chain=self.aggregator.chain)
        self.instructions[member.spiffe_id] = statement
        self.signed[member.spiffe_id] = signed.to_bytes()
        return CohortMember(
            member.spiffe_id, member.node_id, member.node_key, Digest.sha256_of(statement.to_payload())
        )

    def open(self, *members: Member) -> Any:
        return self.session.open_round(self.key, tuple(self.instruct(member) for member in members))

    def answer(self, member: Member, **changes: Any) -> Candidate:
        """What `member` replies to its instruction, as a candidate."""
        asked = self.instructions[member.spiffe_id]
        statement = UpdateStatement(
            domain=asked.domain,
            run_id=asked.run_id,
            round=asked.round,
            phase=asked.phase,
            step=asked.step,
            participant=member.spiffe_id,
            node_id=asked.node_id,
            node_key=asked.node_key,
            message_type=asked.message_type,
            instruction_id=asked.instruction_id,
            instruction=Digest.sha256_of(asked.to_payload()),
            model=asked.model,
            content=Digest("fltrust-content-v1", secrets.token_bytes(32)),
            signed_at=self.world.clock.now(),
            certificate=Digest.sha256_of(member.chain[0]),
        )
        statement = replace(statement, **changes)
        signed = sign_statement(statement, signer=member.signer, chain=member.chain)
        return Candidate(self.signed[member.spiffe_id], signed.to_bytes())

    def seal(self, *candidates: Candidate, refused: Any = ()) -> SealedRoundStatement:
        return receipt_of(self.session.seal_round(self.key, candidates, refused))


def receipt_of(data: bytes) -> SealedRoundStatement:
    """What a receipt says."""
    statement = unverified_statement(SignedStatement.from_bytes(data, limit=MAX_SEALED_SIGNED_BYTES))
    assert isinstance(statement, SealedRoundStatement)
    return statement


def admitted(receipt: SealedRoundStatement) -> set[str]:
    return {str(entry.participant.name) for entry in receipt.admitted}


def reasons(receipt: SealedRoundStatement) -> dict[str, str]:
    return {str(who.name): reason for who, reason in receipt.refused}


WorldMaker = Callable[[], World]

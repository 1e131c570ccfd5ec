"""Verification of signed statements: one recipe for both directions and for receipts.

A `Verifier` holds trust, not memory: the same arguments always give the same answer. Whether
an instruction was seen before, or a round is still open, is for those who remember.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

from fltrust.clock import to_rfc3339
from fltrust.errors import Oversized, Refusal, StatementRefused, UpdateRefused
from fltrust.identity import Digest, KeyId, NodeId, Role, RunId, SpiffeId, TrustDomain
from fltrust.pki.federated import FOREIGN_ROLES, TrustSet
from fltrust.pki.types import TrustBundle, VerifiedCertificate
from fltrust.pki.verify import CLOCK_SKEW, verify_certificate
from fltrust.updates.content import Content
from fltrust.updates.digest import content_digest as digest_of
from fltrust.updates.dsse import MAX_ENVELOPE_BYTES, MAX_SEALED_ENVELOPE_BYTES, Envelope
from fltrust.updates.expect import expect, refused
from fltrust.updates.intoto import MAX_PAYLOAD_BYTES, MAX_SEALED_PAYLOAD_BYTES
from fltrust.updates.signing import SignedStatement
from fltrust.updates.statement import (
    InstructionStatement,
    Phase,
    SealedRoundStatement,
    Statement,
    UpdateStatement,
    parse_statement,
)

Judge = Callable[[VerifiedCertificate], None]
"""Raises `Revoked` (or another `Refused`) for a certificate that does not stand well."""


class ChainVerifier(Protocol):
    """`fltrust.pki.verify.verify_certificate`, or what stands in for it."""

    def __call__(
        self,
        chain: Sequence[bytes],
        /,
        *,
        bundle: TrustBundle,
        at: datetime,
        expect_domain: TrustDomain,
        expect_role: Role,
    ) -> VerifiedCertificate: ...


@dataclass(frozen=True, slots=True)
class Opened:
    """A statement whose signer, signature and form were verified; not yet whether it was expected.

    `payload_digest` is the SHA-256 of its payload, the statement's name everywhere.
    """

    statement: Statement
    certificate: VerifiedCertificate
    payload_digest: Digest


@dataclass(frozen=True, slots=True)
class VerifiedInstruction:
    """An instruction that is for us, in time, and (if `content_checked`) about this content."""

    statement: InstructionStatement
    certificate: VerifiedCertificate
    payload_digest: Digest
    content_checked: bool


@dataclass(frozen=True, slots=True)
class VerifiedUpdate:
    """An update that answers what was asked, and (if `content_checked`) is about this content."""

    statement: UpdateStatement
    certificate: VerifiedCertificate
    payload_digest: Digest
    content_checked: bool


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """A sealed round that the coordinator signed."""

    statement: SealedRoundStatement
    certificate: VerifiedCertificate
    payload_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedInstruction:
    """What a node knows of itself and of the message; `node_key` None where it is not known."""

    run_id: RunId
    node_id: NodeId
    participant: SpiffeId
    message_type: str
    node_key: KeyId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedUpdate:
    """What the aggregator asked, and of whom. `instruction` is the SHA-256 of the instruction's payload."""

    domain: TrustDomain
    run_id: RunId
    round: int
    phase: Phase
    step: int
    participant: SpiffeId
    node_id: NodeId
    node_key: KeyId
    message_type: str
    instruction_id: str
    instruction: Digest
    model: Digest

    @classmethod
    def answering(cls, statement: InstructionStatement, *, instruction: Digest) -> Self:
        """What the answer to `statement` must say; `instruction` is its payload digest."""
        return cls(
            domain=statement.domain,
            run_id=statement.run_id,
            round=statement.round,
            phase=statement.phase,
            step=statement.step,
            participant=statement.participant,
            node_id=statement.node_id,
            node_key=statement.node_key,
            message_type=statement.message_type,
            instruction_id=statement.instruction_id,
            instruction=instruction,
            model=statement.model,
        )


class Verifier:
    """Verifies statements of one trust domain. Holds no state besides; share it between threads.

    With `foreign` bundles, participants of those domains may answer, each under its own domain's roots.
    Instructions and receipts are the domain's own, whatever is in `foreign`.
    """

    __slots__ = ("_trust", "_verify_chain")

    def __init__(
        self,
        bundle: TrustBundle,
        *,
        foreign: Sequence[TrustBundle] = (),
        verify_chain: ChainVerifier = verify_certificate,
    ) -> None:
        self._trust = TrustSet.of(bundle, foreign)
        self._verify_chain = verify_chain

    def open(self, signed: SignedStatement, *, at: datetime, role: Role, judge: Judge) -> Opened:
        """Verify who signed and that nothing was altered; return the statement and its certificate.

        1. The envelope is within its bound (64 KiB; 8 MiB for the coordinator's receipts), else
           `Oversized`.
        2. It is a strict DSSE envelope of an in-toto statement with one signature, else `Malformed`
           or ``unknown-type``.
        3. The chain leads to the bundle, is good at `at`, of this domain and of `role`, else
           `CertificateRefused`. A participant's may be of a foreign domain, under that domain's bundle.
        4. `judge` raises nothing: the certificate is not revoked or held.
        5. The signature is the leaf key's over the envelope's PAE, else `SignatureInvalid`.
        6. The payload is a statement in its one byte form, else `Malformed` or ``unknown-type``.
        7. The statement names this certificate (``wrong-certificate``), this domain (``wrong-domain``),
           and the certificate's identity as its signer (``unknown-identity``).
        8. The time at which it claims to be signed lies in the certificate's life
           (``certificate-expired``, ``certificate-not-yet-valid``) and not after `at` (``expired``),
           give or take `CLOCK_SKEW` for what is early.

        Nothing in the payload is parsed before 5. `at` is now on admission; for a check years later,
        a time that the verifier trusts, such as that of the receipt, or `claimed_at`.
        """
        sealed = role is Role.COORDINATOR
        limit = MAX_SEALED_ENVELOPE_BYTES if sealed else MAX_ENVELOPE_BYTES
        # 1.
        if len(signed.envelope_json) > limit:
            raise Oversized(f"expected an envelope of at most {limit} bytes, got {len(signed.envelope_json)}")
        # 2.
        envelope = Envelope.from_json(signed.envelope_json, limit=limit)
        # 3.
        bundle = self._trust.home
        if role in FOREIGN_ROLES:
            bundle = self._trust.claimed_by(signed.chain_der)
        certificate = self._verify_chain(
            signed.chain_der, bundle=bundle, at=at, expect_domain=bundle.domain, expect_role=role
        )
        # 4.
        judge(certificate)
        # 5.
        envelope.verify(certificate)
        # 6.
        statement = parse_statement(
            envelope.payload, limit=MAX_SEALED_PAYLOAD_BYTES if sealed else MAX_PAYLOAD_BYTES
        )
        # 7.
        _check_signer(statement, certificate, self._trust.home.domain)
        # 8.
        _check_claimed_time(statement, certificate, at)
        return Opened(statement, certificate, envelope.payload_digest)

    def verify_instruction(
        self,
        signed: SignedStatement,
        *,
        at: datetime,
        judge: Judge,
        expected: ExpectedInstruction,
        content_digest: Digest | None,
        model_digest: Digest | None = None,
    ) -> VerifiedInstruction:
        """Verify an aggregator's instruction as the node that received it; see `open` for 1 to 8.

        9. It is an instruction, else ``unknown-type``.
        10. It is for this run, participant, node and node key, and of this message type
            (``wrong-run``, ``wrong-participant``, ``wrong-node``, ``wrong-phase``).
        11. At `at` it has been issued and has not expired, give or take `CLOCK_SKEW`, else ``expired``.
        12. Its content (and, if given, its model) is what was received, else `UpdateRefused` with
            ``digest-mismatch`` or ``wrong-model``. With None for `content_digest` the content is not
            at hand (as at the coordinator), and the result says so.
        """
        opened = self.open(signed, at=at, role=Role.AGGREGATOR, judge=judge)
        statement = opened.statement
        # 9.
        if not isinstance(statement, InstructionStatement):
            raise refused("an instruction", statement.predicate_type, Refusal.UNKNOWN_TYPE)
        # 10.
        expect(statement.run_id, expected.run_id, "run", Refusal.WRONG_RUN)
        expect(statement.participant, expected.participant, "participant", Refusal.WRONG_PARTICIPANT)
        expect(statement.node_id, expected.node_id, "node", Refusal.WRONG_NODE)
        if expected.node_key is not None:
            expect(statement.node_key, expected.node_key, "node key", Refusal.WRONG_NODE)
        expect(statement.message_type, expected.message_type, "message type", Refusal.WRONG_PHASE)
        # 11. (`open` refused one that is issued after `at`)
        if at > statement.expires_at + CLOCK_SKEW:
            raise StatementRefused(
                f"expected an instruction in force at {to_rfc3339(at)}, "
                f"it expired at {to_rfc3339(statement.expires_at)}",
                reason=Refusal.EXPIRED,
                hint="compare the clocks of aggregator and participant",
            )
        # 12.
        if content_digest is not None:
            _check_content(statement.content, content_digest)
        if model_digest is not None:
            _expect_digest(statement.model, model_digest, "model", Refusal.WRONG_MODEL)
        return VerifiedInstruction(
            statement, opened.certificate, opened.payload_digest, content_digest is not None
        )

    def verify_update(
        self,
        signed: SignedStatement,
        *,
        at: datetime,
        judge: Judge,
        expected: ExpectedUpdate,
        content: Content | Digest | None,
        workers: int | None = None,
    ) -> VerifiedUpdate:
        """Verify a participant's update against what was asked of it; see `open` for 1 to 8.

        9. It is an update, else ``unknown-type``.
        10. It is of this domain, run, round, phase, step and message type (``wrong-domain``,
            ``wrong-run``, ``wrong-round``, ``wrong-phase``; a step counts as a round, a message
            type as a phase).
        11. It is of this participant, node and node key (``wrong-participant``, ``wrong-node``).
        12. It answers this instruction (``wrong-instruction``) from this model (``wrong-model``).
        13. Its content is what came, else `UpdateRefused` with ``digest-mismatch``. A `Content` is
            digested here, last, on `workers` threads (all cores by default). With None the content
            is not at hand (as at the coordinator), and the result says so.
        """
        opened = self.open(signed, at=at, role=Role.PARTICIPANT, judge=judge)
        statement = opened.statement
        # 9.
        if not isinstance(statement, UpdateStatement):
            raise refused("an update", statement.predicate_type, Refusal.UNKNOWN_TYPE)
        # 10.
        expect(statement.domain, expected.domain, "trust domain", Refusal.WRONG_DOMAIN)
        expect(statement.run_id, expected.run_id, "run", Refusal.WRONG_RUN)
        expect(statement.round, expected.round, "round", Refusal.WRONG_ROUND)
        expect(statement.phase, expected.phase, "phase", Refusal.WRONG_PHASE)
        expect(statement.step, expected.step, "step", Refusal.WRONG_ROUND)
        expect(statement.message_type, expected.message_type, "message type", Refusal.WRONG_PHASE)
        # 11.
        expect(statement.participant, expected.participant, "participant", Refusal.WRONG_PARTICIPANT)
        expect(statement.node_id, expected.node_id, "node", Refusal.WRONG_NODE)
        expect(statement.node_key, expected.node_key, "node key", Refusal.WRONG_NODE)
        # 12.
        expect(statement.instruction_id, expected.instruction_id, "instruction", Refusal.WRONG_INSTRUCTION)
        _expect_digest(statement.instruction, expected.instruction, "instruction", Refusal.WRONG_INSTRUCTION)
        _expect_digest(statement.model, expected.model, "model", Refusal.WRONG_MODEL)
        # 13.
        if content is not None:
            came = content if isinstance(content, Digest) else digest_of(content, workers=workers)
            _check_content(statement.content, came)
        return VerifiedUpdate(statement, opened.certificate, opened.payload_digest, content is not None)

    def verify_receipt(self, signed: SignedStatement, *, at: datetime, judge: Judge) -> VerifiedReceipt:
        """Verify a sealed round's receipt; see `open` for 1 to 8. Its place in the log is the caller's.

        9. It is a sealed round, else ``unknown-type``.
        """
        opened = self.open(signed, at=at, role=Role.COORDINATOR, judge=judge)
        # 9.
        if not isinstance(opened.statement, SealedRoundStatement):
            raise refused("a sealed round", opened.statement.predicate_type, Refusal.UNKNOWN_TYPE)
        return VerifiedReceipt(opened.statement, opened.certificate, opened.payload_digest)


def unverified_statement(signed: SignedStatement) -> Statement:
    """What the envelope says, read strictly; nothing is verified. For display, and to find what to expect."""
    return parse_statement(signed.envelope.payload, limit=MAX_SEALED_PAYLOAD_BYTES)


def claimed_at(signed: SignedStatement) -> datetime:
    """When the signer *says* that it signed; nothing is verified.

    For checks after the certificate's life: pass it as `at` and `open` verifies the rest, but a
    signer (or a thief of its key) can back-date. Where a receipt gives the time, use that.
    """
    return unverified_statement(signed).claimed_at


def same_digest(one: Digest, other: Digest) -> bool:
    """Whether two digests are equal, in constant time; of different algorithms they never are."""
    return one.algorithm == other.algorithm and hmac.compare_digest(one.value, other.value)


def _check_signer(statement: Statement, certificate: VerifiedCertificate, domain: TrustDomain) -> None:
    if not same_digest(statement.certificate, certificate.fingerprint):
        raise refused(
            f"certificate {certificate.fingerprint}", statement.certificate, Refusal.WRONG_CERTIFICATE
        )
    expect(statement.domain, domain, "trust domain", Refusal.WRONG_DOMAIN)
    expect(statement.signer, certificate.spiffe_id, "signer", Refusal.UNKNOWN_IDENTITY)


def _check_claimed_time(statement: Statement, certificate: VerifiedCertificate, at: datetime) -> None:
    claimed = statement.claimed_at
    if claimed > certificate.not_after:
        raise refused(f"signing before {certificate.not_after}", claimed, Refusal.CERTIFICATE_EXPIRED)
    if claimed < certificate.not_before - CLOCK_SKEW:
        raise refused(f"signing after {certificate.not_before}", claimed, Refusal.CERTIFICATE_NOT_YET_VALID)
    if claimed > at + CLOCK_SKEW:
        raise refused(f"signing before {at}", claimed, Refusal.EXPIRED)


def _check_content(signed: Digest, came: Digest) -> None:
    if not same_digest(signed, came):
        raise UpdateRefused(
            f"expected the content that was signed, {signed}, got {came}",
            reason=Refusal.DIGEST_MISMATCH,
            hint="something between signer and here changed the message",
        )


def _expect_digest(found: Digest, wanted: Digest, what: str, reason: Refusal) -> None:
    if not same_digest(found, wanted):
        raise refused(f"{what} {wanted}", found, reason)

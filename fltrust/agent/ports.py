"""What an app process asks of the agent beside it.

`TrustedClientApp` speaks to a `ParticipantAgent`, `TrustedGrid` to an
`AggregatorAgent`. Both exist over the unix socket (`agent.client`) and in the
process (`agent.participant`, `agent.aggregator`). Private keys stay behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from fltrust.artifacts.inputs import AppVersion
from fltrust.artifacts.ports import RoundFacts, SigningDesk, StepOfRun
from fltrust.identity import Digest, KeyId, NodeId, RunId, SpiffeId
from fltrust.pki.types import TrustBundle
from fltrust.revocation.ports import TrustFeed
from fltrust.rounds.types import RoundAuthority
from fltrust.updates.statement import Phase


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """Who the agent is, and the roots that it trusts."""

    spiffe_id: SpiffeId
    bundle: TrustBundle
    node_key: KeyId | None
    foreign: tuple[TrustBundle, ...] = ()
    """Roots of domains that ours federates with, whose participants may answer: an aggregator's alone."""


@dataclass(frozen=True, slots=True)
class ReceivedInstruction:
    """An instruction as the app process received it, with what it computed and what Flower claims.

    `content` is the content digest of the message without our own record, `model` the
    model digest of it; run, node and message type are the message's metadata.
    """

    signed: bytes
    content: Digest
    model: Digest
    run_id: RunId
    node_id: NodeId
    message_type: str


@dataclass(frozen=True, slots=True)
class InstructionDraft:
    """What the aggregator wants signed for one participant; the agent adds who, when and the certificate."""

    run_id: RunId
    round: int
    phase: Phase
    step: int
    participant: SpiffeId
    node_id: NodeId
    node_key: KeyId
    message_type: str
    content: Digest
    model: Digest
    lifetime: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateDraft:
    """What a strategy made of a sealed round, or the arrays that it began with, to be recorded.

    `tensors` is the digest of the canonical tensor set (`fltrust.artifacts.tensors`), `model` the model
    digest (`fltrust.updates.digest`) as the next instructions will state it. `previous_step` names the
    aggregate before, of the same run; an initial model has none. `weights` says what each update counted
    with, as a decimal number (`fltrust.artifacts.inputs.examples_text`).
    """

    run_id: RunId
    step: int
    round: int
    is_initial: bool
    tensors: Digest
    model: Digest
    previous_step: int | None
    app: AppVersion | None
    weights: tuple[tuple[SpiffeId, str], ...]


class ParticipantAgent(Protocol):
    """Guards a participant's key."""

    def check_instruction(self, received: ReceivedInstruction) -> None:
        """Raise unless the instruction is signed by an aggregator in good standing, for this
        participant and node, for an open run, fresh, and not older than what was answered before."""
        ...

    def sign_update(self, received: ReceivedInstruction, *, reply: Digest, reply_type: str) -> bytes:
        """Check the instruction again and sign one reply content digest for it; returns
        `SignedStatement` bytes. The same digest again gives the same bytes; another one is refused."""
        ...

    def sign_second(self, signed: bytes) -> bytes:
        """Sign once more what `sign_update` returned, with the ML-DSA-65 key; `SecondSignature` in JSON.

        Anything else than an answer that this agent gave is refused (``unknown-answer``), and so is an
        agent that has no such key (``second-key-missing``)."""
        ...


class AggregatorAgent(RoundAuthority, TrustFeed, Protocol):
    """Guards an aggregator's key and carries its calls to the coordinator."""

    def identity(self) -> AgentIdentity: ...

    def sign_instructions(self, drafts: tuple[InstructionDraft, ...]) -> tuple[bytes, ...]:
        """`SignedStatement` bytes for each draft, in order."""
        ...

    def record_aggregate(self, draft: AggregateDraft) -> bytes:
        """State where an aggregate comes from, sign it, and have it countersigned; returns the Sigstore
        bundle once it is durable. The same draft again gives the bundle that there is; another draft for
        its step is a `Conflict`."""
        ...


class AggregatorUpstream(RoundAuthority, SigningDesk, Protocol):
    """What an aggregator's agent asks of the coordinator; see `fltrust.artifacts.ports`."""

    def describe_round(self, run_id: RunId, step: int) -> RoundFacts: ...

    def find_lineage(self, query: Digest | StepOfRun) -> Iterator[bytes]: ...

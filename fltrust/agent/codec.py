"""The agent's own types on its socket; rounds, bundles and the feed are `fltrust.wire`'s."""

from __future__ import annotations

from datetime import timedelta

from fltrust.agent.ports import AgentIdentity, AggregateDraft, InstructionDraft, ReceivedInstruction
from fltrust.artifacts.bundle import MAX_BUNDLE
from fltrust.artifacts.inputs import AppVersion
from fltrust.errors import Malformed
from fltrust.identity import Digest, KeyId, NodeId, RunId, SpiffeId
from fltrust.updates.intoto import MAX_MESSAGE_TYPE
from fltrust.updates.receipt import MAX_COHORT
from fltrust.updates.signing import MAX_SIGNED_BYTES
from fltrust.updates.statement import Phase
from fltrust.wire.enrollment import bundle_from_pb, bundle_to_pb
from fltrust.wire.federation import MAX_DOMAINS
from fltrust.wire.pb import agent_pb2 as pb
from fltrust.wire.values import at_most, bounded, present, text_of, text_within, word


def identity_to_pb(identity: AgentIdentity) -> pb.IdentityResponse:
    return pb.IdentityResponse(
        spiffe_id=str(identity.spiffe_id),
        bundle=bundle_to_pb(identity.bundle),
        node_key=text_of(identity.node_key),
        foreign=map(bundle_to_pb, identity.foreign),
    )


def identity_from_pb(message: pb.IdentityResponse) -> AgentIdentity:
    present(message, "bundle")
    at_most(message.foreign, MAX_DOMAINS, what="foreign domains")
    return AgentIdentity(
        spiffe_id=SpiffeId.parse(message.spiffe_id),
        bundle=bundle_from_pb(message.bundle),
        node_key=KeyId(message.node_key) if message.node_key else None,
        foreign=tuple(map(bundle_from_pb, message.foreign)),
    )


def received_to_pb(received: ReceivedInstruction) -> pb.ReceivedInstruction:
    return pb.ReceivedInstruction(
        signed=received.signed,
        content=str(received.content),
        model=str(received.model),
        run_id=received.run_id,
        node_id=received.node_id,
        message_type=received.message_type,
    )


def received_from_pb(message: pb.ReceivedInstruction) -> ReceivedInstruction:
    return ReceivedInstruction(
        signed=bounded(message.signed, limit=MAX_SIGNED_BYTES, what="a signed instruction"),
        content=Digest.parse(message.content),
        model=Digest.parse(message.model),
        run_id=RunId(message.run_id),
        node_id=NodeId(message.node_id),
        message_type=text_within(message.message_type, limit=MAX_MESSAGE_TYPE, what="a message type"),
    )


def draft_to_pb(draft: InstructionDraft) -> pb.InstructionDraft:
    """Write a draft; its lifetime is carried in whole seconds, rounded up."""
    return pb.InstructionDraft(
        run_id=draft.run_id,
        round=draft.round,
        phase=draft.phase,
        step=draft.step,
        participant=str(draft.participant),
        node_id=draft.node_id,
        node_key=draft.node_key,
        message_type=draft.message_type,
        content=str(draft.content),
        model=str(draft.model),
        lifetime_seconds=-(-draft.lifetime // timedelta(seconds=1)),
    )


def draft_from_pb(message: pb.InstructionDraft) -> InstructionDraft:
    return InstructionDraft(
        run_id=RunId(message.run_id),
        round=message.round,
        phase=word(Phase, message.phase, what="a phase"),
        step=message.step,
        participant=SpiffeId.parse(message.participant),
        node_id=NodeId(message.node_id),
        node_key=KeyId(message.node_key),
        message_type=text_within(message.message_type, limit=MAX_MESSAGE_TYPE, what="a message type"),
        content=Digest.parse(message.content),
        model=Digest.parse(message.model),
        lifetime=timedelta(seconds=message.lifetime_seconds),
    )


def drafts_from_pb(message: pb.SignInstructionsRequest) -> tuple[InstructionDraft, ...]:
    at_most(message.drafts, MAX_COHORT, what="instructions at once")
    return tuple(draft_from_pb(draft) for draft in message.drafts)


def signed_from_pb(message: pb.SignInstructionsResponse, *, expected: int) -> tuple[bytes, ...]:
    if len(message.signed) != expected:
        raise Malformed(f"expected {expected} signed instructions, got {len(message.signed)}")
    return tuple(
        bounded(signed, limit=MAX_SIGNED_BYTES, what="a signed statement") for signed in message.signed
    )


def aggregate_to_pb(draft: AggregateDraft) -> pb.RecordAggregateRequest:
    app = draft.app
    return pb.RecordAggregateRequest(
        run_id=draft.run_id,
        step=draft.step,
        round=draft.round,
        is_initial=draft.is_initial,
        tensors=str(draft.tensors),
        model=str(draft.model),
        previous_step=draft.previous_step,
        app=None
        if app is None
        else pb.AppVersion(fab_id=app.fab_id, fab_version=app.fab_version, fab_hash=app.fab_hash),
        weights=[pb.Weight(participant=str(who), examples=examples) for who, examples in draft.weights],
    )


def aggregate_from_pb(message: pb.RecordAggregateRequest) -> AggregateDraft:
    at_most(message.weights, MAX_COHORT, what="weights of updates")
    app = message.app
    return AggregateDraft(
        run_id=RunId(message.run_id),
        step=message.step,
        round=message.round,
        is_initial=message.is_initial,
        tensors=Digest.parse(message.tensors),
        model=Digest.parse(message.model),
        previous_step=message.previous_step if message.HasField("previous_step") else None,
        app=AppVersion(app.fab_id, app.fab_version, app.fab_hash) if message.HasField("app") else None,
        weights=tuple(
            (SpiffeId.parse(weight.participant), text_within(weight.examples, limit=64, what="a weight"))
            for weight in message.weights
        ),
    )


def recorded_from_pb(message: pb.RecordAggregateResponse) -> bytes:
    return bounded(message.bundle, limit=MAX_BUNDLE, what="a bundle")

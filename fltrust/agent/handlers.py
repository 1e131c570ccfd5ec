"""Which requests an agent answers, by role, and how. What is not in the table is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from fltrust.agent.aggregator import AggregatorCore
from fltrust.agent.codec import aggregate_from_pb, drafts_from_pb, identity_to_pb, received_from_pb
from fltrust.agent.ports import AgentIdentity, ParticipantAgent
from fltrust.identity import Digest, RunId
from fltrust.updates.intoto import MAX_MESSAGE_TYPE
from fltrust.updates.signing import MAX_SIGNED_BYTES
from fltrust.wire.framing import MAX_FRAME, MAX_SEAL_FRAME
from fltrust.wire.pb import agent_pb2 as pb
from fltrust.wire.pb import rounds_pb2
from fltrust.wire.rounds import open_request_from_pb, opened_to_pb, seal_request_from_pb
from fltrust.wire.values import bounded, text_within

Handler = Callable[[pb.AgentRequest], pb.AgentResponse]

FOLLOW = "follow"
"""The one request that is answered by a stream; the server does that itself."""


class AnsweringParticipant(ParticipantAgent, Protocol):
    """A participant's side of the socket: a `ParticipantCore`, or one that stands for several."""

    def identity(self) -> AgentIdentity: ...


def participant_handlers(core: AnsweringParticipant) -> Mapping[str, Handler]:
    """Identity, CheckInstruction, SignUpdate and SignSecond."""

    def identity(_request: pb.AgentRequest) -> pb.AgentResponse:
        return pb.AgentResponse(identity=identity_to_pb(core.identity()))

    def check_instruction(request: pb.AgentRequest) -> pb.AgentResponse:
        core.check_instruction(received_from_pb(request.check_instruction.received))
        return pb.AgentResponse(check_instruction=pb.CheckInstructionResponse())

    def sign_update(request: pb.AgentRequest) -> pb.AgentResponse:
        asked = request.sign_update
        signed = core.sign_update(
            received_from_pb(asked.received),
            reply=Digest.parse(asked.reply),
            reply_type=text_within(asked.reply_type, limit=MAX_MESSAGE_TYPE, what="a message type"),
        )
        return pb.AgentResponse(sign_update=pb.SignUpdateResponse(signed=signed))

    def sign_second(request: pb.AgentRequest) -> pb.AgentResponse:
        signed = bounded(request.sign_second.signed, limit=MAX_SIGNED_BYTES, what="a signed update")
        return pb.AgentResponse(sign_second=pb.SignSecondResponse(second=core.sign_second(signed)))

    return {
        "identity": identity,
        "check_instruction": check_instruction,
        "sign_update": sign_update,
        "sign_second": sign_second,
    }


def aggregator_handlers(core: AggregatorCore) -> Mapping[str, Handler]:
    """Identity, SignInstructions, OpenRound, SealRound, CloseRun and RecordAggregate."""

    def identity(_request: pb.AgentRequest) -> pb.AgentResponse:
        return pb.AgentResponse(identity=identity_to_pb(core.identity()))

    def sign_instructions(request: pb.AgentRequest) -> pb.AgentResponse:
        signed = core.sign_instructions(drafts_from_pb(request.sign_instructions))
        return pb.AgentResponse(sign_instructions=pb.SignInstructionsResponse(signed=signed))

    def open_round(request: pb.AgentRequest) -> pb.AgentResponse:
        opened = core.open_round(*open_request_from_pb(request.open_round))
        return pb.AgentResponse(open_round=opened_to_pb(opened))

    def seal_round(request: pb.AgentRequest) -> pb.AgentResponse:
        receipt = core.seal_round(*seal_request_from_pb(request.seal_round))
        return pb.AgentResponse(seal_round=rounds_pb2.SealRoundResponse(receipt=receipt))

    def close_run(request: pb.AgentRequest) -> pb.AgentResponse:
        core.close_run(RunId(request.close_run.run_id))
        return pb.AgentResponse(close_run=rounds_pb2.CloseRunResponse())

    def record_aggregate(request: pb.AgentRequest) -> pb.AgentResponse:
        bundle = core.record_aggregate(aggregate_from_pb(request.record_aggregate))
        return pb.AgentResponse(record_aggregate=pb.RecordAggregateResponse(bundle=bundle))

    return {
        "identity": identity,
        "sign_instructions": sign_instructions,
        "open_round": open_round,
        "seal_round": seal_round,
        "close_run": close_run,
        "record_aggregate": record_aggregate,
    }


def frame_limit(handlers: Mapping[str, Handler]) -> int:
    """The largest frame on this socket: an aggregator's carries whole seals."""
    return MAX_SEAL_FRAME if "seal_round" in handlers else MAX_FRAME

"""Speaks to the agent beside this process; implements `ParticipantAgent` and `AggregatorAgent`."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from fltrust.agent.codec import (
    aggregate_to_pb,
    draft_to_pb,
    identity_from_pb,
    received_to_pb,
    recorded_from_pb,
    signed_from_pb,
)
from fltrust.agent.ports import AgentIdentity, AggregateDraft, InstructionDraft, ReceivedInstruction
from fltrust.errors import AgentUnavailable, FltrustError, Malformed
from fltrust.identity import Digest, Epoch, RunId, SpiffeId
from fltrust.revocation.events import FeedItem
from fltrust.rounds.types import Candidate, CohortMember, Opened, RoundKey
from fltrust.updates.second import MAX_SECOND_OF_UPDATE
from fltrust.updates.signing import MAX_SIGNED_BYTES
from fltrust.wire.errors import agent_error_from_pb
from fltrust.wire.framing import MAX_SEAL_FRAME, receive, send
from fltrust.wire.pb import agent_pb2 as pb
from fltrust.wire.pb import rounds_pb2, trust_pb2
from fltrust.wire.rounds import (
    open_request_to_pb,
    opened_from_pb,
    seal_request_to_pb,
    seal_response_from_pb,
)
from fltrust.wire.trust import item_from_pb
from fltrust.wire.values import bounded

SOCKET_VARIABLE = "FLTRUST_AGENT_SOCKET"
TIMEOUT = 60.0
"""Seconds that an answer may take; the agent itself may be waiting for the coordinator."""


class AgentClient:
    """A connection for each call, so any number of threads may share one client.

    Errors are those the agent raised. `AgentUnavailable` where there is no agent.
    """

    def __init__(self, path: Path, *, timeout: float = TIMEOUT) -> None:
        self.path = path
        self._timeout = timeout

    @classmethod
    def from_environment(cls, *, timeout: float = TIMEOUT) -> Self:
        """The agent that ``FLTRUST_AGENT_SOCKET`` names, as the launchers set it."""
        path = os.environ.get(SOCKET_VARIABLE)
        if not path:
            raise AgentUnavailable(
                f"expected {SOCKET_VARIABLE} to name the agent's socket, it is not set",
                hint="is the app started by 'fltrust supernode' (or 'fltrust superlink')?",
            )
        return cls(Path(path), timeout=timeout)

    def identity(self) -> AgentIdentity:
        answer = self._ask(pb.AgentRequest(identity=pb.IdentityRequest()), "identity")
        return identity_from_pb(answer.identity)

    def check_instruction(self, received: ReceivedInstruction) -> None:
        request = pb.CheckInstructionRequest(received=received_to_pb(received))
        self._ask(pb.AgentRequest(check_instruction=request), "check_instruction")

    def sign_update(self, received: ReceivedInstruction, *, reply: Digest, reply_type: str) -> bytes:
        request = pb.SignUpdateRequest(
            received=received_to_pb(received), reply=str(reply), reply_type=reply_type
        )
        answer = self._ask(pb.AgentRequest(sign_update=request), "sign_update")
        return bounded(answer.sign_update.signed, limit=MAX_SIGNED_BYTES, what="a signed update")

    def sign_second(self, signed: bytes) -> bytes:
        request = pb.SignSecondRequest(signed=signed)
        answer = self._ask(pb.AgentRequest(sign_second=request), "sign_second")
        return bounded(answer.sign_second.second, limit=MAX_SECOND_OF_UPDATE, what="a second signature")

    def sign_instructions(self, drafts: tuple[InstructionDraft, ...]) -> tuple[bytes, ...]:
        request = pb.SignInstructionsRequest(drafts=[draft_to_pb(draft) for draft in drafts])
        answer = self._ask(pb.AgentRequest(sign_instructions=request), "sign_instructions")
        return signed_from_pb(answer.sign_instructions, expected=len(drafts))

    def open_round(self, key: RoundKey, cohort: tuple[CohortMember, ...]) -> Opened:
        request = open_request_to_pb(key, cohort)
        return opened_from_pb(self._ask(pb.AgentRequest(open_round=request), "open_round").open_round)

    def seal_round(
        self, key: RoundKey, candidates: tuple[Candidate, ...], refused: tuple[tuple[SpiffeId, str], ...]
    ) -> bytes:
        request = seal_request_to_pb(key, candidates, refused)
        return seal_response_from_pb(self._ask(pb.AgentRequest(seal_round=request), "seal_round").seal_round)

    def close_run(self, run_id: RunId) -> None:
        request = rounds_pb2.CloseRunRequest(run_id=run_id)
        self._ask(pb.AgentRequest(close_run=request), "close_run")

    def record_aggregate(self, draft: AggregateDraft) -> bytes:
        request = pb.AgentRequest(record_aggregate=aggregate_to_pb(draft))
        return recorded_from_pb(self._ask(request, "record_aggregate").record_aggregate)

    def watch(self, after: Epoch) -> AgentWatch:
        """Follow the agent's own view of the feed. `close` may be called from another thread."""
        connection = self._connect()
        try:
            request = pb.AgentRequest(follow=trust_pb2.WatchRequest(after_epoch=after))
            send(connection, request, limit=MAX_SEAL_FRAME)
            connection.settimeout(None)  # an agent that was cut off says nothing, and that is the truth
        except OSError as error:
            connection.close()
            raise self._lost(error) from None
        return AgentWatch(connection, self.path)

    def _ask(self, request: pb.AgentRequest, expected: str) -> pb.AgentResponse:
        with contextlib.closing(self._connect()) as connection:
            try:
                # A refused peer is answered before it asked: read even where writing failed.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    send(connection, request, limit=MAX_SEAL_FRAME)
                answer = receive(connection, pb.AgentResponse, limit=MAX_SEAL_FRAME)
            except OSError as error:
                raise self._lost(error) from None
        if answer is None:
            raise self._lost(None)
        return _checked(answer, expected)

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._timeout)
        try:
            connection.connect(str(self.path))
        except OSError as error:
            connection.close()
            raise AgentUnavailable(
                f"expected an agent on {self.path}, found none: {error.strerror or error}",
                hint="is the app started by 'fltrust supernode' (or 'fltrust superlink'), as the same user?",
            ) from None
        return connection

    def _lost(self, error: OSError | None) -> AgentUnavailable:
        if isinstance(error, TimeoutError):
            why = f"it did not answer within {self._timeout:.0f} s"
        else:
            why = str(error.strerror or error) if error else "it closed the connection"
        return AgentUnavailable(f"expected an answer from the agent on {self.path}: {why}")


class AgentWatch(Iterator[FeedItem]):
    """The feed as the agent passes it on; raises `AgentUnavailable` when the agent is gone."""

    def __init__(self, connection: socket.socket, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._closed = False

    def __next__(self) -> FeedItem:
        try:
            answer = receive(self._connection, pb.AgentResponse, limit=MAX_SEAL_FRAME)
        except (OSError, Malformed) as error:
            if self._closed:
                raise StopIteration from None
            raise self._gone(str(error)) from None
        if answer is None:
            if self._closed:
                raise StopIteration
            raise self._gone("it closed the connection")
        return item_from_pb(_checked(answer, "follow").follow)

    def close(self) -> None:
        """End the watch; a `next` that is blocked in another thread ends as well. Idempotent."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _gone(self, why: str) -> AgentUnavailable:
        self._connection.close()
        return AgentUnavailable(f"expected the trust feed from the agent on {self._path}: {why}")


def _checked(answer: pb.AgentResponse, expected: str) -> pb.AgentResponse:
    got = answer.WhichOneof("response")
    if got == "error":
        error: FltrustError = agent_error_from_pb(answer.error)
        raise error
    if got != expected:
        raise Malformed(f"expected the agent to answer {expected}, it answered {got}")
    return answer

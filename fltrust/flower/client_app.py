"""`TrustedClientApp`: a `ClientApp` that answers only instructions it can trust, and signs its answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Self

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fltrust.agent.ports import ParticipantAgent, ReceivedInstruction
from fltrust.errors import FltrustError, Refusal, StatementRefused
from fltrust.flower.agents import participant_agent
from fltrust.flower.records import Carried, attach, detach, to_content
from fltrust.identity import NodeId, RunId
from fltrust.updates import content_digest, digest_content

_log = logging.getLogger("fltrust.flower")

_AppFn = Callable[[Message, Context], Message]


class TrustedClientApp(ClientApp):
    """A `ClientApp` under trust: the same constructor, the same decorators, the same mods.

        app = TrustedClientApp()            # instead of ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message: ...

    Each message goes this way:

    1. Our record is taken out of the instruction; without one it is refused (``unsigned``).
    2. The message is for this run and node, as far as Flower's own metadata says.
    3. What is left is digested, and the agent verifies the signed instruction against it: aggregator,
       run, round, node, expiry, content, model. Until then no code of the app has run.
    4. The app runs, with its mods inside: what they make of the reply is what is signed.
    5. The reply is digested and the agent signs that digest, once for this instruction.
    6. Where the aggregator asks for it, the agent signs once more, with its second key (ML-DSA-65).
    7. The signed statement is attached to the reply as its last record.

    A refusal is raised; Flower turns it into an error reply, which is not signed and says nothing in
    this participant's name. A reply that carries an error of the app's own is passed on unsigned.
    """

    _inner: ClientApp | None = None

    @classmethod
    def wrap(cls, app: ClientApp) -> Self:
        """An existing app under trust, a subclass with its own ``__call__`` included.

        Functions registered on either afterwards count for both.
        """
        trusted = cls()
        trusted._inner = app
        return trusted

    def __call__(self, message: Message, context: Context) -> Message:
        """Verify the instruction, run the app, sign its reply. Raises the `FltrustError` that refused."""
        try:
            agent = participant_agent(context)
            received, asks_second = _receive(message, context)
            agent.check_instruction(received)
        except FltrustError as error:
            _log.warning("instruction refused (%s): %s", error.reason, error)
            raise
        reply = self._run_app(message, context)
        return _signed(reply, received, agent, asks_second=asks_second)

    def _run_app(self, message: Message, context: Context) -> Message:
        """Run the app without our record in sight."""
        if self._inner is not None:
            return self._inner(message, context)
        return super().__call__(message, context)

    def train(self, *args: Any, **kwargs: Any) -> Callable[[_AppFn], _AppFn]:
        """`ClientApp.train`."""
        return self._inner.train(*args, **kwargs) if self._inner else super().train(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Callable[[_AppFn], _AppFn]:
        """`ClientApp.evaluate`."""
        return self._inner.evaluate(*args, **kwargs) if self._inner else super().evaluate(*args, **kwargs)

    def query(self, *args: Any, **kwargs: Any) -> Callable[[_AppFn], _AppFn]:
        """`ClientApp.query`."""
        return self._inner.query(*args, **kwargs) if self._inner else super().query(*args, **kwargs)

    def lifespan(
        self,
    ) -> Callable[[Callable[[Context], Iterator[None]]], Callable[[Context], Iterator[None]]]:
        """`ClientApp.lifespan`. It begins once the instruction was verified."""
        return self._inner.lifespan() if self._inner else super().lifespan()


def _receive(message: Message, context: Context) -> tuple[ReceivedInstruction, bool]:
    """Steps 1 and 2, and the digests of 3; afterwards `message` no longer carries our record.

    Also whether a second signature is asked for."""
    metadata = message.metadata
    if not message.has_content():
        raise StatementRefused("expected an instruction with content, got none", reason=Refusal.UNSIGNED)
    bare, carried = detach(message.content)
    if carried is None:  # 1
        raise StatementRefused(
            f"expected a signed instruction for run {metadata.run_id}, got one that is not signed",
            reason=Refusal.UNSIGNED,
            hint="is the ServerApp's strategy wrapped in TrustedStrategy, or is it a TrustedServerApp?",
        )
    if metadata.run_id != context.run_id:  # 2
        raise StatementRefused(
            f"expected a message of run {context.run_id}, got one of run {metadata.run_id}",
            reason=Refusal.WRONG_RUN,
        )
    if metadata.dst_node_id != context.node_id:
        raise StatementRefused(
            f"expected a message for node {context.node_id}, got one for {metadata.dst_node_id}",
            reason=Refusal.WRONG_NODE,
        )
    message.content = bare
    digests = digest_content(to_content(bare))  # 3
    received = ReceivedInstruction(
        signed=carried.statement,
        content=digests.content,
        model=digests.model,
        run_id=RunId(metadata.run_id),
        node_id=NodeId(metadata.dst_node_id),
        message_type=metadata.message_type,
    )
    return received, carried.asks_second


def _signed(
    reply: Message, received: ReceivedInstruction, agent: ParticipantAgent, *, asks_second: bool
) -> Message:
    """Steps 5 to 7."""
    if not reply.has_content():
        return reply
    digest = content_digest(to_content(reply.content))  # 5
    signed = agent.sign_update(received, reply=digest, reply_type=reply.metadata.message_type)
    second = agent.sign_second(signed) if asks_second else None  # 6
    reply.content = attach(reply.content, Carried(signed, second=second))  # 7
    return reply

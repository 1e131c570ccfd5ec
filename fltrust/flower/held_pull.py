"""Empty pulls, held until there is something to pull: Flower's fixed sleeps leave the round.

A SuperNode asks for work every 3 s, a ServerApp for replies every 3 s, and each then waits in seconds for
tensors that are still on their way. The SuperLink sees both sides, so it can hold an empty question until
the other side has wholly delivered: bounded (Flower's clients give up after 30 s), driven by events, never
by polling. It also keeps a reply back that was announced but not uploaded, so one stalled upload does not
stall those who pull. Everything here belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from fltrust.flower.asgi import ClientGone, Receive, Response, wait_gone
from fltrust.flower.fleet_ledger import Bounded
from fltrust.identity import NodeId

DEFAULT_HOLD = 15.0
"""Seconds that an empty pull is held. Both clients time out after 30 s."""

SESSION_LIFE = 180.0
"""Seconds after which Flower itself gives an unfinished upload up."""

READY_UNTAKEN = 5.0
"""Seconds for which a reply that nobody fetched keeps the other pulls of its run from being held."""

LINGER = 3.0
"""Seconds that a pull for several replies is held on after the first: Flower's grid, given a part, sleeps as
long before it asks for the rest."""

_MAX_OUTSTANDING = 1 << 16
_MAX_UPLOADS = 1 << 14


class Stage(StrEnum):
    """Where the answer to an instruction stands."""

    PENDING = "pending"
    UPLOADING = "uploading"
    READY = "ready"
    LOST = "lost"


@dataclass(slots=True)
class _Outstanding:
    node_id: NodeId
    run_id: int
    stage: Stage
    since: float


@dataclass(slots=True)
class _Upload:
    missing: set[str]
    nodes: frozenset[NodeId]
    """Whose instructions are uploaded in this session; empty for a reply's."""
    answers: str | None
    since: float


@dataclass(eq=False, slots=True)
class _Held:
    ids: frozenset[str]
    runs: frozenset[int]
    bell: asyncio.Event = field(default_factory=asyncio.Event)


class HeldPulls:
    """Holds empty pulls and knows when to let them go. `hold` of 0 turns it off."""

    def __init__(self, hold: float = DEFAULT_HOLD) -> None:
        self._hold = hold
        self._closed = False
        self._outstanding: Bounded[str, _Outstanding] = Bounded(_MAX_OUTSTANDING)
        self._uploads: Bounded[str, _Upload] = Bounded(_MAX_UPLOADS)
        self._session_of: Bounded[str, str] = Bounded(_MAX_UPLOADS)
        """By instruction, the session in which its reply is uploaded: one, however often it is announced."""
        self._arrivals: defaultdict[NodeId, int] = defaultdict(int)
        self._node_bells: defaultdict[NodeId, set[asyncio.Event]] = defaultdict(set)
        self._held: set[_Held] = set()
        self._untaken: Bounded[str, _Outstanding] = Bounded(_MAX_OUTSTANDING)
        """Replies that are ready and that nobody fetched yet."""

    @property
    def is_on(self) -> bool:
        return self._hold > 0 and not self._closed

    def close(self) -> None:
        """Let everybody go, now and from now on."""
        self._closed = True
        for bells in self._node_bells.values():
            _ring(bells)
        _ring(held.bell for held in self._held)

    # --- what happened

    def pushed(self, sent: Iterable[tuple[str, NodeId, int]], *, session_id: str, missing: set[str]) -> None:
        """The ServerApp pushed instructions (id, node, run) whose `missing` objects are on their way."""
        nodes = set()
        for message_id, node_id, run_id in sent:
            self._outstanding[message_id] = _Outstanding(node_id, run_id, Stage.PENDING, _now())
            nodes.add(node_id)
        if missing:
            self._uploads[session_id] = _Upload(set(missing), frozenset(nodes), None, _now())
        else:
            self._arrived(nodes)

    def announced(self, reply_to: str, *, session_id: str, missing: set[str]) -> None:
        """A node announced its reply, whose `missing` objects are on their way."""
        if missing:
            self._set(reply_to, Stage.UPLOADING)
            # A node that announces over and over must not push the uploads of others out.
            self._uploads.pop(self._session_of.get(reply_to, ""), None)
            self._session_of[reply_to] = session_id
            self._uploads[session_id] = _Upload(set(missing), frozenset(), reply_to, _now())
        else:
            self._ready(reply_to, Stage.READY)

    def uploaded(self, session_id: str, object_id: str) -> None:
        """One object of a session was stored."""
        upload = self._uploads.get(session_id)
        if upload is None:
            return
        upload.missing.discard(object_id)
        if upload.missing:
            return
        del self._uploads[session_id]
        if upload.answers is not None:
            self._session_of.pop(upload.answers, None)
            self._ready(upload.answers, Stage.READY)
        self._arrived(upload.nodes)

    def lost(self, node_id: NodeId) -> None:
        """The node is out: whoever waits for it may ask Flower, which will say so."""
        for message_id, waiting in tuple(self._outstanding.items()):
            if waiting.node_id == node_id and waiting.stage is not Stage.READY:
                self._ready(message_id, Stage.LOST)
        self._arrived((node_id,))

    def dropped(self, message_id: str) -> None:
        """An instruction was taken back; Flower will say so."""
        self._ready(message_id, Stage.LOST)

    def taken(self, message_ids: Iterable[str]) -> None:
        """The ServerApp has the answers to these instructions."""
        for message_id in message_ids:
            self._outstanding.pop(message_id, None)
            self._untaken.pop(message_id, None)

    # --- who asks

    async def for_node(
        self,
        node_id: NodeId,
        call: Callable[[], Awaitable[Response]],
        receive: Receive,
        *,
        at_most: float = math.inf,
    ) -> Response:
        """Ask `call` for the node's next instruction, and hold the node while there is none.

        An instruction whose tensors are still uploaded is waited for as well: a node that got it now
        would wait in whole seconds. `at_most` seconds are what the node's certificate leaves: an answer
        to one that ran out meanwhile would be a refusal, on which a SuperNode ends. Raises `ClientGone`
        when the node hangs up: an instruction handed to nobody would be lost.
        """
        if not self.is_on:
            return await call()
        deadline = _now() + min(self._hold, at_most)
        bell = asyncio.Event()
        self._node_bells[node_id].add(bell)
        gone = asyncio.ensure_future(wait_gone(receive))
        try:
            while True:
                while self._is_coming(node_id) and await self._wait(bell, gone, deadline):
                    pass
                seen = self._arrivals[node_id]
                bell.clear()
                response = await call()
                if response.status != 200 or response.body or not self.is_on:
                    return response
                while self._arrivals[node_id] == seen:
                    if not await self._wait(bell, gone, deadline):
                        return response
        finally:
            gone.cancel()
            self._node_bells[node_id].discard(bell)
            if not self._node_bells[node_id]:
                del self._node_bells[node_id]

    async def for_app(
        self,
        message_ids: frozenset[str],
        call: Callable[[frozenset[str]], Awaitable[Response]],
        receive: Receive,
    ) -> Response:
        """Ask `call` for the answers to these instructions, and hold the ServerApp while none is ready.

        1. Hold while every instruction is pending or its reply is being uploaded.
        2. Once there is a first answer, hold for the others, for `LINGER` at most.
        3. Ask Flower, but not for replies that are still uploaded: it would hand them out unfinished.
           After `SESSION_LIFE` ask anyway, so that Flower can say what became of them.
        """
        if not self.is_on:
            return await call(message_ids)
        deadline = _now() + self._hold
        runs = frozenset(self._outstanding[i].run_id for i in message_ids if i in self._outstanding)
        held = _Held(message_ids, runs)
        self._held.add(held)
        gone = asyncio.ensure_future(wait_gone(receive))
        try:
            while message_ids and not self._answered(held) and not self._has_to_go_round(held):  # 1
                if not await self._wait(held.bell, gone, deadline):
                    break
            if self._answered(held):
                deadline = min(deadline, _now() + LINGER)
                while self._answered(held) < len(message_ids):  # 2
                    if not await self._wait(held.bell, gone, deadline):
                        break
        finally:
            gone.cancel()
            self._held.discard(held)
        unfinished = {i for i in message_ids if self._is_unfinished(i)}
        return await call(message_ids - unfinished)  # 3

    # --- inside

    async def _wait(self, bell: asyncio.Event, gone: asyncio.Future[None], deadline: float) -> bool:
        """Wait for the bell; False when the time is up or the house closes. `ClientGone` on a hang-up."""
        left = deadline - _now()
        if left <= 0 or not self.is_on:
            return False
        rung = asyncio.ensure_future(bell.wait())
        try:
            await asyncio.wait((rung, gone), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                raise ClientGone
            if not rung.done():
                return False
            bell.clear()
            return self.is_on
        finally:
            rung.cancel()

    def _is_coming(self, node_id: NodeId) -> bool:
        limit = _now() - SESSION_LIFE
        return any(node_id in up.nodes and up.since > limit for up in self._uploads.values())

    def _is_unfinished(self, message_id: str) -> bool:
        found = self._outstanding.get(message_id)
        return found is not None and found.stage is Stage.UPLOADING and _now() - found.since < SESSION_LIFE

    def _answered(self, held: _Held) -> int:
        """How many of the instructions Flower has an answer to, or has to be asked about."""
        waiting = (Stage.PENDING, Stage.UPLOADING)
        found = (self._outstanding.get(message_id) for message_id in held.ids)
        return sum(one is None or one.stage not in waiting for one in found)

    def _has_to_go_round(self, held: _Held) -> bool:
        """Whether a reply of the same run waits that no pull asks for: then its puller is on this one."""
        return any(
            ready.run_id in held.runs and not any(message_id in pull.ids for pull in self._held)
            for message_id, ready in self._fresh_untaken()
        )

    def _fresh_untaken(self) -> list[tuple[str, _Outstanding]]:
        limit = _now() - READY_UNTAKEN
        while self._untaken and next(iter(self._untaken.values())).since < limit:
            self._untaken.popitem(last=False)
        return list(self._untaken.items())

    def _set(self, message_id: str, stage: Stage) -> bool:
        found = self._outstanding.get(message_id)
        if found is None:
            return False
        found.stage, found.since = stage, _now()
        return True

    def _ready(self, message_id: str, stage: Stage) -> None:
        if not self._set(message_id, stage):
            return
        if stage is Stage.READY:
            self._untaken[message_id] = self._outstanding[message_id]
        mine = [held for held in self._held if message_id in held.ids]
        # Where nobody asks for it now, all pulls are on others: let them go round.
        run_id = self._outstanding[message_id].run_id
        _ring(held.bell for held in (mine or self._held) if mine or run_id in held.runs)

    def _arrived(self, nodes: Iterable[NodeId]) -> None:
        for node_id in nodes:
            self._arrivals[node_id] += 1
            _ring(self._node_bells.get(node_id, ()))


def _ring(bells: Iterable[asyncio.Event]) -> None:
    for bell in tuple(bells):
        bell.set()


def _now() -> float:
    return asyncio.get_running_loop().time()

"""The loopback listener: all of Flower's app but the Fleet API, and the ServerApp's side of a held pull."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any

from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse
from flwr.proto.runtime_pb2 import (
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PushAppMessagesRequest,
    PushAppMessagesResponse,
)
from google.protobuf.message import DecodeError

from fltrust.agent.loopback import can_tell_peers, uid_between
from fltrust.errors import FltrustError
from fltrust.flower.asgi import (
    App,
    ClientGone,
    Receive,
    Response,
    Scope,
    Send,
    call,
    header_values,
    json_response,
    read_body,
)
from fltrust.flower.fleet_routes import PREFIX, status_of
from fltrust.flower.held_pull import HeldPulls
from fltrust.identity import NodeId

MAX_BODY = 2**31
"""The ServerApp is the operator's own; Flower sets no bound here either, protobuf does."""

_PUSH, _OBJECT, _PULL = (f"/v1/runtime/{name}" for name in ("push-messages", "push-object", "pull-messages"))


def callers_of(allowed_uids: Collection[int]) -> Callable[[Scope], bool]:
    """Say of a request whether it comes from a process of this user, of root or of `allowed_uids`.

    Control and Runtime have no authentication of their own without TLS, and whoever starts a run has
    code of theirs run as this user, beside the aggregator's agent. On systems that do not name the user
    behind a loopback connection (all but Linux) everybody on this machine is let in.
    """
    allowed = frozenset((os.geteuid(), 0, *allowed_uids))

    def may_call(scope: Scope) -> bool:
        peer, ours = scope.get("client"), scope.get("server")
        if not peer or not ours:
            return False
        uid = uid_between((peer[0], peer[1]), (ours[0], ours[1]))
        return uid is not None and uid in allowed

    return may_call if can_tell_peers() else lambda _scope: True


class RuntimeGate:
    """ASGI middleware in front of Flower's app, on the loopback listener.

    0. The caller is a user of this machine who may (403), see `callers_of`.
    1. The Fleet API is not here (404): it is only where certificates are asked for.
    2. What the ServerApp pushes is noted once Flower took it; its empty pulls are held.
    3. All else passes untouched, the lifespan too.
    """

    def __init__(self, app: App, held: HeldPulls, *, may_call: Callable[[Scope], bool]) -> None:
        self._app = app
        self._held = held
        self._may_call = may_call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and not self._may_call(scope):  # 0
            detail = "this user may not use the SuperLink: start fltrust superlink with --allow-uid"
            await json_response(403, {"detail": detail}).send_to(send)
        elif scope["type"] == "http" and (path + "/").startswith(PREFIX):  # 1
            response = json_response(404, {"detail": "the Fleet API is on the listener for SuperNodes"})
            await response.send_to(send)
        elif path in (_PUSH, _OBJECT, _PULL) and self._held.is_on:  # 2
            try:
                await (await self._watch(path, scope, receive)).send_to(send)
            except ClientGone:
                return
        else:  # 3
            await self._app(scope, receive, send)

    async def _watch(self, path: str, scope: Scope, receive: Receive) -> Response:
        try:
            body = await read_body(scope, receive, limit=MAX_BODY, idle=60.0, total=3600.0)
        except FltrustError as refusal:
            return json_response(status_of(refusal), {"detail": refusal.message, "reason": refusal.reason})
        if path == _PULL:
            return await self._pull(scope, body, receive)
        response = await call(self._app, scope, body)
        if response.status == 200:
            self._note(path, body, response.body)
        return response

    def _note(self, path: str, body: bytes, answer: bytes) -> None:
        if path == _OBJECT:
            request = PushObjectRequest.FromString(body)
            if PushObjectResponse.FromString(answer).stored:
                self._held.uploaded(request.session_id, request.object_id)
            return
        pushed = PushAppMessagesRequest.FromString(body)
        taken = PushAppMessagesResponse.FromString(answer)
        sent = [
            (message_id, NodeId(message.metadata.dst_node_id), message.metadata.run_id)
            for message_id, message in zip(taken.message_ids, pushed.messages_list, strict=False)
            if message_id
        ]
        self._held.pushed(sent, session_id=taken.session_id, missing=set(taken.objects_to_push))

    async def _pull(self, scope: Scope, body: bytes, receive: Receive) -> Response:
        try:
            request = PullAppMessagesRequest.FromString(body)
        except DecodeError:
            return await call(self._app, scope, body)  # Flower says what is wrong with it

        async def ask(message_ids: frozenset[str]) -> Response:
            kept = [message_id for message_id in request.message_ids if message_id in message_ids]
            return await self._ask(scope, request, kept)

        response = await self._held.for_app(frozenset(request.message_ids), ask, receive)
        if response.status == 200 and response.body:
            answers = PullAppMessagesResponse.FromString(response.body)
            self._held.taken(m.metadata.reply_to_message_id for m in answers.messages_list)
        return response

    async def _ask(self, scope: Scope, request: Any, kept: list[str]) -> Response:
        asked = PullAppMessagesRequest()
        asked.CopyFrom(request)
        del asked.message_ids[:]
        asked.message_ids.extend(kept)
        body = asked.SerializeToString(deterministic=True)
        return await call(self._app, _of_length(scope, body), body)


def _of_length(scope: Scope, body: bytes) -> Scope:
    """The same request, whose body now has another length."""
    if not header_values(scope, b"content-length"):
        return scope
    headers = [(k, v) for k, v in scope["headers"] if k != b"content-length"]
    return {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode("ascii"))]}

"""Every request of the Fleet API, decided afresh: certificate, node key and node id must belong together.

Flower's own Fleet API believes what a message says of itself. The guard does not: what a node may answer,
fetch, confirm and upload is what it was given, and what it announced, as seen from here.
"""

from __future__ import annotations

import binascii
import logging
from base64 import b64decode
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.proto.fleet_pb2 import (
    ActivateNodeResponse,
    PullMessagesResponse,
    PushMessagesResponse,
)
from flwr.proto.message_pb2 import PushObjectResponse
from google.protobuf.message import DecodeError

from fltrust.clock import Clock
from fltrust.errors import (
    CertificateRefused,
    FltrustError,
    InvalidInput,
    LimitExceeded,
    Malformed,
    NotFound,
    PermissionDenied,
    Refusal,
    Unauthenticated,
)
from fltrust.eventlog import EventLog
from fltrust.flower import _private
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
from fltrust.flower.connections import Peer
from fltrust.flower.counters import Counters, Throttle
from fltrust.flower.fleet_ledger import (
    Announcement,
    FleetLedger,
    Instruction,
    flatten,
    is_object_id,
)
from fltrust.flower.fleet_routes import CLOSED, PREFIX, ROUTES, FleetLimits, Route, status_of
from fltrust.flower.fleet_tls import PEER
from fltrust.flower.held_pull import HeldPulls
from fltrust.flower.registration import MAX_PEM, NodeRegistrar, node_key_of
from fltrust.flower.uploads import check_object, claimed_metadata
from fltrust.identity import KeyId, NodeId, RunId
from fltrust.pki.types import VerifiedCertificate
from fltrust.revocation.view import TrustView

_log = logging.getLogger("fltrust.superlink")


@dataclass(slots=True)
class _Call:
    """One request, as far as it was understood."""

    scope: Scope
    receive: Receive
    peer: VerifiedCertificate
    key: KeyId
    pem: bytes
    body: bytes
    request: Any
    node_id: NodeId = field(default_factory=lambda: NodeId(0))


_EXPIRY_MARGIN = 0.5
"""Seconds before its certificate runs out at which a held pull is let go."""


class FleetGuard:
    """ASGI middleware in front of Flower's app, on the Fleet listener. For each request:

    1. The path is one of the Fleet API's, the method POST; else 404.
    2. The connection's certificate is a participant's, not expired, in good standing at the newest
       epoch, and the trust view is as fresh as the policy asks. Refused is 401, on which a SuperNode
       exits; on hold, stale or over a limit is 503, on which it tries again.
    3. The node key in the header is the one enrolled for that participant (401).
    4. The body is within bounds, arrives, and parses (413, 503, 400).
    5. The node id in the body is the one that Flower knows that key by (403).
    6. Nodes do not register or unregister themselves (403); `NodeRegistrar` does.
    7. push-messages: exactly one message with its object tree; from this node, to the SuperLink, of the
       type and run of an instruction that this node was given; its only reply to that; under an id that
       no other message has (400, 403, 409).
    8. pull-object, confirm-message-received, get-run, get-fab: of instructions given to this node.
       push-object: in a session that this node opened, an object of the tree it announced, with the
       children it announced; a message among them carries the very metadata that was announced. A reply
       that fails this is over: its instruction is answered 'unavailable'.

    403 tells a SuperNode that the run does not want this message; it drops it and goes on.
    """

    def __init__(
        self,
        app: App,
        *,
        view: TrustView,
        registrar: NodeRegistrar,
        ledger: FleetLedger,
        held: HeldPulls,
        clock: Clock,
        counters: Counters,
        events: EventLog,
        limits: FleetLimits | None = None,
    ) -> None:
        self._app = app
        self._view = view
        self._registrar = registrar
        self._ledger = ledger
        self._held = held
        self._clock = clock
        self._events = events
        self.counters = counters
        self._limits = limits or FleetLimits()
        self._in_flight: Counter[str] = Counter()
        self._throttle = Throttle(clock)
        self._key_header = _private.public_key_header()
        self._handlers: Mapping[str, Callable[[_Call], Awaitable[Response]]] = {
            "activate-node": self._activate,
            "deactivate-node": self._forward,
            "send-node-heartbeat": self._forward,
            "pull-messages": self._pull_messages,
            "push-messages": self._push_messages,
            "get-run": self._ask_run,
            "get-fab": self._ask_run,
            "push-object": self._push_object,
            "pull-object": self._pull_object,
            "confirm-message-received": self._confirm,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no websockets, and the lifespan is the loopback listener's
        peer: Peer = scope["state"].get(PEER) or Peer(None)
        path: str = scope["path"]
        try:
            response = await self._decide(path, scope, receive, peer)
            self.counters.add("requests.passed")
        except ClientGone:
            return
        except FltrustError as refusal:
            response = self._refuse(path, peer, refusal)
        await response.send_to(send)

    async def _decide(self, path: str, scope: Scope, receive: Receive, peer: Peer) -> Response:
        name = path.removeprefix(PREFIX)
        route = ROUTES.get(name)
        if not path.startswith(PREFIX) or (route is None and name not in CLOSED):  # 1
            raise NotFound("expected a path of the Fleet API", reason="unknown-path")
        if scope["method"] != "POST":
            raise NotFound("expected POST", reason="unknown-path")
        certificate = self._check_peer(peer)  # 2
        who = str(certificate.spiffe_id)
        if self._in_flight[who] >= self._limits.in_flight:
            raise LimitExceeded(f"expected at most {self._limits.in_flight} requests of {who} at once")
        key, pem = self._check_key(scope, certificate)  # 3
        if route is None:  # 6
            raise PermissionDenied(
                "nodes are registered by enrollment, not by themselves", reason="self-registration"
            )
        self._in_flight[who] += 1
        try:
            return await self._serve(name, route, scope, receive, certificate, key, pem)
        finally:
            self._in_flight[who] -= 1
            if self._in_flight[who] <= 0:
                del self._in_flight[who]

    async def _serve(
        self,
        name: str,
        route: Route,
        scope: Scope,
        receive: Receive,
        certificate: VerifiedCertificate,
        key: KeyId,
        pem: bytes,
    ) -> Response:
        body = await read_body(  # 4
            scope,
            receive,
            limit=getattr(self._limits, route.limit),
            idle=self._limits.body_idle,
            total=self._limits.body_total,
        )
        request = route.request()
        try:
            request.ParseFromString(body)
        except DecodeError:
            raise Malformed(f"expected a {route.request.__name__}, got something else") from None
        call = _Call(scope, receive, certificate, key, pem, body, request)
        if route.node:
            node = getattr(request, route.node)
            call.node_id = NodeId(node if isinstance(node, int) else node.node_id)
            await self._check_node(call)  # 5
        return await self._handlers[name](call)

    # --- who is it?

    def _check_peer(self, peer: Peer) -> VerifiedCertificate:
        """Step 2. Also asked again after every wait."""
        certificate = peer.certificate
        if certificate is None:
            raise peer.refusal or Unauthenticated("expected a participant's certificate on the connection")
        self._check_standing(certificate)
        return certificate

    def _check_standing(self, certificate: VerifiedCertificate) -> None:
        if self._clock.now() > certificate.not_after:
            raise CertificateRefused(
                f"the certificate of {certificate.spiffe_id} expired at {certificate.not_after:%H:%M:%SZ}",
                reason=Refusal.CERTIFICATE_EXPIRED,
            )
        self._view.require_fresh()
        self._view.judge(certificate)

    def _check_key(self, scope: Scope, certificate: VerifiedCertificate) -> tuple[KeyId, bytes]:
        """Step 3. That the caller holds this key, Flower checks by the signature beside it."""
        values = header_values(scope, self._key_header)
        if len(values) != 1 or len(values[0]) > 2 * MAX_PEM:
            raise Unauthenticated("expected one node key in the header", reason=Refusal.WRONG_NODE)
        try:
            pem = b64decode(values[0], validate=True)
            key = node_key_of(pem)
        except (binascii.Error, Malformed) as error:
            raise Unauthenticated(
                f"expected a node key in the header: {error}", reason=Refusal.WRONG_NODE
            ) from None
        state = self._view.participant_of(key)
        if state is None or state.spiffe_id != certificate.spiffe_id:
            raise Unauthenticated(
                f"expected the node key enrolled for {certificate.spiffe_id}, got another",
                reason=Refusal.WRONG_NODE,
                hint="start the SuperNode with the key that 'fltrust join' made",
            )
        return key, pem

    async def _check_node(self, call: _Call) -> None:
        """Step 5."""
        known = self._ledger.key_of(call.node_id)
        if known is None and await self._registrar.find(call.pem) == call.node_id:
            self._ledger.learn(call.node_id, call.key)
            known = call.key
        if known != call.key:
            raise PermissionDenied(
                f"{call.peer.spiffe_id} speaks for node {call.node_id}, which is not its own",
                reason=Refusal.WRONG_NODE,
            )

    # --- what does it want?

    async def _forward(self, call_: _Call) -> Response:
        return await call(self._app, call_.scope, call_.body)

    async def _activate(self, call: _Call) -> Response:
        if call.request.public_key != call.pem:
            raise Unauthenticated(
                "expected the node key of the header in the body", reason=Refusal.WRONG_NODE
            )
        await self._registrar.activate(call.peer.spiffe_id, call.key, call.pem)
        response = await self._forward(call)
        if response.status == 200:
            node_id = NodeId(ActivateNodeResponse.FromString(response.body).node_id)
            self._ledger.learn(node_id, call.key)
            self._events.emit(
                "node-activated", participant=str(call.peer.spiffe_id), node_id=str(int(node_id))
            )
        return response

    async def _pull_messages(self, call: _Call) -> Response:
        async def ask() -> Response:
            self._check_standing(call.peer)  # a hold is long enough for a revocation
            return await self._forward(call)

        left = (call.peer.not_after - self._clock.now()).total_seconds()
        response = await self._held.for_node(
            call.node_id, ask, call.receive, at_most=max(left - _EXPIRY_MARGIN, 0.0)
        )
        if response.status == 200 and response.body:
            given = PullMessagesResponse.FromString(response.body)
            for message, tree in zip(given.messages_list, given.message_object_trees, strict=True):
                meta = message.metadata
                self._ledger.deliver(
                    call.node_id,
                    Instruction(
                        meta.message_id,
                        RunId(meta.run_id),
                        meta.message_type,
                        NodeId(meta.src_node_id),
                        frozenset(flatten(tree)),
                    ),
                )
        return response

    async def _push_messages(self, call: _Call) -> Response:
        reply = self._check_push(call)
        response = await self._forward(call)
        if response.status == 200:
            taken = PushMessagesResponse.FromString(response.body)
            self._ledger.announce(call.node_id, reply, session_id=taken.session_id)
            self._held.announced(
                reply.reply_to, session_id=taken.session_id, missing=set(taken.objects_to_push)
            )
        return response

    def _check_push(self, call: _Call) -> Announcement:
        """Step 7."""
        request, node_id = call.request, call.node_id
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            raise Malformed("expected exactly one message with its object tree in push-messages")
        if len(request.clientapp_runtime_list) > 1:
            raise Malformed("expected at most one run time in push-messages")
        message, tree = request.messages_list[0], request.message_object_trees[0]
        meta = message.metadata
        if meta.src_node_id != node_id:
            raise PermissionDenied(
                f"node {node_id} pushes a message in the name of node {meta.src_node_id}",
                reason=Refusal.WRONG_NODE,
            )
        if message.content.ByteSize() or not is_object_id(meta.message_id):
            raise Malformed("expected a message under its object id, its content empty, in push-messages")
        if tree.object_id != meta.message_id:
            raise Malformed("expected the message at the root of its object tree", reason=Refusal.STRUCTURE)
        given = self._ledger.instruction(node_id, meta.reply_to_message_id)
        if meta.dst_node_id != given.source or meta.message_type != given.message_type:
            raise PermissionDenied(
                f"node {node_id} answers an instruction with a message of another type or to another node",
                reason=Refusal.WRONG_INSTRUCTION,
            )
        reply = Announcement(
            meta.message_id,
            meta.reply_to_message_id,
            RunId(meta.run_id),
            claimed_metadata(message),
            flatten(tree),
        )
        self._ledger.check_announcement(node_id, reply)
        return reply

    async def _push_object(self, call: _Call) -> Response:
        request = call.request
        reply = self._ledger.upload(call.node_id, request.session_id)
        if request.run_id != reply.run_id:
            raise PermissionDenied("expected the run of the announced reply", reason=Refusal.WRONG_RUN)
        try:
            check_object(request.object_id, request.object_content, reply)
        except InvalidInput:
            # What was announced can no longer become a reply: nobody shall wait for it.
            await self._registrar.drop_instruction(reply.reply_to)
            self._held.dropped(reply.reply_to)
            raise
        response = await self._forward(call)
        if response.status == 200 and PushObjectResponse.FromString(response.body).stored:
            self._held.uploaded(request.session_id, request.object_id)
        return response

    async def _pull_object(self, call: _Call) -> Response:
        self._ledger.check_fetch(call.node_id, RunId(call.request.run_id), call.request.object_id)
        return await self._forward(call)

    async def _confirm(self, call: _Call) -> Response:
        given = self._ledger.instruction(call.node_id, call.request.message_object_id)
        if given.run_id != call.request.run_id:
            raise PermissionDenied("expected the run of the instruction", reason=Refusal.WRONG_RUN)
        return await self._forward(call)

    async def _ask_run(self, call: _Call) -> Response:
        self._ledger.check_run(call.node_id, RunId(call.request.run_id))
        return await self._forward(call)

    # --- no

    def _refuse(self, path: str, peer: Peer, refusal: FltrustError) -> Response:
        status = status_of(refusal)
        self.counters.add(f"refused.{refusal.reason}")
        if self._throttle.lets_through():
            self._events.emit(
                "request-refused",
                participant=peer.name,
                path=path[:80],
                reason=refusal.reason,
                status=status,
                detail=refusal.message,
                untold_before=self._throttle.take_held_back(),
            )
            # The path is the caller's, decoded: quoted, so that it cannot write lines of its own.
            _log.warning("refused %r of %s: %s [%s]", path[:80], peer.name, refusal.message, refusal.reason)
        # The connection stays open: a caller whose body is still on its way would not see the answer.
        return json_response(status, {"detail": refusal.message, "reason": refusal.reason})

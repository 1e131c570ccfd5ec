"""A real SuperLink on its two listeners, in a thread; sites on Flower's client code; a ServerApp's grid."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, Metadata, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.run import Run
from flwr.superlink.grid.http_grid import HttpGrid
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fltrust.agent.credentials import Credentials, CredentialStore
from fltrust.clock import Clock, SystemClock
from fltrust.eventlog import EventLog
from fltrust.flower import _private
from fltrust.flower.superlink import Superlink, SuperlinkAddresses, SuperlinkOptions, loop_factory
from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.keys import FileSigner, generate, spki_der
from fltrust.pki import Draft, Issuer, create_issuing, create_root, make_bundle
from fltrust.revocation import EventKind, FeedHeartbeat, RevocationReason, TrustEvent
from fltrust.revocation.view import TrustView

CLOCK = SystemClock()


class Domain:
    """One trust domain: its CA, and the view of its trust feed."""

    def __init__(self, name: str = "hospitals.example") -> None:
        self.name = TrustDomain(name)
        root_key, issuing_key = generate(), generate()
        now = CLOCK.now()
        self.root = create_root(self.name, signer=root_key, now=now)
        issuing = create_issuing(
            root=self.root, root_signer=root_key, public_key=issuing_key.public_key, now=now
        )
        self.issuer = Issuer(certificate=issuing, signer=issuing_key)
        self.bundle = make_bundle(self.name, [self.root])
        self.view = TrustView(CLOCK)
        self.beat()  # from here on, what is said is new

    def issue(self, role: Role, name: str, *, lifetime: timedelta | None = None) -> Credentials:
        key, who = generate(), SpiffeId.of(self.name, role, name)
        draft = Draft.of(who, key.public_key, now=CLOCK.now(), lifetime=lifetime)
        chain = [self.issuer.redeem(draft), self.issuer.certificate]
        return Credentials.verified(key, chain, bundle=self.bundle, expect=who, clock=CLOCK)

    def say(self, kind: EventKind, who: SpiffeId, *, node_key: FileSigner | None = None) -> None:
        """Put one identity-wide event into the view; its listeners have heard it on return."""
        self.view.feed(
            TrustEvent(
                epoch=self.view.epoch.next(),
                kind=kind,
                at=CLOCK.now(),
                subject=who,
                identity_wide=True,
                node_key=None if node_key is None else spki_der(node_key.public_key),
                reason=None if kind is EventKind.ENROLLED else RevocationReason.KEY_COMPROMISE,
            )
        )

    def beat(self) -> None:
        self.view.feed(FeedHeartbeat(self.view.epoch, CLOCK.now()))

    def enroll(self, name: str) -> Site:
        site = Site(self, name, generate(), self.issue(Role.PARTICIPANT, name))
        self.say(EventKind.ENROLLED, site.spiffe_id, node_key=site.node_key)
        return site


@dataclass
class Site:
    """A participant: its certificate, its node key, and Flower's own client on them."""

    domain: Domain
    name: str
    node_key: FileSigner
    credentials: Credentials
    node_id: int = 0

    @property
    def spiffe_id(self) -> SpiffeId:
        return SpiffeId.of(self.domain.name, Role.PARTICIPANT, self.name)

    def context(self, credentials: Credentials | None = None) -> ssl.SSLContext:
        return CredentialStore(credentials or self.credentials).ssl_client_context()

    def client(
        self,
        superlink: RunningSuperlink,
        *,
        credentials: Credentials | None = None,
        node_key: FileSigner | None = None,
        context: ssl.SSLContext | None = None,
    ) -> FleetHttpClient:
        """Flower's client; with another certificate or node key, if one is given."""
        key = (node_key or self.node_key)._private_key
        shown = context or self.context(credentials)
        shown.check_hostname = False
        return FleetHttpClient(
            f"https://127.0.0.1:{superlink.fleet_port}",
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(key, key.public_key()),
            ],
            verify=shown,
        )


@dataclass
class Host:
    """The aggregator's agent, in the shape the SuperLink takes it."""

    spiffe_id: SpiffeId
    credentials: CredentialStore
    view: TrustView
    socket_path: Path


@dataclass
class RunningSuperlink:
    superlink: Superlink
    addresses: SuperlinkAddresses
    credentials: CredentialStore
    event_file: Path
    domain: Domain
    thread: threading.Thread

    @property
    def fleet_port(self) -> int:
        return self.addresses.fleet[1]

    @property
    def loopback_port(self) -> int:
        return self.addresses.loopback[1]

    def counted(self, name: str) -> int:
        return self.superlink.counters.snapshot().get(name, 0)

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = self.event_file.read_text().splitlines() if self.event_file.exists() else []
        return [event for line in lines if (event := json.loads(line))["event"] == name]

    def state(self) -> Any:
        return self.superlink._app.state.linkstate_factory.state()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_superlink(
    domain: Domain, folder: Path, *, arguments: tuple[str, ...] = (), clock: Clock = CLOCK, **options: Any
) -> Iterator[RunningSuperlink]:
    _private.keep_quiet()
    store = CredentialStore(domain.issue(Role.AGGREGATOR, "main"))
    domain.say(EventKind.ENROLLED, store.spiffe_id)
    host = Host(store.spiffe_id, store, domain.view, folder / "agent.sock")
    event_file = folder / "events.jsonl"
    ready: list[SuperlinkAddresses] = []
    made: list[Superlink] = []
    done = threading.Event()
    failed: list[BaseException] = []

    def tell(addresses: SuperlinkAddresses) -> None:
        ready.append(addresses)
        done.set()

    async def main() -> None:
        superlink = Superlink(
            ["--host", "127.0.0.1", "--port", str(free_port()), "--isolation", "process", *arguments],
            host=host,
            options=SuperlinkOptions(fleet_host="127.0.0.1", fleet_port=0, **options),
            clock=clock,
            events=EventLog(event_file, process="superlink"),
        )
        made.append(superlink)
        await superlink.serve(tell)

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(main())
        except BaseException as error:
            failed.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=work, name="superlink", daemon=True)
    thread.start()
    try:
        assert done.wait(30)
        if failed:
            raise failed[0]
        yield RunningSuperlink(made[0], ready[0], store, event_file, domain, thread)
    finally:
        if made:
            made[0].stop()
        thread.join(30)
        assert not thread.is_alive()
        if failed:
            raise failed[0]


# --- a node, on Flower's wire ------------------------------------------------------------------------


@dataclass
class NodeSide:
    """One node's conversation with the Fleet API, step by step."""

    site: Site
    client: FleetHttpClient
    node: Node = field(default_factory=Node)

    def activate(self) -> int:
        pem = self.site.node_key._private_key.public_key()
        from flwr.supercore.primitives.asymmetric import public_key_to_bytes

        answer = self.client.ActivateNode(
            ActivateNodeRequest(public_key=public_key_to_bytes(pem), heartbeat_interval=30)
        )
        self.node = Node(node_id=answer.node_id)
        return int(answer.node_id)

    def pull(self) -> tuple[Message, ObjectTree] | None:
        answer = self.client.PullMessages(PullMessagesRequest(node=self.node))
        if not answer.messages_list:
            return None
        return message_from_proto(answer.messages_list[0]), answer.message_object_trees[0]

    def fetch(self, message: Message, tree: ObjectTree) -> Message:
        """Pull the instruction's objects, confirm it, and build it."""
        run_id, contents = message.metadata.run_id, {}
        for object_id in object_ids(tree):
            got = self.client.PullObject(
                PullObjectRequest(node=self.node, run_id=run_id, object_id=object_id)
            )
            contents[object_id] = got.object_content
        self.confirm(message.metadata.message_id, run_id)
        whole: Any = inflate_object_from_contents(message.metadata.message_id, contents)
        whole.metadata.__dict__["_message_id"] = message.metadata.message_id
        return whole  # type: ignore[no-any-return]

    def receive(self) -> Message:
        """Pull until there is an instruction, and fetch it."""
        while (pulled := self.pull()) is None:
            pass
        return self.fetch(*pulled)

    def confirm(self, message_id: str, run_id: int) -> None:
        self.client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self.node, run_id=run_id, message_object_id=message_id)
        )

    def announce(self, reply: Message, claim: Message | None = None) -> tuple[list[str], str]:
        """Push the reply's metadata and tree; `claim` is what the push says instead of the reply."""
        proto = message_to_proto(without_content(claim or reply))
        proto.metadata.message_id = reply.object_id
        answer = self.client.PushMessages(
            PushMessagesRequest(
                node=self.node, messages_list=[proto], message_object_trees=[get_object_tree(reply)]
            )
        )
        return list(answer.objects_to_push), answer.session_id

    def upload(self, reply: Message, wanted: list[str], session_id: str) -> None:
        for object_id, item in get_all_nested_objects(reply).items():
            if object_id in wanted:
                self.push_object(reply.metadata.run_id, session_id, object_id, item.deflate())

    def push_object(self, run_id: int, session_id: str, object_id: str, content: bytes) -> bool:
        answer = self.client.PushObject(
            PushObjectRequest(
                node=self.node,
                run_id=run_id,
                session_id=session_id,
                object_id=object_id,
                object_content=content,
            )
        )
        return bool(answer.stored)

    def send(self, reply: Message) -> None:
        self.upload(reply, *self.announce(reply))


def object_ids(tree: ObjectTree) -> list[str]:
    return list(dict.fromkeys([i for child in tree.children for i in object_ids(child)] + [tree.object_id]))


def without_content(message: Message) -> Message:
    from flwr.app.message import remove_content_from_message

    return remove_content_from_message(message) if message.has_content() else message


def copy_metadata(metadata: Metadata, **changes: Any) -> Metadata:
    """The same metadata, with some of it changed."""
    kept = {key.removeprefix("_"): value for key, value in vars(metadata).items() if key.startswith("_")}
    kept.pop("delivered_at", None)
    return Metadata(**{**kept, "message_id": "", **changes})


def reply_to(instruction: Message, text: str) -> Message:
    return Message(RecordDict({"answer": ConfigRecord({"text": text})}), reply_to=instruction)


@contextmanager
def node_side(site: Site, superlink: RunningSuperlink, **changes: Any) -> Iterator[NodeSide]:
    with site.client(superlink, **changes) as client:
        side = NodeSide(site, client)
        site.node_id = side.activate()
        yield side


# --- the ServerApp -----------------------------------------------------------------------------------


class AppSide:
    """A running ServerApp task, and Flower's own grid with its token."""

    def __init__(self, superlink: RunningSuperlink) -> None:
        state = superlink.state()
        self.run_id: int = state.create_run(
            None, None, "0" * 64, {}, NOOP_FEDERATION_ID, None, "", TaskType.SERVER_APP
        )
        run: Run = state.get_run_info(run_ids=[self.run_id])[0]
        token = state.claim_task(run.primary_task_id)
        assert token
        assert state.activate_task(run.primary_task_id)
        self.grid = HttpGrid(f"127.0.0.1:{superlink.loopback_port}", insecure=True, token=token)
        self.grid.set_run(run)

    def instruct(self, *node_ids: int, text: str = "train") -> list[str]:
        return list(self.grid.push_messages([self.instruction(node_id, text) for node_id in node_ids]))

    def instruction(self, node_id: int, text: str = "train") -> Message:
        _private.become_server_app(self.run_id)  # Flower keeps it for the process: other tests have runs, too
        return instruction_for(node_id, text)

    def collect(self, *message_ids: str) -> list[Message]:
        return list(self.grid.pull_messages(list(message_ids)))


def instruction_for(node_id: int, text: str) -> Message:
    return Message(RecordDict({"task": ConfigRecord({"text": text})}), node_id, "train")


def text_of(message: Message) -> str:
    return str(next(iter(message.content.config_records.values()))["text"])

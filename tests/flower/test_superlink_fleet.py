"""Who gets through to the Fleet API, on a real SuperLink with two listeners, over real TLS."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest, RegisterNodeFleetRequest, UnregisterNodeFleetRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from superlink_world import (
    CLOCK,
    AppSide,
    Domain,
    NodeSide,
    RunningSuperlink,
    Site,
    node_side,
    reply_to,
    running_superlink,
    text_of,
)

from fltrust.agent.credentials import CredentialStore
from fltrust.errors import Revoked
from fltrust.flower import fleet_tls
from fltrust.flower.connections import ConnectionLimits
from fltrust.identity import Role
from fltrust.keys import generate
from fltrust.revocation import EventKind
from fltrust.revocation.view import ReachPolicy

PATH = "/v1/fleet/send-node-heartbeat"


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuperlink]:
    with running_superlink(Domain(), tmp_path_factory.mktemp("superlink"), hold_seconds=0) as running:
        yield running


@pytest.fixture
def site(superlink: RunningSuperlink, request: pytest.FixtureRequest) -> Site:
    return superlink.domain.enroll(f"site-{abs(hash(request.node.name)) % 10**9}")


def beat(side: NodeSide, node_id: int | None = None) -> None:
    node = side.node if node_id is None else Node(node_id=node_id)
    request = SendNodeHeartbeatRequest(node=node, heartbeat_interval=30)
    try:
        side.client.SendNodeHeartbeat(request)
    except httpx.TransportError:  # the connection it had was cut; Flower tries again too
        side.client.SendNodeHeartbeat(request)


def status_of(error: pytest.ExceptionInfo[httpx.HTTPStatusError]) -> tuple[int, str]:
    response = error.value.response
    return response.status_code, response.json()["reason"]


def raw_connection(superlink: RunningSuperlink, context: ssl.SSLContext) -> ssl.SSLSocket:
    context.check_hostname = False
    plain = socket.create_connection(("127.0.0.1", superlink.fleet_port), timeout=20)
    return context.wrap_socket(plain)


def is_dropped(superlink: RunningSuperlink, context: ssl.SSLContext) -> bool:
    """With TLS 1.3 a refused certificate shows on the first read."""
    try:
        with raw_connection(superlink, context) as connection:
            return post(connection) == b""
    except (ssl.SSLError, ConnectionError):
        return True


def post(connection: ssl.SSLSocket, path: str = PATH, head: str = "", body: bytes = b"") -> bytes:
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n{head}\r\n".encode() + body
    )
    answer = b""
    while part := connection.recv(65536):
        answer += part
        top, end, rest = answer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", top)
        if end and length and len(rest) >= int(length[1]):
            break
    return answer


def test_an_instruction_and_its_reply_go_through(superlink: RunningSuperlink, site: Site) -> None:
    with node_side(site, superlink) as side:
        app = AppSide(superlink)
        (message_id,) = app.instruct(site.node_id, text="train on this")
        instruction = side.receive()
        assert text_of(instruction) == "train on this"
        side.send(reply_to(instruction, "done"))
        (reply,) = app.collect(message_id)
        assert text_of(reply) == "done"
        assert reply.metadata.src_node_id == site.node_id


def test_each_listener_serves_its_own_api_only(superlink: RunningSuperlink, site: Site) -> None:
    context = site.context()
    context.check_hostname = False
    with httpx.Client(verify=context) as client:
        fleet = f"https://127.0.0.1:{superlink.fleet_port}"
        for path in ("/v1/control/list-runs", "/v1/runtime/pull-messages", "/health", "/docs", "/v1/fleet"):
            assert client.post(fleet + path).status_code == 404
        assert client.get(fleet + PATH).status_code == 404
    loopback = f"http://127.0.0.1:{superlink.loopback_port}"
    assert httpx.get(loopback + "/health").status_code == 200
    for path in (PATH, "/v1/fleet/register-node", "/v1/fleet"):
        assert httpx.post(loopback + path).status_code == 404


def test_another_user_of_the_machine_does_not_reach_control_and_runtime(tmp_path: Path) -> None:
    """Whoever may start a run has code run as the aggregator's user."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    other = 65_534
    # Nothing is imported after the change of user, who may not read the libraries of this Python.
    call = (
        "import os, socket, sys\n"
        f"os.setgid({other}); os.setuid({other})\n"
        "line = socket.socket()\n"
        "line.connect(('127.0.0.1', int(sys.argv[1])))\n"
        "line.sendall(sys.argv[2].encode())\n"
        "print(line.recv(12).decode())\n"
    )

    def status(superlink: RunningSuperlink) -> str:
        head = "host: x\r\ncontent-type: application/protobuf\r\ncontent-length: 0"
        request = f"POST /v1/control/list-runs HTTP/1.1\r\n{head}\r\n\r\n"
        command = [sys.executable, "-I", "-S", "-c", call, str(superlink.loopback_port), request]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]

    with running_superlink(Domain(), tmp_path, hold_seconds=0) as superlink:
        assert status(superlink) == "403"
        assert AppSide(superlink).run_id
    (tmp_path / "again").mkdir()
    with running_superlink(Domain(), tmp_path / "again", allowed_uids=frozenset({other})) as superlink:
        assert status(superlink) == "200"


def test_a_connection_without_a_certificate_carries_nothing(superlink: RunningSuperlink) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    assert is_dropped(superlink, context)


def test_a_certificate_of_another_domain_is_refused(superlink: RunningSuperlink) -> None:
    other = Domain("elsewhere.example")
    context = CredentialStore(other.issue(Role.PARTICIPANT, "site-x")).ssl_client_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    assert is_dropped(superlink, context)


def test_tls_1_2_is_refused(superlink: RunningSuperlink, site: Site) -> None:
    context = site.context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        raw_connection(superlink, context)


def test_no_session_ticket_is_given(superlink: RunningSuperlink, site: Site) -> None:
    with raw_connection(superlink, site.context()) as connection:
        assert post(connection).startswith(b"HTTP/1.1 401")
        assert connection.session is None or not connection.session.has_ticket


@pytest.mark.parametrize("role", [Role.AGGREGATOR, Role.OPERATOR])
def test_a_certificate_of_another_role_is_refused(
    superlink: RunningSuperlink, site: Site, role: Role
) -> None:
    credentials = superlink.domain.issue(role, "mallory")
    with (
        site.client(superlink, credentials=credentials) as client,
        pytest.raises(httpx.HTTPStatusError) as error,
    ):
        NodeSide(site, client).activate()
    assert status_of(error) == (401, "wrong-role")


def test_a_participant_that_is_not_enrolled_is_refused(superlink: RunningSuperlink) -> None:
    domain = superlink.domain
    unknown = Site(domain, "never-seen", generate(), domain.issue(Role.PARTICIPANT, "never-seen"))
    with unknown.client(superlink) as client, pytest.raises(httpx.HTTPStatusError) as error:
        NodeSide(unknown, client).activate()
    assert status_of(error) == (401, "unknown-identity")


def test_a_node_key_that_is_not_the_participants_is_refused(superlink: RunningSuperlink, site: Site) -> None:
    other = superlink.domain.enroll("key-owner")
    for key in (other.node_key, generate()):
        site_with_key = Site(site.domain, site.name, key, site.credentials)
        with site.client(superlink, node_key=key) as client, pytest.raises(httpx.HTTPStatusError) as error:
            NodeSide(site_with_key, client).activate()
        assert status_of(error) == (401, "wrong-node")


def test_a_node_does_not_register_or_unregister_itself(superlink: RunningSuperlink, site: Site) -> None:
    with node_side(site, superlink) as side:
        with pytest.raises(httpx.HTTPStatusError) as error:
            side.client.RegisterNode(RegisterNodeFleetRequest(public_key=b"fresh"))
        assert status_of(error) == (403, "self-registration")
        with pytest.raises(httpx.HTTPStatusError) as error:
            side.client.UnregisterNode(UnregisterNodeFleetRequest(node_id=site.node_id))
        assert status_of(error) == (403, "self-registration")


def test_a_node_does_not_speak_for_another_node(superlink: RunningSuperlink, site: Site) -> None:
    victim = superlink.domain.enroll("spoken-for")
    with node_side(victim, superlink) as theirs, node_side(site, superlink) as side:
        beat(theirs)
        for node_id in (victim.node_id, 0, 1, 12345):
            with pytest.raises(httpx.HTTPStatusError) as error:
                beat(side, node_id)
            assert status_of(error) == (403, "wrong-node")
        with pytest.raises(httpx.HTTPStatusError) as error:
            side.client.PullMessages(PullMessagesRequest(node=theirs.node))
        assert status_of(error) == (403, "wrong-node")


def test_a_node_whose_process_died_is_let_in_again_at_once(superlink: RunningSuperlink, site: Site) -> None:
    with node_side(site, superlink), site.client(superlink) as client:
        again = NodeSide(site, client)
        assert again.activate() == site.node_id
        beat(again)


def test_revocation_cuts_the_connection_and_unregisters_the_node(
    superlink: RunningSuperlink, site: Site
) -> None:
    with node_side(site, superlink) as side, raw_connection(superlink, site.context()) as connection:
        assert post(connection).startswith(b"HTTP/1.1 401")  # no node key, but it is a live connection
        superlink.domain.say(EventKind.REVOKED, site.spiffe_id)
        with contextlib.suppress(ConnectionError, ssl.SSLError):  # a reset says the same
            assert connection.recv(1) == b""
        with pytest.raises(httpx.HTTPStatusError) as error:
            beat(side)
    assert status_of(error) == (401, "revoked")
    assert any(e["participant"] == str(site.spiffe_id) for e in superlink.events("connection-cut"))
    registered = {number for number, _ in superlink.superlink._registrar._nodes.list_keys()}
    assert site.node_id not in registered


def test_a_revoked_node_key_never_comes_back(superlink: RunningSuperlink, site: Site) -> None:
    with node_side(site, superlink):
        superlink.domain.say(EventKind.REVOKED, site.spiffe_id)
    superlink.domain.say(EventKind.ENROLLED, site.spiffe_id, node_key=site.node_key)
    with site.client(superlink) as client, pytest.raises(httpx.HTTPStatusError) as error:
        NodeSide(site, client).activate()
    assert status_of(error) == (409, "conflict")


def test_a_participant_enrolled_anew_leaves_its_old_node_behind(
    superlink: RunningSuperlink, site: Site
) -> None:
    with node_side(site, superlink) as old:
        new = Site(site.domain, site.name, generate(), site.domain.issue(Role.PARTICIPANT, site.name))
        superlink.domain.say(EventKind.ENROLLED, site.spiffe_id, node_key=new.node_key)
        with node_side(new, superlink) as side:
            assert new.node_id != site.node_id
            beat(side)
        with pytest.raises(httpx.HTTPStatusError) as error:
            beat(old)
    assert status_of(error) == (401, "wrong-node")


def test_a_held_participant_waits_and_keeps_its_node(superlink: RunningSuperlink, site: Site) -> None:
    with node_side(site, superlink) as side:
        superlink.domain.say(EventKind.HELD, site.spiffe_id)
        with pytest.raises(httpx.HTTPStatusError) as error:
            beat(side)
        assert status_of(error) == (503, "held")
        superlink.domain.say(EventKind.RELEASED, site.spiffe_id)
        beat(side)


def test_a_stale_view_refuses_and_says_try_again(superlink: RunningSuperlink, site: Site) -> None:
    view = superlink.domain.view
    with node_side(site, superlink) as side:
        kept, view.policy = view.policy, ReachPolicy(bound=timedelta(0))
        try:
            with pytest.raises(httpx.HTTPStatusError) as error:
                beat(side)
        finally:
            view.policy = kept
        assert status_of(error) == (503, "stale-view")
        beat(side)


def test_bodies_and_heads_are_bounded(superlink: RunningSuperlink, site: Site) -> None:
    context = site.context()
    with site.client(superlink) as client:  # signs a valid head for us
        request = client._client.build_request("POST", client._base_url + PATH)
        for interceptor in client._interceptors:
            from flwr.supercore.protobuf.client import ProtobufRequestContext

            interceptor.intercept(
                ProtobufRequestContext("", PullMessagesRequest(), request), lambda _: httpx.Response(200)
            )
    head = "".join(f"{k}: {v}\r\n" for k, v in request.headers.items() if k.startswith("flwr"))
    with raw_connection(superlink, context) as connection:
        assert post(connection, head=head, body=b"\xff" * 100).startswith(b"HTTP/1.1 400")
    with raw_connection(superlink, context) as connection:
        assert post(connection, head=head, body=b"x" * (64 * 1024 + 1)).startswith(b"HTTP/1.1 413")
    with raw_connection(superlink, context) as connection:
        assert post(connection, head="x: y\r\n" * 100).startswith(b"HTTP/1.1 400")
    with raw_connection(superlink, context) as connection:
        connection.sendall(b"POST " + PATH.encode() + b" HTTP/1.1\r\nx: " + b"y" * 70_000)
        assert connection.recv(4096).startswith(b"HTTP/1.1 400")


def test_the_servers_certificate_rotates_without_a_failed_request(
    superlink: RunningSuperlink, site: Site
) -> None:
    serials: set[int] = set()
    failures: list[BaseException] = []
    stop = threading.Event()

    def load() -> None:
        try:
            while not stop.is_set():
                with site.client(superlink) as client:
                    side = NodeSide(site, client, Node(node_id=site.node_id))
                    for _ in range(3):
                        side.client.SendNodeHeartbeat(
                            SendNodeHeartbeatRequest(node=side.node, heartbeat_interval=30)
                        )
        except BaseException as error:
            failures.append(error)

    with node_side(site, superlink) as steady:
        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            superlink.credentials.rotate(superlink.domain.issue(Role.AGGREGATOR, "main"))
            with raw_connection(superlink, site.context()) as connection:
                shown = connection.getpeercert()
                assert shown is not None
                serials.add(int(str(shown["serialNumber"]), 16))
            beat(steady)
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert len(serials) == 5
    assert int(superlink.credentials.current.certificate.serial) in serials


def test_a_participant_has_so_many_connections_and_no_more(tmp_path: Path) -> None:
    domain = Domain()
    site, other = domain.enroll("busy"), domain.enroll("calm")
    limits = ConnectionLimits(total=100, per_participant=2)
    with (
        running_superlink(domain, tmp_path, hold_seconds=0, connections=limits) as superlink,
        raw_connection(superlink, site.context()) as one,
        raw_connection(superlink, site.context()) as two,
    ):
        for connection in (one, two):
            assert b"wrong-node" in post(connection)
        with raw_connection(superlink, site.context()) as third:
            assert post(third).startswith(b"HTTP/1.1 503")
        with raw_connection(superlink, other.context()) as fourth:
            assert b"wrong-node" in post(fourth)
        assert superlink.counted("refused.limit-exceeded") == 1


def test_connections_that_were_refused_take_no_room_and_do_not_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a participant that may have two would hold them all, and nobody else got in."""
    monkeypatch.setattr(fleet_tls, "REFUSED_LIFE", 1.0)
    domain = Domain()
    hog, calm = domain.enroll("hog"), domain.enroll("calm")
    limits = ConnectionLimits(total=8, per_participant=2, refused=4)
    with (
        running_superlink(domain, tmp_path, hold_seconds=0, connections=limits) as superlink,
        contextlib.ExitStack() as stack,
    ):
        held = [stack.enter_context(raw_connection(superlink, hog.context())) for _ in range(20)]
        assert len(superlink.superlink.connections) <= 2 + 4
        with raw_connection(superlink, calm.context()) as other:
            assert b"wrong-node" in post(other)
        for connection in held[2:]:
            connection.settimeout(5)
            with contextlib.suppress(OSError):  # reset, or ended
                assert connection.recv(1) == b""


class EarlyClock:
    """The machine's clock, an hour less a moment early: a fresh certificate ends in that moment."""

    def __init__(self, ahead: timedelta) -> None:
        self.ahead = ahead

    def now(self) -> datetime:
        return CLOCK.now() + self.ahead

    def monotonic(self) -> float:
        return CLOCK.monotonic()


def test_a_connection_ends_with_its_certificate(tmp_path: Path) -> None:
    domain = Domain()
    site = domain.enroll("short-lived")
    left = site.credentials.certificate.not_after - CLOCK.now()
    clock = EarlyClock(left - timedelta(seconds=2))
    with (
        running_superlink(domain, tmp_path, hold_seconds=0, clock=clock) as superlink,
        raw_connection(superlink, site.context()) as connection,
    ):
        assert post(connection).startswith(b"HTTP/1.1 401")
        assert connection.recv(1) == b""  # closed by the other side, in order
        assert superlink.counted("connections.expired") == 1
        with raw_connection(superlink, site.context()) as late:
            assert b"certificate-expired" in post(late)


def test_a_superlink_whose_aggregator_is_revoked_ends_and_says_so(tmp_path: Path) -> None:
    def revoke_it() -> None:
        domain = Domain()
        with running_superlink(domain, tmp_path) as superlink:
            domain.say(EventKind.REVOKED, superlink.credentials.spiffe_id)
            superlink.thread.join(30)
            assert not superlink.thread.is_alive()

    with pytest.raises(Revoked, match=r"aggregator/main is revoked as of epoch 2"):
        revoke_it()

"""Empty pulls are held until the other side has delivered, and let go when they must be."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.runtime_pb2 import PushAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from superlink_world import (
    AppSide,
    Domain,
    NodeSide,
    RunningSuperlink,
    node_side,
    reply_to,
    running_superlink,
    text_of,
)

from fltrust.agent.client import SOCKET_VARIABLE
from fltrust.errors import Malformed, Unavailable
from fltrust.flower.asgi import Response
from fltrust.flower.held_pull import HeldPulls, Stage
from fltrust.flower.superlink import SuperlinkOptions
from fltrust.flower.superlink_args import is_loopback, prepare_environment, read_flower_arguments
from fltrust.identity import NodeId
from fltrust.revocation import EventKind


class Later:
    """A call in a thread, and what became of it."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._act()
        except BaseException as error:
            self._error = error

    def is_waiting(self, seconds: float = 0.3) -> bool:
        self._thread.join(seconds)
        return self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        return self._result


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuperlink]:
    """Holds for so long that whatever comes back before, came because of an event."""
    with running_superlink(Domain(), tmp_path_factory.mktemp("held"), hold_seconds=25) as running:
        yield running


@contextmanager
def one_node(superlink: RunningSuperlink, name: str) -> Iterator[tuple[AppSide, NodeSide]]:
    with node_side(superlink.domain.enroll(name), superlink) as node:
        yield AppSide(superlink), node


class SlowPush:
    """Instructions that the ServerApp announced, whose objects it uploads when told."""

    def __init__(self, app: AppSide, *messages: Message) -> None:
        self._app, self._client = app, app.grid._runtime_client
        self._objects = {}
        for message in messages:
            message.metadata.__dict__["_message_id"] = message.object_id
            self._objects |= {i: o.deflate() for i, o in get_all_nested_objects(message).items()}
        answer = self._client.PushMessages(
            PushAppMessagesRequest(
                messages_list=[message_to_proto(remove_content_from_message(m)) for m in messages],
                message_object_trees=[get_object_tree(m) for m in messages],
            )
        )
        self.message_ids = list(answer.message_ids)
        self._session, self._wanted = answer.session_id, list(answer.objects_to_push)

    def upload(self) -> None:
        for object_id in self._wanted:
            self._client.PushObject(
                PushObjectRequest(
                    node=self._app.grid.node,
                    run_id=self._app.run_id,
                    session_id=self._session,
                    object_id=object_id,
                    object_content=self._objects[object_id],
                )
            )


def test_a_nodes_empty_pull_returns_with_the_instruction(superlink: RunningSuperlink) -> None:
    with one_node(superlink, "waiting") as (app, node):
        pull = Later(node.pull)
        assert pull.is_waiting()
        (message_id,) = app.instruct(node.site.node_id)
        message, _ = pull.result()
        assert message.metadata.message_id == message_id


def test_a_node_is_given_an_instruction_only_when_all_of_it_is_there(superlink: RunningSuperlink) -> None:
    with one_node(superlink, "patient") as (app, node):
        push = SlowPush(app, app.instruction(node.site.node_id))
        pull = Later(node.pull)
        assert pull.is_waiting()
        push.upload()
        assert text_of(node.fetch(*pull.result())) == "train"


def test_a_serverapps_empty_pull_returns_with_the_whole_reply(superlink: RunningSuperlink) -> None:
    with one_node(superlink, "slow") as (app, node):
        (message_id,) = app.instruct(node.site.node_id)
        instruction = node.receive()
        pull = Later(lambda: app.collect(message_id))
        assert pull.is_waiting()
        reply = reply_to(instruction, "whole")
        wanted, session = node.announce(reply)
        assert pull.is_waiting()
        node.upload(reply, wanted, session)
        (got,) = pull.result()
        assert text_of(got) == "whole"


def test_a_stalled_upload_does_not_keep_back_the_replies_of_others(superlink: RunningSuperlink) -> None:
    with (
        one_node(superlink, "stalls") as (app, stalls),
        node_side(superlink.domain.enroll("delivers"), superlink) as delivers,
    ):
        ids = app.instruct(stalls.site.node_id, delivers.site.node_id)
        stalls.announce(reply_to(stalls.receive(), "never uploaded"))
        delivers.send(reply_to(delivers.receive(), "here"))
        (got,) = app.collect(*ids)
        assert text_of(got) == "here"


def test_announcing_again_and_again_takes_the_room_of_one_upload() -> None:
    """Else one node could push out the uploads of all others, whose replies would never be ready."""

    async def announce() -> list[int]:
        held, sizes = HeldPulls(), []
        held.pushed((("a", NodeId(2), 1), ("b", NodeId(3), 1)), session_id="", missing=set())
        held.announced("b", session_id="victim", missing={"x"})
        for number in range(50):
            held.announced("a", session_id=f"again-{number}", missing={"x"})
            sizes.append(len(held._uploads))
        held.uploaded("again-48", "x")  # a session that was left is not the reply's any more
        assert held._outstanding["a"].stage is Stage.UPLOADING
        held.uploaded("again-49", "x")
        assert held._outstanding["a"].stage is Stage.READY
        return sizes

    assert max(asyncio.run(announce())) == 2


def test_one_pull_for_several_replies_returns_with_all_of_them(superlink: RunningSuperlink) -> None:
    with (
        one_node(superlink, "first") as (app, first),
        node_side(superlink.domain.enroll("second"), superlink) as second,
    ):
        ids = app.instruct(first.site.node_id, second.site.node_id)
        pull = Later(lambda: app.collect(*ids))
        first.send(reply_to(first.receive(), "first"))
        assert pull.is_waiting()
        second.send(reply_to(second.receive(), "second"))
        assert sorted(text_of(got) for got in pull.result()) == ["first", "second"]


def test_revocation_ends_the_serverapps_wait_for_that_node(superlink: RunningSuperlink) -> None:
    with one_node(superlink, "caught") as (app, node):
        (message_id,) = app.instruct(node.site.node_id)
        node.receive()
        pull = Later(lambda: app.collect(message_id))
        assert pull.is_waiting()
        superlink.domain.say(EventKind.REVOKED, node.site.spiffe_id)
        (end,) = pull.result()
        assert end.has_error()
        assert end.metadata.reply_to_message_id == message_id


def test_revocation_ends_the_nodes_own_wait_and_gives_it_nothing(superlink: RunningSuperlink) -> None:
    with one_node(superlink, "out") as (_, node):
        pull = Later(node.pull)
        assert pull.is_waiting()
        superlink.domain.say(EventKind.REVOKED, node.site.spiffe_id)
        with pytest.raises(Exception, match=r"disconnected|401|reset|closed"):
            pull.result()


def test_an_instruction_is_not_lost_to_a_node_that_hung_up(superlink: RunningSuperlink) -> None:
    with one_node(superlink, "reconnects") as (app, node):
        with node.site.client(superlink) as first:
            hung_up = Later(NodeSide(node.site, first, node.node).pull)
            assert hung_up.is_waiting()
            for connection in first._client._transport._pool.connections:  # type: ignore[attr-defined]
                raw = connection._connection._network_stream.get_extra_info("socket")
                raw.shutdown(socket.SHUT_RDWR)
            with pytest.raises(Exception, match=r"."):
                hung_up.result()
        (message_id,) = app.instruct(node.site.node_id)
        assert node.receive().metadata.message_id == message_id


def test_more_pulls_than_replies_go_round(superlink: RunningSuperlink) -> None:
    """A reply that no pull asks for lets the others go, so that a bounded crew comes to it."""
    with (
        one_node(superlink, "asked-for") as (app, asked),
        node_side(superlink.domain.enroll("not-asked-for"), superlink) as other,
    ):
        asked_id, other_id = app.instruct(asked.site.node_id, other.site.node_id)
        asked.receive()
        pull = Later(lambda: app.collect(asked_id))
        assert pull.is_waiting()
        other.send(reply_to(other.receive(), "ready"))
        assert pull.result() == []
        (got,) = app.collect(other_id)
        assert text_of(got) == "ready"


def test_a_hold_is_bounded_and_can_be_turned_off(tmp_path: Path) -> None:
    for hold in (0.2, 0):
        domain = Domain()
        folder = tmp_path / str(hold)
        folder.mkdir()
        with (
            running_superlink(domain, folder, hold_seconds=hold) as superlink,
            one_node(superlink, "idle") as (app, node),
        ):
            assert node.pull() is None
            (message_id,) = app.instruct(node.site.node_id)
            assert app.collect(message_id) == []
            node.send(reply_to(node.receive(), "in time"))
            (got,) = app.collect(message_id)
            assert text_of(got) == "in time"


def test_stopping_lets_held_pulls_go(tmp_path: Path) -> None:
    domain = Domain()
    with running_superlink(domain, tmp_path, hold_seconds=25) as superlink:
        site = domain.enroll("left-waiting")
        node = NodeSide(site, site.client(superlink))
        node.activate()
        pull = Later(node.pull)
        assert pull.is_waiting()
        superlink.superlink.stop()
        assert pull.result() is None


# --- Flower's own arguments ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--host", "0.0.0.0"], "loopback --host"),
        (["--host=192.0.2.1"], "loopback --host"),
        (["--host", "example.org"], "loopback --host"),
        (["--ssl-certfile", "x.pem"], "no --ssl-certfile"),
        (["--ssl-keyfile=x.key"], "no --ssl-keyfile"),
        (["--simulation"], "a deployment"),
    ],
)
def test_arguments_that_would_open_another_way_in_are_refused(arguments: list[str], expected: str) -> None:
    with pytest.raises(Malformed, match=expected):
        read_flower_arguments(arguments)


def test_node_authentication_is_on_whatever_was_said() -> None:
    for arguments in ([], ["--insecure"], ["--enable-supernode-auth"]):
        config = read_flower_arguments([*arguments, "--port", "8123"])
        assert config.enable_supernode_auth
        assert (config.host, config.port) == ("127.0.0.1", 8123)


def test_flowers_parser_says_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_flower_arguments(["--no-such-option"])
    assert "--no-such-option" in capsys.readouterr().err


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with (
            pytest.raises(Unavailable, match=f"could not listen on 127.0.0.1:{port}"),
            running_superlink(Domain(), tmp_path, arguments=("--port", port)),
        ):
            pass


def test_a_hold_beyond_the_clients_patience_is_refused() -> None:
    with pytest.raises(Malformed, match="0 to 25 s"):
        SuperlinkOptions(hold_seconds=31)


def test_loopback_is_an_address_not_a_name() -> None:
    assert all(is_loopback(a) for a in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"))
    assert not any(is_loopback(a) for a in ("0.0.0.0", "::", "10.0.0.1", "localhost.example", ""))


def test_the_environment_of_flower_is_prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = [
        *("FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK", "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"),
        *("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", SOCKET_VARIABLE, "NO_PROXY", "no_proxy"),
    ]
    for name in names:
        monkeypatch.setenv(name, "before")
    monkeypatch.setenv("FLWR_INTERNAL_GRPC_FLEET_API", "1")
    monkeypatch.setenv("FLWR_INTERNAL_GRPC_CONTROL_API", "1")
    monkeypatch.setenv("PATH", "/usr/bin")
    prepare_environment(tmp_path / "agent.sock")
    env = os.environ
    assert env["FLWR_TELEMETRY_ENABLED"] == "0"
    assert env["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert env["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert env["FLWR_SUPEREXEC_TASK_POLL_INTERVAL"] == "before"
    assert env[SOCKET_VARIABLE] == str(tmp_path / "agent.sock")
    assert env["NO_PROXY"] == env["no_proxy"] == "before,127.0.0.1,localhost,::1"
    assert "FLWR_INTERNAL_GRPC_FLEET_API" not in env
    assert "FLWR_INTERNAL_GRPC_CONTROL_API" not in env
    assert env["PATH"].endswith(":/usr/bin")


def test_a_node_is_let_go_before_its_certificate_runs_out() -> None:
    held, asked = HeldPulls(hold=30), []

    async def ask() -> Response:
        asked.append(1)
        return Response(200, (), b"")

    async def silent() -> Any:
        await asyncio.Event().wait()

    async def pull() -> Response:
        async with asyncio.timeout(10):
            return await held.for_node(NodeId(1), ask, silent, at_most=0.1)

    response = asyncio.run(pull())
    assert (response.status, response.body) == (200, b"")
    assert asked == [1]

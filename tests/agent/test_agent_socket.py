"""The agent's unix socket: who may speak, what is answered, and what never crosses it."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from pathlib import Path

import pytest
from agent_world import DOMAIN, MAIN, NODE, OTHER, RUN, SITE, START, NoRounds, Scene, content, scene, take
from cryptography.hazmat.primitives import serialization
from second_world import SecondChain

from fltrust.agent.client import SOCKET_VARIABLE, AgentClient
from fltrust.agent.handlers import aggregator_handlers, participant_handlers
from fltrust.agent.server import AgentServer
from fltrust.errors import (
    AgentUnavailable,
    Conflict,
    LimitExceeded,
    Malformed,
    NotFound,
    Oversized,
    PermissionDenied,
    Refusal,
    Revoked,
    StaleView,
    StatementRefused,
    StorageUnavailable,
)
from fltrust.identity import Digest, Epoch, RunId
from fltrust.revocation import EventKind, FeedHeartbeat, FeedItem, TrustEvent
from fltrust.revocation.view import TrustView
from fltrust.rounds.types import Candidate, CohortMember, Opened, RoundKey
from fltrust.updates.second import SecondSignature
from fltrust.updates.signing import SignedStatement
from fltrust.updates.statement import Phase
from fltrust.wire.framing import MAX_FRAME, receive
from fltrust.wire.pb import agent_pb2 as pb

KEY = RoundKey(RUN, 1, 1, Phase.TRAIN)
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing the uid needs root")


@pytest.fixture
def here() -> Scene:
    return scene()


@pytest.fixture
def site(here: Scene, tmp_path: Path) -> Iterator[AgentServer]:
    server = AgentServer(tmp_path / "run" / "agent.sock", handlers=participant_handlers(here.participant))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def main(here: Scene, tmp_path: Path) -> Iterator[AgentServer]:
    server = AgentServer(
        tmp_path / "main" / "agent.sock",
        handlers=aggregator_handlers(here.aggregator),
        log=here.world.log,
    )
    server.start()
    yield server
    server.stop()


def speak(path: Path, data: bytes, *, finish: bool = True) -> pb.AgentResponse | None:
    """Write raw bytes and read one answer."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(20)
        raw.connect(str(path))
        raw.sendall(data)
        if finish:
            raw.shutdown(socket.SHUT_WR)
        return receive(raw, pb.AgentResponse)


def test_a_participants_app_checks_and_signs_over_the_socket(here: Scene, site: AgentServer) -> None:
    client, received = AgentClient(site.path), here.instruction()
    assert client.identity() == here.participant.identity()
    client.check_instruction(received)
    signed = client.sign_update(received, reply=content(9), reply_type="train")
    assert here.participant.sign_update(received, reply=content(9), reply_type="train") == signed


def test_a_second_signature_comes_over_the_socket(here: Scene, tmp_path: Path) -> None:
    pair = SecondChain(DOMAIN, now=START).pair(SITE)
    core = here.world.participant(here.site, second=lambda: pair)
    server = AgentServer(tmp_path / "run" / "agent.sock", handlers=participant_handlers(core))
    server.start()
    try:
        client = AgentClient(server.path)
        signed = client.sign_update(here.instruction(), reply=content(9), reply_type="train")
        second = SecondSignature.of_update(client.sign_second(signed))
    finally:
        server.stop()
    assert second.payload == SignedStatement.from_bytes(signed).envelope.payload


def test_a_missing_second_key_comes_over_the_socket_as_its_refusal(here: Scene, site: AgentServer) -> None:
    client = AgentClient(site.path)
    signed = client.sign_update(here.instruction(), reply=content(9), reply_type="train")
    with pytest.raises(NotFound) as refused:
        client.sign_second(signed)
    assert refused.value.reason == "second-key-missing"


def test_a_refusal_arrives_with_its_class_reason_and_hint(here: Scene, site: AgentServer) -> None:
    received = replace(here.instruction(), run_id=RunId(1))
    with pytest.raises(StatementRefused) as caught:
        AgentClient(site.path).check_instruction(received)
    assert caught.value.reason == Refusal.WRONG_RUN
    with pytest.raises(StatementRefused) as caught:
        AgentClient(site.path).check_instruction(here.instruction(run_id=RunId(1)))
    assert (caught.value.reason, bool(caught.value.hint)) == (Refusal.RUN_NOT_OPEN, True)


def test_an_aggregators_app_signs_opens_seals_and_closes_over_the_socket(
    here: Scene, main: AgentServer
) -> None:
    client = AgentClient(main.path)
    drafts = tuple(here.world.draft(step=n) for n in range(1, 4))
    signed = client.sign_instructions(drafts)
    assert len(set(signed)) == 3
    member = CohortMember(SITE, NODE, here.world.node_key(), Digest.sha256_of(b"i"))
    assert client.open_round(KEY, (member,)) == Opened(Epoch(5), ((OTHER, "revoked"),))
    candidate = Candidate(signed[0], signed[1])
    assert client.seal_round(KEY, (candidate,), ((OTHER, "no-reply"),)) == b"receipt"
    client.close_run(RUN)
    coordinator = here.aggregator._coordinator
    assert isinstance(coordinator, NoRounds)
    assert coordinator.calls == [
        ("open", KEY, (member,)),
        ("seal", KEY, (candidate,), ((OTHER, "no-reply"),)),
        ("close", RUN),
    ]


def test_a_whole_cohort_of_instructions_fits_one_request(here: Scene, main: AgentServer) -> None:
    drafts = tuple(here.world.draft(step=n) for n in range(1, 1001))
    assert len(AgentClient(main.path).sign_instructions(drafts)) == 1000


@pytest.mark.parametrize(
    "ask",
    [
        lambda c, s: c.sign_instructions((s.world.draft(),)),
        lambda c, _: c.open_round(KEY, ()),
        lambda c, _: c.seal_round(KEY, (), ()),
        lambda c, _: c.close_run(RUN),
        lambda c, _: next(c.watch(Epoch(0))),
    ],
)
def test_a_participants_agent_answers_no_aggregators_request(here: Scene, site: AgentServer, ask) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PermissionDenied):
        ask(AgentClient(site.path), here)
    assert site.refusals["permission-denied"] == 1


def test_an_aggregators_agent_signs_no_update(here: Scene, main: AgentServer) -> None:
    client, received = AgentClient(main.path), here.instruction()
    with pytest.raises(PermissionDenied):
        client.sign_update(received, reply=content(9), reply_type="train")
    with pytest.raises(PermissionDenied):
        client.check_instruction(received)


def test_an_empty_request_is_refused(site: AgentServer) -> None:
    answer = speak(site.path, b"\x00\x00\x00\x00")
    assert answer is not None
    assert answer.error.error == "PermissionDenied"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\x00\x00\x00\x04\xff\xff\xff\xff", "Malformed"),
        ((MAX_FRAME + 1).to_bytes(4, "big"), "Oversized"),
        (b"\xff\xff\xff\xff", "Oversized"),
        (b"\x00\x00\x00\x09abc", "Malformed"),
        (b"\x00\x00", "Malformed"),
        (b"GET / HTTP/1.1\r\n\r\n", "Oversized"),
    ],
)
def test_a_malformed_or_oversized_frame_is_refused_and_the_agent_goes_on(
    here: Scene, site: AgentServer, data: bytes, error: str
) -> None:
    answer = speak(site.path, data)
    assert answer is not None
    assert answer.error.error == error
    assert AgentClient(site.path).identity().spiffe_id == SITE
    assert sum(site.refusals.values()) == 1


def test_fields_that_cannot_be_are_refused(site: AgentServer) -> None:
    for bad in (
        pb.ReceivedInstruction(signed=b"x", content="md5:00", model="sha256:" + "0" * 64),
        pb.ReceivedInstruction(signed=b"", content="a" * 5000),
        pb.ReceivedInstruction(signed=b"x" * 200_000),
    ):
        request = pb.AgentRequest(check_instruction=pb.CheckInstructionRequest(received=bad))
        body = request.SerializeToString()
        answer = speak(site.path, len(body).to_bytes(4, "big") + body)
        assert answer is not None
        assert answer.error.error in {"Malformed", "Oversized"}


def test_a_peer_that_says_nothing_is_let_go(here: Scene, tmp_path: Path) -> None:
    server = AgentServer(
        tmp_path / "quick" / "agent.sock",
        handlers=participant_handlers(here.participant),
        request_timeout=0.05,
    )
    server.start()
    try:
        assert speak(server.path, b"", finish=False) is None
        assert speak(server.path, b"\x00\x00\x00\x09abc", finish=False) is None
        assert server.refusals == {"connection-lost": 2}
    finally:
        server.stop()


def test_connections_beyond_the_limit_are_told_so_and_served_again_later(here: Scene, tmp_path: Path) -> None:
    server = AgentServer(
        tmp_path / "few" / "agent.sock",
        handlers=participant_handlers(here.participant),
        max_connections=2,
    )
    server.start()
    try:
        held = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        for one in held:
            one.connect(str(server.path))
        client = AgentClient(server.path)
        with pytest.raises(LimitExceeded):
            client.identity()
        for one in held:
            one.close()
        eventually(lambda: client.identity().spiffe_id == SITE)
    finally:
        server.stop()


def eventually(holds) -> None:  # type: ignore[no-untyped-def]
    """Try for up to 20 s; the last error is the test's."""
    for _ in range(400):
        try:
            if holds():
                return
        except LimitExceeded:
            pass
        threading.Event().wait(0.05)
    assert holds()


def test_socket_and_folder_are_private(site: AgentServer) -> None:
    assert site.path.stat().st_mode & 0o777 == 0o600
    assert site.path.parent.stat().st_mode & 0o777 == 0o700


def ask_as_nobody(path: Path) -> str:
    """The error that a client running as another user gets, by class and reason."""
    code = (
        "import sys; from pathlib import Path\n"
        "from fltrust.agent.client import AgentClient\n"
        "from fltrust.errors import FltrustError\n"
        "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: print(AgentClient(Path(sys.argv[1])).identity().spiffe_id)\n"
        "except FltrustError as error: print(type(error).__name__, error.reason)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


@needs_root
def test_a_process_of_another_user_cannot_reach_the_socket(site: AgentServer) -> None:
    assert ask_as_nobody(site.path) == "AgentUnavailable agent-unavailable"


@needs_root
def test_a_process_of_another_user_is_refused_even_where_the_folder_lets_it_through(
    here: Scene, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = Path("/tmp") / f"fltrust-test-{os.getpid()}"
    server = AgentServer(base / "agent.sock", handlers=participant_handlers(here.participant))
    server.start()
    try:
        base.chmod(0o755)
        server.path.chmod(0o666)
        assert ask_as_nobody(server.path) == "PermissionDenied foreign-uid"
        assert server.refusals == {"foreign-uid": 1}
    finally:
        server.stop()
        base.rmdir()


@needs_root
def test_a_user_that_was_allowed_is_answered(here: Scene) -> None:
    base = Path("/tmp") / f"fltrust-test-allowed-{os.getpid()}"
    server = AgentServer(
        base / "agent.sock",
        handlers=participant_handlers(here.participant),
        allowed_uids={os.geteuid(), NOBODY},
    )
    server.start()
    try:
        assert ask_as_nobody(server.path) == str(SITE)
        assert base.stat().st_mode & 0o777 == 0o711
    finally:
        server.stop()
        base.rmdir()


@needs_root
def test_a_folder_of_another_user_is_refused(here: Scene, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    os.chown(foreign, NOBODY, NOBODY)
    server = AgentServer(foreign / "agent.sock", handlers=participant_handlers(here.participant))
    with pytest.raises(StorageUnavailable, match="uid 65534"):
        server.start()


def test_the_socket_of_a_dead_process_is_replaced_and_of_a_living_one_refused(
    here: Scene, tmp_path: Path
) -> None:
    path = tmp_path / "run" / "agent.sock"
    path.parent.mkdir(mode=0o700)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    first = AgentServer(path, handlers=participant_handlers(here.participant))
    first.start()
    second = AgentServer(path, handlers=participant_handlers(here.participant))
    with pytest.raises(Conflict, match="no other agent"):
        second.start()
    second.stop()
    assert AgentClient(path).identity().spiffe_id == SITE
    first.stop()
    assert not path.exists()


def test_a_file_in_the_place_of_the_socket_is_left_alone(here: Scene, tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.sock"
    path.parent.mkdir(mode=0o700)
    path.write_text("mine")
    with pytest.raises(Conflict):
        AgentServer(path, handlers=participant_handlers(here.participant)).start()
    assert path.read_text() == "mine"


def test_no_agent_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: AgentServer
) -> None:
    monkeypatch.delenv(SOCKET_VARIABLE, raising=False)
    with pytest.raises(AgentUnavailable, match="fltrust supernode"):
        AgentClient.from_environment()
    with pytest.raises(AgentUnavailable, match="fltrust supernode"):
        AgentClient(tmp_path / "nothing.sock").identity()
    monkeypatch.setenv(SOCKET_VARIABLE, str(site.path))
    assert AgentClient.from_environment().identity().spiffe_id == SITE


def test_an_agent_that_stops_ends_its_connections(here: Scene, main: AgentServer) -> None:
    watch = AgentClient(main.path).watch(Epoch(0))
    take(watch, 3)
    main.stop()
    with pytest.raises(AgentUnavailable):
        for _ in watch:
            pass


def test_one_client_serves_many_threads(here: Scene, site: AgentServer) -> None:
    client, received, seen = AgentClient(site.path), here.instruction(), []

    def work() -> None:
        client.check_instruction(received)
        seen.append(client.sign_update(received, reply=content(9), reply_type="train"))

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 12
    assert len(set(seen)) == 1


def test_a_watcher_gets_every_event_since_any_epoch_and_then_what_comes(
    here: Scene, main: AgentServer
) -> None:
    client = AgentClient(main.path)
    past = take(client.watch(Epoch(0)), 3)
    assert [item.epoch for item in past] == [1, 2, 3]
    assert isinstance(past[0], TrustEvent)
    assert past[0].subject == SITE
    late = client.watch(Epoch(2))
    assert next(late).epoch == 3
    here.world.enroll(OTHER)
    here.world.revoke(OTHER)
    kinds = [item.kind for item in islice(events_of(late), 2)]
    assert kinds == [EventKind.ENROLLED, EventKind.REVOKED]
    late.close()


def events_of(watch: Iterable[FeedItem]) -> Iterator[TrustEvent]:
    return (item for item in watch if isinstance(item, TrustEvent))


def test_a_process_with_thousands_of_open_files_is_served_as_well(here: Scene, main: AgentServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        watch = AgentClient(main.path).watch(Epoch(0))
        take(watch, 3)
        here.world.enroll(OTHER)
        assert next(events_of(watch)).epoch == 4
        watch.close()
    finally:
        for handle in held:
            os.close(handle)


def test_a_watcher_hears_a_heartbeat_only_when_the_agent_did(here: Scene, main: AgentServer) -> None:
    copy = TrustView(here.world.clock)
    watch = AgentClient(main.path).watch(Epoch(0))
    for item in take(watch, 4):  # what there is, and a heartbeat that says so
        copy.feed(item)
    here.world.clock.advance(timedelta(seconds=20))
    here.world.beat()
    beat = next(watch)
    assert isinstance(beat, FeedHeartbeat)
    copy.feed(beat)
    assert copy.age() == timedelta(0)
    # From here on the agent is cut off: nothing comes, and the copy ages with it.
    here.world.clock.advance(timedelta(seconds=31))
    reader: list[object] = []
    thread = threading.Thread(target=lambda: reader.extend(take(watch, 1)), daemon=True)
    thread.start()
    thread.join(1.5)
    assert reader == []
    with pytest.raises(StaleView):
        copy.require_fresh()
    here.world.beat()
    thread.join(20)
    assert [type(item) for item in reader] == [FeedHeartbeat]


def test_a_watch_does_not_begin_on_a_view_that_is_not_current(here: Scene) -> None:
    here.world.clock.advance(timedelta(seconds=11))
    with pytest.raises(StaleView):
        here.world.log.begin(0.0)
    here.world.beat()
    here.world.log.begin(0.0)


def test_a_watcher_that_is_ahead_of_the_agent_hears_nothing_until_it_has_caught_up(here: Scene) -> None:
    here.world.beat()
    assert here.world.log.after(Epoch(9), heard=None, timeout=0.0)[0] == ()


def test_an_identity_that_was_revoked_refuses_its_app(here: Scene, main: AgentServer) -> None:
    here.aggregator.halt(Revoked("revoked at epoch 9", hint="ask why"))
    with pytest.raises(Revoked, match="epoch 9"):
        AgentClient(main.path).open_round(KEY, ())


def secrets_of(here: Scene) -> list[bytes]:
    """Every form in which a private key of the agents could be told from other bytes."""
    found = []
    for signer in (here.site.current.signer, here.main.current.signer, here.world.node_keys[SITE]):
        key = signer._private_key
        number = key.private_numbers().private_value
        found += [number.to_bytes(32, "big"), f"{number:064x}".encode(), str(number).encode()]
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        found += pem.splitlines()[1:-1]
    return [*found, b"PRIVATE KEY"]


def test_no_private_key_ever_crosses_the_socket(here: Scene, site: AgentServer, main: AgentServer) -> None:
    received = here.instruction()
    requests = {
        site.path: [
            pb.AgentRequest(identity=pb.IdentityRequest()),
            signing_request(received, 9),
            signing_request(received, 8),  # refused
        ],
        main.path: [
            pb.AgentRequest(identity=pb.IdentityRequest()),
            pb.AgentRequest(sign_instructions=pb.SignInstructionsRequest()),
            pb.AgentRequest(follow={"after_epoch": 0}),
        ],
    }
    crossed = b""
    for path, asked in requests.items():
        for request in asked:
            body = request.SerializeToString()
            with socket.socket(socket.AF_UNIX) as raw:
                raw.settimeout(5)
                raw.connect(str(path))
                raw.sendall(len(body).to_bytes(4, "big") + body)
                raw.shutdown(socket.SHUT_WR)
                while piece := raw.recv(65536):
                    crossed += piece
    assert str(SITE).encode() in crossed
    assert str(MAIN).encode() in crossed
    for secret in secrets_of(here):
        assert secret not in crossed


def signing_request(received, seed: int) -> pb.AgentRequest:  # type: ignore[no-untyped-def]
    from fltrust.agent.codec import received_to_pb

    return pb.AgentRequest(
        sign_update=pb.SignUpdateRequest(
            received=received_to_pb(received), reply=str(content(seed)), reply_type="train"
        )
    )


def test_an_answer_of_another_kind_is_not_taken_for_one(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "odd.sock"))
    listener.listen()

    def answer(data: bytes) -> None:
        connection, _ = listener.accept()
        receive(connection, pb.AgentRequest)
        connection.sendall(data)
        connection.close()

    body = pb.AgentResponse(close_run={}).SerializeToString()
    for data, error in (
        (len(body).to_bytes(4, "big") + body, Malformed),
        (b"\xff\xff\xff\xff", Oversized),
        (b"", AgentUnavailable),
    ):
        thread = threading.Thread(target=answer, args=(data,))
        thread.start()
        with pytest.raises(error):
            AgentClient(tmp_path / "odd.sock").identity()
        thread.join()
    listener.close()

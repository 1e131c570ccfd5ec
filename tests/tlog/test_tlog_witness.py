"""The witness: the statuses of the specification, one history, and a real server."""

from __future__ import annotations

import http.client
import socket
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Thread

import pytest
from log_http import send, serving
from log_world import AT, ORIGIN, LogWorld, sealed_round

from fltrust.errors import (
    Conflict,
    FltrustError,
    Malformed,
    SignatureInvalid,
    StorageUnavailable,
    Unavailable,
)
from fltrust.keys.ed25519 import generate_note_key
from fltrust.tlog.checkpoint import Checkpoint, CheckpointPolicy, CosignerKey, add_signatures
from fltrust.tlog.entries import new_entry
from fltrust.tlog.merkle import consistency_proof
from fltrust.tlog.note import Note, NoteKey, parse_note, parse_signature, sign_note
from fltrust.tlog.ports import TreeHead
from fltrust.tlog.witness import (
    MAX_REQUEST,
    AddCheckpoint,
    Answer,
    FolderStore,
    Witness,
    request_cosignature,
)
from fltrust.tlog.witness_key import open_witness_key
from fltrust.tlog.witness_server import WitnessServer


class _Clock:
    def now(self) -> datetime:
        return AT

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture
def world() -> LogWorld:
    world = LogWorld()
    world.grow(300)
    return world


@pytest.fixture
def witness(world: LogWorld, tmp_path: Path) -> Iterator[Witness]:
    store = FolderStore(tmp_path / "state")
    yield Witness(world.witness, (world.policy,), store=store, clock=_Clock())
    store.close()


def ask(world: LogWorld, old: int, size: int | None = None) -> bytes:
    size = world.log.head.size if size is None else size
    return AddCheckpoint(old, consistency_proof(world.log, old, size=size), world.note(size)).encode()


def test_a_history_that_only_grows_is_cosigned(world: LogWorld, witness: Witness) -> None:
    policy = CheckpointPolicy(world.policy.log, (world.witness.verifier,), 1)
    old = 0
    for size in (0, 1, 17, 17, 256, 301):
        answer = witness.add_checkpoint(ask(world, old, size))
        assert (answer.status, answer.content_type) == (200, "text/plain; charset=utf-8")
        line = parse_signature(answer.body.decode().removesuffix("\n"))
        assert policy.verify(add_signatures(world.note(size), (line,))).cosigned == {world.witness.name: AT}
        old = size


def test_an_old_size_that_is_not_the_latest_gets_the_latest(world: LogWorld, witness: Witness) -> None:
    assert witness.add_checkpoint(ask(world, 0, 100)).status == 200
    for old in (0, 99):
        answer = witness.add_checkpoint(ask(world, old))
        assert answer == Answer(409, b"100\n", "text/x.tlog.size")
    assert witness.add_checkpoint(ask(world, 101)) == Answer(409, b"100\n", "text/x.tlog.size")
    assert witness.add_checkpoint(ask(world, 100)).status == 200


def test_another_root_at_the_same_size_is_a_conflict(world: LogWorld, witness: Witness) -> None:
    assert witness.add_checkpoint(ask(world, 0)).status == 200
    fork = LogWorld()
    fork.key = world.key
    fork.grow(299)
    fork.append(new_entry(sealed_round(12345)))
    assert witness.add_checkpoint(ask(fork, 301)).status == 409


def test_a_fork_is_never_cosigned_and_the_memory_stays(world: LogWorld, witness: Witness) -> None:
    assert witness.add_checkpoint(ask(world, 0)).status == 200
    fork = LogWorld()
    fork.key = world.key
    fork.append(new_entry(sealed_round(12345)))
    fork.grow(500)
    assert witness.add_checkpoint(ask(fork, 301)).status == 422
    world.grow(5)
    assert witness.add_checkpoint(ask(world, 301)).status == 200


@pytest.mark.parametrize(
    ("damage", "status"),
    [
        (lambda _: b"", 400),
        (lambda body: body.replace(b"old 0\n", b"old 00\n"), 400),
        (lambda body: body.replace(b"old 0\n", b"new 0\n"), 400),
        (lambda body: body.replace(b"old 0\n", b"old 0\n!\n"), 400),
        (lambda body: body.replace(b"old 0\n", b"old 0\nAAAA\n"), 400),
        (lambda body: body.replace(b"old 0\n", b"old 0\n" + (b64encode(bytes(32)) + b"\n") * 64), 400),
        (lambda body: body.replace(b"old 0\n", b"old 0\n" + b64encode(bytes(32)) + b"\n"), 422),
        (lambda body: body.replace(b"old 0\n", b"old 302\n"), 400),
        (lambda body: body.replace(b"old 0\n", b"old 5\n"), 409),
        (lambda body: body + b"x", 400),
        (lambda body: body + bytes(MAX_REQUEST), 400),
        (lambda body: body.replace(b"\n301\n", b"\n300\n"), 403),
        (lambda body: body.replace(ORIGIN.encode() + b"\n", b"other.example/log\n", 1), 404),
        (lambda body: body.replace(b"old 0\n", b"\xffld 0\n"), 400),
    ],
)
def test_each_fault_has_the_status_of_the_specification(
    world: LogWorld, witness: Witness, damage: Callable[[bytes], bytes], status: int
) -> None:
    assert witness.add_checkpoint(damage(ask(world, 0))).status == status
    assert witness.add_checkpoint(ask(world, 0)).status == 200, "nothing was remembered"


def test_a_checkpoint_signed_by_strangers_alone_is_forbidden(world: LogWorld, witness: Witness) -> None:
    text = parse_note(world.note()).text
    namesake = NoteKey(ORIGIN, generate_note_key())
    assert witness.add_checkpoint(AddCheckpoint(0, (), sign_note(text, (namesake,))).encode()).status == 403
    both = sign_note(text, (namesake, world.key))
    assert witness.add_checkpoint(AddCheckpoint(0, (), both).encode()).status == 200


def test_the_memory_survives_and_belongs_to_one_witness(world: LogWorld, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "w")
    first = Witness(world.witness, (world.policy,), store=store, clock=_Clock())
    assert first.add_checkpoint(ask(world, 0)).status == 200
    with pytest.raises(Conflict, match="another witness"):
        FolderStore(tmp_path / "w")
    store.close()
    again = FolderStore(tmp_path / "w")
    assert again.latest(ORIGIN) == world.log.head
    assert again.latest("other.example/log").size == 0
    second = Witness(world.witness, (world.policy,), store=again, clock=_Clock())
    assert second.add_checkpoint(ask(world, 0)).body == b"301\n"
    again.close()


def test_a_checkpoint_that_cannot_be_recorded_is_not_cosigned(world: LogWorld) -> None:
    class Full:
        def latest(self, _origin: str) -> TreeHead:
            return world.checkpoint(0).head

        def record(self, _origin: str, _note: bytes) -> None:
            raise StorageUnavailable("disk full")

    witness = Witness(world.witness, (world.policy,), store=Full(), clock=_Clock())
    with pytest.raises(StorageUnavailable):
        witness.add_checkpoint(ask(world, 0))


def test_of_many_at_once_each_step_is_cosigned_by_one(world: LogWorld, witness: Witness) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(witness.add_checkpoint, [ask(world, 0, 100 + i) for i in range(32)]))
    assert sorted(a.status for a in answers) == [200] + [409] * 31


def test_two_logs_with_one_name_are_refused(world: LogWorld, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "s")
    with pytest.raises(Malformed, match="same name"):
        Witness(world.witness, (world.policy, LogWorld().policy), store=store, clock=_Clock())
    store.close()


def test_a_key_is_made_once_and_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="--name"):
        open_witness_key(tmp_path, name=None, passphrase=None)
    made = open_witness_key(tmp_path, name="w.example/1", passphrase=b"secret")
    assert open_witness_key(tmp_path, name=None, passphrase=b"secret").verifier == made.verifier
    assert (tmp_path / "witness.vkey").read_text().strip() == str(made.verifier)
    assert (tmp_path / "witness.key").stat().st_mode & 0o077 == 0
    with pytest.raises(Malformed, match=r"w\.example/1"):
        open_witness_key(tmp_path, name="w.example/2", passphrase=b"secret")
    other = CosignerKey("w.example/1", generate_note_key()).verifier
    (tmp_path / "witness.vkey").write_text(f"{other}\n")
    with pytest.raises(Malformed, match="another's"):
        open_witness_key(tmp_path, name=None, passphrase=b"secret")


@contextmanager
def _served(witness: Witness) -> Iterator[str]:
    server = WitnessServer(("127.0.0.1", 0), witness)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_log_gets_its_cosignature_over_http(world: LogWorld, witness: Witness) -> None:
    asked: list[int] = []

    def prove(old: int) -> tuple[bytes, ...]:
        asked.append(old)
        return consistency_proof(world.log, old, size=world.log.head.size)

    policy = CheckpointPolicy(world.policy.log, (world.witness.verifier,), 1)
    with _served(witness) as url:
        for known, expected in ((0, [0]), (301, [301]), (0, [0, 311])):
            asked.clear()
            line = request_cosignature(
                url, world.note(), witness=world.witness.verifier, prove=prove, old=known
            )
            assert policy.verify(add_signatures(world.note(), (line,)))
            assert asked == expected
            world.grow(10)


def test_a_refusal_of_the_witness_is_told_apart(world: LogWorld, witness: Witness) -> None:
    fork = LogWorld()
    fork.key = world.key
    fork.append(new_entry(sealed_round(5)))
    fork.grow(600)
    key = world.witness.verifier
    with _served(witness) as url:
        request_cosignature(url, world.note(), witness=key, prove=lambda _: ())
        with pytest.raises(Conflict, match="422"):
            request_cosignature(
                url,
                fork.note(),
                witness=key,
                prove=lambda old: consistency_proof(fork.log, old, size=fork.log.head.size),
            )
        with pytest.raises(Conflict, match="has seen 301"):
            request_cosignature(url, world.note(50), witness=key, prove=lambda _: ())
        stranger = LogWorld(origin="stranger.example/log")
        with pytest.raises(Conflict, match="404"):
            request_cosignature(url, stranger.note(), witness=key, prove=lambda _: ())


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, b"", Malformed),
        (200, b"\xff", Malformed),
        (200, b"hello\n", Malformed),
        (200, "— other.example AAAAAAAA\n".encode(), Malformed),
        (500, b"", Unavailable),
        (409, b"many\n", FltrustError),
        (409, b"302\n", Conflict),
        (409, b"0\n", Conflict),
        (200, bytes(70_000), FltrustError),
    ],
)
def test_what_a_witness_may_answer_ends_in_an_error_of_ours(
    world: LogWorld, status: int, body: bytes, error: type[FltrustError]
) -> None:
    kind = "text/x.tlog.size" if status == 409 else "text/plain"
    with serving(lambda handler: send(handler, body, status, Content_Type=kind)) as url, pytest.raises(error):
        request_cosignature(url, world.note(), witness=world.witness.verifier, prove=lambda _: ())


def test_a_cosignature_of_something_else_is_not_taken(world: LogWorld) -> None:
    line = world.witness.cosign(Checkpoint.parse(parse_note(world.note(5)).text), at=AT).line.encode()
    with serving(lambda handler: send(handler, line)) as url, pytest.raises(SignatureInvalid):
        request_cosignature(url, world.note(), witness=world.witness.verifier, prove=lambda _: ())


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 999999\r\n\r\n", 413),
        (b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n", 413),
        (b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 411),
        (b"POST /add-checkpoint HTTP/1.1\r\n\r\n", 411),
        (b"POST /add-checkpoint HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST /other HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404),
        (b"GET /add-checkpoint HTTP/1.1\r\n\r\n", 501),
        (b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_a_request_that_is_none_is_answered_within_bounds(
    witness: Witness, request_bytes: bytes, status: int
) -> None:
    with _served(witness) as url, socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))) as sock:
        sock.settimeout(5)
        sock.sendall(request_bytes)
        answer = sock.recv(4096)
    assert f" {status} ".encode() in answer.split(b"\r\n")[0] or b"Error code: 400" in answer


def test_a_connection_is_kept_for_the_next_checkpoint(world: LogWorld, witness: Witness) -> None:
    with _served(witness) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
        for old, size in ((0, 100), (100, 200), (200, 301)):
            connection.request("POST", "/add-checkpoint", ask(world, old, size))
            with connection.getresponse() as answer:
                assert answer.status == 200
                note = Note(
                    parse_note(world.note(size)).text, (parse_signature(answer.read().decode()[:-1]),)
                )
                assert note.by(world.witness.verifier)
        connection.close()

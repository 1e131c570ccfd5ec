"""The public port, asked with real clients: curl, openssl, and sockets that do not behave."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from server_world import ServedWorld, served

from fltrust.artifacts.logkeys import log_keys_of
from fltrust.artifacts.pinned import check_pinned
from fltrust.artifacts.trustfile import TrustFile
from fltrust.artifacts.trustroot import parse_trusted_root
from fltrust.clock import SystemClock
from fltrust.coordinator import http_server
from fltrust.coordinator.publishing import Publisher
from fltrust.coordinator.serving import ServerSettings
from fltrust.coordinator.settings import WitnessSetting
from fltrust.errors import Conflict, EvidenceMissing, FltrustError, PolicyNotMet, UntrustedSigner
from fltrust.identity import Digest
from fltrust.keys.ed25519 import generate_note_key
from fltrust.pki import bundle_to_pem, root_fingerprint
from fltrust.tlog.checkpoint import CheckpointPolicy, CosignerKey
from fltrust.tlog.fetching import HttpLog
from fltrust.tlog.mirror import verify_mirror
from fltrust.tlog.witness import FolderStore, Witness
from fltrust.tlog.witness_server import WitnessServer

SETTINGS = ServerSettings(
    public="127.0.0.1:0", rate=10_000, burst=10_000, bootstrap_burst=10_000, public_connections_per_address=8
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorld]:
    with served(tmp_path_factory.mktemp("public"), settings=SETTINGS) as world:
        for number in range(3):
            world.join(f"site-{number}")
        yield world


def url(world: ServedWorld, path: str = "") -> str:
    return f"http://{world.server.public_address}{path}"


def curl(*arguments: str) -> tuple[int, dict[str, str], bytes]:
    """Ask with curl: status, headers, body."""
    done = subprocess.run(
        ["curl", "-sS", "-i", "--path-as-is", "--max-time", "20", *arguments], capture_output=True, check=True
    )
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


def policy_of(world: ServedWorld) -> CheckpointPolicy:
    file = TrustFile.parse(curl(url(world, "/trust.json"))[2])
    return CheckpointPolicy(log_keys_of(file))


# The log.


def test_the_checkpoint_is_signed_by_the_key_that_is_served_beside_it(world: ServedWorld) -> None:
    status, headers, note = curl(url(world, "/checkpoint"))
    vkey = curl(url(world, "/log/vkey"))[2].decode().strip()
    assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert "max-age=5" in headers["cache-control"]
    found = CheckpointPolicy.of(vkey).verify(note)
    assert found.head == policy_of(world).verify(note).head


def test_a_stranger_verifies_the_whole_log_from_what_is_served(world: ServedWorld) -> None:
    source = HttpLog(url(world))
    report = verify_mirror(source, policy_of(world))
    source.close()
    assert report.checkpoint.head.size >= 10


def test_tiles_are_served_up_to_the_checkpoint_and_may_be_kept_for_ever(world: ServedWorld) -> None:
    size = policy_of(world).verify(curl(url(world, "/checkpoint"))[2]).head.size
    status, headers, data = curl(url(world, f"/tile/0/000.p/{size}"))
    assert (status, len(data), headers["content-type"]) == (200, 32 * size, "application/octet-stream")
    assert "immutable" in headers["cache-control"]
    assert curl(url(world, "/tile/0/000.p/2"))[2] == data[:64]
    entries = curl(url(world, "/tile/entries/000.p/1"))[2]
    first = entries[2 : 2 + int.from_bytes(entries[:2], "big")]
    assert hashlib.sha256(b"\0" + first).digest() == data[:32]
    status, headers, _ = curl(url(world, f"/tile/0/000.p/{size + 1}"))
    assert (status, headers["cache-control"]) == (404, "no-store")


@pytest.mark.parametrize(
    "path",
    [
        "/tile/../state.db",
        "/tile/%2e%2e/%2e%2e/etc/passwd",
        "/tile/..%2f..%2fetc%2fpasswd",
        "/tile/0/000.p/0",
        "/tile/0/000.p/256",
        "/tile/0/000.p/01",
        "/tile/0/0",
        "/tile/9/000",
        "/tile/0/x000/000",
        "/tile/0/000/",
        "/tile//0/000",
        "/tile/0/000%00",
        "/tile/" + "x001/" * 40 + "000",
        "/tile/",
        "/tile",
        "/coordinator.toml",
        "/log",
        "/",
        "//checkpoint",
        "/checkpoint/",
    ],
)
def test_any_other_path_is_not_there(world: ServedWorld, path: str) -> None:
    assert curl(url(world, path))[0] == 404


def test_methods_that_a_page_does_not_have_are_refused_and_head_has_no_body(world: ServedWorld) -> None:
    for path in ("/checkpoint", "/tile/0/000.p/1", "/trust.json", "/healthz"):
        for method in ("POST", "PUT", "DELETE", "TRACE", "OPTIONS"):
            status, headers, _ = curl("-X", method, url(world, path))
            assert (status, sorted(headers["allow"].split(", "))) == (405, ["get", "head"]), (path, method)
    status, headers, body = curl("-I", url(world, "/checkpoint"))
    assert (status, body, int(headers["content-length"]) > 100) == (200, b"", True)
    assert curl(url(world, "/tsa"))[0] == 405


def test_every_answer_says_how_it_may_be_used(world: ServedWorld) -> None:
    for path in ("/checkpoint", "/trust.json", "/nothing", "/tsa"):
        headers = curl(url(world, path))[1]
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers


# Trust.


def test_the_trust_file_of_the_public_port_is_the_callers_own(world: ServedWorld) -> None:
    _, headers, data = curl(url(world, "/trust.json"))
    assert headers["cache-control"] == "no-cache"
    assert data == world.operator.client.trust_file()
    root = curl(url(world, "/trusted_root.json"))[2]
    assert parse_trusted_root(root).tlogs[0].base_url == "https://hospitals.example/log"
    assert curl(url(world, "/roots.pem"))[2] == bundle_to_pem(world.ca.bundle)


def test_a_fetched_trust_file_is_held_against_the_pinned_root(world: ServedWorld) -> None:
    data, now = curl(url(world, "/trust.json"))[2], SystemClock().now()
    root = root_fingerprint(world.ca.bundle.roots[0])
    assert check_pinned(data, root=root, at=now).domain == "hospitals.example"
    with pytest.raises(UntrustedSigner):
        check_pinned(data, root=Digest.sha256_of(b"another"), at=now)


def _swap(file: TrustFile, part: str, other: TrustFile) -> bytes:
    return replace(file, trusted_root={**file.trusted_root, part: other.trusted_root[part]}).to_json()


def _add(file: TrustFile, part: str, other: TrustFile) -> bytes:
    mine, theirs = file.trusted_root[part], other.trusted_root[part]
    assert isinstance(mine, list)
    assert isinstance(theirs, list)
    return replace(file, trusted_root={**file.trusted_root, part: [*mine, *theirs]}).to_json()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrustFile]:
    """The trust file of another federation of the same name."""
    with served(tmp_path_factory.mktemp("other")) as world:
        yield TrustFile.parse(world.operator.client.trust_file())


@pytest.mark.parametrize("how", [_swap, _add])
@pytest.mark.parametrize("part", ["certificateAuthorities", "ctlogs", "tlogs", "timestampAuthorities"])
def test_a_trust_file_in_which_somebody_put_anything_is_refused(
    world: ServedWorld, other: TrustFile, how: Callable[[TrustFile, str, TrustFile], bytes], part: str
) -> None:
    file = TrustFile.parse(curl(url(world, "/trust.json"))[2])
    root = root_fingerprint(world.ca.bundle.roots[0])
    with pytest.raises(FltrustError):
        check_pinned(how(file, part, other), root=root, at=SystemClock().now())


def test_a_trust_file_without_a_status_or_with_an_old_one_is_refused(world: ServedWorld) -> None:
    file = TrustFile.parse(curl(url(world, "/trust.json"))[2])
    root, now = root_fingerprint(world.ca.bundle.roots[0]), SystemClock().now()
    with pytest.raises(EvidenceMissing):
        check_pinned(replace(file, status=None).to_json(), root=root, at=now)
    with pytest.raises(PolicyNotMet):
        check_pinned(file.to_json(), root=root, at=now + timedelta(hours=2))


# Timestamps.


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_openssl_verifies_a_timestamp_that_it_asked_for_with_curl(
    world: ServedWorld, tmp_path: Path, algorithm: str
) -> None:
    (tmp_path / "data").write_bytes(b"a model")

    def run(*command: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    run("openssl", "ts", "-query", "-data", "data", f"-{algorithm}", "-cert", "-out", "q")
    kind = "Content-Type: application/timestamp-query"
    run("curl", "-sSf", "-H", kind, "--data-binary", "@q", "-o", "r", url(world, "/tsa"))
    run("curl", "-sSf", "-o", "roots.pem", url(world, "/roots.pem"))
    done = run("openssl", "ts", "-verify", "-in", "r", "-queryfile", "q", "-CAfile", "roots.pem")
    assert b"Verification: OK" in done.stdout + done.stderr
    (tmp_path / "data").write_bytes(b"another")
    with pytest.raises(subprocess.CalledProcessError):
        run("openssl", "ts", "-verify", "-in", "r", "-data", "data", "-CAfile", "roots.pem")


def test_what_is_no_timestamp_query_is_refused_within_its_bounds(world: ServedWorld, tmp_path: Path) -> None:
    kind = "Content-Type: application/timestamp-query"
    assert curl("-X", "POST", "-d", "x", url(world, "/tsa"))[0] == 415
    (tmp_path / "big").write_bytes(b"\0" * 100_000)
    big = ("-H", kind, "-H", "Expect:", "--data-binary", f"@{tmp_path / 'big'}")
    assert curl(*big, url(world, "/tsa"))[0] == 413
    assert curl(*big, "-H", "Transfer-Encoding: chunked", url(world, "/tsa"))[0] == 413
    status, headers, body = curl("-H", kind, "-d", "nonsense", url(world, "/tsa"))
    assert (status, headers["content-type"]) == (200, "application/timestamp-reply")
    assert b"expected a TimeStampReq" in body  # RFC 3161: a rejection is an answer


# Those who do not behave.


def connect(world: ServedWorld) -> socket.socket:
    host, port = str(world.server.public_address).rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=20)


def test_one_address_holds_a_bounded_number_of_connections(world: ServedWorld) -> None:
    held = [connect(world) for _ in range(8)]
    try:
        time.sleep(0.2)
        with connect(world) as one_more:
            assert ended(one_more)
    finally:
        for connection in held:
            connection.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with connect(world) as again, contextlib.suppress(ConnectionError):
            again.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            if again.recv(100).startswith(b"HTTP/1.1 200"):
                return
        time.sleep(0.1)
    pytest.fail("expected a connection to be served after the others were closed")


def ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_who_sends_no_whole_head_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEAD_TIMEOUT", 0.5)
    with served(tmp_path, settings=SETTINGS) as world, connect(world) as silent, connect(world) as slow:
        slow.sendall(b"GET /healthz HT")
        started = time.monotonic()
        assert ended(silent)
        assert ended(slow)
        assert time.monotonic() - started < 10


def test_a_head_that_is_too_large_is_refused(world: ServedWorld) -> None:
    with connect(world) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 400") or ended(connection)


def test_a_request_with_two_lengths_is_the_last_of_its_connection(world: ServedWorld) -> None:
    """A proxy that reads the other length would take the second answer for somebody else's."""
    with connect(world) as connection:
        connection.sendall(
            b"POST /tsa HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        answer = b""
        while part := connection.recv(4096):
            answer += part
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 400")


def test_a_caller_does_not_choose_the_address_that_it_is_counted_as(tmp_path: Path) -> None:
    with served(tmp_path, settings=replace(SETTINGS, public_rate=0.001, public_burst=3)) as world:
        codes = [
            curl(url(world, "/healthz"), "-H", f"X-Forwarded-For: 192.0.2.{number}")[0] for number in range(5)
        ]
    assert codes == [200, 200, 200, 429, 429]


def test_an_address_that_asks_too_often_is_slowed(tmp_path: Path) -> None:
    settings = replace(SETTINGS, public_rate=0.1, public_burst=3.0, stamp_burst=1.0, stamp_rate=0.01)
    with served(tmp_path, settings=settings) as world:
        found = [curl(url(world, "/healthz")) for _ in range(5)]
        assert [status for status, _, _ in found] == [200, 200, 200, 429, 429]
        assert found[-1][1]["retry-after"] == "1"


def test_an_address_in_use_is_a_conflict(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Conflict) as caught, served(tmp_path, settings=replace(SETTINGS, public=address)):
            pass
    assert caught.value.reason == "address-in-use"


def test_without_an_address_nothing_is_public(tmp_path: Path) -> None:
    with served(tmp_path) as world:
        assert (world.server.public_address, world.server.publisher) == (None, None)


# Witnesses.


def test_the_checkpoint_carries_the_cosignatures_of_witnesses_and_never_goes_back(tmp_path: Path) -> None:
    clock = SystemClock()
    for name in ("log", "witness"):
        (tmp_path / name).mkdir(mode=0o700)
    with served(tmp_path / "log") as world:
        key = world.authority.log_key
        cosigner = CosignerKey("witness.example/w1", generate_note_key())
        store = FolderStore(tmp_path / "witness")
        witness = Witness(cosigner, (CheckpointPolicy((key.verifier,)),), store=store, clock=clock)
        server = WitnessServer(("127.0.0.1", 0), witness)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            good = WitnessSetting(f"http://127.0.0.1:{server.server_address[1]}", cosigner.verifier)
            gone = WitnessSetting.of(
                "http://127.0.0.1:1", str(CosignerKey("witness.example/gone", generate_note_key()).verifier)
            )
            counters = world.authority.counters
            publisher = Publisher(
                ledger=world.authority.ledger,
                log_key=key,
                counters=counters,
                clock=clock,
                witnesses=(good, gone),
            )
            demanding = CheckpointPolicy((key.verifier,), (cosigner.verifier,), 1)
            assert publisher.ask_witnesses() == 1
            first = demanding.verify(publisher.checkpoint())
            world.join("a")
            assert demanding.verify(publisher.checkpoint()).head == first.head  # not cosigned yet: not public
            assert publisher.ask_witnesses() == 1
            second = demanding.verify(publisher.checkpoint())
            assert second.head.size > first.head.size
            assert counters.get("witness.cosigned") == 2
            assert counters.get("witness.coordinator-unavailable") + counters.get("witness.unavailable") == 1
            again = Publisher(
                ledger=world.authority.ledger, log_key=key, counters=counters, clock=clock, witnesses=(good,)
            )
            assert demanding.verify(again.checkpoint()).head == second.head
        finally:
            server.shutdown()
            server.server_close()
            store.close()

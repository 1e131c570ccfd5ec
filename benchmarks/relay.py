"""What the sidecar's relay costs: 100 MB up and 100 MB down, through it and beside it.

Three processes as in life: a client, the relay, a server that requires certificates. As Flower does, the
client sends 5 MB a request on two connections at once. The runs are interleaved, and the fastest of each
kind is taken. Run it: ``python -m benchmarks.relay`` prints JSON.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import ssl
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fltrust.agent.credentials import Credentials, CredentialStore
from fltrust.agent.relay import Relay
from fltrust.clock import SystemClock
from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.keys import generate
from fltrust.pki import Draft, Issuer, TrustBundle, create_issuing, create_root, make_bundle
from fltrust.revocation import EventKind, FeedHeartbeat, TrustEvent
from fltrust.revocation.view import ReachMode, ReachPolicy, TrustView

TOTAL = 100_000_000
CHUNK = 5_000_000
CONNECTIONS = 2
RUNS = 7

CLOCK = SystemClock()
DOMAIN = TrustDomain("bench.example")
PARTICIPANT = SpiffeId.of(DOMAIN, Role.PARTICIPANT, "site")
AGGREGATOR = SpiffeId.of(DOMAIN, Role.AGGREGATOR, "main")


def measure() -> dict[str, float]:
    """Seconds for 100 MB each way, direct and through the relay; the relay's own CPU seconds; ratios."""
    issuer, bundle = _authority()
    site = CredentialStore(_credentials(issuer, bundle, PARTICIPANT))
    aggregator = CredentialStore(_credentials(issuer, bundle, AGGREGATOR))
    fork = multiprocessing.get_context("fork")  # before there are threads; the keys go along in memory
    with tempfile.TemporaryDirectory() as name:
        server, port = _start(fork, _serve, aggregator)
        relay, address = _start(fork, _relay, site, port, Path(name))
        try:
            local = ssl.create_default_context(cafile=Path(name) / "run" / "relay-root.pem")
            direct = site.ssl_client_context(check_name=False)
            return _compare(port, direct, address, local, relay_pid=relay.pid)
        finally:
            for process in (relay, server):
                process.terminate()
                process.join()


def _compare(
    port: int, direct: ssl.SSLContext, relay_port: int, local: ssl.SSLContext, *, relay_pid: int
) -> dict[str, float]:
    best: dict[str, float] = {}

    def note(name: str, value: float) -> None:
        best[name] = min(value, best.get(name, value))

    for _ in range(RUNS):
        for way in ("up", "down"):
            note(f"{way}_direct", _transfer(port, direct, way))
            before = _cpu_of(relay_pid)
            note(f"{way}_relay", _transfer(relay_port, local, way))
            note(f"{way}_relay_cpu", _cpu_of(relay_pid) - before)
    for way in ("up", "down"):
        best[f"{way}_added"] = best[f"{way}_relay"] - best[f"{way}_direct"]
        best[f"{way}_ratio"] = best[f"{way}_relay"] / best[f"{way}_direct"]
    return {name: round(value, 3) for name, value in sorted(best.items())}


def _transfer(port: int, context: ssl.SSLContext, way: str) -> float:
    body = os.urandom(CHUNK) if way == "up" else b""

    def work() -> None:
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=60)
        for _ in range(TOTAL // CHUNK // CONNECTIONS):
            connection.request("POST", f"/{way}", body)
            answer = connection.getresponse()
            if answer.status != 200 or len(answer.read()) != (CHUNK if way == "down" else 0):
                raise RuntimeError(f"expected a whole answer, got {answer.status}")
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._context = context

    def finish_request(self, request: Any, client_address: Any) -> None:
        super().finish_request(self._context.wrap_socket(request, server_side=True), client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    chunk = os.urandom(CHUNK)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = self.chunk if self.path == "/down" else b""
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


def _start(fork: Any, work: Any, *arguments: Any) -> tuple[Any, int]:
    ours, theirs = fork.Pipe()
    process = fork.Process(target=work, args=(theirs, *arguments), daemon=True)
    process.start()
    return process, int(ours.recv())


def _serve(ready: Connection, store: CredentialStore) -> None:
    with _Server(store.ssl_server_context()) as server:
        ready.send(server.server_address[1])
        server.serve_forever()


def _relay(ready: Connection, store: CredentialStore, port: int, folder: Path) -> None:
    view = TrustView(CLOCK, ReachPolicy(ReachMode.BEST_EFFORT))
    for who in (PARTICIPANT, AGGREGATOR):
        event = TrustEvent(
            view.epoch.next(), EventKind.ENROLLED, CLOCK.now(), subject=who, identity_wide=True
        )
        view.feed(event)
    view.feed(FeedHeartbeat(view.epoch, CLOCK.now()))
    with Relay(("127.0.0.1", port), credentials=store, view=view, run_folder=folder / "run") as relay:
        ready.send(int(relay.address.split(":")[1]))
        threading.Event().wait()


def _authority() -> tuple[Issuer, TrustBundle]:
    root_key, issuing_key, now = generate(), generate(), CLOCK.now()
    root = create_root(DOMAIN, signer=root_key, now=now)
    issuing = create_issuing(root=root, root_signer=root_key, public_key=issuing_key.public_key, now=now)
    return Issuer(certificate=issuing, signer=issuing_key), make_bundle(DOMAIN, [root])


def _credentials(issuer: Issuer, bundle: TrustBundle, who: SpiffeId) -> Credentials:
    key = generate()
    chain = [issuer.redeem(Draft.of(who, key.public_key, now=CLOCK.now())), issuer.certificate]
    return Credentials.verified(key, chain, bundle=bundle, expect=who, clock=CLOCK)


def _cpu_of(pid: int) -> float:
    """User and system seconds of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))

"""What the coordinator does in a second, and how soon a revocation reaches a thousand watchers.

Three processes as in life, on loopback: the coordinator on SQLite (every write synced to disk before it
is acknowledged), the watchers, each with an identity, a certificate and a TLS connection of its own, and
the callers. Run it: ``python -m benchmarks.coordinator`` prints JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from fltrust.client import ClientSettings, CoordinatorClient, Credentials, enroll
from fltrust.client.channel import channel_options, coordinator_of
from fltrust.clock import SystemClock
from fltrust.coordinator.authority import Authority, AuthoritySettings
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.identity import IdentityKeeper
from fltrust.coordinator.notary import scratch_notary
from fltrust.coordinator.server import CoordinatorServer
from fltrust.coordinator.serving import ServerSettings
from fltrust.enrollment.challenge import node_key_challenge
from fltrust.enrollment.types import EnrollRequest, Issued, JoinToken, JoinTokenEvidence
from fltrust.identity import Name, Role, TrustDomain
from fltrust.keys import FileSigner, generate, spki_der
from fltrust.pki import (
    Issuer,
    bundle_to_pem,
    chain_to_pem,
    create_csr,
    create_issuing,
    create_root,
    make_bundle,
)
from fltrust.revocation import RevocationReason, RevocationTarget
from fltrust.storage import open_store
from fltrust.wire import methods
from fltrust.wire.pb import trust_pb2

DOMAIN = TrustDomain("bench.example")
WATCHERS = 1_000
REVOCATIONS = 20
PAUSE = 0.3
"""Seconds between two revocations, so that each is measured on its own."""
ONE_BY_ONE = 200
CONCURRENT = 800
CALLERS = 16
OPEN = ServerSettings(rate=1e6, burst=1e6, bootstrap_rate=1e6, bootstrap_burst=1e6, calls_per_identity=10_000)

Pair = tuple[bytes, bytes, bytes]
"""Chain, key and roots in PEM: what crosses from one process to the other."""


def measure() -> dict[str, float]:
    """Certificates per second, seconds per revocation, and seconds until the watchers know."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _coordinator(Path(folder)) as (address, bootstrap, operator),
        _client(address, operator) as client,
    ):
        figures, sites = _issuing(client, address, bootstrap)
        with _watchers(address, sites[:WATCHERS], after=len(sites) + 1) as watchers:
            figures |= _revoking(client, watchers, victims=sites[WATCHERS:])
    return figures


def _issuing(
    client: CoordinatorClient, address: str, bootstrap: str
) -> tuple[dict[str, float], list[tuple[str, Pair]]]:
    """Enroll everybody (tokens made before), then renew: one by one, and many at once."""
    names = [f"site-{i}" for i in range(WATCHERS + REVOCATIONS)]
    tokens = _in_parallel(
        names, lambda name: client.create_token(Role.PARTICIPANT, Name(name), ttl=timedelta(hours=1))
    )
    joining = [_Joining(name, token, bootstrap) for name, token in zip(names, tokens, strict=True)]
    began = time.monotonic()
    sites = _in_parallel(joining, _Joining.enroll)
    enrolled = len(sites) / (time.monotonic() - began)

    with _client(address, sites[0][1]) as site:
        requests = [create_csr(generate()) for _ in range(ONE_BY_ONE)]
        began = time.monotonic()
        for csr in requests:
            site.renew(csr)
        one_by_one = ONE_BY_ONE / (time.monotonic() - began)
        requests = [create_csr(generate()) for _ in range(CONCURRENT)]
        began = time.monotonic()
        _in_parallel(requests, site.renew)
        concurrent = CONCURRENT / (time.monotonic() - began)
    return {
        "certificates_per_second_one_by_one": one_by_one,
        f"certificates_per_second_{CALLERS}_callers": concurrent,
        f"enrollments_per_second_{CALLERS}_callers_new_connections": enrolled,
    }, sites


def _revoking(
    client: CoordinatorClient, watchers: Connection, *, victims: list[tuple[str, Pair]]
) -> dict[str, float]:
    """Revoke one after the other; the watchers tell when each learned of it."""
    calls, from_call, from_answer, last = [], [], [], []
    for name, _ in victims:
        target = RevocationTarget(name=(Role.PARTICIPANT, Name(name)))
        began = time.monotonic()
        (event,) = client.revoke(target, reason=RevocationReason.KEY_COMPROMISE)
        answered = time.monotonic()
        watchers.send(int(event.epoch))
        heard: list[float] = watchers.recv()
        calls.append(answered - began)
        from_call += [at - began for at in heard]
        from_answer += [max(0.0, at - answered) for at in heard]
        last.append(max(heard) - answered)
        time.sleep(PAUSE)
    return {
        "revoke_call_p50_s": statistics.median(calls),
        "revoke_call_max_s": max(calls),
        "revoke_p50_s": statistics.median(from_answer),
        "revoke_p99_s": _percentile(from_answer, 99),
        "revoke_last_watcher_worst_s": max(last),
        "revoke_p50_from_the_call_s": statistics.median(from_call),
        "revoke_p99_from_the_call_s": _percentile(from_call, 99),
        "watchers": WATCHERS,
    }


class _Joining:
    """One site before it joins: keys and request made, so that only the coordinator's part is timed."""

    def __init__(self, name: str, token: JoinToken, bootstrap: str) -> None:
        self._name = name
        self._token = JoinToken(bootstrap, token.address, token.root_der, token.secret)
        self._signer = generate()
        node = generate()
        csr, evidence = create_csr(self._signer), JoinTokenEvidence(token.secret)
        proof = node.sign(node_key_challenge(csr, evidence))
        self._request = EnrollRequest(evidence, csr, spki_der(node.public_key), proof)

    def enroll(self) -> tuple[str, Pair]:
        return self._name, _pair(enroll(self._token, self._request), self._signer)


def _pair(issued: Issued, signer: FileSigner) -> Pair:
    chain = [x509.load_der_x509_certificate(der) for der in issued.chain_der]
    return chain_to_pem(chain), signer.to_pem(None), bundle_to_pem(issued.bundle)


def _client(address: str, pair: Pair) -> CoordinatorClient:
    bundle = make_bundle(DOMAIN, x509.load_pem_x509_certificates(pair[2]))
    credentials = Credentials(pair[0], pair[1], bundle)
    return CoordinatorClient(address, lambda: credentials, DOMAIN, settings=ClientSettings(timeout=60))


def _in_parallel(items: list[Any], act: Callable[[Any], Any]) -> list[Any]:
    results: list[Any] = [None] * len(items)
    indices = iter(range(len(items)))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                index = next(indices, None)
            if index is None:
                return
            results[index] = act(items[index])

    threads = [threading.Thread(target=work) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


# The coordinator's process.


@contextmanager
def _coordinator(folder: Path) -> Iterator[tuple[str, str, Pair]]:
    """A coordinator on SQLite in `folder`: its addresses, and its first operator."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_serve, args=(folder, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join(30)


def _serve(folder: Path, out: Connection) -> None:
    clock, root_signer, issuing_signer = SystemClock(), generate(), generate()
    root = create_root(DOMAIN, signer=root_signer, now=clock.now())
    issuing = create_issuing(
        root=root, root_signer=root_signer, public_key=issuing_signer.public_key, now=clock.now()
    )
    ca = CurrentCa(Issuer(certificate=issuing, signer=issuing_signer), make_bundle(DOMAIN, [root]))
    keeper = IdentityKeeper(ca, clock=clock)
    with open_store(f"sqlite:///{folder / 'state.db'}") as store:
        authority = Authority(
            store=store,
            ca=ca,
            signer=keeper.current.signer,
            chain=keeper.current.chain_der,
            notary=scratch_notary(ca, clock=clock),
            clock=clock,
            settings=AuthoritySettings(domain=DOMAIN, bootstrap="localhost:1", address="localhost:2"),
        )
        signer, issued = authority.bootstrap_operator(Name("bench"))
        server = CoordinatorServer(authority, keeper, settings=OPEN)
        server.run_forever(
            lambda: out.send((server.address, server.bootstrap_address, _pair(issued, signer)))
        )


# The watchers' process.


@contextmanager
def _watchers(address: str, sites: list[tuple[str, Pair]], *, after: int) -> Iterator[Connection]:
    """A process in which every site watches from an epoch on.

    Send it a later epoch: it answers with the moments at which each site heard of it.
    """
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(
        target=_watch_all, args=(address, [pair for _, pair in sites], after, theirs), daemon=True
    )
    process.start()
    try:
        assert ours.recv() == "watching"
        yield ours
    finally:
        process.terminate()
        process.join(30)


def _watch_all(address: str, pairs: list[Pair], after: int, pipe: Connection) -> None:
    asyncio.run(_watch_until_told(address, pairs, after, pipe))


async def _watch_until_told(address: str, pairs: list[Pair], after: int, pipe: Connection) -> None:
    heard: dict[int, list[float]] = {}
    caught_up = asyncio.Semaphore(0)
    tasks = []
    for number, pair in enumerate(pairs):
        tasks.append(asyncio.create_task(_watch(address, pair, after, heard, caught_up)))
        tasks[-1].add_done_callback(_tell)
        if number % 20 == 0:
            await asyncio.sleep(0.1)
    for _ in pairs:
        await caught_up.acquire()
    gc.collect()
    gc.freeze()  # a collection here would be measured as the coordinator's
    pipe.send("watching")
    while True:
        epoch: int = await asyncio.to_thread(pipe.recv)
        while len(heard.get(epoch, ())) < len(pairs):
            await asyncio.sleep(0.05)
        pipe.send(heard[epoch])


def _tell(ended: asyncio.Task[None]) -> None:
    """A watch that ends spoils the measurement: say so."""
    if not ended.cancelled():
        print(f"a watch ended: {ended.exception()!r}", file=sys.stderr, flush=True)


async def _watch(
    address: str, pair: Pair, after: int, heard: dict[int, list[float]], caught_up: asyncio.Semaphore
) -> None:
    """Watch after an epoch; the first heartbeat says that there is nothing that has not come."""
    chain, key, roots = pair
    channel = grpc.aio.secure_channel(
        address,
        grpc.ssl_channel_credentials(roots, key, chain),
        options=channel_options(coordinator_of(DOMAIN)),
    )
    request = trust_pb2.WatchRequest(after_epoch=after).SerializeToString()
    was_behind = True
    async for data in channel.unary_stream(methods.WATCH)(request):
        now = time.monotonic()
        message = trust_pb2.WatchResponse.FromString(data)
        if message.HasField("event"):
            if not was_behind:
                heard.setdefault(message.event.epoch, []).append(now)
        elif was_behind:
            was_behind = False
            caught_up.release()


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))

"""Issuing through the network, durable, beside OpenBao's PKI engine in the same run; in bulk; a herd.

Ours: the coordinator on SQLite in a process of its own, every certificate synced to disk, and in the Merkle
log, before it is answered. OpenBao: a server on its integrated storage (raft, one node, synced), one mount
with a P-256 root, `sign` of a request made before, certificates stored; plain HTTP on a connection that is
kept. Both are called by this process, one request after the other, and by four threads.

In bulk: 10,000 participants, keys and requests made before, in calls of 500. The herd: 1,000 agents, each
with a connection and a certificate of its own, which renew at moments spread over a minute.
Run it: ``python -m benchmarks.pki`` prints JSON.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.coordinator import CALLERS, _client, _coordinator, _in_parallel, _Joining
from fltrust.client import CoordinatorClient
from fltrust.enrollment.bulk import MAX_ITEMS, BulkEvidence, BulkItem
from fltrust.enrollment.challenge import node_key_challenge
from fltrust.enrollment.requests import Assignment
from fltrust.identity import Name, Role
from fltrust.keys import generate, spki_der
from fltrust.pki import create_csr
from tools.strangers import OPENBAO, environment

SINGLE = 300
BULK = 10_000
HERD = 1_000
MINUTE = 60.0
SOME = 4
_TOKEN_HEADER = "X-Vault-Token"


def measure() -> dict[str, float]:
    """Certificates a second here and there, seconds for 10,000, and what a herd of renewals does."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        figures |= _openbao(Path(folder))
    with (
        tempfile.TemporaryDirectory() as folder,
        _coordinator(Path(folder)) as (address, bootstrap, operator),
        _client(address, operator) as client,
    ):
        figures |= _singles(client, address, bootstrap)
        figures |= _bulk(client)
    with (
        tempfile.TemporaryDirectory() as folder,
        _coordinator(Path(folder)) as (address, bootstrap, operator),
        _client(address, operator) as client,
    ):
        figures |= _herd(client, address, bootstrap)
    single = figures["openbao_per_second"]
    return figures | {
        "single_beside_openbao": figures["issued_per_second"] / single,
        "four_callers_beside_openbao": figures["issued_per_second_4_callers"]
        / figures["openbao_per_second_4_callers"],
        "bulk_beside_openbao_single": figures["bulk_per_second"] / single,
    }


def _singles(client: CoordinatorClient, address: str, bootstrap: str) -> dict[str, float]:
    site = _join(client, bootstrap, "site-single")
    with _client(address, site) as caller:
        caller.renew(create_csr(generate()))
        requests = [create_csr(generate()) for _ in range(SINGLE)]
        began = time.monotonic()
        for csr in requests:
            caller.renew(csr)
        one = SINGLE / (time.monotonic() - began)
        requests = [create_csr(generate()) for _ in range(SINGLE * 2)]
        began = time.monotonic()
        _by(SOME, requests, caller.renew)
        four = len(requests) / (time.monotonic() - began)
    return {"issued_per_second": one, "issued_per_second_4_callers": four}


def _bulk(client: CoordinatorClient) -> dict[str, float]:
    items = [_item(f"bulk-{number}") for number in range(BULK)]
    began = time.monotonic()
    for start in range(0, BULK, MAX_ITEMS):
        answer = client.enroll_bulk(items[start : start + MAX_ITEMS], atomic=True)
        if not all(result.certificate for result in answer.results):
            raise RuntimeError("expected a certificate for everybody")
    seconds = time.monotonic() - began
    return {"bulk_10000_s": seconds, "bulk_per_second": BULK / seconds}


def _item(name: str) -> BulkItem:
    csr, node = create_csr(generate()), generate()
    proof = node.sign(node_key_challenge(csr, BulkEvidence()))
    return BulkItem(
        who=Assignment(role=Role.PARTICIPANT, name=Name(name)),
        csr_der=csr,
        node_key=spki_der(node.public_key),
        node_key_proof=proof,
    )


def _herd(client: CoordinatorClient, address: str, bootstrap: str) -> dict[str, float]:
    names = [f"herd-{number}" for number in range(HERD)]
    sites = _in_parallel(names, lambda name: _join(client, bootstrap, name))
    clients = [_client(address, site) for site in sites]
    _in_parallel(clients, lambda one: one.get_bundle())  # every connection is there
    pid = _coordinator_pid()
    before, errors, took = _resident(pid), [], []
    peak = before
    rng = random.Random(1)
    plan = sorted((rng.random() * MINUTE, one, create_csr(generate())) for one in range(HERD))
    began = time.monotonic()
    work = iter(plan)
    lock = threading.Lock()

    def renew() -> None:
        while True:
            with lock:
                due = next(work, None)
            if due is None:
                return
            at, who, csr = due
            time.sleep(max(0.0, began + at - time.monotonic()))
            asked = time.monotonic()
            try:
                clients[who].renew(csr)
            except Exception as error:  # whatever it is, it is counted: none is the goal
                errors.append(error)
            took.append(time.monotonic() - asked)

    threads = [threading.Thread(target=renew) for _ in range(CALLERS * 2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        peak = max(peak, _resident(pid))
        time.sleep(0.5)
    for one in clients:
        one.close()
    took.sort()
    return {
        "herd_errors": float(len(errors)),
        "herd_seconds": time.monotonic() - began,
        "herd_p99_s": took[int(len(took) * 0.99) - 1],
        "herd_memory_growth_mb": (peak - before) / 1e6,
        "herd_memory_mb": peak / 1e6,
    }


def _join(client: CoordinatorClient, bootstrap: str, name: str) -> Any:
    from datetime import timedelta

    token = client.create_token(Role.PARTICIPANT, Name(name), ttl=timedelta(hours=1))
    return _Joining(name, token, bootstrap).enroll()[1]


def _by(count: int, items: list[Any], act: Any) -> None:
    work, lock = iter(items), threading.Lock()

    def run() -> None:
        while True:
            with lock:
                item = next(work, None)
            if item is None:
                return
            act(item)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _coordinator_pid() -> int:
    import multiprocessing

    (child,) = multiprocessing.active_children()
    if child.pid is None:
        raise RuntimeError("expected the coordinator's process to run")
    return child.pid


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# OpenBao.


def _openbao(folder: Path) -> dict[str, float]:
    with _bao(folder) as (port, token):
        call = _Bao(port, token)
        call("POST", "sys/mounts/pki", {"type": "pki", "config": {"max_lease_ttl": "8760h"}})
        call(
            "POST",
            "pki/root/generate/internal",
            {"common_name": "bench", "key_type": "ec", "key_bits": 256, "ttl": "8000h"},
        )
        call(
            "POST",
            "pki/roles/site",
            {
                "allow_any_name": True,
                "enforce_hostnames": False,
                "require_cn": False,
                "key_type": "ec",
                "key_bits": 256,
                "max_ttl": "24h",
                "no_store": False,
            },
        )
        requests = [_pem(create_csr(generate())) for _ in range(SINGLE)]
        _sign(call, requests[0])
        began = time.monotonic()
        for csr in requests:
            _sign(call, csr)
        one = SINGLE / (time.monotonic() - began)
        requests = [_pem(create_csr(generate())) for _ in range(SINGLE * 2)]
        local = threading.local()

        def sign(csr: str) -> None:
            if not hasattr(local, "call"):
                local.call = _Bao(port, token)
            _sign(local.call, csr)

        began = time.monotonic()
        _by(SOME, requests, sign)
        four = len(requests) / (time.monotonic() - began)
    return {"openbao_per_second": one, "openbao_per_second_4_callers": four}


def _sign(call: _Bao, csr: str) -> None:
    answer = call("POST", "pki/sign/site", {"csr": csr, "common_name": "site-a", "ttl": "1h"})
    if "certificate" not in answer.get("data", {}):
        raise RuntimeError("expected a certificate")


def _pem(csr: bytes) -> str:
    return x509.load_der_x509_csr(csr).public_bytes(Encoding.PEM).decode()


class _Bao:
    """One kept connection."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._token = token

    def __call__(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {_TOKEN_HEADER: self._token} if self._token else {}
        self._connection.request(method, f"/v1/{path}", json.dumps(body), headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"OpenBao answered {answer.status} to {path}: {text[:200]!r}")
        return dict(json.loads(text)) if text else {}


@contextmanager
def _bao(folder: Path) -> Iterator[tuple[int, str]]:
    with socket.socket() as probe, socket.socket() as other:
        probe.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, cluster = probe.getsockname()[1], other.getsockname()[1]
    (folder / "data").mkdir()
    settings = folder / "bao.json"
    settings.write_text(
        json.dumps(
            {
                "storage": {"raft": {"path": str(folder / "data"), "node_id": "bench"}},
                "listener": {"tcp": {"address": f"127.0.0.1:{port}", "tls_disable": True}},
                "api_addr": f"http://127.0.0.1:{port}",
                "cluster_addr": f"http://127.0.0.1:{cluster}",
            }
        )
    )
    binary = environment(OPENBAO).parent / "bao"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [binary, "server", f"-config={settings}"],
            stdout=log,
            stderr=log,
            env={**os.environ, "HOME": str(folder)},
        )
    try:
        for _ in range(200):
            with suppress(OSError):
                call = _Bao(port, "")
                break
            time.sleep(0.1)
        made = call("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        call("PUT", "sys/unseal", {"key": made["keys"][0]})
        _wait_active(call)
        yield port, str(made["root_token"])
    finally:
        process.terminate()
        process.wait(15)


def _wait_active(call: _Bao) -> None:
    for _ in range(200):
        with suppress(RuntimeError):
            call("GET", "sys/health", {})
            return
        time.sleep(0.1)
    raise RuntimeError("expected OpenBao to become active")


if __name__ == "__main__":
    json.dump(measure(), sys.stdout, indent=2)

"""The server's life: its certificate renews under load, it stops without losing a word."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from server_world import DOMAIN, Collector, ServedWorld, served

from fltrust.client.channel import coordinator_of, open_bootstrap_channel
from fltrust.coordinator.server import CoordinatorServer
from fltrust.coordinator.serving import ServerSettings
from fltrust.errors import Conflict, CoordinatorUnavailable, Revoked
from fltrust.identity import Epoch, Role
from fltrust.pki import bundle_to_pem
from fltrust.wire.errors import error_from_call

COORDINATOR = coordinator_of(DOMAIN)
OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl is not on this machine")


def served_serial(world: ServedWorld, address: str) -> str:
    """Serial of the certificate that a port shows to a new connection, as OpenSSL sees it."""
    shown = s_client(world, address)
    printed = subprocess.run(
        ["openssl", "x509", "-noout", "-serial"], input=shown, capture_output=True, text=True, check=True
    )
    return printed.stdout.strip().lower()


def s_client(world: ServedWorld, address: str, *options: str) -> str:
    roots = Path(world.url.removeprefix("sqlite:///")).with_name("roots.pem")
    roots.write_bytes(bundle_to_pem(world.ca.bundle))
    done = subprocess.run(
        [
            *("openssl", "s_client", "-connect", address, "-CAfile", str(roots), "-alpn", "h2"),
            *("-verify_hostname", COORDINATOR.dns_name, "-servername", COORDINATOR.dns_name, *options),
        ],
        input="",
        capture_output=True,
        text=True,
        errors="replace",  # HTTP/2 frames follow the handshake
        timeout=20,
        check=False,
    )
    return done.stdout + done.stderr


@needs_openssl
def test_openssl_verifies_the_certificate_of_both_ports(tmp_path: Path) -> None:
    with served(tmp_path) as world:
        for address in (world.bootstrap, world.address):
            shown = s_client(world, address, "-tls1_3")
            assert "Verify return code: 0 (ok)" in shown
            assert "TLSv1.3" in shown
            assert "ALPN protocol: h2" in shown


@needs_openssl
def test_openssl_sees_that_only_the_mtls_port_asks_for_a_certificate(tmp_path: Path) -> None:
    with served(tmp_path) as world:
        assert "No client certificate CA names sent" in s_client(world, world.bootstrap, "-tls1_3")
        asked = s_client(world, world.address, "-tls1_3")
        assert "Acceptable client certificate CA names" in asked or "Requested Signature Algorithms" in asked


@needs_openssl
@pytest.mark.slow
def test_the_certificate_is_renewed_on_both_ports_while_calls_and_watches_go_on(tmp_path: Path) -> None:
    with served(tmp_path, lifetimes={Role.COORDINATOR: timedelta(seconds=9)}) as world:
        watch = Collector(world.operator.client.watch(Epoch(0)))
        before = {address: served_serial(world, address) for address in (world.bootstrap, world.address)}
        failures: list[Exception] = []
        stop = threading.Event()

        def call_on_new_connections() -> None:
            while not stop.is_set():
                with world.channel(world.operator.credentials) as channel:
                    try:
                        channel.unary_unary("/fltrust.v1.TrustService/GetBundle")(b"", timeout=10)
                    except grpc.RpcError as error:
                        failures.append(error_from_call(error))

        callers = [threading.Thread(target=call_on_new_connections) for _ in range(4)]
        for caller in callers:
            caller.start()
        deadline = time.monotonic() + 60
        counters = world.authority.counters
        while counters.get("server.certificate-renewed") < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        stop.set()
        for caller in callers:
            caller.join()
        assert counters.get("server.certificate-renewed") >= 2
        after = {address: served_serial(world, address) for address in (world.bootstrap, world.address)}
        assert all(before[address] != after[address] for address in before)
        assert failures == []
        world.join("a")
        assert watch.wait_for(lambda w: w.epochs == [1, 2])
        watch.close()


def test_a_stop_lets_a_write_under_way_finish_and_ends_watches_without_an_error(tmp_path: Path) -> None:
    with served(tmp_path) as world:
        site = world.join("a")
        watch = Collector(site.client.watch(Epoch(0)))
        assert watch.wait_for(lambda w: len(w.epochs) == 2)
        began, go_on = threading.Event(), threading.Event()
        issue = world.authority.enroller.renew

        def slowly(*arguments: object, **more: object) -> object:
            began.set()
            go_on.wait(20)
            return issue(*arguments, **more)  # type: ignore[arg-type]

        world.authority.enroller.renew = slowly  # type: ignore[method-assign,assignment]
        renewed: list[object] = []
        caller = threading.Thread(target=lambda: renewed.append(site.renew()))
        caller.start()
        assert began.wait(20)
        stopping = threading.Thread(target=world.background.stop)
        stopping.start()
        assert watch.ended()
        assert watch.error is None
        go_on.set()
        caller.join(20)
        stopping.join(20)
        assert len(renewed) == 1
        with pytest.raises(CoordinatorUnavailable):
            world.client(lambda: site.credentials).get_bundle()


def test_a_second_server_on_a_port_is_refused_and_leaves_the_first_alone(tmp_path: Path) -> None:
    with served(tmp_path) as world:
        for taken in ({"bootstrap": world.bootstrap}, {"address": world.address}):
            second = CoordinatorServer(
                world.authority,
                world.keeper,
                settings=ServerSettings(**taken),  # type: ignore[arg-type]
            )
            with pytest.raises(Conflict) as caught:
                asyncio.run(second.start())
            assert caught.value.reason == "address-in-use"
        world.operator.client.get_bundle()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorld]:
    with served(tmp_path_factory.mktemp("life")) as world:
        yield world


@pytest.fixture(params=["bootstrap", "mtls"])
def channel(world: ServedWorld, request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    if request.param == "mtls":
        opened = world.channel(world.operator.credentials)
    else:
        opened = open_bootstrap_channel(world.bootstrap, world.ca.bundle, expect=COORDINATOR)
    with opened as channel:
        yield channel


def test_health_checking_says_serving_on_both_ports(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "fltrust.v1.TrustService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_names_the_services_of_each_port(channel: grpc.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    questions = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="fltrust.v1.TrustService"),
    ]
    listed, described = stub.ServerReflectionInfo(iter(questions), timeout=10)
    names = {service.name for service in listed.list_services_response.service}
    assert {"fltrust.v1.TrustService", "fltrust.v1.EnrollmentService", "grpc.health.v1.Health"} <= names
    assert described.file_descriptor_response.file_descriptor_proto


def test_health_checking_on_the_mtls_port_is_not_for_the_revoked(world: ServedWorld) -> None:
    site = world.join("life-revoked")
    world.revoke(site)
    with world.channel(site.credentials) as channel, pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert isinstance(error_from_call(caught.value), Revoked)


def test_connections_that_say_nothing_do_not_keep_others_out(world: ServedWorld) -> None:
    host, _, port = world.address.rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(100)]
    try:
        world.operator.client.get_bundle()
        world.join("life-beside-silence")
    finally:
        for connection in silent:
            connection.close()

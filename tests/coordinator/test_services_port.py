"""The services port's transport: TLS 1.3, no tickets, a chain that is the connection's own."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_world import ServedWorld, served
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fltrust.coordinator import services_port
from fltrust.coordinator.services import ServicesContext, json_response, peer_chain
from fltrust.coordinator.serving import ServerSettings
from fltrust.identity import Role
from fltrust.pki.bundle import bundle_to_pem


def routes(context: ServicesContext) -> list[Route]:
    async def who(request: Request) -> Response:
        return json_response({"who": str(context.identify(request).spiffe_id), "url": context.url})

    async def length(request: Request) -> Response:
        return json_response({"chain": len(peer_chain(request)), "state": list(request.scope["state"])})

    async def broken(_request: Request) -> Response:
        raise RuntimeError("secret words")

    async def echo(request: Request) -> Response:
        return json_response({"bytes": len(await context.body(request, limit=1000))})

    return [
        Route("/who", context.page("who", who)),
        Route("/length", context.page("length", length)),
        Route("/broken", context.page("broken", broken)),
        Route("/echo", context.page("echo", echo), methods=["POST"]),
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorld]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services_port, "MODULES", (routes,))
        settings = ServerSettings(
            services="localhost:0", rate=1e4, burst=1e4, services_rate=1e4, services_burst=1e4
        )
        with served(tmp_path_factory.mktemp("services"), settings=settings) as world:
            yield world


def context_of(world: ServedWorld, folder: Path | None = None, *, leaf_only: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=bundle_to_pem(world.ca.bundle).decode())
    if folder is not None:
        credentials = world.operator.credentials
        chain = credentials.chain_pem
        if leaf_only:
            end = b"-----END CERTIFICATE-----\n"
            chain = chain.split(end)[0] + end
        (folder / "pair.pem").write_bytes(credentials.key_pem + chain)
        context.load_cert_chain(folder / "pair.pem")
    return context


def get(world: ServedWorld, path: str, context: ssl.SSLContext) -> tuple[int, bytes]:
    host, _, port = (world.server.services_address or "").partition(":")
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_caller_is_known_by_the_chain_or_the_leaf_alone(world: ServedWorld, tmp_path: Path) -> None:
    for leaf_only in (False, True):
        status, body = get(world, "/who", context_of(world, tmp_path, leaf_only=leaf_only))
        assert (status, b"spiffe://hospitals.example/operator/root" in body) == (200, True)


def test_a_caller_without_a_certificate_has_no_chain(world: ServedWorld) -> None:
    assert get(world, "/length", context_of(world)) == (200, b'{"chain":0,"state":["fltrust.peer"]}')
    status, body = get(world, "/who", context_of(world))
    assert (status, b"unauthenticated" in body) == (401, True)


def test_a_header_makes_nobody_known(world: ServedWorld) -> None:
    host, _, port = (world.server.services_address or "").partition(":")
    connection = http.client.HTTPSConnection(host, int(port), context=context_of(world), timeout=10)
    names = ("fltrust.peer", "X-Client-Cert", "X-Forwarded-Client-Cert", "SSL_CLIENT_CERT", "Host")
    connection.request("GET", "/who", headers=dict.fromkeys(names, "operator"))
    assert connection.getresponse().status == 401
    connection.close()


def test_tls_1_2_gets_nowhere_and_no_session_is_resumed(world: ServedWorld) -> None:
    old = context_of(world)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        get(world, "/length", old)
    host, _, port = (world.server.services_address or "").partition(":")
    context = context_of(world)
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        secured.sendall(b"GET /length HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while secured.recv(4096):
            pass
        assert secured.version() == "TLSv1.3"
        assert secured.session is None or not secured.session.has_ticket


def test_a_certificate_that_is_good_as_a_servers_alone_is_no_callers(
    world: ServedWorld, tmp_path: Path
) -> None:
    from fltrust.identity import SpiffeId
    from fltrust.keys import generate
    from fltrust.pki import Draft, chain_to_pem

    signer = generate()
    who = SpiffeId.of("hospitals.example", Role.SERVER, "model")
    draft = Draft.of(who, signer.public_key, now=world.clock.now(), dns_names=("m.example",))
    leaf = world.ca.issuer.redeem(draft)
    (tmp_path / "pair.pem").write_bytes(
        signer.to_pem(None) + chain_to_pem([leaf, world.ca.issuer.certificate])
    )
    context = context_of(world)
    context.load_cert_chain(tmp_path / "pair.pem")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get(world, "/who", context)


def test_what_breaks_here_stays_here(world: ServedWorld) -> None:
    status, body = get(world, "/broken", context_of(world))
    assert status == 500
    assert b"secret" not in body


def test_a_new_identity_serves_from_the_next_handshake_on(world: ServedWorld) -> None:
    from fltrust.coordinator.identity import issue_identity

    port = world.server._services
    assert port is not None
    fresh = issue_identity(world.ca.issuer, world.ca.bundle, clock=world.clock, dns_names=("localhost",))
    host, _, number = (world.server.services_address or "").partition(":")

    def served_serial() -> int:
        from cryptography import x509

        pem = ssl.get_server_certificate((host, int(number)))
        return x509.load_pem_x509_certificate(pem.encode()).serial_number

    before = served_serial()
    port.tls.use(fresh)
    assert served_serial() == int(fresh.certificate.serial) != before


def test_a_url_is_the_operators_and_not_the_requests(world: ServedWorld, tmp_path: Path) -> None:
    host, _, port = (world.server.services_address or "").partition(":")
    context = context_of(world, tmp_path)
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=10)
    connection.request("GET", "/who", headers={"Host": "evil.example"})
    assert b"evil" not in connection.getresponse().read()
    connection.close()


def test_connections_that_never_finish_their_handshake_are_bounded_too(tmp_path: Path) -> None:
    settings = ServerSettings(services="localhost:0", services_connections_per_address=4)
    with served(tmp_path, settings=settings) as world:
        host, _, port = (world.server.services_address or "").partition(":")
        silent = [socket.create_connection((host, int(port)), timeout=10) for _ in range(4)]
        with socket.create_connection((host, int(port)), timeout=5) as one_more:
            assert one_more.recv(1) == b""
        for connection in silent:
            connection.close()
        for _ in range(100):
            with contextlib.suppress(OSError):
                assert get(world, "/length", context_of(world))[0] == 200
                return
            time.sleep(0.05)
        pytest.fail("expected a connection to be served after the others were closed")

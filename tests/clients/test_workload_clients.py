"""The SPIFFE project's client and Envoy, each in an environment of its own, on a workload socket of ours."""

from __future__ import annotations

import json
import random
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from fltrust.agent.credentials import Credentials, CredentialStore
from fltrust.agent.workloads import WorkloadKeeper, WorkloadServer
from fltrust.clock import SystemClock
from fltrust.identity import Name, Role, SpiffeId
from fltrust.keys import FileSigner, generate
from fltrust.pki import Draft, TrustBundle, chain_to_pem, create_csr, verify_certificate
from fltrust.pki.bundle import bundle_to_pem
from fltrust.revocation.view import TrustView
from fltrust.testing import ScratchCoordinator
from fltrust.testing.identities import ScratchCa
from tools.strangers import ENVOY, SPIFFE, environment

pytestmark = pytest.mark.client

CLIENT = Path(__file__).with_name("workload_client.py")
OWN = "spiffe://scratch.example/workload/participant-site-a"


@dataclass
class Site:
    """A site with a workload socket, and the coordinator that it asks."""

    coordinator: ScratchCoordinator
    keeper: WorkloadKeeper
    socket: Path

    def workload(self, name: str) -> Credentials:
        """The workload of another site of the domain."""
        signer = generate()
        session = self.coordinator.session(self.coordinator.enroll(name))
        issued = session.certify_workload(create_csr(signer))
        return Credentials.verified(
            signer, issued.chain_der, bundle=self.coordinator.bundle, expect=None, clock=SystemClock()
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ScratchCoordinator() as coordinator:
        agent = coordinator.enroll("site-a")
        view = TrustView(coordinator.clock)
        coordinator.keep_current(view, reader=agent.spiffe_id)
        keeper = WorkloadKeeper(
            CredentialStore(agent.credentials),
            coordinator.session(agent),
            view=view,
            clock=coordinator.clock,
            rng=random.Random(1),
        )
        server = WorkloadServer(tmp_path / "workload.sock", keeper)
        server.start()
        keeper.start()
        yield Site(coordinator, keeper, server.path)
        keeper.stop()
        server.stop()


# --- the spiffe package


@contextmanager
def _client(site: Site, count: int) -> Iterator[Callable[[], dict[str, object]]]:
    command = [str(environment(SPIFFE)), str(CLIENT), f"unix://{site.socket}", str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None

    def next_line() -> dict[str, object]:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        found: dict[str, object] = json.loads(line)
        return found

    try:
        yield next_line
    finally:
        process.kill()
        process.wait()


def test_the_spiffe_package_gets_each_new_certificate_as_it_comes(site: Site) -> None:
    with _client(site, 3) as line:
        first = line()
        assert (first["id"], first["chain"], first["key_matches"]) == (OWN, 2, True)
        assert first["bundles"] == ["scratch.example"]
        site.keeper.refresh()
        second = line()
        assert second["serial"] != first["serial"]
        site.keeper.use_foreign([ScratchCa.make("clinic.example").bundle])
        third = line()
        assert third["serial"] == second["serial"]
        assert third["bundles"] == ["clinic.example", "scratch.example"]
        assert "issued here" in str(line()["jwt"])
        assert line() == {"source": OWN, "roots": 1}


def test_the_spiffe_package_is_told_that_a_revoked_site_has_no_identity(site: Site) -> None:
    site.coordinator.revoke("site-a")
    with _client(site, 0) as line:
        assert "revoked" in str(line()["text"])


# --- Envoy


@contextmanager
def _envoy(site: Site, folder: Path, validation: str) -> Iterator[tuple[int, Callable[[], str]]]:
    """A real Envoy that serves 'hello' behind mutual TLS, all of its secrets over SDS."""
    port = _free_port()
    config = folder / "envoy.json"
    config.write_text(json.dumps(_envoy_config(site.socket, port, validation)))
    log = folder / "envoy.log"
    envoy = environment(ENVOY).with_name("envoy")
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [envoy, "-c", config, "--disable-hot-restart", "--concurrency", "1", "-l", "info"],
            stdout=sink,
            stderr=sink,
            cwd=folder,
        )
    try:
        _eventually(lambda: _listens(port), lambda: log.read_text()[-3000:])
        yield port, log.read_text
    finally:
        process.kill()
        process.wait()


def _envoy_config(sds: Path, port: int, validation: str) -> dict[str, object]:
    def secret(name: str) -> dict[str, object]:
        source = {
            "resource_api_version": "V3",
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "agent"}}],
            },
        }
        return {"name": name, "sds_config": source}

    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
            "tls_certificate_sds_secret_configs": [secret("default")],
            "validation_context_sds_secret_config": secret(validation),
        },
    }
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "hello"}}}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    agent = {"endpoint": {"address": {"pipe": {"path": str(sds)}}}}
    return {
        "node": {"id": "site-a", "cluster": "site-a"},
        "static_resources": {
            "clusters": [
                {
                    "name": "agent",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": http2,
                    "load_assignment": {
                        "cluster_name": "agent",
                        "endpoints": [{"lb_endpoints": [agent]}],
                    },
                }
            ],
            "listeners": [
                {
                    "name": "in",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [
                        {
                            "transport_socket": {
                                "name": "envoy.transport_sockets.tls",
                                "typed_config": tls,
                            },
                            "filters": [
                                {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "typed_config": manager,
                                }
                            ],
                        }
                    ],
                }
            ],
        },
    }


@dataclass
class Answer:
    body: str
    serial: int


def _get(
    port: int, folder: Path, *, client: tuple[FileSigner, bytes] | None, trust: TrustBundle, domain: str
) -> Answer:
    """GET / as `client`; the server's certificate is verified to be the workload of site-a."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=bundle_to_pem(trust).decode())
    if client is not None:
        pair = folder / "client.pem"
        pair.write_bytes(client[0].to_pem(None) + client[1])
        context.load_cert_chain(pair)
    name = f"participant-site-a.workload.{domain}"
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b""
        while chunk := connection.recv(4096):
            data += chunk
        served = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
    return Answer(data.partition(b"\r\n\r\n")[2].decode(), served.serial_number)


def _as(credentials: Credentials) -> tuple[FileSigner, bytes]:
    return credentials.signer, credentials.chain_pem


def test_envoy_terminates_mutual_tls_with_our_certificates_and_follows_their_rotation(
    site: Site, tmp_path: Path
) -> None:
    trust = site.coordinator.bundle
    other = site.workload("site-b")
    stranger = _foreign_workload(ScratchCa.make("scratch.example"), "participant-site-b")
    with _envoy(site, tmp_path, "ROOTCA") as (port, log):

        def get(client: tuple[FileSigner, bytes] | None) -> Answer:
            return _get(port, tmp_path, client=client, trust=trust, domain="scratch.example")

        first = get(_as(other))
        assert first.body == "hello", log()
        for refused in (None, stranger):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                get(refused)
        site.keeper.refresh()
        _eventually(lambda: get(_as(other)).serial != first.serial, log)
        assert get(_as(other)).body == "hello"


def test_envoy_s_spiffe_validator_takes_each_domain_s_workloads_under_its_own_ca_alone(
    site: Site, tmp_path: Path
) -> None:
    trust, clinic = site.coordinator.bundle, ScratchCa.make("clinic.example")
    site.keeper.use_foreign([clinic.bundle])
    theirs = _foreign_workload(clinic, "participant-ward-1")
    forged = _foreign_workload(clinic, "participant-site-b", claiming=ScratchCa.make("scratch.example"))
    with _envoy(site, tmp_path, "ALL") as (port, log):

        def get(client: tuple[FileSigner, bytes]) -> Answer:
            return _get(port, tmp_path, client=client, trust=trust, domain="scratch.example")

        assert get(_as(site.workload("site-b"))).body == "hello", log()
        assert get(theirs).body == "hello", log()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(forged)
        site.keeper.use_foreign([])

        def is_refused() -> bool:
            try:
                return get(theirs).body != "hello"
            except (ssl.SSLError, ConnectionError):
                return True

        _eventually(is_refused, log)


def _foreign_workload(
    ca: ScratchCa, name: str, claiming: ScratchCa | None = None
) -> tuple[FileSigner, bytes]:
    """A workload's key and chain under `ca`; with `claiming`, a leaf of another CA of the claimed domain."""
    of = claiming or ca
    signer, who = generate(), SpiffeId(of.bundle.domain, Role.WORKLOAD, Name(name))
    leaf = of.issuer.redeem(Draft.of(who, signer.public_key, now=SystemClock().now()))
    verify_certificate((leaf, of.issuer.certificate), bundle=of.bundle, at=SystemClock().now())
    return signer, chain_to_pem((leaf, ca.issuer.certificate))


def _eventually(holds: Callable[[], bool], why: Callable[[], str]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, why()
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0

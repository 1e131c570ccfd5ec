"""The workload socket, spoken to as gRPC over a real unix socket; the coordinator is real, too."""

from __future__ import annotations

import os
import random
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key

from fltrust.agent.credentials import CredentialStore
from fltrust.agent.workloads import WorkloadKeeper, WorkloadServer
from fltrust.agent.workloads.sds import METHOD, TYPE_URL
from fltrust.agent.workloads.server import MAX_STREAMS
from fltrust.enrollment.types import Issued
from fltrust.errors import (
    AgentUnavailable,
    Conflict,
    CoordinatorUnavailable,
    Malformed,
    PermissionDenied,
    Revoked,
    StorageUnavailable,
)
from fltrust.identity import Role, Serial
from fltrust.pki.leaf import ca_key_id
from fltrust.pki.workloads import workload_of
from fltrust.revocation.events import EventKind, RevocationReason
from fltrust.revocation.ports import RevocationTarget
from fltrust.revocation.view import TrustView
from fltrust.testing import FakeClock, ScratchCoordinator
from fltrust.testing.identities import ScratchCa, ScratchIdentity
from fltrust.wire.pb.envoy import discovery_pb2, tls_pb2
from fltrust.wire.pb.spiffe import workload_pb2 as pb

HEADER = (("workload.spiffe.io", "true"),)
FETCH = "/SpiffeWorkloadAPI/FetchX509SVID"
BUNDLES = "/SpiffeWorkloadAPI/FetchX509Bundles"
PATIENCE = 20.0


@dataclass
class Bench:
    """A site with a workload socket."""

    coordinator: ScratchCoordinator
    clock: FakeClock
    site: ScratchIdentity
    keeper: WorkloadKeeper
    server: WorkloadServer
    channel: grpc.Channel
    is_answering: list[bool]

    def stream(self, method: str, requests: Iterator[bytes] | None = None, metadata: Any = HEADER) -> Any:
        call = self.channel.stream_stream(method, lambda b: b, lambda b: b)
        return call(iter((b"",)) if requests is None else requests, timeout=PATIENCE, metadata=metadata)

    def svid(self, call: Any = None) -> pb.X509SVIDResponse:
        opened = self.stream(FETCH) if call is None else call
        answer = pb.X509SVIDResponse.FromString(next(opened))
        if call is None:
            opened.cancel()
        return answer

    def refused(self, method: str, requests: Iterator[bytes] | None = None, metadata: Any = HEADER) -> Any:
        with pytest.raises(grpc.RpcError) as caught:
            list(self.stream(method, requests, metadata))
        return caught.value.code()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    clock = FakeClock()
    with ScratchCoordinator(clock=clock) as coordinator:
        site = coordinator.enroll("site-a")
        view = TrustView(clock)
        coordinator.keep_current(view, reader=site.spiffe_id)
        is_answering = [True]

        class Desk:
            def certify_workload(self, csr_der: bytes) -> Issued:
                if not is_answering[0]:
                    raise CoordinatorUnavailable("the coordinator is away")
                return coordinator.session(site).certify_workload(csr_der)

        keeper = WorkloadKeeper(
            CredentialStore(site.credentials), Desk(), view=view, clock=clock, rng=random.Random(1)
        )
        server = WorkloadServer(tmp_path / "run" / "workload.sock", keeper)
        server.start()
        channel = grpc.insecure_channel(f"unix:{server.path}")
        yield Bench(coordinator, clock, site, keeper, server, channel, is_answering)
        channel.close()
        keeper.stop()
        server.stop()


@pytest.fixture
def served(bench: Bench) -> Bench:
    bench.keeper.start()
    return bench


def _leaf(answer: pb.X509SVIDResponse) -> x509.Certificate:
    (svid,) = answer.svids
    return x509.load_der_x509_certificate(_ders(svid.x509_svid)[0])


def _ders(data: bytes) -> list[bytes]:
    """Split certificates that follow each other, as clients of the Workload API do."""
    found = []
    while data:
        size = 4 + int.from_bytes(data[2:4], "big")
        found.append(data[:size])
        data = data[size:]
    return found


def _names(leaf: x509.Certificate) -> list[str]:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return list(names.get_values_for_type(x509.UniformResourceIdentifier))


def test_the_workload_gets_its_own_name_key_and_chain(served: Bench) -> None:
    answer = served.svid()
    (svid,) = answer.svids
    leaf, issuing = map(x509.load_der_x509_certificate, _ders(svid.x509_svid))
    assert _names(leaf) == [svid.spiffe_id] == ["spiffe://scratch.example/workload/participant-site-a"]
    leaf.verify_directly_issued_by(issuing)
    key = load_der_private_key(svid.x509_svid_key, password=None)
    assert key.public_key() == leaf.public_key()
    assert leaf.public_key() != served.site.credentials.certificate.leaf.public_key()
    assert _ders(svid.bundle) == [r.public_bytes(Encoding.DER) for r in served.coordinator.bundle.roots]
    assert not answer.crl
    assert not answer.federated_bundles


def test_a_new_certificate_is_streamed_before_the_old_one_runs_out(served: Bench) -> None:
    call = served.stream(FETCH)
    first = _leaf(served.svid(call))
    served.clock.advance(timedelta(minutes=50))
    served.keeper._wake.set()
    second = _leaf(served.svid(call))
    assert second.serial_number != first.serial_number
    assert second.public_key() != first.public_key()


def test_bundles_are_told_by_domain_and_not_again_for_a_new_certificate(served: Bench) -> None:
    call = served.stream(BUNDLES)
    first = pb.X509BundlesResponse.FromString(next(call))
    assert set(first.bundles) == {"spiffe://scratch.example"}
    served.clock.advance(timedelta(minutes=50))
    served.keeper._wake.set()
    foreign = ScratchCa.make("clinic.example").bundle
    served.keeper.use_foreign([foreign])
    second = pb.X509BundlesResponse.FromString(next(call))
    assert second.bundles["spiffe://clinic.example"] == foreign.roots[0].public_bytes(Encoding.DER)
    assert second.bundles["spiffe://scratch.example"] == first.bundles["spiffe://scratch.example"]
    assert served.svid().federated_bundles == {
        "spiffe://clinic.example": second.bundles["spiffe://clinic.example"]
    }


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("workload.spiffe.io", "false"),),
        (("workload.spiffe.io", "True"),),
        (("workload.spiffe.io", "true"), ("workload.spiffe.io", "true")),
        (("x-workload.spiffe.io", "true"),),
    ],
)
def test_a_call_without_the_security_header_is_refused(served: Bench, metadata: Any) -> None:
    for method in (FETCH, BUNDLES, "/SpiffeWorkloadAPI/FetchJWTSVID"):
        assert served.refused(method, metadata=metadata) is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("name", ["FetchJWTSVID", "FetchJWTBundles", "ValidateJWTSVID", "FetchSecretKey"])
def test_what_is_not_served_is_unimplemented(served: Bench, name: str) -> None:
    assert served.refused(f"/SpiffeWorkloadAPI/{name}") is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("name", ["FetchSecrets", "DeltaSecrets"])
def test_of_secret_discovery_streams_of_the_whole_state_alone_are_served(served: Bench, name: str) -> None:
    method = f"/envoy.service.secret.v3.SecretDiscoveryService/{name}"
    assert served.refused(method) is grpc.StatusCode.UNIMPLEMENTED


def test_bytes_that_are_no_message_are_refused(served: Bench) -> None:
    assert served.refused(FETCH, iter((b"\xff\xff\xff",))) is grpc.StatusCode.INVALID_ARGUMENT
    assert served.refused(METHOD, iter((b"\xff\xff\xff",))) is grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_beyond_the_bound_is_refused_unread(served: Bench) -> None:
    assert served.refused(FETCH, iter((b"\x0a" * 100_000,))) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_revoked_agent_gives_nothing_out_and_its_streams_end(served: Bench) -> None:
    call = served.stream(FETCH)
    served.svid(call)
    served.coordinator.revoke("site-a")
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert served.refused(FETCH) is grpc.StatusCode.PERMISSION_DENIED
    assert served.refused(METHOD, _asking("default")) is grpc.StatusCode.PERMISSION_DENIED


def test_an_agent_on_hold_gives_nothing_out_until_it_is_released(served: Bench) -> None:
    call = served.stream(FETCH)
    served.svid(call)
    served.coordinator.hold("site-a")
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    served.coordinator.release("site-a")
    assert served.svid().svids


def test_an_agent_that_is_told_of_its_revocation_forgets_the_workload_s_key(served: Bench) -> None:
    served.svid()
    served.keeper.halt(Revoked("site-a was revoked"))
    assert served.keeper._served is None
    assert served.refused(FETCH) is grpc.StatusCode.PERMISSION_DENIED


def test_a_certificate_of_the_workload_that_is_revoked_alone_is_replaced_at_once(served: Bench) -> None:
    call = served.stream(FETCH)
    first = _leaf(served.svid(call))
    served.coordinator.as_operator().revoke(
        RevocationTarget(serial=Serial(first.serial_number)), reason=RevocationReason.KEY_COMPROMISE
    )
    assert _leaf(served.svid(call)).public_key() != first.public_key()


def test_a_certificate_of_a_ca_that_was_ended_is_given_out_no_more(served: Bench) -> None:
    served.svid()
    asked = served.keeper.refresh
    hurried: list[bool] = []
    served.keeper.refresh = lambda: (hurried.append(True), asked())[1]  # type: ignore[method-assign]
    authority = served.coordinator.authority
    with authority.ledger.writing() as work:
        work.emit(
            EventKind.ISSUER_REVOKED,
            actor=None,
            domain=served.coordinator.bundle.domain,
            issuer=ca_key_id(authority.ca.issuer.certificate.public_key()),
        )
    with pytest.raises(AgentUnavailable):
        served.keeper.after(0, 0.2)
    before = len(hurried)
    served.keeper._agent.rotate(served.keeper._agent.current)  # as the agent's renewal does
    assert (before, len(hurried)) == (1, 2)


def test_the_certificate_is_still_given_out_while_the_coordinator_is_away(served: Bench) -> None:
    first = _leaf(served.svid())
    served.is_answering[0] = served.coordinator.is_reachable = False
    served.clock.advance(timedelta(minutes=50))
    served.keeper._wake.set()
    assert _leaf(served.svid()).serial_number == first.serial_number


def test_a_certificate_that_has_run_out_is_not_given_out(served: Bench) -> None:
    served.svid()
    served.is_answering[0] = served.coordinator.is_reachable = False
    served.clock.advance(timedelta(hours=2))
    assert served.refused(FETCH) is grpc.StatusCode.UNAVAILABLE


def test_who_asks_too_early_waits_for_the_first_certificate(bench: Bench) -> None:
    call = bench.stream(FETCH)
    threading.Timer(0.2, bench.keeper.start).start()
    assert bench.svid(call).svids


def test_the_socket_is_for_its_owner_alone_and_goes_with_the_agent(served: Bench) -> None:
    found = served.server.path.stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert stat.S_IMODE(served.server.path.parent.stat().st_mode) == 0o700
    with pytest.raises(Conflict, match="one is running"):
        WorkloadServer(served.server.path, served.keeper).start()
    served.server.stop()
    assert not served.server.path.exists()


def test_a_socket_that_a_dead_agent_left_behind_is_replaced(served: Bench) -> None:
    path = served.server.path.with_name("left.sock")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    again = WorkloadServer(path, served.keeper)
    again.start()
    again.stop()


def test_no_socket_is_made_where_others_may_write(tmp_path: Path, bench: Bench) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(StorageUnavailable, match="nobody else may write"):
        WorkloadServer(folder / "workload.sock", bench.keeper).start()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "run")
    with pytest.raises(StorageUnavailable):
        WorkloadServer(link / "workload.sock", bench.keeper).start()
    with pytest.raises(Malformed, match="at most 100 bytes"):
        WorkloadServer(tmp_path / ("x" * 100), bench.keeper).start()
    before = os.umask(0o022)
    os.umask(before)
    assert before != 0o177  # making a socket leaves the process's own mask as it was


def test_an_operator_s_agent_has_no_workload(bench: Bench) -> None:
    operator = CredentialStore(bench.coordinator.operator.credentials)
    assert operator.spiffe_id.role is Role.OPERATOR
    with pytest.raises(PermissionDenied):
        WorkloadKeeper(
            operator, _NoDesk(), view=TrustView(bench.clock), clock=bench.clock, rng=random.Random(1)
        )


class _NoDesk:
    def certify_workload(self, csr_der: bytes) -> Issued:
        raise AssertionError(f"nobody asks, got {len(csr_der)} bytes")


# --- Envoy's secrets


class Envoy:
    """Speaks the discovery protocol by hand."""

    def __init__(self, bench: Bench) -> None:
        self._out: SimpleQueue[bytes | None] = SimpleQueue()
        self._in: SimpleQueue[Any] = SimpleQueue()
        self.call = bench.stream(METHOD, iter(self._out.get, None), metadata=())
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, *names: str, nonce: str = "", version: str = "", error: str = "") -> None:
        request = discovery_pb2.DiscoveryRequest(
            resource_names=names, type_url=TYPE_URL, response_nonce=nonce, version_info=version
        )
        if error:
            request.error_detail.message = error
        self._out.put(request.SerializeToString())

    def answer(self, seconds: float = PATIENCE) -> discovery_pb2.DiscoveryResponse:
        found = self._in.get(timeout=seconds)
        if isinstance(found, Exception):
            raise found
        return discovery_pb2.DiscoveryResponse.FromString(found)

    def close(self) -> None:
        self._out.put(None)
        self.call.cancel()

    def _read(self) -> None:
        try:
            for data in self.call:
                self._in.put(data)
        except grpc.RpcError as error:
            self._in.put(error)


@pytest.fixture
def envoy(served: Bench) -> Iterator[Envoy]:
    made = Envoy(served)
    yield made
    made.close()


def _asking(*names: str, kind: str = TYPE_URL) -> Iterator[bytes]:
    return iter((discovery_pb2.DiscoveryRequest(resource_names=names, type_url=kind).SerializeToString(),))


def _secrets(answer: discovery_pb2.DiscoveryResponse) -> dict[str, tls_pb2.Secret]:
    found = {}
    for packed in answer.resources:
        assert packed.type_url == TYPE_URL == answer.type_url
        one = tls_pb2.Secret()
        assert packed.Unpack(one)
        found[one.name] = one
    return found


def test_envoy_gets_the_certificate_and_the_roots_it_asks_for(served: Bench, envoy: Envoy) -> None:
    own = str(workload_of(served.site.spiffe_id))
    envoy.ask("default", own, "ROOTCA", "spiffe://scratch.example")
    found = _secrets(envoy.answer())
    chain = found["default"].tls_certificate.certificate_chain.inline_bytes
    assert _names(x509.load_pem_x509_certificates(chain)[0]) == [own]
    assert found[own].tls_certificate == found["default"].tls_certificate
    trusted = found["ROOTCA"].validation_context.trusted_ca.inline_bytes
    assert tuple(x509.load_pem_x509_certificates(trusted)) == served.coordinator.bundle.roots
    assert found["spiffe://scratch.example"].validation_context == found["ROOTCA"].validation_context


def test_what_envoy_took_is_not_sent_again_and_what_is_new_is(served: Bench, envoy: Envoy) -> None:
    envoy.ask("default")
    first = envoy.answer()
    envoy.ask("default", nonce=first.nonce, version=first.version_info)
    with pytest.raises(Empty):
        envoy.answer(0.3)
    served.clock.advance(timedelta(minutes=50))
    served.keeper._wake.set()
    second = envoy.answer()
    assert second.version_info != first.version_info
    assert second.nonce != first.nonce
    assert _secrets(second)["default"] != _secrets(first)["default"]


def test_a_secret_that_envoy_does_not_take_is_not_sent_to_it_again(served: Bench, envoy: Envoy) -> None:
    envoy.ask("default")
    first = envoy.answer()
    envoy.ask("default", nonce=first.nonce, error="I do not like\nit")
    with pytest.raises(Empty):
        envoy.answer(0.3)


def test_other_names_get_another_answer(envoy: Envoy) -> None:
    envoy.ask("default")
    first = envoy.answer()
    envoy.ask("default", "ROOTCA", nonce=first.nonce, version=first.version_info)
    assert set(_secrets(envoy.answer())) == {"default", "ROOTCA"}


def test_every_domain_s_roots_are_given_for_envoy_s_spiffe_validator(served: Bench, envoy: Envoy) -> None:
    foreign = ScratchCa.make("clinic.example").bundle
    envoy.ask("ALL")
    envoy.answer()
    served.keeper.use_foreign([foreign])
    config = _secrets(envoy.answer())["ALL"].validation_context.custom_validator_config
    assert config.name == "envoy.tls.cert_validator.spiffe"
    validator = tls_pb2.SPIFFECertValidatorConfig()
    assert config.typed_config.Unpack(validator)
    assert {domain.name for domain in validator.trust_domains} == {"clinic.example", "scratch.example"}


@pytest.mark.parametrize(
    "names",
    [
        ("spiffe://clinic.example",),
        ("spiffe://scratch.example/participant/site-a",),
        ("default", "unknown"),
        ("",),
        tuple(f"name-{i}" for i in range(65)),
    ],
)
def test_a_secret_that_is_not_there_ends_the_stream(served: Bench, names: tuple[str, ...]) -> None:
    assert served.refused(METHOD, _asking(*names)) is grpc.StatusCode.INVALID_ARGUMENT


def test_a_request_for_another_type_of_resource_is_refused(served: Bench) -> None:
    kind = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    assert served.refused(METHOD, _asking("default", kind=kind)) is grpc.StatusCode.INVALID_ARGUMENT


def test_streams_beyond_the_bound_are_refused_and_those_that_end_make_room(served: Bench) -> None:
    calls = [served.stream(BUNDLES) for _ in range(MAX_STREAMS)]
    for call in calls:
        next(call)
    assert served.refused(BUNDLES) is grpc.StatusCode.RESOURCE_EXHAUSTED
    for call in calls:
        call.cancel()
    _eventually(lambda: _is_served(served))


def _is_served(bench: Bench) -> bool:
    try:
        bench.svid()
    except grpc.RpcError:
        return False
    return True


def _eventually(holds: Callable[[], bool]) -> None:
    wait = threading.Event()
    for _ in range(200):
        if holds():
            return
        wait.wait(0.1)
    pytest.fail("it never came to hold")

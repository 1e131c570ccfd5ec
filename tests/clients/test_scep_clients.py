"""SCEP with strongSwan's pki, in AES and SHA-256, and with scepclient, which knows DES and SHA-1 alone."""

from __future__ import annotations

import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from server_world import DOMAIN, ServedWorld, served

from fltrust.clock import SystemClock
from fltrust.coordinator.scep.pages import scep_module
from fltrust.coordinator.scep.recipient import make_recipient
from fltrust.coordinator.serving import ServerSettings
from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.enrollment.token import encode_token
from fltrust.enrollment.types import EnrollmentProtocol
from fltrust.identity import Name, Role
from fltrust.pki.bundle import bundle_to_pem, chain_to_pem
from fltrust.revocation.events import RevocationReason
from fltrust.revocation.ports import RevocationTarget

pytestmark = pytest.mark.client

RECIPIENT = make_recipient(DOMAIN, clock=SystemClock())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorld]:
    settings = ServerSettings(
        public="127.0.0.1:0", public_modules=(scep_module(RECIPIENT),), rate=10_000, burst=10_000
    )
    with served(tmp_path_factory.mktemp("scep"), settings=settings) as world:
        yield world


def token(world: ServedWorld, name: str) -> str:
    made = world.operator.client.create_token(Role.DEVICE, Name(name), ttl=timedelta(minutes=5))
    return encode_token(made)


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[bytes]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False)


def uri(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


class Relay(BaseHTTPRequestHandler):
    """Passes everything on, and says one capability more: this client reads the list one line off."""

    behind = ""

    def do_GET(self) -> None:
        with urllib.request.urlopen(f"http://{self.behind}{self.path}", timeout=10) as answer:
            body = answer.read()
        self._reply(body + (b"SHA-384\n" if "GetCACaps" in self.path else b""))

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["content-length"]))
        request = urllib.request.Request(f"http://{self.behind}{self.path}", data=sent)
        with urllib.request.urlopen(request, timeout=10) as answer:
            self._reply(answer.read())

    def _reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def relayed(world: ServedWorld) -> Iterator[str]:
    Relay.behind = world.server.public_address or ""
    with ThreadingHTTPServer(("127.0.0.1", 0), Relay) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/scep"
        server.shutdown()


def strongswan(url: str, folder: Path, key: str, *options: str) -> x509.Certificate:
    made = run(folder, "openssl", "genrsa", "-out", key, "2048")
    assert made.returncode == 0
    done = run(
        folder,
        *("pki", "--scep", "--url", url, "--in", key),
        *("--dn", "CN=somebody else", "--san", "bank.example", "--outform", "pem"),
        *("--cacert-enc", "recipient.pem", "--cacert-sig", "recipient.pem"),
        *("--cacert", "root.pem", "--cacert", "issuing.pem", *options),
    )
    assert done.returncode == 0, done.stderr.decode()
    return x509.load_pem_x509_certificate(done.stdout)


def test_strongswan_enrolls_and_renews_and_names_come_from_the_record(
    world: ServedWorld, relayed: str, tmp_path: Path
) -> None:
    (tmp_path / "recipient.pem").write_bytes(RECIPIENT.certificate.public_bytes(Encoding.PEM))
    (tmp_path / "root.pem").write_bytes(bundle_to_pem(world.ca.bundle))
    (tmp_path / "issuing.pem").write_bytes(chain_to_pem([world.ca.issuer.certificate]))
    first = strongswan(relayed, tmp_path, "first.key", "--password", token(world, "meter-1"))
    assert uri(first) == ["spiffe://hospitals.example/device/meter-1"]
    (tmp_path / "first.pem").write_bytes(first.public_bytes(Encoding.PEM))
    second = strongswan(relayed, tmp_path, "second.key", "--cert", "first.pem", "--key", "first.key")
    assert uri(second) == uri(first)
    assert second.public_key() != first.public_key()


def scepclient(world: ServedWorld, *options: str) -> list[str]:
    return [
        *("scepclient", "-server-url", f"http://{world.server.public_address}/scep"),
        *("-ca-fingerprint", RECIPIENT.certificate.fingerprint(SHA256()).hex()),
        *("-private-key", "k.pem", "-certificate", "c.pem", *options),
    ]


def certificate(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "c.pem").read_bytes())


def test_scepclient_is_refused_without_the_switch_in_words_that_it_reads(
    world: ServedWorld, tmp_path: Path
) -> None:
    done = run(tmp_path, *scepclient(world, "-challenge", token(world, "old")))
    assert done.returncode != 0
    assert b"badAlg" in done.stdout + done.stderr
    assert world.authority.counters.get("scep.failure.bad-alg") == 1


@contextmanager
def legacy(folder: Path, policy: ApprovalPolicy | None = None) -> Iterator[ServedWorld]:
    module = scep_module(RECIPIENT, is_legacy_taken=True)
    settings = ServerSettings(public="127.0.0.1:0", public_modules=(module,), rate=10_000, burst=10_000)
    with served(folder, settings=settings, approvals=policy) as world:
        yield world


def test_scepclient_enrolls_and_renews_with_the_same_key_and_another(tmp_path: Path) -> None:
    with legacy(tmp_path) as world:
        done = run(tmp_path, *scepclient(world, "-challenge", token(world, "old"), "-cn", "somebody else"))
        assert done.returncode == 0, done.stdout + done.stderr
        first = certificate(tmp_path)
        assert uri(first) == ["spiffe://hospitals.example/device/old"]
        assert run(tmp_path, *scepclient(world)).returncode == 0
        second = certificate(tmp_path)
        assert uri(second) == uri(first)
        assert second.serial_number != first.serial_number
        # It renews for whatever request lies in csr.pem.
        assert run(tmp_path, "openssl", "genrsa", "-traditional", "-out", "k2.pem").returncode == 0
        made = run(tmp_path, "openssl", "req", "-new", "-key", "k2.pem", "-subj", "/CN=x", "-out", "csr.pem")
        assert made.returncode == 0
        assert run(tmp_path, *scepclient(world)).returncode == 0
        assert uri(certificate(tmp_path)) == uri(first)
        assert certificate(tmp_path).public_key() != first.public_key()
        assert world.authority.counters.get("scep.legacy") == 3
        world.operator.client.revoke(
            RevocationTarget(name=(Role.DEVICE, Name("old"))), reason=RevocationReason.KEY_COMPROMISE
        )
        refused = run(tmp_path, *scepclient(world, "-private-key", "k2.pem"))
        assert b"badRequest" in refused.stdout


def test_scepclient_waits_for_an_operator_and_asks_again(tmp_path: Path) -> None:
    """It sleeps half a minute before it asks again: here it is ended, and started again."""
    policy = ApprovalPolicy(protocols={EnrollmentProtocol.SCEP: 1})
    with legacy(tmp_path, policy) as world:
        command = scepclient(world, "-challenge", token(world, "old"))
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        colleague = world.join("colleague", Role.OPERATOR)
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as waits:
            assert waits.stderr is not None
            assert any(b"pkiStatus=PENDING" in line for line in waits.stderr)
            waits.kill()
        (waiting,) = world.operator.client.list_requests()
        colleague.client.approve_request(waiting.request_id, reason="I know it")
        assert run(tmp_path, *command).returncode == 0
        assert uri(certificate(tmp_path)) == ["spiffe://hospitals.example/device/old"]

"""SCEP with strongSwan's pki, which speaks AES and SHA-256, and with scepclient, which does not."""

from __future__ import annotations

import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
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
from fltrust.enrollment.token import encode_token
from fltrust.identity import Name, Role
from fltrust.pki.bundle import bundle_to_pem, chain_to_pem

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


def test_a_client_that_knows_des_and_sha1_alone_is_refused_in_words_that_it_reads(
    world: ServedWorld, tmp_path: Path
) -> None:
    done = run(
        tmp_path,
        *("scepclient", "-private-key", "k.pem", "-certificate", "c.pem", "-challenge", token(world, "old")),
        *("-server-url", f"http://{world.server.public_address}/scep"),
        *("-ca-fingerprint", RECIPIENT.certificate.fingerprint(SHA256()).hex()),
    )
    assert done.returncode != 0
    assert b"badAlg" in done.stdout + done.stderr
    assert world.authority.counters.get("scep.failure.bad-alg") == 1

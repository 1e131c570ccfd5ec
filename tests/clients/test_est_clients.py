"""EST with curl, and with OpenSSL to make requests and to read answers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7
from server_world import ServedWorld, served

from fltrust.coordinator.serving import ServerSettings
from fltrust.enrollment.token import encode_token
from fltrust.identity import Name, Role
from fltrust.pki.bundle import bundle_to_pem

pytestmark = pytest.mark.client


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorld]:
    settings = ServerSettings(
        services="127.0.0.1:0", rate=10_000, burst=10_000, services_rate=1_000, services_burst=1_000
    )
    with served(tmp_path_factory.mktemp("est"), settings=settings) as world:
        yield world


class Device:
    """A folder with a key and the root, and the commands that a device has."""

    def __init__(self, world: ServedWorld, folder: Path) -> None:
        self.world, self.folder = world, folder
        (folder / "root.pem").write_bytes(bundle_to_pem(world.ca.bundle))
        self.base = (
            f"https://coordinator.hospitals.example:{world.server.services_address.rpartition(':')[2]}"
        )

    def run(self, *command: str) -> bytes:
        done = subprocess.run(command, cwd=self.folder, capture_output=True, timeout=30, check=False)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def csr(self, name: str, *, subject: str = "/", more: tuple[str, ...] = ()) -> None:
        self.run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
        self.run(
            *("openssl", "req", "-new", "-key", f"{name}.key", "-subj", subject, "-outform", "DER"),
            *("-out", f"{name}.der", *more),
        )
        self.run("openssl", "base64", "-in", f"{name}.der", "-out", f"{name}.b64")

    def curl(self, operation: str, *options: str) -> tuple[int, bytes]:
        out = self.run(
            *("curl", "-s", "--cacert", "root.pem", "--tlsv1.3"),
            *("--resolve", f"{self.base.removeprefix('https://')}:127.0.0.1"),
            *("-w", "\n%{http_code}", f"{self.base}/.well-known/est/{operation}", *options),
        )
        body, _, status = out.rpartition(b"\n")
        return int(status), body

    def enroll(self, name: str, *options: str, operation: str = "simpleenroll") -> tuple[int, bytes]:
        return self.curl(
            operation, "-H", "Content-Type: application/pkcs10", "--data-binary", f"@{name}.b64", *options
        )

    def certificate(self, body: bytes) -> x509.Certificate:
        """What OpenSSL reads in the answer."""
        (self.folder / "answer.b64").write_bytes(body)
        self.run("openssl", "base64", "-d", "-in", "answer.b64", "-out", "answer.p7")
        pem = self.run("openssl", "pkcs7", "-inform", "DER", "-in", "answer.p7", "-print_certs")
        return x509.load_pem_x509_certificate(pem)


@pytest.fixture
def device(world: ServedWorld, tmp_path: Path) -> Device:
    return Device(world, tmp_path)


def token(world: ServedWorld, name: str) -> str:
    made = world.operator.client.create_token(Role.DEVICE, Name(name), ttl=timedelta(minutes=5))
    return encode_token(made)


def uri(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def test_curl_enrolls_with_a_token_renews_with_the_certificate_and_names_come_from_the_record(
    world: ServedWorld, device: Device
) -> None:
    status, body = device.curl("cacerts")
    assert status == 200
    assert device.certificate(body) is not None
    status, body = device.curl("csrattrs")
    assert status == 200
    (device.folder / "attrs.b64").write_bytes(body)
    device.run("openssl", "base64", "-d", "-in", "attrs.b64", "-out", "attrs.der")
    shown = device.run("openssl", "asn1parse", "-in", "attrs.der", "-inform", "DER")
    assert b"prime256v1" in shown
    device.csr("first", subject="/CN=root", more=("-addext", "subjectAltName=DNS:bank.example"))
    status, body = device.enroll("first", "-u", f"device:{token(world, 'pump-1')}")
    assert status == 200, body
    first = device.certificate(body)
    assert uri(first) == ["spiffe://hospitals.example/device/pump-1"]
    assert not list(first.subject)
    chain = bundle_to_pem(world.ca.bundle)
    (device.folder / "first.pem").write_bytes(
        first.public_bytes(pkcs7.serialization.Encoding.PEM)
        + world.ca.issuer.certificate.public_bytes(pkcs7.serialization.Encoding.PEM)
        + chain
    )
    device.csr("second")
    own = ("--cert", "first.pem", "--key", "first.key")
    status, body = device.enroll("second", *own, operation="simplereenroll")
    assert status == 200, body
    assert uri(device.certificate(body)) == uri(first)

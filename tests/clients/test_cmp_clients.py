"""CMP with `openssl cmp`: every kind of request that we take, under MAC and signature, and what we refuse."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from server_world import ServedWorld, served

from fltrust.coordinator.cmp.pages import cmp_routes
from fltrust.coordinator.serving import ServerSettings
from fltrust.enrollment.mackeys import MacPurpose
from fltrust.errors import Revoked
from fltrust.identity import Name, Role, SpiffeId
from fltrust.pki.bundle import bundle_to_pem, chain_to_pem
from fltrust.pki.verify import verify_certificate
from fltrust.protocols.cmp.protection import password_of

pytestmark = pytest.mark.client


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorld]:
    settings = ServerSettings(public="127.0.0.1:0", public_modules=(cmp_routes,), rate=10_000, burst=10_000)
    with served(tmp_path_factory.mktemp("cmp"), settings=settings) as world:
        yield world


class Device:
    def __init__(self, world: ServedWorld, folder: Path) -> None:
        self.world, self.folder = world, folder
        (folder / "root.pem").write_bytes(bundle_to_pem(world.ca.bundle))
        (folder / "issuing.pem").write_bytes(chain_to_pem([world.ca.issuer.certificate]))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=30, check=False
        )

    def key(self, name: str) -> None:
        made = self.run(
            "openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key"
        )
        assert made.returncode == 0, made.stderr

    def cmp(self, command: str, *options: str, fails: bool = False) -> str:
        done = self.run(
            *("openssl", "cmp", "-config", "", "-cmd", command, "-recipient", "/CN=fltrust"),
            *("-server", f"{self.world.server.public_address}/.well-known/cmp", *options),
        )
        said = done.stdout + done.stderr
        assert (done.returncode != 0) is fails, said
        return said

    def certificate(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.folder / f"{name}.pem").read_bytes())


@pytest.fixture
def device(world: ServedWorld, tmp_path: Path) -> Device:
    return Device(world, tmp_path)


def credential(world: ServedWorld, name: str) -> tuple[str, ...]:
    made = world.operator.client.create_credential(
        MacPurpose.CMP, Role.DEVICE, Name(name), ttl=timedelta(minutes=5)
    )
    password = password_of(made.key)
    return ("-ref", made.credential_id, "-secret", f"pass:{password}", "-mac", "hmacWithSHA256")


def uri(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def new(device: Device, name: str) -> tuple[str, ...]:
    device.key(name)
    return ("-newkey", f"{name}.key", "-subject", "/CN=somebody else", "-certout", f"{name}.pem")


def signed(name: str) -> tuple[str, ...]:
    return (
        "-cert",
        f"{name}.pem",
        "-key",
        f"{name}.key",
        "-trusted",
        "root.pem",
        "-untrusted",
        "issuing.pem",
    )


def test_a_device_enrolls_by_mac_then_asks_updates_and_revokes_by_signature(
    world: ServedWorld, device: Device
) -> None:
    device.cmp("ir", *new(device, "first"), *credential(world, "cam-1"))
    first = device.certificate("first")
    assert uri(first) == ["spiffe://hospitals.example/device/cam-1"]
    assert not list(first.subject)

    device.cmp("cr", *new(device, "another"), *signed("first"))
    device.cmp("kur", *new(device, "next"), *signed("first"), "-implicit_confirm")
    for name in ("another", "next"):
        assert uri(device.certificate(name)) == uri(first)
        assert device.certificate(name).public_key() != first.public_key()

    device.cmp("rr", "-oldcert", "another.pem", "-revreason", "1", *signed("next"))
    with pytest.raises(Revoked):
        judge(world, device, "another")
    judge(world, device, "next")
    said = device.cmp("kur", *new(device, "late"), *signed("another"), fails=True)
    assert "revoked" in said


def judge(world: ServedWorld, device: Device, name: str) -> None:
    chain = [device.certificate(name), world.ca.issuer.certificate]
    world.authority.judge(verify_certificate(chain, bundle=world.ca.bundle, at=world.authority.now()))


def test_pkcs10_goes_either_way(world: ServedWorld, device: Device) -> None:
    for name in ("a", "b"):
        device.key(name)
        device.run("openssl", "req", "-new", "-key", f"{name}.key", "-subj", "/CN=x", "-out", f"{name}.csr")
    device.cmp("p10cr", "-csr", "a.csr", "-certout", "a.pem", *credential(world, "cam-2"))
    device.cmp("p10cr", "-csr", "b.csr", "-certout", "b.pem", *signed("a"))
    assert uri(device.certificate("b")) == ["spiffe://hospitals.example/device/cam-2"]


def test_a_credential_works_once_and_a_wrong_password_never(world: ServedWorld, device: Device) -> None:
    once = credential(world, "cam-3")
    wrong = (*once[:2], "-secret", "pass:wrong", *once[4:])
    device.cmp("ir", *new(device, "w"), *wrong, fails=True)
    device.cmp("ir", *new(device, "x"), *once)
    said = device.cmp("ir", *new(device, "y"), *once, fails=True)
    assert "is used" in said


def test_sha1_is_refused_and_so_is_what_is_not_known_here(world: ServedWorld, device: Device) -> None:
    once = credential(world, "cam-4")
    said = device.cmp(
        "ir", *new(device, "w"), *once[:4], "-mac", "hmac-sha1", "-unprotected_errors", fails=True
    )
    assert "another algorithm" in said
    said = device.cmp("genm", *once, "-unprotected_errors", fails=True)
    assert "kind that is known here" in said
    assert SpiffeId.of("hospitals.example", Role.DEVICE, "cam-4") not in world.authority.ledger.identities()

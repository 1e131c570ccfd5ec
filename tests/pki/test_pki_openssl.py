"""OpenSSL's own tools, from outside: they read and verify what we issue, and serve TLS 1.3 with it."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from fltrust.identity import Role
from fltrust.keys import FileSigner, generate, save
from fltrust.pki import Draft, bundle_to_pem, chain_to_pem
from fltrust.testing.identities import given_names


def openssl(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=30)


def issue(authority: Any, role: Role, folder: Path, name: str = "site-a") -> list[x509.Certificate]:
    """Issue to a key of its own and leave ``<role>.pem`` (the leaf), ``-chain.pem`` and ``.key`` behind."""
    signer: FileSigner = generate()
    draft = Draft.of(
        authority.id(role, name), signer.public_key, now=authority.now, dns_names=given_names(role)
    )
    leaf = authority.issuer.redeem(draft)
    save(signer, folder / f"{role}.key", passphrase=None)
    (folder / f"{role}.pem").write_bytes(chain_to_pem([leaf]))
    (folder / f"{role}-chain.pem").write_bytes(chain_to_pem([authority.issuer.certificate]))
    (folder / "root.pem").write_bytes(bundle_to_pem(authority.bundle))
    return [leaf, authority.issuer.certificate]


PURPOSES = {role: ["sslclient"] for role in Role} | {
    Role.AGGREGATOR: ["sslclient", "sslserver"],
    Role.COORDINATOR: ["sslclient", "sslserver"],
    Role.WORKLOAD: ["sslclient", "sslserver"],
    Role.SERVER: ["sslserver"],
}


@pytest.mark.parametrize("role", list(Role))
def test_openssl_verifies_each_role_strictly(authority: Any, tmp_path: Path, role: Role) -> None:
    issue(authority, role, tmp_path)
    purposes = PURPOSES[role]
    check = ["verify", "-x509_strict", "-attime", int(authority.now.timestamp()), "-check_ss_sig"]
    files = ["-CAfile", tmp_path / "root.pem", "-untrusted", tmp_path / f"{role}-chain.pem"]
    for purpose in purposes:
        found = openssl(*check, "-purpose", purpose, *files, tmp_path / f"{role}.pem")
        assert found.returncode == 0, found.stderr
    if "sslserver" not in purposes:
        assert openssl(*check, "-purpose", "sslserver", *files, tmp_path / f"{role}.pem").returncode != 0


def test_openssl_refuses_an_expired_leaf_and_another_root(
    authority: Any, new_authority: Callable[..., Any], tmp_path: Path
) -> None:
    leaf = issue(authority, Role.PARTICIPANT, tmp_path)[0]
    files = ["-untrusted", tmp_path / "participant-chain.pem", tmp_path / "participant.pem"]
    late = int(leaf.not_valid_after_utc.timestamp()) + 1
    found = openssl("verify", "-attime", late, "-CAfile", tmp_path / "root.pem", *files)
    assert found.returncode != 0
    assert "expired" in found.stderr
    (tmp_path / "other.pem").write_bytes(bundle_to_pem(new_authority().bundle))
    found = openssl(
        "verify", "-attime", int(authority.now.timestamp()), "-CAfile", tmp_path / "other.pem", *files
    )
    assert found.returncode != 0


def test_openssl_prints_the_profile(authority: Any, tmp_path: Path) -> None:
    leaf = issue(authority, Role.AGGREGATOR, tmp_path, "main")[0]
    text = openssl("x509", "-in", tmp_path / "aggregator.pem", "-noout", "-text").stdout
    lines = [line.strip() for line in text.splitlines()]

    def after(heading: str) -> str:
        return lines[lines.index(heading) + 1]

    assert after("X509v3 Subject Alternative Name: critical") == (
        "URI:spiffe://hospitals.example/aggregator/main, DNS:main.aggregator.hospitals.example"
    )
    assert after("X509v3 Key Usage: critical") == "Digital Signature"
    assert set(after("X509v3 Extended Key Usage:").split(", ")) == {
        "TLS Web Client Authentication",
        "TLS Web Server Authentication",
    }
    assert after("X509v3 Basic Constraints: critical") == "CA:FALSE"
    assert "Subject:" in lines
    assert "Signature Algorithm: ecdsa-with-SHA256" in lines
    assert "ASN1 OID: prime256v1" in lines
    assert after("Serial Number:").replace(":", "") == f"{leaf.serial_number:x}".zfill(
        len(after("Serial Number:").replace(":", ""))
    )
    (tmp_path / "issuing.pem").write_bytes(chain_to_pem([authority.issuer.certificate]))
    ca = openssl("x509", "-in", tmp_path / "issuing.pem", "-noout", "-text").stdout
    assert "CA:TRUE, pathlen:0" in ca
    assert "Certificate Sign, CRL Sign" in ca
    assert "URI:spiffe://hospitals.example\n" in ca


@contextmanager
def s_server(folder: Path, at: int) -> Iterator[int]:
    """OpenSSL's own server: TLS 1.3, client certificate required and verified strictly."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [
            *("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-tls1_3", "-quiet", "-rev"),
            *("-cert", folder / "coordinator.pem", "-cert_chain", folder / "coordinator-chain.pem"),
            *("-key", folder / "coordinator.key", "-CAfile", folder / "root.pem"),
            *("-Verify", "3", "-verify_return_error", "-x509_strict", "-attime", str(at)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        for _ in range(200):
            if server.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.02)
        yield port
    finally:
        server.kill()
        server.communicate()


def s_client(port: int, folder: Path, at: int, *arguments: object, name: str) -> tuple[str, str]:
    """Send a word through OpenSSL's own client; give what came back, and what it printed if nothing did."""
    with subprocess.Popen(
        [
            *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3", "-quiet"),
            *("-CAfile", folder / "root.pem", "-verify_return_error", "-x509_strict", "-attime", str(at)),
            *("-verify_hostname", name, "-servername", name, *map(str, arguments)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        with suppress(BrokenPipeError):
            client.stdin.write("stressed\n")
            client.stdin.flush()
        answer = client.stdout.readline()
        client.kill()
        with suppress(BrokenPipeError):
            client.stdin.close()
        assert client.stderr is not None
        return answer.strip(), client.stderr.read()


def test_openssl_speaks_mutual_tls_with_our_certificates(
    authority: Any, new_authority: Callable[..., Any], tmp_path: Path
) -> None:
    issue(authority, Role.COORDINATOR, tmp_path)
    issue(authority, Role.PARTICIPANT, tmp_path)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    issue(new_authority(), Role.PARTICIPANT, stranger)
    at = int(authority.now.timestamp())
    coordinator = "coordinator.hospitals.example"

    def shown(folder: Path) -> list[object]:
        return [
            *("-cert", folder / "participant.pem", "-key", folder / "participant.key"),
            *("-cert_chain", folder / "participant-chain.pem"),
        ]

    with s_server(tmp_path, at) as port:
        answer, printed = s_client(port, tmp_path, at, *shown(tmp_path), name=coordinator)
        assert answer == "desserts", printed
        answer, printed = s_client(port, tmp_path, at, name=coordinator)
        assert (answer, "certificate required" in printed) == ("", True), printed
        answer, printed = s_client(port, tmp_path, at, *shown(stranger), name=coordinator)
        assert (answer, "alert" in printed) == ("", True), printed
        answer, printed = s_client(
            port, tmp_path, at, *shown(tmp_path), name="main.aggregator.hospitals.example"
        )
        assert (answer, "hostname mismatch" in printed.lower()) == ("", True), printed

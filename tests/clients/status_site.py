"""A coordinator in a process of its own, made with the command, and people with certificates of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.agent.session import connect
from fltrust.client import CoordinatorClient, enroll
from fltrust.enrollment.challenge import node_key_challenge
from fltrust.enrollment.types import EnrollRequest, JoinTokenEvidence
from fltrust.identity import Name, Role
from fltrust.keys import generate, spki_der
from fltrust.pki import chain_to_pem, create_csr
from fltrust.pki.pointers import issuer_of

FLTRUST = Path(sys.executable).with_name("fltrust")
SERVED_NAME = "model.hospitals.example"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(check: Callable[[], bool], words: Callable[[], str], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, words()
        time.sleep(0.05)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Holder:
    """Files of one identity."""

    role: Role
    name: str
    key: Path
    chain: Path
    leaf: Path
    issuer: Path

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.leaf.read_bytes())


class Site:
    """The coordinator's folder, its addresses, and its operator's client."""

    def __init__(self, folder: Path, public: int, client: CoordinatorClient) -> None:
        self.folder = folder
        self.public = f"http://127.0.0.1:{public}"
        self.client = client
        self.root = folder / "root.pem"
        self.root.write_bytes(self.get("/roots.pem"))

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.public + path, timeout=20) as answer:
            return bytes(answer.read())

    def join(self, name: str, role: Role = Role.PARTICIPANT) -> Holder:
        names = (SERVED_NAME, "localhost") if role is Role.SERVER else ()
        token = self.client.create_token(role, Name(name), ttl=timedelta(minutes=10), dns_names=names)
        signer, node = generate(), generate() if role is Role.PARTICIPANT else None
        csr, evidence = create_csr(signer), JoinTokenEvidence(token.secret)
        if node is None:
            request = EnrollRequest(evidence, csr)
        else:
            proof = node.sign(node_key_challenge(csr, evidence))
            request = EnrollRequest(evidence, csr, spki_der(node.public_key), proof)
        chain = [x509.load_der_x509_certificate(der) for der in enroll(token, request).chain_der]
        paths = [self.folder / f"{name}{end}" for end in (".key", ".chain.pem", ".pem", ".issuer.pem")]
        contents = (
            signer.to_pem(None),
            chain_to_pem(chain),
            chain[0].public_bytes(Encoding.PEM),
            chain_to_pem(chain[1:]),
        )
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        return Holder(role, name, *paths)

    def crls(self, name: str = "crls.pem") -> Path:
        """Every CRL, as a server loads it."""
        path = self.folder / name
        path.write_bytes(self.get("/crl.pem"))
        return path

    def delta(self, holder: Holder) -> bytes:
        return self.get(f"/crl/{issuer_of(holder.certificate)}-delta.crl")

    def run(self, *command: str | Path, code: int | None = 0) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        words = done.stdout + done.stderr
        assert code is None or done.returncode == code, (command, words)
        return words


@contextmanager
def coordinator_process(folder: Path) -> Iterator[Site]:
    """A coordinator that was made by ``coordinator init`` and runs until the block ends."""
    folder.chmod(0o700)
    secret = folder / "passphrase"
    secret.write_text("correct horse battery staple")
    secret.chmod(0o600)
    environment = {
        **os.environ,
        "FLTRUST_HOME": str(folder / "home"),
        "FLTRUST_CA_PASSPHRASE_FILE": str(secret),
        "FLTRUST_ROOT_PASSPHRASE_FILE": str(secret),
    }
    bootstrap, address, public = free_port(), free_port(), free_port()
    subprocess.run(
        [
            *(FLTRUST, "coordinator", "init", "--trust-domain", "hospitals.example"),
            *("--folder", folder / "coordinator", "--bootstrap", f"127.0.0.1:{bootstrap}"),
            *("--address", f"127.0.0.1:{address}", "--public", f"127.0.0.1:{public}"),
        ],
        env=environment,
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    log = folder / "coordinator.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [FLTRUST, "coordinator", "serve", "--folder", folder / "coordinator"],
            env=environment,
            stdout=sink,
            stderr=sink,
            stdin=subprocess.DEVNULL,
        )
    try:
        eventually(lambda: listens(public) and listens(address), lambda: log.read_text()[-3000:])
        (state,) = (folder / "home").glob("*/operator-*")
        with connect(state) as (client, _):
            yield Site(folder, public, client)
    finally:
        process.terminate()
        process.wait(20)

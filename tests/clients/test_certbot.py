"""certbot gets, renews and revokes a certificate, from its command line alone."""

from __future__ import annotations

import base64
import ipaddress
import os
import socket
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from server_world import DOMAIN, ServedWorld

from fltrust.coordinator.acme import targets
from fltrust.coordinator.acme_settings import AcmeSettings
from fltrust.coordinator.serving import ServerSettings
from fltrust.enrollment.mackeys import MacCredential, MacPurpose
from fltrust.identity import Name, Role, Serial, SpiffeId
from fltrust.pki.bundle import bundle_to_pem
from fltrust.pki.verify import verify_certificate
from tools.strangers import CERTBOT, environment

pytestmark = pytest.mark.client

NAMES = ("model.hospitals.example", "www.hospitals.example")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Certbot:
    """certbot with a folder of its own, as the operator of a web server runs it."""

    def __init__(self, world: ServedWorld, folder: Path, port: int) -> None:
        self.world, self.folder, self.port = world, folder, port
        (folder / "root.pem").write_bytes(bundle_to_pem(world.ca.bundle))
        self.binary = environment(CERTBOT).parent / "certbot"

    def run(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        server = f"https://{self.world.server.services_address}/acme/directory"
        folders = [f"--{name}-dir={self.folder / name}" for name in ("config", "work", "logs")]
        return subprocess.run(
            [str(self.binary), command, "--non-interactive", "--server", server, *folders, *options],
            env={"PATH": os.environ["PATH"], "REQUESTS_CA_BUNDLE": str(self.folder / "root.pem")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def certonly(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run(
            "certonly",
            *("--standalone", "--http-01-port", str(self.port), "--http-01-address", "127.0.0.1"),
            *("--agree-tos", "--register-unsafely-without-email"),
            *options,
        )

    def leaf(self, lineage: str = NAMES[0]) -> x509.Certificate:
        return self.chain(lineage)[0]

    def chain(self, lineage: str = NAMES[0]) -> list[x509.Certificate]:
        live = self.folder / "config" / "live" / lineage / "fullchain.pem"
        return x509.load_pem_x509_certificates(live.read_bytes())


def account(credential: MacCredential) -> tuple[str, ...]:
    key = base64.urlsafe_b64encode(credential.key).decode().rstrip("=")
    return (f"--eab-kid={credential.credential_id}", f"--eab-hmac-key={key}")


def credential(world: ServedWorld, name: str) -> MacCredential:
    return world.operator.client.create_credential(
        MacPurpose.ACME, Role.SERVER, Name(name), ttl=timedelta(minutes=5), dns_names=NAMES
    )


@pytest.fixture(scope="module")
def certbot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Certbot]:
    port, folder = free_port(), tmp_path_factory.mktemp("certbot")
    acme = AcmeSettings(networks=(ipaddress.ip_network("127.0.0.0/8"),), http_port=port)
    settings = ServerSettings(services="localhost:0", services_burst=1_000, acme=acme)
    with pytest.MonkeyPatch.context() as patch:
        # The names of the test are in no name server; everything else is as it is.
        patch.setattr(targets, "_look_up", lambda _name: ["127.0.0.1"])
        world = ServedWorld(f"sqlite:///{folder / 'coordinator.sqlite'}", settings=settings)
        try:
            yield Certbot(world, folder, port)
        finally:
            world.close()


def test_certbot_issues_renews_and_revokes(certbot: Certbot) -> None:
    world = certbot.world
    done = certbot.certonly("-d", ",".join(NAMES), *account(credential(world, "model")))
    assert done.returncode == 0, done.stderr + done.stdout
    first = certbot.leaf()
    verified = verify_certificate(
        certbot.chain(), bundle=world.ca.bundle, at=world.clock.now(), purpose="server"
    )
    assert verified.spiffe_id == SpiffeId(DOMAIN, Role.SERVER, Name("model"))

    done = certbot.run("renew", "--force-renewal", "--no-random-sleep-on-renew")
    assert done.returncode == 0, done.stderr + done.stdout
    second = certbot.leaf()
    assert second.serial_number != first.serial_number
    assert second.public_key() != first.public_key()

    done = certbot.run(
        "revoke", "--cert-name", NAMES[0], "--reason", "keycompromise", "--no-delete-after-revoke"
    )
    assert done.returncode == 0, done.stderr + done.stdout
    with world.authority.ledger.writing() as work:
        standing = [work.state.serial_standing(Serial(one.serial_number)) for one in (first, second)]
    assert standing == ["active", "revoked"]
    # Asked for its renewal information, the server says "now".
    done = certbot.run("renew", "--no-random-sleep-on-renew")
    assert done.returncode == 0, done.stderr + done.stdout
    assert certbot.leaf().serial_number != second.serial_number


def test_certbot_is_told_what_it_may_not_have(certbot: Certbot, tmp_path: Path) -> None:
    other = Certbot(certbot.world, tmp_path, certbot.port)
    none = other.certonly("-d", NAMES[0])
    assert none.returncode != 0
    assert "external account" in (none.stderr + none.stdout).lower()
    evil = other.certonly("-d", "evil.example", *account(credential(certbot.world, "evil")))
    assert evil.returncode != 0
    assert "operator stated" in evil.stderr + evil.stdout

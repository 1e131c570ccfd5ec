"""An OpenBao PKI mount issues for us, for real: through the port alone, and for a whole coordinator."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from fltrust.agent.state import AgentState
from fltrust.clock import SystemClock
from fltrust.coordinator.folder import CoordinatorSettings, read_settings, write_settings
from fltrust.coordinator.process import initialise, issue_operator
from fltrust.coordinator.upstream_settings import UpstreamSettings
from fltrust.coordinator.vault import VaultMount
from fltrust.errors import CertificateRefused, Conflict, FltrustError, Malformed, Unavailable
from fltrust.identity import Name, Role, Serial, SpiffeId, TrustDomain
from fltrust.keys import generate
from fltrust.pki import Draft, create_csr, load_issuer, make_bundle, verify_certificate
from fltrust.pki.issuing import domain_of_ca
from fltrust.pki.rollover import change_roots
from fltrust.pki.upstream import SigningOrder, UpstreamIssuer, open_upstream
from tools.strangers import OPENBAO, environment

pytestmark = pytest.mark.client

DOMAIN = TrustDomain("hospitals.example")
TOKEN = "a-token-for-tests"
SERVING = {Role.AGGREGATOR, Role.WORKLOAD, Role.COORDINATOR}


@dataclass
class Bao:
    """A development server with a root and an issuing mount, set up as the how-to says."""

    url: str
    folder: Path

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/v1/{path}", method=method, data=data, headers={"X-Vault-Token": TOKEN}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
        found = json.loads(text) if text else {}
        assert isinstance(found, dict)
        return found.get("data") or {}

    def settings(self, **more: Any) -> UpstreamSettings:
        token = self.folder / "token"
        how: dict[str, Any] = {"url": self.url, "mount": "pki", "token_file": token}
        return UpstreamSettings(**{**how, **more})

    def role(self, name: str, **changes: Any) -> None:
        role = Role(name.partition("-")[2]) if name.startswith("fltrust-") else Role.PARTICIPANT
        usages = ["ClientAuth", "ServerAuth"] if role in SERVING else ["ClientAuth"]
        self.call(
            "POST",
            f"pki/roles/{name}",
            {
                "allowed_uri_sans": [f"spiffe://{DOMAIN}/{role}/*"],
                "allowed_domains": [f"{role}.{DOMAIN}"],
                "allow_subdomains": role in SERVING,
                "allow_ip_sans": False,
                "require_cn": False,
                "use_csr_common_name": False,
                "use_csr_sans": False,
                "key_type": "ec",
                "key_bits": 256,
                "key_usage": ["DigitalSignature"],
                "ext_key_usage": usages,
                "client_flag": False,
                "server_flag": False,
                "basic_constraints_valid_for_non_ca": True,
                "not_before_duration": "60s",
                "max_ttl": "720h",
                **changes,
            },
        )

    @property
    def root(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.call("GET", "pkiroot/cert/ca")["certificate"].encode())

    def set_up(self) -> None:
        (self.folder / "token").touch(mode=0o600)
        (self.folder / "token").write_text(TOKEN + "\n")
        for mount in ("pkiroot", "pki"):
            self.call("POST", f"sys/mounts/{mount}", {"type": "pki", "config": {"max_lease_ttl": "87600h"}})
        ca = {
            "key_type": "ec",
            "key_bits": 256,
            "uri_sans": f"spiffe://{DOMAIN}",
            "exclude_cn_from_sans": True,
        }
        root = self.call(
            "POST", "pkiroot/root/generate/internal", {**ca, "common_name": "root", "ttl": "87000h"}
        )
        csr = self.call("POST", "pki/intermediate/generate/internal", {**ca, "common_name": "issuing"})["csr"]
        order = {**ca, "csr": csr, "common_name": "issuing", "max_path_length": 0, "ttl": "8000h"}
        signed = self.call("POST", "pkiroot/root/sign-intermediate", order)["certificate"]
        chain = signed + "\n" + root["certificate"]
        self.call("POST", "pki/intermediate/set-signed", {"certificate": chain})
        for role in (Role.PARTICIPANT, Role.OPERATOR, Role.AGGREGATOR):
            self.role(f"fltrust-{role}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    folder, port = tmp_path_factory.mktemp("bao"), free_port()
    binary = environment(OPENBAO).parent / "bao"
    options = ["-dev", f"-dev-root-token-id={TOKEN}", "-dev-no-store-token"]
    where = f"-dev-listen-address=127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [binary, "server", *options, where],
            stdout=log,
            stderr=log,
            env={**os.environ, "HOME": str(folder)},
        )
    try:
        made = Bao(f"http://127.0.0.1:{port}", folder)
        for _ in range(150):
            with suppress(OSError):
                made.call("GET", "sys/health")
                break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        made.set_up()
        yield made
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def issuer(bao: Bao) -> UpstreamIssuer:
    return open_upstream(VaultMount(bao.settings()), roots=[bao.root])


def draft(
    role: Role = Role.PARTICIPANT, *, lifetime: timedelta | None = None, with_csr: bool = True
) -> Draft:
    key = generate()
    who = SpiffeId(DOMAIN, role, Name("site-a"))
    csr = create_csr(key) if with_csr else None
    return Draft.of(who, key.public_key, now=datetime.now(UTC), lifetime=lifetime, csr_der=csr)


@pytest.mark.parametrize("role", [Role.PARTICIPANT, Role.OPERATOR, Role.AGGREGATOR])
def test_what_the_mount_signs_verifies_as_what_we_sign(bao: Bao, issuer: UpstreamIssuer, role: Role) -> None:
    order = draft(role)
    leaf = issuer.redeem(order)
    bundle = make_bundle(DOMAIN, [bao.root])
    found = verify_certificate([leaf, issuer.certificate], bundle=bundle, at=datetime.now(UTC))
    assert found.spiffe_id == order.spiffe_id
    assert found.not_after == order.not_after
    assert (issuer.domain, domain_of_ca(bao.root)) == (DOMAIN, DOMAIN)
    with pytest.raises(Conflict):
        issuer.redeem(order)


def test_a_role_that_says_something_else_issues_nothing_that_we_hand_out(
    bao: Bao, issuer: UpstreamIssuer
) -> None:
    """Whatever an administrator of the mount sets, what comes back is held against our profile."""
    wrong: tuple[dict[str, Any], ...] = (
        {"ext_key_usage": ["ClientAuth", "ServerAuth"]},
        {"key_usage": ["DigitalSignature", "KeyEncipherment"]},
        {"basic_constraints_valid_for_non_ca": False, "ext_key_usage": []},
        {"organization": ["Hospitals"]},
        {"not_before_duration": "10m"},
        {"policy_identifiers": [], "client_flag": True, "server_flag": True},
    )
    for changes in wrong:
        bao.role("odd-participant", **changes)
        odd = open_upstream(VaultMount(bao.settings(role_prefix="odd")), roots=[bao.root])
        with pytest.raises(CertificateRefused):
            odd.redeem(draft())
    bao.role("odd-participant", max_ttl="60s")
    shorter = open_upstream(VaultMount(bao.settings(role_prefix="odd")), roots=[bao.root])
    with suppress(Unavailable):  # it may cut the life short, which is no harm, or refuse
        assert shorter.redeem(draft()).not_valid_after_utc <= datetime.now(UTC) + timedelta(hours=1)


def test_a_name_that_the_role_does_not_allow_is_refused_there(bao: Bao) -> None:
    mount = VaultMount(bao.settings())
    key = generate()
    other = SpiffeId(TrustDomain("b.example"), Role.PARTICIPANT, Name("site-a"))
    order = SigningOrder(other, (), datetime.now(UTC) + timedelta(minutes=5), create_csr(key))
    with pytest.raises(Unavailable) as refused:
        mount.sign(order)
    assert refused.value.reason == "upstream-refused"


def test_names_in_the_request_are_not_copied(bao: Bao, issuer: UpstreamIssuer) -> None:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    from fltrust.pki.signing import SignerKey

    key = generate()
    names = [
        x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}/participant/victim"),
        x509.DNSName("evil.example"),
    ]
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "victim")]))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(SignerKey(key), SHA256())
        .public_bytes(Encoding.DER)
    )
    who = SpiffeId(DOMAIN, Role.PARTICIPANT, Name("site-a"))
    leaf = issuer.redeem(Draft.of(who, key.public_key, now=datetime.now(UTC), csr_der=csr))
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(found) == [x509.UniformResourceIdentifier(str(who))]
    assert list(leaf.subject) == []


def test_a_draft_without_the_request_of_its_key_is_not_sent(issuer: UpstreamIssuer) -> None:
    with pytest.raises(CertificateRefused, match="request"):
        issuer.redeem(draft(with_csr=False))
    with pytest.raises(CertificateRefused, match="request"):
        issuer.redeem(replace(draft(), csr_der=create_csr(generate())))
    with pytest.raises(CertificateRefused, match="life"):
        issuer.redeem(draft(lifetime=timedelta(days=2)))


def test_a_revoked_certificate_is_on_the_mounts_crl(bao: Bao, issuer: UpstreamIssuer) -> None:
    leaf = issuer.redeem(draft())
    issuer.revoke(Serial(leaf.serial_number))
    issuer.revoke(Serial(leaf.serial_number))
    with urllib.request.urlopen(f"{bao.url}/v1/pki/crl", timeout=10) as answer:
        crl = x509.load_der_x509_crl(answer.read())
    assert crl.get_revoked_certificate_by_serial_number(leaf.serial_number) is not None


def test_a_mount_whose_ca_is_not_under_a_root_of_ours_is_not_taken(bao: Bao) -> None:
    from fltrust.pki import create_root

    stranger = create_root(DOMAIN, signer=generate(), now=datetime.now(UTC))
    with pytest.raises(CertificateRefused):
        open_upstream(VaultMount(bao.settings()), roots=[stranger])
    with pytest.raises(CertificateRefused):
        open_upstream(VaultMount(bao.settings(mount="pkiroot")), roots=[bao.root])


def test_a_mount_that_is_away_or_does_not_know_us_says_so_without_the_token(bao: Bao) -> None:
    away = VaultMount(bao.settings(url=f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(Unavailable) as refused:
        away.authority()
    assert refused.value.reason == "upstream-unavailable"
    other = bao.folder / "other-token"
    other.touch(mode=0o600)
    other.write_text("not-a-token")
    unknown = VaultMount(bao.settings(token_file=other))
    order = draft()
    assert order.csr_der is not None
    with pytest.raises(Unavailable) as refused:
        unknown.sign(SigningOrder(order.spiffe_id, (), order.not_after, order.csr_der))
    assert refused.value.reason == "upstream-refused"
    assert "not-a-token" not in str(refused.value)
    (bao.folder / "other-token").chmod(0o644)
    with pytest.raises(FltrustError):
        unknown.authority()


@pytest.mark.parametrize(
    "change",
    [
        {"url": "http://bao.hospitals.example:8200"},
        {"url": "https://bao.hospitals.example/path"},
        {"mount": "pki/../sys"},
        {"mount": "pki?x"},
        {"role_prefix": "a/b"},
        {"namespace": "a b"},
    ],
)
def test_settings_that_could_lead_elsewhere_are_refused(bao: Bao, change: dict[str, str]) -> None:
    with pytest.raises(Malformed):
        bao.settings(**change)


def test_a_coordinator_enrolls_with_an_upstream_and_signs_the_rest_itself(
    bao: Bao, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLTRUST_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FLTRUST_PASSPHRASE_FILE", raising=False)
    folder = tmp_path / "coordinator"
    settings = CoordinatorSettings(domain=DOMAIN, bootstrap="127.0.0.1:8440", address="127.0.0.1:8441")
    initialise(
        folder, settings, operator=Name("first"), root_passphrase=b"root", issuing_passphrase=b"issuing"
    )
    change_roots(folder / "ca", add=[bao.root])
    write_settings(folder, replace(settings, upstream=bao.settings()))
    assert read_settings(folder).upstream == bao.settings()
    state = AgentState.open(issue_operator(folder, Name("second"), issuing_passphrase=b"issuing"))
    _, chain = state.load_identity()
    upstream = open_upstream(VaultMount(bao.settings()), roots=[bao.root])
    ours = load_issuer(folder / "ca", passphrase=b"issuing", clock=SystemClock()).certificate
    assert chain[1] == upstream.certificate
    found = verify_certificate(chain, bundle=state.load_bundle(), at=datetime.now(UTC))
    assert found.spiffe_id.name == "second"
    tsa = x509.load_pem_x509_certificates((folder / "tsa" / "tsa.pem").read_bytes())
    assert tsa[1] == ours

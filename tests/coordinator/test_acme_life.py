"""ACME with operators who decide, with crashes, with races, and with keys and challenges of every kind."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from acme_client import AcmeClient, Key, Web, b64, csr_for, kind_of, web_server
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from server_world import ServedWorld
from test_acme import NAMES, AcmeWorld, acme_world

from fltrust.coordinator.acme import certificates, targets
from fltrust.coordinator.acme.nonces import Nonces
from fltrust.coordinator.acme_settings import AcmeSettings
from fltrust.coordinator.requests import RequestDesk
from fltrust.enrollment.approvals import ApprovalPolicy
from fltrust.enrollment.types import EnrollmentProtocol
from fltrust.errors import Malformed
from fltrust.protocols.acme.problems import AcmeProblem


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AcmeWorld]:
    monkeypatch.setattr(targets, "_look_up", lambda _name: ["127.0.0.1"])
    with web_server() as web, acme_world(tmp_path, web) as made:
        yield made


def ready(client: AcmeClient, web: Web) -> dict[str, Any]:
    made = client.order(NAMES[0])
    client.prove(made.json(), web)
    return {**made.json(), "url": made.headers["location"]}


def test_an_order_waits_for_operators_where_the_policy_asks_for_them(
    world: AcmeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = ApprovalPolicy(protocols={EnrollmentProtocol.ACME: 1})
    desk: RequestDesk = world.served.authority.enroller.requests
    monkeypatch.setattr(desk, "policy", policy)
    client = world.registered("waits")
    order = ready(client, world.web)
    answer = client.finalize(order, csr_for(NAMES[0]))
    assert (answer.json()["status"], answer.headers["retry-after"]) == ("processing", "5")
    assert client.post(order["url"], "").json()["status"] == "processing"
    other = world.served.join("second", "operator")  # four eyes: not who made the credential
    session = world.served.authority.session(_caller(world.served, other))
    (view,) = session.list_requests(open_only=True)
    assert view.request.approval is not None
    assert view.request.approval.dns_names == (NAMES[0],)
    session.approve_request(view.request.request_id, reason="as agreed")
    done = client.wait(order["url"])
    assert done["status"] == "valid"
    assert client.post(done["certificate"], "").status_code == 200

    denied = ready(client, world.web)
    client.finalize(denied, csr_for(NAMES[0]))
    (view,) = session.list_requests(open_only=True)
    session.deny_request(view.request.request_id, reason="no longer ours")
    assert client.wait(denied["url"])["status"] == "invalid"


def _caller(served: ServedWorld, person: Any) -> Any:
    from fltrust.coordinator.session import Caller
    from fltrust.pki.verify import verify_certificate

    chain = x509.load_pem_x509_certificates(person.credentials.chain_pem)
    return Caller.of(verify_certificate(chain, bundle=served.ca.bundle, at=served.clock.now()))


def test_a_certificate_whose_order_was_not_written_is_found_again(
    world: AcmeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = world.registered("crashes")
    order = ready(client, world.web)
    with monkeypatch.context() as patch:
        patch.setattr(certificates.CertificateDesk, "_write", lambda *_: None)  # the crash
        assert client.finalize(order, csr_for(NAMES[0])).json()["status"] == "processing"
    done = client.wait(order["url"])
    assert done["status"] == "valid"
    with world.served.authority.ledger.reading() as tx:
        issued = [one for one in tx.certificates.all() if one.spiffe_id.name == "crashes"]
    assert len(issued) == 1
    pem = client.post(done["certificate"], "").content
    assert x509.load_pem_x509_certificates(pem)[0].public_bytes(Encoding.DER) == issued[0].der


def test_a_validation_that_a_crash_cut_short_is_begun_again(
    world: AcmeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fltrust.coordinator.acme.pages import AcmePages

    client = world.registered("resumes")
    order = client.order(NAMES[0]).json()
    challenge = client.challenge(order["authorizations"][0])
    world.web.answers[challenge["token"]] = f"{challenge['token']}.{client.key.thumbprint}"
    with monkeypatch.context() as patch:
        patch.setattr(AcmePages, "_begin", lambda *_: None)  # the crash
        assert client.post(challenge["url"], {}).json()["status"] == "processing"
    assert client.wait(order["authorizations"][0])["status"] == "valid"


def test_of_many_who_finalize_at_once_one_does(world: AcmeWorld) -> None:
    client = world.registered("races")
    order, key = ready(client, world.web), client.key
    clients = [AcmeClient(world.base, world.context, key) for _ in range(6)]
    for one in clients:
        one.kid = client.kid
    with ThreadPoolExecutor(6) as pool:
        codes = sorted(pool.map(lambda one: one.finalize(order, csr_for(NAMES[0])).status_code, clients))
    assert codes == [200, *[403] * 5]
    with world.served.authority.ledger.reading() as tx:
        assert sum(one.spiffe_id.name == "races" for one in tx.certificates.all()) == 1


def test_of_many_who_show_a_credential_at_once_one_gets_an_account(world: AcmeWorld) -> None:
    credential = world.credential("racers")
    with ThreadPoolExecutor(6) as pool:
        codes = sorted(pool.map(lambda _n: world.client().register(credential).status_code, range(6)))
    assert codes == [201, *[403] * 5]


def test_a_key_that_changed_during_the_validation_proves_nothing(world: AcmeWorld) -> None:
    from acme_client import jws

    client = world.registered("changes")
    order = client.order(NAMES[0]).json()
    challenge = client.challenge(order["authorizations"][0])
    old, new, url = client.key, Key(), f"{client.base}/key-change"
    begun, go = threading.Event(), threading.Event()

    class Slow(dict[str, str]):
        def get(self, *_: Any) -> str:  # type: ignore[override]
            begun.set()
            go.wait(10)
            return f"{challenge['token']}.{old.thumbprint}"

    world.web.answers = Slow()
    client.post(challenge["url"], {})
    assert begun.wait(10)
    inner = jws(new, {"alg": "ES256", "jwk": new.jwk, "url": url}, {"account": client.kid, "oldKey": old.jwk})
    assert client.post(url, inner).status_code == 200
    client.key = new
    go.set()
    assert client.wait(order["authorizations"][0])["status"] == "invalid"


class RsaKey(Key):
    """An account key of another kind: what certbot makes."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(65537, 2048)

    @property
    def jwk(self) -> dict[str, str]:
        n = self.rsa.public_key().public_numbers().n
        return {"e": "AQAB", "kty": "RSA", "n": b64(n.to_bytes(256, "big"))}

    def sign(self, data: bytes) -> bytes:
        return self.rsa.sign(data, padding.PKCS1v15(), SHA256())


class EdKey(Key):
    def __init__(self) -> None:
        self.ed = ed25519.Ed25519PrivateKey.generate()

    @property
    def jwk(self) -> dict[str, str]:
        return {"crv": "Ed25519", "kty": "OKP", "x": b64(self.ed.public_key().public_bytes_raw())}

    def sign(self, data: bytes) -> bytes:
        return self.ed.sign(data)


@pytest.mark.parametrize(("kind", "algorithm"), [(RsaKey, "RS256"), (EdKey, "EdDSA")])
def test_accounts_have_keys_of_other_kinds_with_their_own_algorithm(
    world: AcmeWorld, kind: type[Key], algorithm: str
) -> None:
    from acme_client import binding

    client, credential = world.client(kind()), world.credential("other-kind")
    url = f"{client.base}/new-account"
    payload = {"externalAccountBinding": binding(credential, client.key, url)}
    for wrong in {"ES256", "RS256", "EdDSA"} - {algorithm}:
        answer = client.post(url, payload, by_key=True, header={"alg": wrong})
        assert kind_of(answer) == "badSignatureAlgorithm"
    answer = client.post(url, payload, by_key=True, header={"alg": algorithm})
    assert answer.status_code == 201
    client.kid = answer.headers["location"]
    identifiers = {"identifiers": [{"type": "dns", "value": NAMES[0]}]}
    assert client.post("new-order", identifiers, header={"alg": algorithm}).status_code == 201


def _alpn_certificate(folder: Path, name: str, digest: bytes, *, critical: bool = True) -> Path:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([])
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31"), b"\x04\x20" + digest)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(extension, critical=critical)
        .sign(key, SHA256())
    )
    path = folder / "alpn.pem"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem + certificate.public_bytes(Encoding.PEM))
    return path


@pytest.mark.parametrize("wrong", ["", "digest", "name", "critical", "protocol"])
def test_a_name_is_proved_over_tls_alpn_by_exactly_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    import socket

    monkeypatch.setattr(targets, "_look_up", lambda _name: ["127.0.0.1"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        web = Web(listener.getsockname()[1])
        with acme_world(tmp_path, web) as world:
            client = world.registered("alpn")
            order = client.order(NAMES[0]).json()
            challenge = client.challenge(order["authorizations"][0], "tls-alpn-01")
            text = f"{challenge['token']}.{client.key.thumbprint}"
            digest = sha256(b"x" if wrong == "digest" else text.encode()).digest()
            name = NAMES[1] if wrong == "name" else NAMES[0]
            path = _alpn_certificate(tmp_path, name, digest, critical=wrong != "critical")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(path)
            context.set_alpn_protocols(["http/1.1" if wrong == "protocol" else "acme-tls/1"])

            def serve() -> None:
                with listener.accept()[0] as plain:
                    plain.settimeout(10)
                    with contextlib.suppress(OSError):
                        context.wrap_socket(plain, server_side=True).close()

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            client.post(challenge["url"], {})
            found = client.wait(order["authorizations"][0])
            thread.join(10)
    assert found["status"] == ("invalid" if wrong else "valid"), found


def test_a_nonce_runs_out_and_is_no_other_servers() -> None:
    now = [1000.0]
    nonces = Nonces(monotonic=lambda: now[0])
    nonce = nonces.make()
    nonces.check(nonce)
    nonces.check(nonce)
    nonces.use(nonce)
    for take in (nonces.check, nonces.use, Nonces(monotonic=lambda: now[0]).check):
        with pytest.raises(AcmeProblem, match="fresh nonce"):
            take(nonce)
    late = nonces.make()
    now[0] += 600
    with pytest.raises(AcmeProblem):
        nonces.use(late)
    flipped = late[:-2] + ("A" if late[-2] != "A" else "B") + late[-1]
    with pytest.raises(AcmeProblem):
        nonces.check(flipped)


def test_a_flood_of_nonces_pushes_none_out() -> None:
    now = [0.0]
    nonces = Nonces(monotonic=lambda: now[0])
    mine = nonces.make()
    for _ in range(20_000):
        nonces.make()
    nonces.use(mine)


@pytest.mark.parametrize(
    "table",
    [
        {"enable": True},
        {"enabled": "yes"},
        {"networks": "10.0.0.0/8"},
        {"networks": ["10.0.0.1/8"]},
        {"networks": [1]},
        {"networks": ["10.0.0.0/8"] * 65},
        {"http-port": 0},
        {"http-port": True},
        {"tls-port": 65536},
        [],
    ],
)
def test_settings_say_what_they_may_and_nothing_else(table: object) -> None:
    with pytest.raises(Malformed):
        AcmeSettings.from_table(table)


def test_settings_come_back_as_they_were_written() -> None:
    import tomllib

    given = AcmeSettings(
        enabled=False, networks=(ipaddress.ip_network("10.0.0.0/8"),), http_port=8080, tls_port=8443
    )
    assert AcmeSettings.from_table(tomllib.loads("\n".join(given.to_toml()))["acme"]) == given
    assert AcmeSettings().to_toml() == []

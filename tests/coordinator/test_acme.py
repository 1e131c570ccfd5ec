"""ACME over real sockets: the way that a client goes, and everything that must not get through."""

from __future__ import annotations

import ipaddress
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from acme_client import AcmeClient, Key, Web, b64, binding, csr_for, jws, kind_of, web_server
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from server_world import DOMAIN, ServedWorld

from fltrust.coordinator.acme import targets
from fltrust.coordinator.acme_settings import AcmeSettings
from fltrust.coordinator.serving import ServerSettings
from fltrust.enrollment.mackeys import MacCredential, MacPurpose
from fltrust.identity import Name, Role, Serial, SpiffeId
from fltrust.pki.bundle import bundle_to_pem
from fltrust.pki.verify import verify_certificate
from fltrust.protocols.acme.ari import id_of
from fltrust.revocation.events import RevocationReason
from fltrust.revocation.ports import RevocationTarget

NAMES = ("model.hospitals.example", "www.hospitals.example")


@dataclass
class AcmeWorld:
    served: ServedWorld
    web: Web
    context: ssl.SSLContext

    @property
    def base(self) -> str:
        return f"https://{self.served.server.services_address}"

    def credential(self, name: str = "model", *names: str, **options: object) -> MacCredential:
        return self.served.operator.client.create_credential(
            MacPurpose.ACME,
            Role.SERVER,
            Name(name),
            ttl=timedelta(minutes=5),
            dns_names=names or NAMES,
            **options,  # type: ignore[arg-type]
        )

    def client(self, key: Key | None = None) -> AcmeClient:
        return AcmeClient(self.base, self.context, key)

    def registered(self, name: str = "model", *names: str, **options: object) -> AcmeClient:
        client = self.client()
        answer = client.register(self.credential(name, *names, **options))
        assert answer.status_code == 201, answer.text
        return client


@contextmanager
def acme_world(folder: Path, web: Web, **settings: object) -> Iterator[AcmeWorld]:
    acme = AcmeSettings(
        networks=(ipaddress.ip_network("127.0.0.0/8"),), http_port=web.port, tls_port=web.port
    )
    served = ServedWorld(
        f"sqlite:///{folder / 'coordinator.sqlite'}",
        settings=ServerSettings(
            rate=1e4, burst=1e4, services_rate=1e4, services_burst=1e4, services="localhost:0", acme=acme
        ),
        **settings,  # type: ignore[arg-type]
    )
    context = ssl.create_default_context(cadata=bundle_to_pem(served.ca.bundle).decode())
    try:
        yield AcmeWorld(served, web, context)
    finally:
        served.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AcmeWorld]:
    with pytest.MonkeyPatch.context() as patch, web_server() as web:
        patch.setattr(targets, "_look_up", lambda _name: ["127.0.0.1"])
        with acme_world(tmp_path_factory.mktemp("acme"), web) as made:
            yield made


_count = iter(range(10_000))


@pytest.fixture
def client(world: AcmeWorld) -> AcmeClient:
    """An account of a server of its own."""
    world.web.raw = None
    return world.registered(f"server-{next(_count)}")


def leaf_of(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificates(pem)[0]


def test_a_client_goes_the_whole_way_and_the_names_are_the_records(world: AcmeWorld) -> None:
    client = world.registered("whole")
    pem, order = client.issue(world.web, *NAMES)
    chain = x509.load_pem_x509_certificates(pem)
    verified = verify_certificate(
        [one.public_bytes(Encoding.DER) for one in chain],
        bundle=world.served.ca.bundle,
        at=world.served.clock.now(),
        expect_role=Role.SERVER,
        purpose="server",
    )
    assert verified.spiffe_id == SpiffeId(DOMAIN, Role.SERVER, Name("whole"))
    names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == set(NAMES)
    assert order["identifiers"] == [{"type": "dns", "value": name} for name in sorted(NAMES)]
    kept = world.served.operator.client.get_enrollment(verified.spiffe_id)
    assert (kept.evidence, kept.standing) == ("acme", "active")


def test_a_second_certificate_leaves_the_first_one_good(world: AcmeWorld, client: AcmeClient) -> None:
    first, second = (leaf_of(client.issue(world.web, NAMES[0])[0]) for _ in range(2))
    state = world.served.authority.ledger
    with state.writing() as work:
        for one in (first, second):
            assert work.state.serial_standing(Serial(one.serial_number)) == "active"


def test_an_existing_key_gets_its_account_and_no_other(world: AcmeWorld, client: AcmeClient) -> None:
    again = client.post("new-account", {"onlyReturnExisting": True}, by_key=True)
    assert (again.status_code, again.headers["location"]) == (200, client.kid)
    stranger = client.post("new-account", {"onlyReturnExisting": True}, by_key=True, key=Key())
    assert kind_of(stranger) == "accountDoesNotExist"


# Who gets an account.


def test_no_account_without_a_binding(world: AcmeWorld) -> None:
    answer = world.client().post("new-account", {"termsOfServiceAgreed": True}, by_key=True)
    assert (answer.status_code, kind_of(answer)) == (403, "externalAccountRequired")


def test_a_credential_opens_one_account(world: AcmeWorld) -> None:
    credential = world.credential("once")
    assert world.client().register(credential).status_code == 201
    answer = world.client().register(credential)
    assert (answer.status_code, kind_of(answer)) == (403, "unauthorized")


def test_a_cancelled_credential_opens_none(world: AcmeWorld) -> None:
    credential = world.credential("cancelled")
    world.served.operator.client.cancel_token(credential.credential_id)
    assert kind_of(world.client().register(credential)) == "unauthorized"


@pytest.mark.parametrize(
    "wrong",
    ["another-key", "another-kid", "another-url", "no-kid", "none", "es256", "nonce", "cmp", "token"],
)
def test_a_binding_is_refused_that_is_not_exactly_for_this_account(world: AcmeWorld, wrong: str) -> None:
    client, credential = world.client(), world.credential(f"bound-{wrong}")
    url = f"{client.base}/new-account"
    bound = {
        "another-key": lambda: binding(credential, Key(), url),
        "another-kid": lambda: binding(
            MacCredential("0" * 16, credential.key, credential.expires_at), client.key, url
        ),
        "another-url": lambda: binding(credential, client.key, f"{client.base}/new-order"),
        "no-kid": lambda: binding(credential, client.key, url, kid=""),
        "none": lambda: binding(credential, client.key, url, alg="none"),
        "es256": lambda: jws(
            client.key, {"alg": "ES256", "kid": credential.credential_id, "url": url}, client.key.jwk
        ),
        "nonce": lambda: binding(credential, client.key, url, nonce=client.nonce()),
        "cmp": lambda: binding(
            MacCredential(
                credential.credential_id,
                world.served.authority.mac_keys.key_of(MacPurpose.CMP, credential.credential_id),
                credential.expires_at,
            ),
            client.key,
            url,
        ),
        "token": lambda: binding(
            MacCredential(credential.credential_id, credential.credential_id.encode(), credential.expires_at),
            client.key,
            url,
        ),
    }[wrong]()
    answer = client.post(url, {"externalAccountBinding": bound}, by_key=True)
    assert answer.status_code in (400, 403), answer.text
    assert kind_of(answer) in ("unauthorized", "malformed", "badSignatureAlgorithm")
    assert client.register(credential).status_code == 201  # what was refused left it unspent


def test_a_join_token_is_no_credential(world: AcmeWorld) -> None:
    token = world.served.token("site-a")
    record = world.served.operator.client.list_tokens()[-1]
    guess = MacCredential(record.token_id, token.secret, record.expires_at)
    assert kind_of(world.client().register(guess)) == "unauthorized"


# Signed requests.


def test_a_nonce_is_good_once(world: AcmeWorld, client: AcmeClient) -> None:
    url, nonce = f"{client.base}/new-order", client.nonce()
    header = {"alg": "ES256", "nonce": nonce, "url": url, "kid": client.kid}
    body = jws(client.key, header, {"identifiers": [{"type": "dns", "value": NAMES[0]}]})
    assert client.send(url, body).status_code == 201
    again = client.send(url, body)
    assert (again.status_code, kind_of(again)) == (400, "badNonce")
    assert again.headers["replay-nonce"]


@pytest.mark.parametrize("nonce", ["", "AAAA", b64(bytes(36)), "ä", "x" * 257])
def test_a_nonce_of_somebody_elses_is_refused(client: AcmeClient, nonce: str) -> None:
    answer = client.post("new-order", {"identifiers": []}, header={"nonce": nonce})
    assert kind_of(answer) in ("badNonce", "malformed")


def test_a_request_without_a_nonce_is_refused(client: AcmeClient) -> None:
    assert kind_of(client.post("new-order", {}, without=("nonce",))) == "malformed"


def test_the_algorithm_is_the_keys(client: AcmeClient) -> None:
    for algorithm in ("none", "HS256", "RS256", "ES384", "EdDSA", "", "es256"):
        answer = client.post("new-order", {}, header={"alg": algorithm})
        assert kind_of(answer) == "badSignatureAlgorithm", algorithm
        assert "ES256" in answer.json()["algorithms"]


def test_a_public_key_is_no_mac_key(client: AcmeClient) -> None:
    import hmac
    from hashlib import sha256

    url = f"{client.base}/new-order"
    header = {"alg": "HS256", "nonce": client.nonce(), "url": url, "kid": client.kid}
    protected, payload = b64(header), b64({"identifiers": []})
    for secret in (json.dumps(client.key.jwk).encode(), b"", client.key.thumbprint.encode()):
        mac = hmac.digest(secret, f"{protected}.{payload}".encode(), sha256)
        body = {"protected": protected, "payload": payload, "signature": b64(mac)}
        assert kind_of(client.send(url, body)) == "badSignatureAlgorithm"


def test_a_symmetric_or_private_key_opens_no_account(world: AcmeWorld) -> None:
    client = world.client()
    d = b64(client.key.private.private_numbers().private_value.to_bytes(32, "big"))
    for jwk in (
        {"kty": "oct", "k": b64(bytes(32))},
        {**client.key.jwk, "d": d},
        {**client.key.jwk, "x": client.key.jwk["y"]},
        {**client.key.jwk, "crv": "P-384"},
        {**client.key.jwk, "x": b64(bytes(33))},
        {"kty": "EC"},
        {"kty": "RSA", "n": b64(b"\xff" * 128), "e": "AQAB"},
        {"kty": "RSA", "n": b64(b"\xff" * 256), "e": "Aw"},
        "text",
    ):
        answer = client.post("new-account", {}, by_key=True, header={"jwk": jwk})
        assert kind_of(answer) in ("badPublicKey", "malformed"), jwk


def test_a_request_names_a_key_or_an_account_and_never_both(client: AcmeClient) -> None:
    for header, without in (({"jwk": client.key.jwk}, ()), ({}, ("kid",))):
        assert kind_of(client.post("new-order", {}, header=header, without=without)) == "malformed"


def test_a_bare_key_asks_for_an_account_and_for_nothing_else(client: AcmeClient) -> None:
    order = client.order(NAMES[0])
    urls = [
        "new-order",
        "key-change",
        order.headers["location"],
        order.json()["authorizations"][0],
        client.kid,
    ]
    for url in urls:
        assert kind_of(client.post(url or "", "", by_key=True)) == "malformed", url


def test_a_request_is_for_the_url_that_it_was_sent_to(client: AcmeClient) -> None:
    for url in (f"{client.base}/new-account", "https://elsewhere.example/acme/new-order", ""):
        answer = client.post("new-order", {"identifiers": []}, header={"url": url})
        assert kind_of(answer) == "unauthorized"


def test_another_keys_signature_is_refused(client: AcmeClient) -> None:
    assert kind_of(client.post("new-order", {}, key=Key())) == "malformed"


def test_an_unknown_account_is_refused(client: AcmeClient) -> None:
    for kid in (
        f"{client.base}/acct/nobody",
        "https://elsewhere.example/acct/1",
        f"{client.kid}/",
        client.kid[:-1],
    ):
        answer = client.post("new-order", {}, header={"kid": kid})
        assert kind_of(answer) == "accountDoesNotExist", kid


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: {**body, "header": {"alg": "none"}},
        lambda body: {"payload": body["payload"], "signatures": [body]},
        lambda body: ".".join((body["protected"], body["payload"], body["signature"])),
        lambda body: {**body, "signature": body["signature"] + "="},
        lambda body: {**body, "protected": body["protected"] + "\n"},
        lambda body: {**body, "signature": ""},
        lambda body: [body],
        lambda _body: {},
    ],
)
def test_a_request_of_another_form_is_refused(client: AcmeClient, spoil: object) -> None:
    url = f"{client.base}/new-order"
    header = {"alg": "ES256", "nonce": client.nonce(), "url": url, "kid": client.kid}
    body = jws(client.key, header, {"identifiers": [{"type": "dns", "value": NAMES[0]}]})
    assert kind_of(client.send(url, spoil(body))) == "malformed"  # type: ignore[operator]


def test_headers_that_nobody_knows_are_refused(client: AcmeClient) -> None:
    for extra in (
        {"crit": ["b64"], "b64": False},
        {"x5c": []},
        {"typ": "JWT"},
        {"jku": "https://evil.example"},
    ):
        assert kind_of(client.post("new-order", {}, header=extra)) == "malformed"


def test_a_request_is_announced_bounded_and_posted(client: AcmeClient) -> None:
    url = f"{client.base}/new-order"
    assert client.send(url, {}, "application/json").status_code == 415
    assert client.send(url, b"{" * 70_000).status_code in (400, 413)
    assert client.send(url, b"[" * 60_000).status_code == 400
    assert client.http.get(url).status_code == 405
    assert client.http.get(f"{client.base}/nothing").status_code == 404


# Orders.


def test_a_name_that_is_not_stated_is_rejected(client: AcmeClient) -> None:
    for names in (("evil.example",), (*NAMES, "evil.example"), ("hospitals.example",)):
        answer = client.order(*names)
        assert (answer.status_code, kind_of(answer)) == (403, "rejectedIdentifier")


def test_wildcards_addresses_and_other_types_are_rejected(client: AcmeClient) -> None:
    for value in (
        "*.hospitals.example",
        "127.0.0.1",
        "model.hospitals.example.",
        "mödel.example",
        "a..b",
        "",
    ):
        assert kind_of(client.order(value)) == "rejectedIdentifier", value
    for kind in ("ip", "email", "DNS"):
        answer = client.post("new-order", {"identifiers": [{"type": kind, "value": NAMES[0]}]})
        assert kind_of(answer) == "unsupportedIdentifier"
    assert kind_of(client.post("new-order", {"identifiers": []})) == "malformed"
    assert kind_of(client.order(NAMES[0], notAfter="2036-01-01T00:00:00Z")) == "malformed"
    assert kind_of(client.order(NAMES[0], profile="root")) == "malformed"


def test_every_name_is_proved_by_itself(world: AcmeWorld, client: AcmeClient) -> None:
    order = client.order(*NAMES).json()
    first = client.challenge(order["authorizations"][0])
    world.web.answers[first["token"]] = f"{first['token']}.{client.key.thumbprint}"
    for _ in range(3):
        client.post(first["url"], {})
    assert client.wait(order["authorizations"][0])["status"] == "valid"
    refused = client.finalize(order, csr_for(*NAMES))
    assert (refused.status_code, kind_of(refused)) == (403, "orderNotReady")
    second = client.challenge(order["authorizations"][1])
    assert second["token"] != first["token"]
    links = client.post(second["url"], "").links
    assert links["up"]["url"] == order["authorizations"][1]
    assert links["index"]["url"] == f"{client.base}/directory"
    client.post(second["url"], {})  # answered with nothing at its own place
    assert client.wait(order["authorizations"][1])["status"] == "invalid"
    assert kind_of(client.finalize(order, csr_for(*NAMES))) == "orderNotReady"


def test_a_name_that_is_asked_for_twice_is_one_name(world: AcmeWorld, client: AcmeClient) -> None:
    order = client.order(NAMES[0], NAMES[0].upper(), NAMES[0]).json()
    assert len(order["identifiers"]) == len(order["authorizations"]) == 1


def test_an_authorization_serves_its_own_order_alone(world: AcmeWorld, client: AcmeClient) -> None:
    client.issue(world.web, NAMES[0])
    order = client.order(NAMES[0])
    assert order.json()["status"] == "pending"
    assert kind_of(client.finalize(order.json(), csr_for(NAMES[0]))) == "orderNotReady"


def test_the_key_authorization_is_the_accounts(world: AcmeWorld, client: AcmeClient) -> None:
    order = client.order(NAMES[0]).json()
    challenge = client.challenge(order["authorizations"][0])
    world.web.answers[challenge["token"]] = f"{challenge['token']}.{Key().thumbprint}"
    client.post(challenge["url"], {})
    found = client.wait(order["authorizations"][0])
    assert found["status"] == "invalid"
    assert found["challenges"][0]["error"]["type"].endswith("incorrectResponse")
    assert "." not in found["challenges"][0]["error"]["detail"].replace(NAMES[0], "")


def test_the_objects_of_another_account_are_not_there(world: AcmeWorld, client: AcmeClient) -> None:
    made = client.order(NAMES[0])
    order, challenge = made.json(), client.challenge(made.json()["authorizations"][0])
    client.prove(order, world.web)
    other = world.registered(f"server-{next(_count)}")
    for url in (made.headers["location"], order["authorizations"][0], challenge["url"]):
        assert other.post(url, "").status_code == 404, url
        assert client.post(url, "").status_code == 200
    assert other.post(challenge["url"], {}).status_code == 404
    assert other.post(order["authorizations"][0], {"status": "deactivated"}).status_code == 404
    assert other.finalize(order, csr_for(NAMES[0])).status_code == 404
    done = client.finalize(order, csr_for(NAMES[0])).json()
    assert other.post(done["certificate"], "").status_code == 404
    for url in (client.kid or "", f"{client.kid}/orders"):
        assert (other.post(url, "").status_code, client.post(url, "").status_code) == (403, 200)
    assert other.post(client.kid or "", {"status": "deactivated"}).status_code == 403


@pytest.mark.parametrize(
    "csr",
    [
        lambda: csr_for("evil.example"),
        lambda: csr_for(NAMES[0], "evil.example"),
        lambda: csr_for(NAMES[0], NAMES[1]),
        lambda: csr_for(),
        lambda: csr_for("*.hospitals.example"),
        lambda: csr_for(NAMES[0], common_name=["evil.example"]),
        lambda: csr_for(NAMES[0], common_name=[NAMES[0], NAMES[0]]),
        lambda: csr_for(NAMES[0], others=[x509.IPAddress(ipaddress.ip_address("10.0.0.1"))]),
        lambda: csr_for(
            NAMES[0], others=[x509.UniformResourceIdentifier("spiffe://hospitals.example/operator/x")]
        ),
        lambda: csr_for(NAMES[0], others=[x509.RFC822Name("root@hospitals.example")]),
        lambda: csr_for(NAMES[0], key=rsa.generate_private_key(65537, 2048)),
        lambda: csr_for(NAMES[0], key=ec.generate_private_key(ec.SECP384R1())),
        lambda: csr_for(NAMES[0])[:-4] + b"\x00\x00\x00\x00",
        lambda: b"\x30\x00",
        lambda: b"",
    ],
)
def test_a_csr_that_says_anything_else_than_the_order_is_refused(
    world: AcmeWorld, client: AcmeClient, csr: object
) -> None:
    order = client.order(NAMES[0]).json()
    client.prove(order, world.web)
    assert kind_of(client.finalize(order, csr())) == "badCSR"  # type: ignore[operator]
    assert client.finalize(order, csr_for(NAMES[0], common_name=[NAMES[0]])).status_code == 200


def test_a_server_has_a_key_of_its_own_and_a_new_one_each_time(world: AcmeWorld, client: AcmeClient) -> None:
    order = client.order(NAMES[0]).json()
    client.prove(order, world.web)
    own = csr_for(NAMES[0], key=client.key.private)
    assert kind_of(client.finalize(order, own)) == "badPublicKey"
    key = ec.generate_private_key(ec.SECP256R1())
    assert client.finalize(order, csr_for(NAMES[0], key=key)).json()["status"] == "valid"
    again = client.order(NAMES[0]).json()
    client.prove(again, world.web)
    assert kind_of(client.finalize(again, csr_for(NAMES[0], key=key))) == "badPublicKey"


def test_an_order_is_finalized_once(world: AcmeWorld, client: AcmeClient) -> None:
    order = client.order(NAMES[0]).json()
    client.prove(order, world.web)
    assert client.finalize(order, csr_for(NAMES[0])).status_code == 200
    again = client.finalize(order, csr_for(NAMES[0]))
    assert (again.status_code, kind_of(again)) == (403, "orderNotReady")


def test_an_account_has_so_many_open_orders_and_no_more(client: AcmeClient) -> None:
    answers = [client.order(NAMES[0]).status_code for _ in range(33)]
    assert answers == [201] * 32 + [429]


def test_an_authorization_that_was_given_up_proves_nothing(world: AcmeWorld, client: AcmeClient) -> None:
    made = client.order(NAMES[0])
    client.prove(made.json(), world.web)
    authorization = made.json()["authorizations"][0]
    assert client.post(authorization, {"status": "valid"}).status_code == 400
    assert client.post(authorization, {"status": "deactivated"}).json()["status"] == "deactivated"
    assert client.post(made.headers["location"], "").json()["status"] == "invalid"
    assert kind_of(client.finalize(made.json(), csr_for(NAMES[0]))) == "orderNotReady"


# Validation reaches out, and no further than it may.


@pytest.mark.parametrize(
    "raw",
    [
        (302, {"Location": "http://169.254.169.254/"}, b""),
        (301, {"Location": "/elsewhere"}, b""),
        (404, {}, b"no"),
        (200, {}, b"x" * 100_000),
        (200, {"Transfer-Encoding": "chunked", "X": "y" * 20_000}, b"zz"),
    ],
)
def test_an_answer_of_another_kind_proves_nothing_and_is_told_to_nobody(
    world: AcmeWorld, client: AcmeClient, raw: tuple[int, dict[str, str], bytes]
) -> None:
    order = client.order(NAMES[0]).json()
    challenge = client.challenge(order["authorizations"][0])
    world.web.raw, world.web.asked = raw, []
    client.post(challenge["url"], {})
    found = client.wait(order["authorizations"][0])
    error = found["challenges"][0]["error"]
    assert (found["status"], error["type"].rpartition(":")[2]) == ("invalid", "incorrectResponse")
    assert "xxx" not in json.dumps(error)
    assert world.web.asked == [
        (f"{NAMES[0]}:{world.web.port}", f"/.well-known/acme-challenge/{challenge['token']}")
    ]


def test_a_name_that_leads_inside_is_not_connected_to(
    world: AcmeWorld, client: AcmeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "_look_up", lambda _name: ["10.1.2.3", "::1", "169.254.169.254"])
    order = client.order(NAMES[0]).json()
    client.post(client.challenge(order["authorizations"][0])["url"], {})
    found = client.wait(order["authorizations"][0])
    assert found["challenges"][0]["error"]["type"].endswith("unauthorized")


@pytest.mark.parametrize(
    ("address", "permitted"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("192.0.0.170", False),
        ("198.18.0.1", False),
        ("::", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("::127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::1", False),
        ("2002:7f00:1::", False),
        ("2001:0:1::1", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("fd00:ec2::254", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("100::1", False),
    ],
)
def test_validation_reaches_public_addresses_alone(address: str, permitted: bool) -> None:
    assert targets.is_permitted(ipaddress.ip_address(address), ()) is permitted


def test_an_operator_can_state_a_network_of_their_own() -> None:
    networks = AcmeSettings.from_table({"networks": ["10.20.0.0/16"]}).networks
    assert targets.is_permitted(ipaddress.ip_address("10.20.3.4"), networks)
    assert targets.is_permitted(ipaddress.ip_address("::ffff:10.20.3.4"), networks)
    assert not targets.is_permitted(ipaddress.ip_address("10.21.3.4"), networks)


# Certificates are revoked by who may.


def test_an_account_revokes_its_own_certificate_once(world: AcmeWorld, client: AcmeClient) -> None:
    leaf = leaf_of(client.issue(world.web, NAMES[0])[0])
    payload = {"certificate": b64(leaf.public_bytes(Encoding.DER)), "reason": 1}
    assert client.post("revoke-cert", payload).status_code == 200
    with world.served.authority.ledger.writing() as work:
        assert work.state.serial_standing(Serial(leaf.serial_number)) == "revoked"
    assert kind_of(client.post("revoke-cert", payload)) == "alreadyRevoked"


def test_the_holder_of_the_key_revokes_without_an_account(world: AcmeWorld, client: AcmeClient) -> None:
    order, key = client.order(NAMES[0]).json(), Key()
    client.prove(order, world.web)
    done = client.finalize(order, csr_for(NAMES[0], key=key.private)).json()
    leaf = leaf_of(client.post(done["certificate"], "").content)
    payload = {"certificate": b64(leaf.public_bytes(Encoding.DER))}
    stranger = world.client()
    assert kind_of(stranger.post("revoke-cert", payload, by_key=True)) == "unauthorized"
    assert stranger.post("revoke-cert", payload, by_key=True, key=key).status_code == 200


def test_nobody_revokes_the_certificates_of_others(world: AcmeWorld, client: AcmeClient) -> None:
    leaf = leaf_of(client.issue(world.web, NAMES[0])[0])
    payload = {"certificate": b64(leaf.public_bytes(Encoding.DER))}
    other = world.registered(f"server-{next(_count)}")
    assert (other.post("revoke-cert", payload).status_code) == 403
    operator = x509.load_pem_x509_certificates(world.served.operator.credentials.chain_pem)[0]
    for der, status in (
        (operator.public_bytes(Encoding.DER), 403),
        (world.served.ca.issuer.certificate.public_bytes(Encoding.DER), 404),
        (leaf.public_bytes(Encoding.DER) + b"\x00", 400),
        (b"", 400),
    ):
        assert client.post("revoke-cert", {"certificate": b64(der)}).status_code == status


def test_the_operators_key_does_not_revoke_through_acme(world: AcmeWorld) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    credentials = world.served.operator.credentials
    private = load_pem_private_key(credentials.key_pem, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    der = x509.load_pem_x509_certificates(credentials.chain_pem)[0].public_bytes(Encoding.DER)
    answer = world.client(Key(private)).post("revoke-cert", {"certificate": b64(der)}, by_key=True)
    assert (answer.status_code, kind_of(answer)) == (403, "unauthorized")


def test_a_holder_gives_no_reason_of_a_cas(world: AcmeWorld, client: AcmeClient) -> None:
    leaf = leaf_of(client.issue(world.web, NAMES[0])[0])
    der = b64(leaf.public_bytes(Encoding.DER))
    for reason in (2, 6, 7, 8, 9, 10, -1, "1", True):
        answer = client.post("revoke-cert", {"certificate": der, "reason": reason})
        assert kind_of(answer) == "badRevocationReason", reason


# What becomes of an account.


def test_an_account_changes_its_key_and_the_old_one_is_out(world: AcmeWorld, client: AcmeClient) -> None:
    old, new, url = client.key, Key(), f"{client.base}/key-change"
    payload = {"account": client.kid, "oldKey": old.jwk}

    def inner(key: Key, payload: dict[str, object], **header: object) -> dict[str, str]:
        return jws(key, {"alg": "ES256", "jwk": key.jwk, "url": url, **header}, payload)

    taken = world.registered(f"server-{next(_count)}")
    assert kind_of(client.post(url, inner(new, {**payload, "account": taken.kid}))) == "unauthorized"
    assert kind_of(client.post(url, inner(new, {**payload, "oldKey": new.jwk}))) == "unauthorized"
    assert kind_of(client.post(url, inner(new, payload, url="https://x.example"))) == "malformed"
    assert kind_of(client.post(url, inner(new, payload, nonce="x"))) == "malformed"
    assert kind_of(client.post(url, {**inner(new, payload), "signature": b64(old.sign(b"x"))})) == "malformed"
    conflict = client.post(url, inner(taken.key, payload))
    assert (conflict.status_code, conflict.headers["location"]) == (409, taken.kid)
    assert client.post(url, inner(new, payload)).status_code == 200
    assert kind_of(client.order(NAMES[0])) == "malformed"
    client.key = new
    client.issue(world.web, NAMES[0])


def test_a_deactivated_account_is_out_for_good(world: AcmeWorld, client: AcmeClient) -> None:
    order = client.order(NAMES[0]).json()
    client.prove(order, world.web)
    assert client.post(client.kid or "", {"status": "revoked"}).status_code == 400
    assert client.post(client.kid or "", {"status": "deactivated"}).json()["status"] == "deactivated"
    assert kind_of(client.finalize(order, csr_for(NAMES[0]))) == "unauthorized"
    assert kind_of(client.post("new-account", {}, by_key=True)) == "unauthorized"


def test_contacts_are_mail_addresses(client: AcmeClient) -> None:
    good = client.post(client.kid or "", {"contact": ["mailto:admin@hospitals.example"]})
    assert good.json()["contact"] == ["mailto:admin@hospitals.example"]
    for contact, kind in (
        ("tel:1", "unsupportedContact"),
        ("mailto:a@b?cc=x@y", "invalidContact"),
        ("mailto:x", "invalidContact"),
    ):
        assert kind_of(client.post(client.kid or "", {"contact": [contact]})) == kind


def test_who_is_revoked_gets_nothing_more_and_an_old_account_does_not_come_back(world: AcmeWorld) -> None:
    client = world.registered("leaver")
    order = client.order(NAMES[0]).json()
    client.prove(order, world.web)
    target = RevocationTarget(name=(Role.SERVER, Name("leaver")))
    world.served.operator.client.revoke(target, reason=RevocationReason.KEY_COMPROMISE)
    assert kind_of(client.finalize(order, csr_for(NAMES[0]))) == "unauthorized"
    assert kind_of(client.order(NAMES[0])) == "unauthorized"
    assert kind_of(world.client().register(world.credential("leaver"))) == "unauthorized"
    fresh = world.registered("leaver", replace=True)
    fresh.issue(world.web, NAMES[0])
    assert kind_of(client.finalize(order, csr_for(NAMES[0]))) == "unauthorized"
    assert kind_of(client.order(NAMES[0])) == "unauthorized"


def test_a_revoked_names_waiting_credentials_are_cancelled(world: AcmeWorld) -> None:
    world.registered("waiter")
    waiting = world.credential("waiter", replace=True)
    target = RevocationTarget(name=(Role.SERVER, Name("waiter")))
    world.served.operator.client.revoke(target, reason=RevocationReason.KEY_COMPROMISE)
    assert kind_of(world.client().register(waiting)) == "unauthorized"


def test_a_name_on_hold_waits(world: AcmeWorld) -> None:
    client, target = world.registered("held"), RevocationTarget(name=(Role.SERVER, Name("held")))
    operator = world.served.operator.client
    operator.hold(target, reason=RevocationReason.UNSPECIFIED)
    assert kind_of(client.order(NAMES[0])) == "unauthorized"


def test_no_credential_is_made_for_what_calls_us_or_for_names_that_are_none(world: AcmeWorld) -> None:
    from fltrust.errors import FltrustError

    operator = world.served.operator.client
    for role in (Role.OPERATOR, Role.AGGREGATOR, Role.PARTICIPANT, Role.SIGNER, Role.DEVICE):
        with pytest.raises(FltrustError):
            operator.create_credential(
                MacPurpose.ACME, role, Name("x"), ttl=timedelta(minutes=5), dns_names=NAMES
            )
    for names in (
        ("*.example.org",),
        ("UPPER.example",),
        NAMES * 2,
        tuple(f"n{i}.example" for i in range(17)),
    ):
        with pytest.raises(FltrustError):
            world.credential("x", *names)


# Renewal information.


def test_renewal_information_is_open_and_true(world: AcmeWorld, client: AcmeClient) -> None:
    leaf = leaf_of(client.issue(world.web, NAMES[0])[0])
    url = f"{client.base}/renewal-info/{id_of(leaf)}"
    window = client.http.get(url).json()["suggestedWindow"]
    assert f"{leaf.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}" < window["start"] < window["end"]
    assert window["end"] < f"{leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    assert client.http.get(url).headers["retry-after"] == "21600"
    client.post("revoke-cert", {"certificate": b64(leaf.public_bytes(Encoding.DER))})
    assert (
        client.http.get(url).json()["suggestedWindow"]["end"]
        < f"{world.served.clock.now():%Y-%m-%dT%H:%M:%SZ}"
    )
    operator = x509.load_pem_x509_certificates(world.served.operator.credentials.chain_pem)[0]
    for text in ("x", "x.y", f"{id_of(leaf)}A", f"{id_of(leaf)}.", str(id_of(operator)), "a" * 5000):
        assert client.http.get(f"{client.base}/renewal-info/{text}").status_code == 404, text


def test_a_certificate_is_replaced_by_one_order(world: AcmeWorld, client: AcmeClient) -> None:
    leaf = leaf_of(client.issue(world.web, NAMES[0])[0])
    name = str(id_of(leaf))
    assert kind_of(client.order(NAMES[1], replaces=name)) == "malformed"
    made = client.order(NAMES[0], replaces=name)
    assert (made.status_code, made.json()["replaces"]) == (201, name)
    again = client.order(NAMES[0], replaces=name)
    assert (again.status_code, kind_of(again)) == (409, "alreadyReplaced")
    other = world.registered(f"server-{next(_count)}")
    assert kind_of(other.order(NAMES[0], replaces=name)) == "malformed"

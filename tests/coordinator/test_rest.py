"""REST over real sockets: the same callers, the same session, and refusals in problem details."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_world import DOMAIN, Authorities, ServedWorld, served

from fltrust.client import Credentials
from fltrust.coordinator.permissions import METHODS
from fltrust.coordinator.rest.openapi import document
from fltrust.coordinator.rest.table import ENDPOINTS
from fltrust.coordinator.serving import ServerSettings
from fltrust.enrollment.token import decode_token
from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.keys.file import private_key_from_pem
from fltrust.keys.tls import load_pair
from fltrust.pki.bundle import bundle_to_pem

NAMES = ["model.hospitals.example"]


class Rest:
    """One caller's HTTP client."""

    def __init__(self, world: ServedWorld, credentials: Credentials | None) -> None:
        context = ssl.create_default_context(cadata=bundle_to_pem(world.ca.bundle).decode())
        if credentials is not None:
            load_pair(context, _Signer(credentials.key_pem), credentials.chain_pem)  # type: ignore[arg-type]
        base = f"https://{world.server.services_address}/api/v1"
        self.http = httpx.Client(base_url=base, verify=context, timeout=20)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.http.get(path, **options)

    def post(self, path: str, body: object, **options: Any) -> httpx.Response:
        return self.http.post(path, json=body, **options)


class _Signer:
    """What `load_pair` asks of a signer, of a key that is at hand as PEM."""

    def __init__(self, pem: bytes) -> None:
        self._key = private_key_from_pem(pem, passphrase=None, where=Path("memory"))

    def to_pem(self, passphrase: bytes | None) -> bytes:
        from cryptography.hazmat.primitives import serialization

        encryption = serialization.BestAvailableEncryption(passphrase or b"")
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorld]:
    settings = ServerSettings(
        services="localhost:0", rate=1e4, burst=1e4, services_rate=1e4, services_burst=1e4
    )
    with served(tmp_path_factory.mktemp("rest"), settings=settings) as world:
        yield world


@pytest.fixture
def rest(world: ServedWorld) -> Rest:
    return Rest(world, world.operator.credentials)


def reason_of(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    found = answer.json()
    assert found["status"] == answer.status_code
    return found["type"].removeprefix("urn:fltrust:error:")


def test_every_endpoint_is_a_method_of_the_table_of_callers() -> None:
    assert {endpoint.method for endpoint in ENDPOINTS} <= set(METHODS)
    described = document()["paths"]
    assert {(e.path, e.verb.lower()) for e in ENDPOINTS} == {
        (path, verb) for path, verbs in described.items() for verb in verbs
    }
    for endpoint in ENDPOINTS:
        for role in METHODS[endpoint.method]:
            assert role in described[endpoint.path][endpoint.verb.lower()]["description"]


def _filled(path: str) -> str:
    values = {
        "role": "participant",
        "name": "nobody",
        "run": "1",
        "step": "1",
        "id": "ab",
        "tensors": f"sha256:{'0' * 64}",
    }
    return path.format(**values)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: f"{one.verb} {one.path}")
def test_nobody_calls_without_a_certificate_nor_with_that_of_another_role(
    world: ServedWorld, endpoint: Any
) -> None:
    stranger = Rest(world, None)
    answer = stranger.http.request(endpoint.verb, _filled(endpoint.path), json={})
    assert (answer.status_code, reason_of(answer)) == (401, "unauthenticated")
    for role in (Role.PARTICIPANT, Role.AGGREGATOR, Role.SIGNER, Role.DEVICE):
        if role not in _people:
            _people[role] = world.join(f"rest-{role}", role).credentials
        answer = Rest(world, _people[role]).http.request(endpoint.verb, _filled(endpoint.path), json={})
        if role in METHODS[endpoint.method]:
            assert answer.status_code != 403, answer.text
        else:
            assert (answer.status_code, reason_of(answer)) == (403, "permission-denied")


_people: dict[Role, Credentials] = {}


def test_certificates_of_no_record_of_others_and_of_servers_call_nothing(world: ServedWorld) -> None:
    unknown = world.ca.credentials(SpiffeId.of(DOMAIN, Role.OPERATOR, "ghost"))
    assert Rest(world, unknown).get("/tokens").status_code == 403
    other = Authorities.make(TrustDomain("elsewhere.example"))
    foreign = other.credentials(SpiffeId.of("elsewhere.example", Role.OPERATOR, "root"))
    with pytest.raises(httpx.TransportError):  # the handshake knows no root of theirs
        Rest(world, foreign).get("/tokens")


def test_an_operator_that_is_revoked_is_out_on_the_same_connection(world: ServedWorld, rest: Rest) -> None:
    leaver = world.join("leaver", Role.OPERATOR)
    theirs = Rest(world, leaver.credentials)
    assert theirs.get("/tokens").status_code == 200
    body = {"target": {"role": "operator", "name": "leaver"}, "reason": "key-compromise"}
    done = rest.post("/revocations", body)
    assert (done.status_code, done.json()["events"][0]["kind"]) == (200, "revoked")
    answer = theirs.get("/tokens")
    assert (answer.status_code, reason_of(answer)) == (403, "revoked")


def test_operators_hold_release_and_revoke(world: ServedWorld, rest: Rest) -> None:
    person = world.join("site-held")
    target = {"target": {"role": "participant", "name": "site-held"}}
    assert rest.post("/holds", target).json()["events"][0]["kind"] == "held"
    assert rest.get("/participants/participant/site-held").json()["standing"] == "held"
    assert rest.post("/releases", target).json()["events"][0]["kind"] == "released"
    serial = rest.get("/participants/participant/site-held").json()["certificateSerial"]
    event = rest.post("/revocations", {"target": {"serial": serial}, "reason": "superseded"}).json()["events"]
    assert event[0]["serials"] == [serial]
    assert event[0]["subject"] == str(person.spiffe_id)
    later = {**target, "reason": "key-compromise", "compromisedSince": "2029-12-01T00:00:00Z"}
    assert reason_of(rest.post("/revocations", later)) == "time-in-future"


def test_tokens_and_credentials_are_made_once_and_cancelled(world: ServedWorld, rest: Rest) -> None:
    made = rest.post("/tokens", {"role": "participant", "name": "new-site", "ttl": "900s"})
    assert made.status_code == 201
    assert decode_token(made.json()["token"]).root.hex == made.json()["root"].removeprefix("sha256:")
    listed = rest.get("/tokens").json()["tokens"]
    token = next(one for one in listed if one["name"] == "new-site")
    assert made.json()["token"] not in json.dumps(listed)
    assert rest.http.delete(f"/tokens/{token['id']}").json()["status"] == "cancelled"
    body = {"purpose": "acme", "name": "model", "ttl": "900s", "dnsNames": NAMES}
    credential = rest.post("/credentials", body)
    assert (credential.status_code, len(credential.json()["key"])) == (201, 43)
    found = next(one for one in rest.get("/tokens").json()["tokens"] if one["id"] == credential.json()["id"])
    assert (found["role"], found["dnsNames"]) == ("server", NAMES)


def test_lists_come_in_pages(world: ServedWorld, rest: Rest) -> None:
    for number in range(3):
        world.join(f"page-{number}")
    whole = rest.get("/participants", params={"role": "participant"}).json()["participants"]
    seen: list[str] = []
    query = {"role": "participant", "limit": "2"}
    while True:
        page = rest.get("/participants", params=query).json()
        seen += [one["spiffeId"] for one in page["participants"]]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert seen == [one["spiffeId"] for one in whole]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokens", {"role": "coordinator", "name": "x", "ttl": "900s"}),
        ("/tokens", {"role": "workload", "name": "x", "ttl": "900s"}),
        ("/tokens", {"role": "participant", "name": "X", "ttl": "900s"}),
        ("/tokens", {"role": "participant", "name": "x", "ttl": "604801s"}),
        ("/tokens", {"role": "participant", "name": "x", "ttl": 900}),
        ("/tokens", {"role": "participant", "name": "x", "ttl": "900s", "dnsNames": NAMES}),
        ("/tokens", {"role": "participant", "name": "x", "ttl": "900s", "replace": 1}),
        ("/tokens", {"role": "participant", "name": "x", "ttl": "900s", "replace": None}),
        ("/tokens", {"role": "participant", "name": "x", "ttl": "900s", "admin": True}),
        ("/credentials", {"purpose": "cmp", "name": "x", "ttl": "900s", "dnsNames": NAMES}),
        ("/credentials", {"purpose": "acme", "name": "x", "ttl": "900s", "dnsNames": []}),
        ("/credentials", {"purpose": "acme", "name": "x", "ttl": "900s", "dnsNames": ["*.example"]}),
        ("/revocations", {"target": {}, "reason": "superseded"}),
        ("/revocations", {"target": {"role": "participant"}, "reason": "superseded"}),
        ("/revocations", {"target": {"run": "1", "key": "0" * 64}, "reason": "superseded"}),
        ("/revocations", {"target": {"run": "1"}, "reason": "certificate-hold"}),
        ("/revocations", {"target": {"run": "01"}, "reason": "superseded"}),
        ("/releases", {"target": {"run": "1"}, "reason": "superseded"}),
        ("/requests/ab/approve", {"reason": ""}),
        ("/requests/ab/approve", {"reason": "a\nb"}),
        ("/releases", []),
    ],
)
def test_a_request_says_what_the_document_allows_and_nothing_else(
    rest: Rest, path: str, body: object
) -> None:
    answer = rest.post(path, body)
    assert answer.status_code == 400, answer.text
    reason_of(answer)


def test_bodies_are_json_bounded_and_read_one_way(rest: Rest) -> None:
    def send(data: bytes, kind: str = "application/json") -> httpx.Response:
        return rest.http.post("/releases", content=data, headers={"content-type": kind})

    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        assert (send(b"{}", kind).status_code, reason_of(send(b"{}", kind))) == (
            415,
            "unsupported-media-type",
        )
    assert send(b'{"target":{"run":"1","run":"2"}}').status_code == 400
    assert send(b"[" * 900).status_code == 400
    assert send(b"[" * 10_000).status_code == 413
    assert send(b"\xff\xfe").status_code == 400
    assert send(b" " * 70_000).status_code == 413
    assert rest.http.request("GET", "/tokens", json={"a": 1}).status_code == 400


def test_what_is_not_there_says_so_in_problem_details(rest: Rest) -> None:
    for path in ("/nothing", "/tokens/", "/tokens/ab/cd", "/participants/participant/a%2Fb"):
        assert reason_of(rest.get(path)) == "not-found", path
    answer = rest.http.put("/tokens", json={})
    assert (answer.status_code, reason_of(answer)) == (405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, POST"
    for query in ("?limit=0", "?limit=501", "?limit=1&limit=2", "?admin=1", "?limit=%00", "?limit=1.0"):
        assert rest.get(f"/tokens{query}").status_code == 400, query
    assert rest.get("/participants/coordinator/x").status_code == 400
    assert reason_of(rest.get("/participants/participant/never")) == "not-found"


def test_answers_are_kept_by_no_cache_and_framed_by_no_page(rest: Rest) -> None:
    for answer in (rest.get("/tokens"), rest.get("/nothing"), rest.get("/openapi.json")):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_an_identity_keeps_to_its_rate_whatever_its_address(tmp_path: Path) -> None:
    settings = ServerSettings(
        services="localhost:0", rate=0.001, burst=3, services_rate=1e4, services_burst=1e4
    )
    with served(tmp_path, settings=settings) as slow:
        rest = Rest(slow, slow.operator.credentials)
        statuses = [rest.get("/tokens").status_code for _ in range(5)]
        last = rest.get("/tokens")
    assert statuses == [200, 200, 200, 429, 429]
    assert (reason_of(last), last.headers["retry-after"]) == ("rate-limited", "1")


def test_an_address_keeps_to_its_rate_before_anybody_is_known(tmp_path: Path) -> None:
    settings = ServerSettings(services="localhost:0", services_rate=0.001, services_burst=3)
    with served(tmp_path, settings=settings) as slow:
        stranger = Rest(slow, None)
        statuses = [stranger.get("/openapi.json").status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]

"""Rules of evidence in coordinator.toml, and the keys of issuers that they need."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.coordinator.evidence_settings import EvidenceSettings, x509_rule
from fltrust.coordinator.folder import CoordinatorSettings
from fltrust.coordinator.jwks import MAX_AGE, MIN_INTERVAL, JwksKeeper, check_url, fetch_jwks
from fltrust.coordinator.protocol_settings import ProtocolSettings
from fltrust.enrollment.jwt import JwsAlgorithm, SignedToken
from fltrust.enrollment.oidc import OidcRule
from fltrust.errors import Malformed, Oversized, Unavailable
from fltrust.identity import TrustDomain
from fltrust.strictbase64 import to_base64url
from fltrust.testing.clock import FakeClock
from fltrust.testing.identities import ScratchCa

RULE = {
    "issuer": "https://issuer.example",
    "audience": "fltrust:hospitals.example",
    "jwks": "https://issuer.example/jwks",
    "role": "device",
    "claim": "sub",
    "pattern": "(?P<name>[a-z]+)",
}


def oidc(**changed: Any) -> OidcRule:
    table = {key: value for key, value in {**RULE, **changed}.items() if value is not None}
    return EvidenceSettings.from_table({"oidc": [table]}).oidc[0]


def test_a_rule_is_read_and_its_defaults_are_the_careful_ones() -> None:
    rule = oidc()
    assert rule.algorithms == {JwsAlgorithm.RS256, JwsAlgorithm.ES256}
    assert rule.max_age == timedelta(hours=1)


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": None},
        {"audience": ""},
        {"role": "operator"},
        {"role": "coordinator"},
        {"role": "server"},
        {"role": "workload"},
        {"role": "king"},
        {"pattern": "[a-z]+"},
        {"pattern": "(?P<name>a)(?P<other>b)"},
        {"pattern": "(?P<name>a)(b)"},
        {"pattern": "("},
        {"pattern": "(?P<name>" + "a" * 300 + ")"},
        {"algorithms": ["none"]},
        {"algorithms": ["HS256"]},
        {"algorithms": []},
        {"require": {"ref": 7}},
        {"max-age": 0},
        {"max-age": True},
        {"jwks": "http://issuer.example/jwks"},
        {"jwks": "file:///etc/passwd"},
        {"discovery": "https://issuer.example"},
    ],
)
def test_a_rule_that_says_too_much_or_too_little_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        oidc(**changed)


def test_an_x509_rule_names_its_field_and_a_file_of_roots(tmp_path: Path) -> None:
    table = {"roots": "ca.pem", "role": "device", "field": "subject-cn", "pattern": "(?P<name>[a-z]+)"}
    (found,) = EvidenceSettings.from_table({"x509": [table]}).x509
    with pytest.raises(Malformed):
        x509_rule(found, tmp_path)
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(Malformed):
        x509_rule(found, tmp_path)
    for changed in ({"field": "subject-ou"}, {"role": "operator"}, {"pattern": "x"}, {"more": "x"}):
        with pytest.raises(Malformed):
            EvidenceSettings.from_table({"x509": [{**table, **changed}]})


def test_cmp_and_scep_are_off_and_their_risks_stand_beside_the_switch() -> None:
    settings = CoordinatorSettings(domain="hospitals.example", bootstrap="a:1", address="a:2")  # type: ignore[arg-type]
    text = settings.to_toml()
    assert settings.protocols == ProtocolSettings(cmp=False, scep=False)
    for protocol in ("cmp", "scep", "scep-legacy"):
        before, _, _ = text.partition(f"{protocol} = false")
        assert before.rstrip().splitlines()[-1].startswith("# ")
    on = CoordinatorSettings.from_toml(text.replace("cmp = false", "cmp = true"))
    assert on.protocols.cmp
    assert not on.protocols.scep
    for table in ({"cmc": True}, {"cmp": "yes"}, {"cmp": 1}, [True], {"scep_legacy": True}):
        with pytest.raises(Malformed):
            ProtocolSettings.from_table(table)


def test_scep_in_des_needs_two_switches_and_its_risks_are_said() -> None:
    for table in ({"scep-legacy": True}, {"scep-legacy": True, "scep": False}):
        with pytest.raises(Malformed, match="scep = true"):
            ProtocolSettings.from_table(table)
    assert not ProtocolSettings.from_table({"scep": True}).scep_legacy
    settings = CoordinatorSettings(domain="hospitals.example", bootstrap="a:1", address="a:2")  # type: ignore[arg-type]
    text = settings.to_toml().replace("scep = false", "scep = true")
    read = CoordinatorSettings.from_toml(text.replace("scep-legacy = false", "scep-legacy = true"))
    assert read.protocols == ProtocolSettings(scep=True, scep_legacy=True)
    assert CoordinatorSettings.from_toml(read.to_toml()) == read
    assert "breaks 56-bit DES" in text
    assert "tokens that live for minutes" in text


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/",
        "https://",
        "https://u:p@issuer.example/",
        "ftp://issuer.example/",
        "https://a/#b",
    ],
)
def test_keys_are_fetched_over_https_alone(url: str) -> None:
    with pytest.raises(Malformed):
        check_url(url)


class Issuer:
    """Serves a set of keys on loopback, which may be plain HTTP."""

    def __init__(self) -> None:
        self.kid, self.status, self.asked, self.body = "one", 200, 0, b""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                body = outer.body or outer.jwks()
                self.send_response(outer.status)
                if outer.status == 302:
                    self.send_header("location", "https://issuer.example/")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/jwks"

    def jwks(self) -> bytes:
        point = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
        x, y = (to_base64url(value.to_bytes(32, "big")) for value in (point.x, point.y))
        return json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "kid": self.kid, "x": x, "y": y}]}).encode()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.server.shutdown()
    made.server.server_close()


class Rotating:
    """A keeper whose fetches are waited for, and a clock that we turn."""

    def __init__(self, issuer: Issuer) -> None:
        self.clock = FakeClock()
        self.fetched = threading.Semaphore(0)
        self.rule = oidc(jwks=issuer.url)
        self.keeper = JwksKeeper(self.clock, fetch=self._fetch)

    def _fetch(self, url: str, ca_file: str | None) -> bytes:
        try:
            return fetch_jwks(url, ca_file)
        finally:
            self.fetched.release()

    def knows(self, kid: str) -> bool:
        try:
            self.keeper.keys_of(self.rule, SignedToken(JwsAlgorithm.ES256, kid, b"", b"", b""))
        except Unavailable as error:
            return error.reason != "issuer-keys"
        return True

    def settle(self) -> None:
        """Wait for the fetch that was just begun to be taken in."""
        assert self.fetched.acquire(timeout=10)
        for thread in threading.enumerate():
            if thread.name == "jwks":
                thread.join(10)


def test_a_key_that_is_not_known_is_asked_for_and_nobody_waits(issuer: Issuer) -> None:
    world = Rotating(issuer)
    assert not world.knows("one")
    world.settle()
    assert world.knows("one")
    assert issuer.asked == 1


def test_a_rotated_key_is_learned_and_unknown_keys_do_not_make_us_ask_at_every_token(issuer: Issuer) -> None:
    world = Rotating(issuer)
    world.keeper.warm([world.rule])
    world.settle()
    issuer.kid = "two"
    for kid in ("two", "three", "four", "two"):
        assert not world.knows(kid)
    assert issuer.asked == 1
    world.clock.advance(MIN_INTERVAL)
    assert not world.knows("two")
    world.settle()
    assert world.knows("two")
    assert not world.knows("one")


def test_keys_are_used_while_the_issuer_is_away_but_not_for_good(issuer: Issuer) -> None:
    world = Rotating(issuer)
    world.keeper.warm([world.rule])
    world.settle()
    issuer.status = 500
    world.clock.advance(timedelta(minutes=30))
    assert world.knows("one")
    world.settle()
    assert world.knows("one")
    world.clock.advance(MAX_AGE)
    assert not world.knows("one")


def test_a_redirect_is_not_followed_and_too_much_is_not_read(issuer: Issuer) -> None:
    issuer.status = 302
    with pytest.raises(Unavailable):
        fetch_jwks(issuer.url, None)
    issuer.status, issuer.body = 200, b" " * 300_000
    with pytest.raises(Oversized):
        fetch_jwks(issuer.url, None)


def test_the_ca_file_of_an_issuer_lies_beside_the_settings_and_is_looked_at_at_the_start(
    tmp_path: Path, issuer: Issuer
) -> None:
    settings = EvidenceSettings(oidc=(oidc(jwks=issuer.url, **{"ca-file": "idp-ca.pem"}),))
    for text in (None, "no certificate"):
        if text is not None:
            (tmp_path / "idp-ca.pem").write_text(text)
        with pytest.raises(Malformed, match=r"idp-ca\.pem"):
            settings.checkers(tmp_path, TrustDomain("hospitals.example"), clock=FakeClock())
    issuing = ScratchCa.make().issuer.certificate
    (tmp_path / "idp-ca.pem").write_bytes(issuing.public_bytes(Encoding.PEM))
    assert settings.checkers(tmp_path, TrustDomain("hospitals.example"), clock=FakeClock())

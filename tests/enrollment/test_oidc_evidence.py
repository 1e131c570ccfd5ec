"""Tokens of OpenID Connect issuers: what earns a name, and everything that does not."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from fltrust.enrollment.jwt import IssuerKey, JwsAlgorithm, SignedToken, key_for, read_jwks
from fltrust.enrollment.oidc import OidcChecker, OidcEvidence, OidcRule, VerifiedToken
from fltrust.enrollment.types import EnrollRequest
from fltrust.errors import EvidenceRefused, FltrustError, Malformed, Oversized, SignatureInvalid
from fltrust.identity import Role

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
RSA_KEY = rsa.generate_private_key(65_537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
HS_HEADER = b'{"alg":"HS256","kid":"r"}'
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def jwks(*more: dict[str, Any]) -> bytes:
    public, point = RSA_KEY.public_key().public_numbers(), EC_KEY.public_key().public_numbers()
    ed = ED_KEY.public_key().public_bytes_raw()
    keys = [
        {"kty": "RSA", "kid": "r", "alg": "RS256", "use": "sig", "n": number(public.n), "e": "AQAB"},
        {"kty": "EC", "kid": "e", "crv": "P-256", "x": number(point.x), "y": number(point.y)},
        {"kty": "OKP", "kid": "d", "crv": "Ed25519", "x": b64(ed)},
        *more,
    ]
    return json.dumps({"keys": keys}).encode()


def claims(**changed: Any) -> dict[str, Any]:
    made = {
        "iss": "https://issuer.example",
        "aud": "fltrust:hospitals.example",
        "sub": "job-7",
        "repository": "hospitals/scanner-3",
        "ref": "refs/heads/main",
        "iat": int(NOW.timestamp()) - 5,
        "exp": int(NOW.timestamp()) + 300,
        "jti": "one",
        **changed,
    }
    return {name: value for name, value in made.items() if value is not None}


def token(said: Mapping[str, Any] | None = None, header: Mapping[str, Any] | None = None) -> str:
    head = {"alg": "RS256", "kid": "r", **(header or {})}
    head = {name: value for name, value in head.items() if value is not None}
    parts = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(said or claims()).encode())}"
    data = parts.encode()
    match head["alg"]:
        case "ES256":
            r, s = decode_dss_signature(EC_KEY.sign(data, ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        case "EdDSA":
            signature = ED_KEY.sign(data)
        case "PS256":
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
            signature = RSA_KEY.sign(data, pss, hashes.SHA256())
        case _:
            signature = RSA_KEY.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return f"{parts}.{b64(signature)}"


class FixedKeys:
    def __init__(self, data: bytes | None = None) -> None:
        self.keys = read_jwks(data or jwks())

    def keys_of(self, rule: OidcRule, token: SignedToken) -> Sequence[IssuerKey]:
        del rule, token
        return self.keys


class Spent:
    """The one method of the store that is asked."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()

    def spend_once(self, kind: str, digest: bytes, *, now: datetime) -> bool:
        del kind, now
        fresh = digest not in self.seen
        self.seen.add(digest)
        return fresh


def rule(**changed: Any) -> OidcRule:
    given: dict[str, Any] = {
        "issuer": "https://issuer.example",
        "audience": "fltrust:hospitals.example",
        "jwks": "https://issuer.example/jwks",
        "role": Role.DEVICE,
        "claim": "repository",
        "pattern": re.compile(r"hospitals/(?P<name>[a-z0-9-]+)"),
        "require": {"ref": "refs/heads/main"},
        **changed,
    }
    return OidcRule(**given)


def examine(text: str, *rules: OidcRule, at: datetime = NOW, keys: FixedKeys | None = None) -> VerifiedToken:
    checker = OidcChecker(rules or (rule(),), keys or FixedKeys())
    found = checker.examine(EnrollRequest(OidcEvidence(text), b"csr"), now=at)
    assert isinstance(found, VerifiedToken)
    return found


def refused(text: str, *rules: OidcRule, at: datetime = NOW) -> FltrustError:
    with pytest.raises(FltrustError) as caught:
        examine(text, *rules, at=at)
    assert text not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(("algorithm", "kid"), [("RS256", "r"), ("ES256", "e"), ("EdDSA", "d")])
def test_a_token_earns_the_name_that_the_rule_says(algorithm: str, kid: str) -> None:
    allowed = rule(algorithms=frozenset(JwsAlgorithm))
    found = examine(token(header={"alg": algorithm, "kid": kid}), allowed)
    assert (found.approval.role, found.approval.name) == (Role.DEVICE, "scanner-3")
    assert found.approval.claims["repository"] == "hospitals/scanner-3"
    assert not found.approval.replace
    assert not found.approval.dns_names


def test_a_token_is_spent_once_and_another_signature_over_it_is_the_same_token() -> None:
    checker, spent = OidcChecker((rule(algorithms=frozenset(JwsAlgorithm)),), FixedKeys()), Spent()
    for jti in ("one", None):
        said = claims(jti=jti)
        first, again = (
            examine(token(said, {"alg": "ES256", "kid": "e"}), rule(algorithms=frozenset(JwsAlgorithm)))
            for _ in range(2)
        )
        assert checker.approve(first, tokens=spent, now=NOW).name == "scanner-3"  # type: ignore[arg-type]
        with pytest.raises(EvidenceRefused) as caught:
            checker.approve(again, tokens=spent, now=NOW)  # type: ignore[arg-type]
        assert caught.value.reason == "token-used"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"iss": "https://evil.example"}, "issuer-unknown"),
        ({"iss": None}, "issuer-unknown"),
        ({"aud": "somebody else"}, "token-audience"),
        ({"aud": ["fltrust:hospitals.example", "somebody else"]}, "token-audience"),
        ({"aud": None}, "token-audience"),
        ({"exp": int(NOW.timestamp()) - 31}, "token-expired"),
        ({"exp": None}, "token-times"),
        ({"exp": "tomorrow"}, "token-times"),
        ({"exp": True}, "token-times"),
        ({"iat": None}, "token-times"),
        ({"iat": int(NOW.timestamp()) - 3_700}, "token-expired"),
        ({"iat": int(NOW.timestamp()) + 60}, "token-not-yet-valid"),
        ({"nbf": int(NOW.timestamp()) + 60}, "token-not-yet-valid"),
        ({"ref": "refs/heads/evil"}, "no-rule"),
        ({"ref": None}, "no-rule"),
        ({"repository": "strangers/scanner-3"}, "no-rule"),
        ({"repository": "hospitals/scanner-3\n"}, "no-rule"),
        ({"repository": ["hospitals/scanner-3"]}, "no-rule"),
        ({"repository": "hospitals/" + "a" * 600}, "no-rule"),
        ({"repository": None}, "no-rule"),
    ],
)
def test_a_claim_that_is_not_the_rules_earns_nothing(changed: dict[str, Any], reason: str) -> None:
    assert refused(token(claims(**changed))).reason == reason


def test_a_list_with_our_audience_alone_is_our_audience() -> None:
    assert examine(token(claims(aud=["fltrust:hospitals.example"]))).approval.name == "scanner-3"


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS1", "ES384", "", "rs256"])
def test_an_algorithm_that_is_not_known_is_refused_whatever_signed(algorithm: str) -> None:
    assert isinstance(refused(token(header={"alg": algorithm})), Malformed)


def test_an_algorithm_that_the_rule_does_not_allow_is_refused() -> None:
    narrow = rule(algorithms=frozenset({JwsAlgorithm.ES256}))
    assert refused(token(), narrow).reason == "token-algorithm"


def test_a_key_of_one_kind_does_not_verify_as_another() -> None:
    allowed = rule(algorithms=frozenset(JwsAlgorithm))
    assert isinstance(refused(token(header={"alg": "ES256", "kid": "r"}), allowed), SignatureInvalid)
    # The key says RS256 of itself, so PS256 with it is refused, too.
    assert isinstance(refused(token(header={"alg": "PS256", "kid": "r"}), allowed), SignatureInvalid)


def test_the_public_key_as_a_mac_key_opens_nothing() -> None:
    public = RSA_KEY.public_key().public_numbers()
    parts = f"{b64(HS_HEADER)}.{b64(json.dumps(claims()).encode())}"
    mac = hmac.HMAC(number(public.n).encode(), hashes.SHA256())
    mac.update(parts.encode())
    assert isinstance(refused(f"{parts}.{b64(mac.finalize())}"), Malformed)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_token_that_was_touched_anywhere_is_refused(part: int) -> None:
    parts = token().split(".")
    middle = len(parts[part]) // 2
    swapped = "A" if parts[part][middle] != "A" else "B"
    parts[part] = parts[part][:middle] + swapped + parts[part][middle + 1 :]
    refused(".".join(parts))


@pytest.mark.parametrize(
    "text",
    ["", "a.b", "a.b.c.d", "a.b.c", "..", f"{'a' * 20_000}.b.c", "é.b.c", token() + "=", token() + "\n"],
)
def test_what_is_no_token_is_refused_within_bounds(text: str) -> None:
    with pytest.raises((Malformed, Oversized)):
        examine(text)


@pytest.mark.parametrize("header", [{"crit": ["x"]}, {"b64": False}, {"typ": "dpop+jwt"}, {"kid": 7}])
def test_a_header_that_asks_for_more_is_refused(header: dict[str, Any]) -> None:
    assert isinstance(refused(token(header=header)), Malformed)


def test_a_claim_that_stands_twice_is_refused() -> None:
    text = json.dumps(claims()).replace('"iss"', '"iss": "https://evil.example", "iss"', 1)
    head = b64(b'{"alg":"RS256","kid":"r"}')
    data = f"{head}.{b64(text.encode())}"
    signature = RSA_KEY.sign(data.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert isinstance(refused(f"{data}.{b64(signature)}"), Malformed)


def test_the_second_rule_of_an_issuer_may_fit_where_the_first_does_not() -> None:
    other = rule(pattern=re.compile("labs/(?P<name>[a-z]+)"), role=Role.SIGNER)
    assert examine(token(), other, rule()).approval.role is Role.DEVICE


def test_what_a_pattern_finds_must_be_a_name() -> None:
    loose = rule(pattern=re.compile("hospitals/(?P<name>.*)"))
    with pytest.raises(Malformed):
        examine(token(claims(repository="hospitals/../operator")), loose)


@pytest.mark.parametrize(
    "extra",
    [
        {"kty": "oct", "kid": "m", "k": "AAAA"},
        {
            "kty": "RSA",
            "kid": "short",
            "n": number(RSA_KEY.public_key().public_numbers().n >> 1100),
            "e": "AQAB",
        },
        {"kty": "RSA", "kid": "e3", "n": number(RSA_KEY.public_key().public_numbers().n), "e": "Aw"},
        {"kty": "EC", "kid": "off", "crv": "P-256", "x": "AQ", "y": "AQ"},
        {"kty": "RSA", "kid": "enc", "use": "enc", "n": "AQAB", "e": "AQAB"},
        {"kty": 7},
    ],
)
def test_keys_that_are_not_for_signing_here_are_passed_over(extra: dict[str, Any]) -> None:
    assert {key.kid for key in read_jwks(jwks(extra))} == {"r", "e", "d"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": []}',
        b'{"keys": 7}',
        jwks({"kty": "OKP", "kid": "d", "crv": "Ed25519", "x": b64(bytes(32))}),
    ],
)
def test_a_key_set_that_is_none_or_ambiguous_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_jwks(data)


def test_a_token_without_a_key_id_is_verified_by_the_only_fitting_key_or_by_none() -> None:
    assert examine(token(header={"kid": None})).approval.name == "scanner-3"
    two = read_jwks(
        jwks({"kty": "RSA", "kid": "r2", "n": number(RSA_KEY.public_key().public_numbers().n), "e": "AQAB"})
    )
    unnamed = SignedToken(JwsAlgorithm.RS256, None, b"", b"", b"")
    assert key_for(unnamed, two) is None


def test_neither_evidence_nor_refusal_shows_the_token() -> None:
    assert token() not in repr(OidcEvidence(token()))


def test_a_rule_bounds_how_old_a_token_may_be() -> None:
    young = rule(max_age=timedelta(seconds=60))
    assert refused(token(claims(iat=int(NOW.timestamp()) - 120)), young).reason == "token-expired"

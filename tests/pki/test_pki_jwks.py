"""A trust bundle as SPIFFE publishes it, read strictly."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.errors import InvalidInput, Malformed, Oversized
from fltrust.identity import TrustDomain
from fltrust.pki import make_bundle
from fltrust.pki.jwks import DEFAULT_REFRESH, MAX_REFRESH, MIN_REFRESH, bundle_from_jwks, publish
from fltrust.testing.identities import ScratchCa

CLINIC = TrustDomain("clinic.example")
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(publish(ScratchCa.make(CLINIC).bundle, refresh=timedelta(seconds=60)))
    return found


def _read(document: object) -> object:
    return bundle_from_jwks(json.dumps(document).encode(), domain=CLINIC)


def test_what_is_published_is_read_back() -> None:
    roots = [ScratchCa.make(CLINIC).bundle.roots[0] for _ in range(3)]
    bundle = make_bundle(CLINIC, roots, sequence=7)
    found = bundle_from_jwks(publish(bundle, refresh=timedelta(minutes=2)), domain=CLINIC)
    assert (found.bundle, found.refresh) == (bundle, timedelta(minutes=2))


def test_keys_for_jwts_and_for_what_is_to_come_are_passed_over(document: dict[str, Any]) -> None:
    others = [{"use": "jwt-svid", "kty": "EC", "kid": "x"}, {"use": "wit-svid"}, {}]
    assert _read(document | {"keys": [*others, *document["keys"]]}) == _read(document)
    assert _read(document | {"something_new": {"a": 1}}) == _read(document)


def _key(**changes: object) -> Change:
    return lambda d: d | {"keys": [d["keys"][0] | changes]}


@pytest.mark.parametrize(
    "change",
    [
        lambda d: [d],
        lambda d: {k: v for k, v in d.items() if k != "keys"},
        lambda d: d | {"keys": []},
        lambda d: d | {"keys": {}},
        lambda d: d | {"keys": ["x"]},
        lambda d: d | {"keys": d["keys"] * 2},
        lambda d: d | {"keys": d["keys"] * 65},
        lambda d: d | {"keys": [d["keys"][0] | {"use": "sig"}]},
        lambda d: {k: v for k, v in d.items() if k != "spiffe_sequence"},
        lambda d: d | {"spiffe_sequence": -1},
        lambda d: d | {"spiffe_sequence": "1"},
        lambda d: d | {"spiffe_sequence": True},
        lambda d: d | {"spiffe_sequence": 1.5},
        lambda d: d | {"spiffe_sequence": 2**63},
        _key(x5c=[]),
        _key(x5c="x"),
        _key(x5c=[1]),
        _key(x5c=["!"]),
        _key(x5c=[base64.b64encode(b"\x30\x00").decode()]),
        lambda d: d | {"keys": [d["keys"][0] | {"x5c": d["keys"][0]["x5c"] * 2}]},
        _key(kty="RSA"),
        _key(kty="OKP"),
        _key(crv="P-384"),
        _key(crv=None),
        _key(x="AAAA"),
        _key(y=None),
        _key(x="!!"),
        _key(x="A" * 3000),
    ],
)
def test_any_other_document_is_refused(document: dict[str, Any], change: Change) -> None:
    with pytest.raises(InvalidInput):
        _read(change(document))


def test_a_key_that_is_not_its_certificate_s_is_refused(document: dict[str, Any]) -> None:
    other = json.loads(publish(ScratchCa.make(CLINIC).bundle, refresh=timedelta(1)))["keys"][0]
    mixed = document["keys"][0] | {"x": other["x"], "y": other["y"]}
    with pytest.raises(Malformed, match="another key"):
        _read(document | {"keys": [mixed]})


def test_a_certificate_that_is_no_ca_s_is_no_authority(document: dict[str, Any]) -> None:
    leaf = ScratchCa.make(CLINIC)
    from fltrust.testing import scratch_identity

    certificate = scratch_identity("x", ca=leaf).credentials.certificate.leaf
    numbers = certificate.public_key().public_numbers()  # type: ignore[union-attr]

    def text(value: int) -> str:
        return base64.urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()

    key = {
        "use": "x509-svid",
        "kty": "EC",
        "crv": "P-256",
        "x": text(numbers.x),  # type: ignore[union-attr]
        "y": text(numbers.y),  # type: ignore[union-attr]
        "x5c": [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()],
    }
    with pytest.raises(Malformed, match="CA certificates"):
        _read(document | {"keys": [key]})


@pytest.mark.parametrize(
    "data", [b"", b"{", b"null", b"\xff", b'{"keys":[],"keys":[]}', b"[" * 100_000, b'{"a":NaN}']
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        bundle_from_jwks(data, domain=CLINIC)


def test_what_is_too_large_is_refused_unread() -> None:
    with pytest.raises(Oversized):
        bundle_from_jwks(b" " * 300_000, domain=CLINIC)
    with pytest.raises(Oversized):
        bundle_from_jwks(b'{"a":[' + b"1," * 5_000 + b"1]}", domain=CLINIC)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (60, timedelta(seconds=60)),
        (1, MIN_REFRESH),
        (10**9, MAX_REFRESH),
        (10**40, MAX_REFRESH),
        (0, DEFAULT_REFRESH),
        (-5, DEFAULT_REFRESH),
        ("60", DEFAULT_REFRESH),
        (None, DEFAULT_REFRESH),
        (True, DEFAULT_REFRESH),
    ],
)
def test_a_hint_makes_nobody_ask_all_the_time_or_never(
    document: dict[str, Any], hint: object, expected: timedelta
) -> None:
    found = bundle_from_jwks(json.dumps(document | {"spiffe_refresh_hint": hint}).encode(), domain=CLINIC)
    assert found.refresh == expected


def test_an_rsa_authority_of_another_implementation_is_read() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    now = datetime(2026, 3, 1, tzinfo=UTC)
    root = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    numbers = key.public_key().public_numbers()

    def text(value: int, size: int) -> str:
        return base64.urlsafe_b64encode(value.to_bytes(size, "big")).rstrip(b"=").decode()

    jwk = {
        "use": "x509-svid",
        "kty": "RSA",
        "n": text(numbers.n, 256),
        "e": text(numbers.e, 3),
        "x5c": [base64.b64encode(root.public_bytes(Encoding.DER)).decode()],
    }
    document = {"keys": [jwk], "spiffe_sequence": 3}
    found = bundle_from_jwks(json.dumps(document).encode(), domain=CLINIC)
    assert (found.bundle.roots, found.bundle.sequence) == ((root,), 3)

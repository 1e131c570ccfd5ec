"""Joining with somebody else's token or certificate, over the network, as `fltrust join` does."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from server_world import DOMAIN, ServedWorld, served

from fltrust.agent.evidence import certificate_prover, introduction, oidc_prover
from fltrust.agent.join import join
from fltrust.enrollment.jwt import IssuerKey, JwsAlgorithm, SignedToken
from fltrust.enrollment.oidc import OidcChecker, OidcRule
from fltrust.enrollment.x509_evidence import CertificateField, X509Checker, X509Rule
from fltrust.errors import EvidenceRefused, Unavailable
from fltrust.identity import Role
from fltrust.pki.bundle import bundle_to_pem
from fltrust.strictbase64 import to_base64url

ISSUER = rsa.generate_private_key(65_537, 2048)
CORPORATE = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Corporate")])


class SlowKeys:
    """An issuer whose keys are known from the second question on."""

    def __init__(self) -> None:
        self.asked = 0

    def keys_of(self, rule: OidcRule, token: SignedToken) -> Sequence[IssuerKey]:
        del rule, token
        self.asked += 1
        if self.asked == 1:
            raise Unavailable("being asked for", reason="issuer-keys")
        return (IssuerKey("k", frozenset({JwsAlgorithm.RS256}), ISSUER.public_key()),)


def corporate(subject: str, key: ec.EllipticCurvePublicKey, *, is_ca: bool = False) -> x509.Certificate:
    now = datetime.now(UTC)
    usage = x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(NAME if is_ca else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(NAME)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(CORPORATE.public_key()), critical=False
        )
    )
    if not is_ca:
        client = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(client, critical=False)
    return builder.sign(CORPORATE, SHA256())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorld]:
    pattern = re.compile("(?P<name>site-[a-z]+)")
    oidc = OidcRule(
        issuer="https://issuer.example",
        audience="fltrust:hospitals.example",
        jwks="https://issuer.example/jwks",
        role=Role.PARTICIPANT,
        claim="sub",
        pattern=pattern,
        require={},
    )
    root = corporate("", CORPORATE.public_key(), is_ca=True)
    chain = X509Rule(roots=(root,), role=Role.SIGNER, field=CertificateField.COMMON_NAME, pattern=pattern)
    checkers = (OidcChecker((oidc,), SlowKeys()), X509Checker((chain,), DOMAIN))
    with served(tmp_path_factory.mktemp("evidence"), checkers=checkers) as world:
        yield world


@pytest.fixture
def root(world: ServedWorld, tmp_path: Path) -> Path:
    path = tmp_path / "root.pem"
    path.write_bytes(bundle_to_pem(world.ca.bundle))
    return path


def token(subject: str) -> str:
    now = int(time.time())
    said = {"iss": "https://issuer.example", "aud": "fltrust:hospitals.example", "sub": subject}
    parts = ({"alg": "RS256", "kid": "k"}, {**said, "iat": now, "exp": now + 300})
    data = ".".join(to_base64url(json.dumps(part).encode()) for part in parts)
    return f"{data}.{to_base64url(ISSUER.sign(data.encode(), padding.PKCS1v15(), SHA256()))}"


def test_a_site_joins_with_a_token_once_and_waits_for_its_issuers_keys(
    world: ServedWorld, root: Path, tmp_path: Path
) -> None:
    shown, where = tmp_path / "token", introduction(world.bootstrap, world.address, root)
    shown.write_text(token("site-a") + "\n")
    state = join(where, home=tmp_path / "home", prove=oidc_prover(shown))
    assert str(state.spiffe_id) == "spiffe://hospitals.example/participant/site-a"
    assert state.record.node_key is not None
    with pytest.raises(EvidenceRefused) as caught:
        join(where, home=tmp_path / "other", prove=oidc_prover(shown))
    assert caught.value.reason == "token-used"
    record = world.authority.enrollment(state.spiffe_id)
    assert record.evidence == "oidc"


def test_a_site_joins_with_a_certificate_of_another_ca_whose_key_it_has(
    world: ServedWorld, root: Path, tmp_path: Path
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    chain, key_path = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(corporate("site-b", key.public_key()).public_bytes(Encoding.PEM))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key_path.chmod(0o600)
    where = introduction(world.bootstrap, world.address, root)
    state = join(where, home=tmp_path / "home", prove=certificate_prover(chain, key_path))
    assert str(state.spiffe_id) == "spiffe://hospitals.example/signer/site-b"
    assert world.authority.enrollment(state.spiffe_id).evidence == "x509"

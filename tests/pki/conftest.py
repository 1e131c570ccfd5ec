"""A CA for each test session, and a forge that makes any certificate, however wrong, under it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.keys import FileSigner, generate
from fltrust.pki import Draft, Issuer, TrustBundle, create_issuing, create_root, make_bundle
from fltrust.pki.leaf import expected_names, subject_key_identifier
from fltrust.pki.profiles import LEAF_PROFILES
from fltrust.pki.signing import SignerKey
from fltrust.testing.identities import given_names

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DOMAIN = TrustDomain("hospitals.example")


@dataclass(frozen=True)
class Authority:
    domain: TrustDomain
    root: x509.Certificate
    root_signer: FileSigner
    issuer: Issuer
    issuing_signer: FileSigner
    now: datetime = NOW
    bundle: TrustBundle = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bundle", make_bundle(self.domain, [self.root]))

    def id(self, role: Role = Role.PARTICIPANT, name: str = "site-a") -> SpiffeId:
        return SpiffeId.of(self.domain, role, None if role is Role.COORDINATOR else name)

    def issue(
        self, role: Role = Role.PARTICIPANT, name: str = "site-a", *, lifetime: timedelta | None = None
    ) -> list[x509.Certificate]:
        draft = Draft.of(
            self.id(role, name),
            generate().public_key,
            now=self.now,
            lifetime=lifetime,
            dns_names=given_names(role),
        )
        return [self.issuer.redeem(draft), self.issuer.certificate]

    def forge(
        self,
        spiffe_id: SpiffeId | None = None,
        *,
        public_key: Any = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        extensions: dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool] | None] | None = None,
        algorithm: hashes.HashAlgorithm | None = None,
    ) -> list[x509.Certificate]:
        """Sign, with the issuing key, what the issuer itself would refuse; None drops an extension."""
        who = spiffe_id or self.id()
        key = public_key or generate().public_key
        profile = LEAF_PROFILES[who.role]
        wanted: dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool] | None] = {
            x509.BasicConstraints: (x509.BasicConstraints(ca=False, path_length=None), True),
            x509.KeyUsage: (profile.key_usage, True),
            x509.ExtendedKeyUsage: (x509.ExtendedKeyUsage(list(profile.extended_key_usage)), False),
            x509.SubjectAlternativeName: (
                x509.SubjectAlternativeName(expected_names(who, given_names(who.role))),
                True,
            ),
            x509.AuthorityKeyIdentifier: (
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                    subject_key_identifier(self.issuing_signer.public_key)
                ),
                False,
            ),
            **(extensions or {}),
        }
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.issuer.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before or self.now - timedelta(minutes=1))
            .not_valid_after(not_after or self.now + timedelta(hours=1))
        )
        for extension in wanted.values():
            if extension is not None:
                builder = builder.add_extension(extension[0], critical=extension[1])
        if algorithm is not None:
            raw = ec.derive_private_key(_secret(self.issuing_signer), ec.SECP256R1())
            return [builder.sign(raw, algorithm), self.issuer.certificate]
        return [builder.sign(SignerKey(self.issuing_signer), hashes.SHA256()), self.issuer.certificate]


def _secret(signer: FileSigner) -> int:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(signer.to_pem(None), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.private_numbers().private_value


def make_authority(domain: str = DOMAIN, now: datetime = NOW) -> Authority:
    root_signer, issuing_signer = generate(), generate()
    root = create_root(TrustDomain(domain), signer=root_signer, now=now - timedelta(days=1))
    issuing = create_issuing(
        root=root, root_signer=root_signer, public_key=issuing_signer.public_key, now=now - timedelta(days=1)
    )
    issuer = Issuer(certificate=issuing, signer=issuing_signer)
    return Authority(TrustDomain(domain), root, root_signer, issuer, issuing_signer, now)


@pytest.fixture(scope="session")
def authority() -> Authority:
    return make_authority()


@pytest.fixture(scope="session")
def new_authority() -> Callable[..., Authority]:
    return make_authority

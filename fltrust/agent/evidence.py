"""Evidence that a site shows in place of a join token: a token or a certificate of somebody else's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.enrollment.jwt import MAX_TOKEN
from fltrust.enrollment.oidc import OidcEvidence
from fltrust.enrollment.tpm import TpmEvidence, TpmIntroduction, qualifying_data
from fltrust.enrollment.types import Evidence, Issued, JoinToken
from fltrust.enrollment.x509_evidence import MAX_CHAIN, X509Evidence, x509_challenge
from fltrust.errors import Malformed, Unavailable
from fltrust.files import read_bounded
from fltrust.identity import TrustDomain
from fltrust.keys.file import private_key_from_pem, read_private
from fltrust.keys.tpm_uri import TpmUri
from fltrust.pki.verify import MAX_CERTIFICATE

Prover: TypeAlias = Callable[[bytes, TrustDomain], Evidence]
"""Makes the evidence for one certificate request of one trust domain."""

_HASHES: dict[type[ec.EllipticCurve], HashAlgorithm] = {
    ec.SECP256R1: SHA256(),
    ec.SECP384R1: SHA384(),
    ec.SECP521R1: SHA512(),
}
_ISSUER_TRIES = 5
_ISSUER_SECONDS = 2.0


def introduction(bootstrap: str, address: str, root: Path) -> JoinToken:
    """Where a coordinator is and which root it leads to: what a join token says, without a secret."""
    try:
        certificate = x509.load_pem_x509_certificate(read_bounded(root, limit=4 * MAX_CERTIFICATE))
    except ValueError:
        raise Malformed(f"expected the trust domain's root certificate in PEM in {root}") from None
    return JoinToken(bootstrap, address, certificate.public_bytes(Encoding.DER), b"")


def oidc_prover(path: Path) -> Prover:
    """A token of an OpenID Connect issuer in a file, read when it is needed: some are replaced every hour."""

    def prove(csr_der: bytes, domain: TrustDomain) -> Evidence:
        del csr_der, domain
        return OidcEvidence(read_bounded(path, limit=MAX_TOKEN + 2).decode("ascii", "replace").strip())

    return prove


def certificate_prover(chain_path: Path, key_path: Path) -> Prover:
    """A certificate of another CA with its chain, and its key, both in PEM; the key is the owner's alone
    (0600) and not encrypted."""
    try:
        chain = x509.load_pem_x509_certificates(
            read_bounded(chain_path, limit=2 * MAX_CHAIN * MAX_CERTIFICATE)
        )
    except ValueError:
        raise Malformed(f"expected a chain of certificates in PEM in {chain_path}") from None
    key = private_key_from_pem(read_private(key_path), passphrase=None, where=key_path)

    def prove(csr_der: bytes, domain: TrustDomain) -> Evidence:
        ders = _ders(chain)
        return X509Evidence(ders, _sign(key, x509_challenge(csr_der, ders[0], domain), key_path))

    return prove


def tpm_prover(where: JoinToken, uri: TpmUri, issuers: Sequence[Path]) -> Prover:
    """The TPM that holds the certificate's key, which `uri` names: two messages with the coordinator.

    `issuers` are files in PEM of CAs between the endorsement certificate and its maker's root, if there are.
    """
    pem = b"".join(read_bounded(path, limit=64 * 1024) for path in issuers)
    try:
        between = _ders(x509.load_pem_x509_certificates(pem)) if pem else ()
    except ValueError:
        raise Malformed("expected certificates of the TPM's maker in PEM, found something else") from None

    def prove(csr_der: bytes, domain: TrustDomain) -> Evidence:
        from fltrust.client.bootstrap import challenge_tpm
        from fltrust.keys.tpm_attest import Attester

        del domain
        attester = Attester.of(uri)
        chain = (attester.certificate_der, *between)
        challenge = challenge_tpm(where, TpmIntroduction(chain, attester.attestation_key))
        proof = attester.prove(
            credential=challenge.credential,
            secret=challenge.secret,
            qualifying=qualifying_data(csr_der, challenge.ticket),
        )
        return TpmEvidence(
            challenge.ticket,
            proof.secret,
            attester.attestation_key,
            proof.certified_key,
            proof.attestation,
            proof.signature,
        )

    return prove


def patiently(send: Callable[[], Issued]) -> Issued:
    """Send evidence; try a few times more while the coordinator fetches the keys of a token's issuer."""
    for _ in range(_ISSUER_TRIES - 1):
        try:
            return send()
        except Unavailable as error:
            if error.reason != "issuer-keys":
                raise
        time.sleep(_ISSUER_SECONDS)
    return send()


def _ders(chain: Sequence[x509.Certificate]) -> tuple[bytes, ...]:
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)


def _sign(key: object, data: bytes, where: Path) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey) and type(key.curve) in _HASHES:
        return key.sign(data, ec.ECDSA(_HASHES[type(key.curve)]))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), SHA256())
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    raise Malformed(f"expected an EC, RSA or Ed25519 key in {where}, found a key of another kind")

"""A second chain (ML-DSA-65) for tests, and pairs under it."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.enrollment.second import SecondPair
from fltrust.identity import SpiffeId, TrustDomain
from fltrust.keys.mldsa import generate_mldsa
from fltrust.pki import chain_to_pem
from fltrust.pki.second import SecondAuthority, create_second_issuing, create_second_root, second_leaf_of

DAY = timedelta(days=1)


class SecondChain:
    """A root and an issuing CA, made an hour before `now`."""

    def __init__(self, domain: TrustDomain, *, now: datetime) -> None:
        self.now = now
        began = now - timedelta(hours=1)
        root_key, issuing_key = generate_mldsa(), generate_mldsa()
        self.root = create_second_root(domain, root_key, now=began)
        issuing = create_second_issuing(self.root, root_key, issuing_key, now=began)
        self.authority = SecondAuthority(issuing, issuing_key)

    def pair(self, who: SpiffeId, *, life: timedelta = DAY) -> SecondPair:
        """A new key of `who` and its certificate."""
        key = generate_mldsa()
        chain = self._issue(who, key.public_key, life)
        ders = tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)
        return SecondPair(key, ders, second_leaf_of(ders[0], expect=who))

    def certify(self, who: SpiffeId, key: MLDSA65PublicKey, *, life: timedelta = DAY) -> bytes:
        """A certificate for a key that was asked for, as PEM with its CA's."""
        return chain_to_pem(self._issue(who, key, life))

    def _issue(self, who: SpiffeId, key: MLDSA65PublicKey, life: timedelta) -> tuple[x509.Certificate, ...]:
        return self.authority.issue(who, key, now=self.now, not_after=self.now + life)

    def write_root(self, folder: Path) -> Path:
        path = folder / "second-root.pem"
        path.write_bytes(self.root.public_bytes(Encoding.PEM))
        return path

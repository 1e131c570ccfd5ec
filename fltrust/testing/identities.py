"""Identities made on the spot: a CA, keys and certificates that nobody should trust for real."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fltrust.agent.credentials import Credentials
from fltrust.clock import Clock, SystemClock
from fltrust.errors import Malformed
from fltrust.identity import KeyId, Name, Role, SpiffeId, TrustDomain
from fltrust.keys import FileSigner, generate, spki_der
from fltrust.pki import LEAF_PROFILES, Draft, Issuer, TrustBundle, create_issuing, create_root, make_bundle

DOMAIN = "scratch.example"


@dataclass(frozen=True, slots=True)
class ScratchCa:
    """A root and an issuing CA whose keys live in this process alone."""

    bundle: TrustBundle
    issuer: Issuer

    @classmethod
    def make(cls, domain: str = DOMAIN, *, now: datetime | None = None) -> ScratchCa:
        """A new CA for `domain`, as of a day before `now`."""
        name = TrustDomain(domain)
        began = (now or SystemClock().now()) - timedelta(days=1)
        root_signer, issuing_signer = generate(), generate()
        root = create_root(name, signer=root_signer, now=began)
        issuing = create_issuing(
            root=root, root_signer=root_signer, public_key=issuing_signer.public_key, now=began
        )
        return cls(make_bundle(name, [root]), Issuer(certificate=issuing, signer=issuing_signer))


def given_names(role: Role) -> tuple[str, ...]:
    """DNS names as a record would give them, for a role that has them from there; else none."""
    return ("model.scratch.example",) if LEAF_PROFILES[role].min_dns_names else ()


@dataclass(frozen=True, slots=True)
class ScratchIdentity:
    """One identity with its keys; `node` is a participant's Flower node key."""

    credentials: Credentials
    node: FileSigner | None = None

    @property
    def spiffe_id(self) -> SpiffeId:
        return self.credentials.spiffe_id

    @property
    def name(self) -> Name:
        if self.spiffe_id.name is None:
            raise Malformed("expected an identity with a name, got the coordinator")
        return self.spiffe_id.name

    @property
    def node_key(self) -> KeyId:
        return self._node_signer.key_id

    @property
    def node_key_der(self) -> bytes:
        """The node's public key as our records keep it (SPKI)."""
        return spki_der(self._node_signer.public_key)

    @property
    def node_key_pem(self) -> bytes:
        """The node's public key as Flower keeps it."""
        key = self._node_signer.public_key
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def _node_signer(self) -> FileSigner:
        if self.node is None:
            raise Malformed(f"expected a participant with a node key, got {self.spiffe_id}")
        return self.node


def scratch_identity(
    name: str,
    role: Role = Role.PARTICIPANT,
    *,
    ca: ScratchCa | None = None,
    lifetime: timedelta | None = None,
    clock: Clock | None = None,
) -> ScratchIdentity:
    """A certificate and keys for `name`, without an enrollment: for tests of signing and verifying.

    Its CA is made anew unless one is given; the roots are in ``credentials.bundle``. A participant
    gets a node key. To have it enrolled, use `ScratchCoordinator.enroll`.
    """
    clock = clock or SystemClock()
    ca = ca or ScratchCa.make(now=clock.now())
    who = SpiffeId(ca.bundle.domain, role, Name(name))
    signer = generate()
    draft = Draft.of(who, signer.public_key, now=clock.now(), lifetime=lifetime, dns_names=given_names(role))
    leaf = ca.issuer.redeem(draft)
    credentials = Credentials.verified(
        signer, (leaf, ca.issuer.certificate), bundle=ca.bundle, expect=who, clock=clock
    )
    return ScratchIdentity(credentials, generate() if role is Role.PARTICIPANT else None)

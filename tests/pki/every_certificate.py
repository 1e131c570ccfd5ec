"""One certificate of every kind that we issue, with its issuer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from fltrust.identity import Name, Role, SpiffeId, TrustDomain
from fltrust.keys import generate
from fltrust.pki import Draft, Issuer, create_issuing, create_root
from fltrust.pki.ca_certificates import create_cross_certificate, create_root_succession
from fltrust.pki.codesigning import SigningDraft, issue_signer
from fltrust.pki.pointers import PublicUrl
from fltrust.pki.profiles import CaKind, Profiles, ServiceKind
from fltrust.pki.responder import ResponderDraft, issue_responder
from fltrust.pki.sct import sign_sct
from fltrust.pki.timestamping import TsaDraft, issue_tsa
from fltrust.testing.identities import given_names

DOMAIN = TrustDomain("hospitals.example")


@dataclass(frozen=True)
class Made:
    certificate: x509.Certificate
    issuer: x509.Certificate


def every_certificate(
    *, at: datetime, profiles: Profiles, public_url: PublicUrl | None
) -> Mapping[Role | ServiceKind | CaKind, Made]:
    """All of them, under one new root, by profile."""
    root_key, issuing_key, ct, key = (generate() for _ in range(4))
    root = create_root(DOMAIN, signer=root_key, now=at, profiles=profiles)
    issuing = create_issuing(
        root=root,
        root_signer=root_key,
        public_key=issuing_key.public_key,
        now=at,
        profiles=profiles,
        public_url=public_url,
    )
    issuer = Issuer(certificate=issuing, signer=issuing_key, profiles=profiles, public_url=public_url)
    rolled = create_root_succession(
        old=root,
        old_signer=root_key,
        new_signer=generate(),
        now=at,
        profiles=profiles,
        public_url=public_url,
    )
    theirs = TrustDomain("b.example")
    cross = create_cross_certificate(
        subject=create_root(theirs, signer=generate(), now=at),
        issuer=root,
        signer=root_key,
        constraints=x509.NameConstraints(
            [x509.UniformResourceIdentifier(theirs), x509.DNSName(theirs)], None
        ),
        now=at,
        profiles=profiles,
        public_url=public_url,
    )
    signing = issue_signer(
        issuer,
        SigningDraft.of(SpiffeId(DOMAIN, Role.SIGNER, Name("release")), key.public_key, now=at),
        promise=lambda key_hash, tbs: sign_sct(ct, key_hash=key_hash, tbs=tbs, at=at),
    ).certificate
    found: dict[Role | ServiceKind | CaKind, Made] = {
        CaKind.ROOT: Made(root, root),
        CaKind.ISSUING: Made(issuing, root),
        CaKind.ROLLOVER: Made(rolled.new_with_old, root),
        CaKind.CROSS: Made(cross, root),
        ServiceKind.CODE_SIGNING: Made(signing, issuing),
        ServiceKind.TIMESTAMPING: Made(
            issue_tsa(issuer, TsaDraft.of(issuer, key.public_key, now=at)), issuing
        ),
        ServiceKind.OCSP_RESPONDER: Made(
            issue_responder(issuer, ResponderDraft.of(issuer, key.public_key, now=at)), issuing
        ),
    }
    for role in Role:
        who = SpiffeId(DOMAIN, role, None if role is Role.COORDINATOR else Name("site-a"))
        draft = Draft.of(who, generate().public_key, now=at, dns_names=given_names(role))
        found[role] = Made(issuer.redeem(draft), issuing)
    return found

"""A cross-certificate counts when operators signed for exactly what it says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from authority_world import DOMAIN, START, Authorities, World
from cryptography import x509
from registrar_world import operation, propose

from fltrust.coordinator.cross_certification import CROSS_CERTIFY, cross_certificates
from fltrust.errors import CertificateRefused, Conflict, Malformed
from fltrust.identity import TrustDomain
from fltrust.keys import FileSigner, generate
from fltrust.pki import Issuer, create_issuing, create_root, make_bundle
from fltrust.pki.cross import certify_domain, cross_parameters

PARTNER = TrustDomain("clinics.example")
BEGAN = START - timedelta(days=1)


class Crossing(World):
    def __init__(self, folder: Path) -> None:
        self.root_signer, issuing_signer = generate(), generate()
        self.root = create_root(DOMAIN, signer=self.root_signer, now=BEGAN)
        issuing = create_issuing(
            root=self.root, root_signer=self.root_signer, public_key=issuing_signer.public_key, now=BEGAN
        )
        self.partner_signer = generate()
        self.partner = create_root(PARTNER, signer=self.partner_signer, now=BEGAN)
        issuer = Issuer(certificate=issuing, signer=issuing_signer)
        super().__init__(
            f"sqlite:///{folder / 'state.db'}", ca=Authorities(make_bundle(DOMAIN, [self.root]), issuer)
        )

    def certify(
        self, *, root: x509.Certificate | None = None, signer: FileSigner | None = None, **options: Any
    ) -> x509.Certificate:
        return certify_domain(
            self.partner,
            issuer=root or self.root,
            signer=signer or self.root_signer,
            now=options.pop("now", BEGAN),
            **options,
        )

    def propose(self, parameters: dict[str, Any]) -> Any:
        return propose(self, self.operator, operation(self, self.operator, CROSS_CERTIFY, parameters))

    def known(self) -> tuple[x509.Certificate, ...]:
        with self.store.reading() as tx:
            return cross_certificates(tx)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Crossing]:
    crossing = Crossing(tmp_path)
    yield crossing
    crossing.close()


def test_what_operators_signed_for_is_taken_in_once_and_is_there_after_a_restart(world: Crossing) -> None:
    cross = world.certify(dns_names=["models.clinics.org"])
    asked = cross_parameters(cross, domains=[PARTNER], dns_names=["models.clinics.org"])
    world.propose(asked)
    world.reopen()
    assert world.known() == (cross,)
    with pytest.raises(Conflict):
        world.propose(asked)


@pytest.mark.parametrize(
    "changes",
    [
        {"domains": [str(PARTNER), "labs.example"]},
        {"domains": ["labs.example"]},
        {"dnsNames": ["models.clinics.org"]},
        {"domains": []},
        {"pathLength": 2},
        {"certificate": "AAAA"},
    ],
)
def test_other_words_than_the_certificates_are_refused(world: Crossing, changes: dict[str, Any]) -> None:
    asked = cross_parameters(world.certify(), domains=[PARTNER], dns_names=[])
    with pytest.raises((CertificateRefused, Malformed)):
        world.propose({**asked, **changes})
    assert world.known() == ()


def test_a_certificate_that_another_root_signed_or_that_is_over_is_refused(world: Crossing) -> None:
    other_signer = generate()
    other = create_root(DOMAIN, signer=other_signer, now=BEGAN)
    foreign = world.certify(root=other, signer=other_signer)
    later = world.certify(now=START + timedelta(days=2))
    over = world.certify(lifetime=timedelta(hours=1))
    for cross in (foreign, later, over, world.ca.issuer.certificate):
        with pytest.raises(CertificateRefused):
            world.propose(cross_parameters(cross, domains=[PARTNER], dns_names=[]))
    assert world.known() == ()

"""A signer's certificate: what it says, and its path at a time to one anchor."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.artifacts.signers import SignerCertificate, read_signer, require_path
from fltrust.errors import UntrustedSigner
from fltrust.keys import generate
from fltrust.testing.desk import DOMAIN, RELEASE, ScratchDesk

KEY = generate()


@pytest.fixture(scope="module")
def desk() -> ScratchDesk:
    return ScratchDesk()


@pytest.fixture(scope="module")
def signer(desk: ScratchDesk) -> SignerCertificate:
    return read_signer(desk.certify(KEY.public_key).public_bytes(Encoding.DER))


def test_it_is_read_with_its_name_key_and_issuer(signer: SignerCertificate) -> None:
    assert (signer.name, signer.issuer) == (str(RELEASE), f"spiffe://{DOMAIN}")
    assert signer.public_key == KEY.public_key


def test_its_path_leads_to_its_federations_root(desk: ScratchDesk, signer: SignerCertificate) -> None:
    for at in (signer.certificate.not_valid_before_utc, signer.certificate.not_valid_after_utc):
        assert signer.is_valid_at(at)
        found = require_path(
            signer, anchor=desk.roots.roots[0], intermediates=[desk.issuer.certificate], at=at
        )
        assert found == desk.issuer.certificate


def test_there_is_no_path_out_of_its_time_to_another_root_or_without_the_issuer(
    desk: ScratchDesk, signer: SignerCertificate
) -> None:
    leaf, moment = signer.certificate, timedelta(seconds=1)
    root, between, now = desk.roots.roots[0], [desk.issuer.certificate], desk.clock.now()
    early, late = leaf.not_valid_before_utc - moment, leaf.not_valid_after_utc + moment
    assert not signer.is_valid_at(early)
    assert not signer.is_valid_at(late)

    def refused(
        at: object = now, anchor: x509.Certificate = root, via: Sequence[x509.Certificate] = between
    ) -> None:
        with pytest.raises(UntrustedSigner) as refusal:
            require_path(signer, anchor=anchor, intermediates=via, at=at)  # type: ignore[arg-type]
        assert refusal.value.reason == "certificate-path"

    refused(at=early)
    refused(at=late)
    refused(anchor=ScratchDesk().roots.roots[0])
    refused(via=[])

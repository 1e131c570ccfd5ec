"""The CA's folder, as a running coordinator changes it: with the passphrase that it was started with."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from fltrust.clock import Clock
from fltrust.identity import Digest
from fltrust.pki.authority import load_bundle
from fltrust.pki.ca_certificates import RootSuccession
from fltrust.pki.issuing import Issuer
from fltrust.pki.pointers import PublicUrl
from fltrust.pki.profiles import Profiles
from fltrust.pki.rollover import (
    accept_issuing,
    accept_root,
    check_new_root,
    drop_root,
    issuing_request,
    load_cross_certificates,
    load_former_roots,
    prepare_issuing,
    switch_issuing,
)
from fltrust.pki.types import TrustBundle


class CaFolder:
    """`fltrust.coordinator.succession.CaHome` over the folder ``ca/``."""

    def __init__(
        self,
        folder: Path,
        *,
        passphrase: bytes,
        clock: Clock,
        profiles: Profiles,
        public_url: PublicUrl | None,
    ) -> None:
        self._folder = folder
        self._passphrase = passphrase
        self._clock = clock
        self._profiles = profiles
        self._public_url = public_url

    def request(self) -> bytes:
        """The request of the issuing CA to come, made now if there is none; the key stays in the folder."""
        prepare_issuing(self._folder, passphrase=self._passphrase)
        return issuing_request(self._folder)

    def accept_issuing(self, certificate: x509.Certificate) -> None:
        accept_issuing(self._folder, certificate, clock=self._clock)

    def switch_issuing(self) -> Issuer:
        return switch_issuing(
            self._folder,
            passphrase=self._passphrase,
            clock=self._clock,
            profiles=self._profiles,
            public_url=self._public_url,
        )

    def check_root(self, succession: RootSuccession) -> None:
        check_new_root(self._folder, succession)

    def accept_root(self, succession: RootSuccession) -> TrustBundle:
        return accept_root(self._folder, succession)

    def drop_root(self, fingerprint: Digest) -> TrustBundle:
        return drop_root(self._folder, fingerprint)

    def bundle(self) -> TrustBundle:
        return load_bundle(self._folder)

    def cross(self) -> tuple[x509.Certificate, ...]:
        return load_cross_certificates(self._folder)

    def former(self) -> tuple[x509.Certificate, ...]:
        return load_former_roots(self._folder)

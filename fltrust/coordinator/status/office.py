"""What is published of every CA of the trust domain: the one in force and those that issued before it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.coordinator.ca import CurrentCa, InForce
from fltrust.coordinator.ledger import Ledger
from fltrust.coordinator.status.answers import OcspAnswer, OcspDesk, answer_all
from fltrust.coordinator.status.changes import StatusChanges, catch_up
from fltrust.coordinator.status.crls import CrlPress, PublishedCrl
from fltrust.coordinator.status_settings import StatusSettings
from fltrust.errors import NotFound
from fltrust.identity import CaKeyId, Serial
from fltrust.pki.crl import crl_to_pem
from fltrust.pki.issuing import Issuer
from fltrust.pki.pointers import issuer_of, key_identifier_of

RootCrls = Callable[[], Sequence[x509.CertificateRevocationList]]
"""Gives the roots' own CRLs, which were signed elsewhere."""


@dataclass(frozen=True, slots=True)
class PublishedElsewhere:
    """What is published beside the CA in force: issuing CAs that `retired` before this process began, and
    the roots' CRLs, asked for each time."""

    retired: tuple[Issuer, ...] = ()
    root_crls: RootCrls = tuple


class StatusOffice:
    """CRLs and OCSP answers of one trust domain. For many threads; owned by one `Authority`.

    A CA that is no longer in force goes on being published for as long as its key is here: those that
    retired before are in `elsewhere`, and whoever `CurrentCa` replaces is kept by itself.
    `is_service` tells of certificates that were issued here and stand in no table, by their serial and CA.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        ca: CurrentCa,
        settings: StatusSettings | None = None,
        elsewhere: PublishedElsewhere | None = None,
        is_service: Callable[[Serial, CaKeyId], bool] = lambda *_: False,
    ) -> None:
        catch_up(ledger)
        self.settings = settings or StatusSettings()
        self._ledger = ledger
        self._ca = ca
        elsewhere = elsewhere or PublishedElsewhere()
        self._root_crls = elsewhere.root_crls
        self._is_service = is_service
        self._changes = StatusChanges(ledger)
        self._lock = threading.Lock()
        self._presses: dict[CaKeyId, CrlPress] = {}
        self._desks: dict[CaKeyId, OcspDesk] = {}
        for issuer in elsewhere.retired:
            self._publish(issuer)
        ca.subscribe(self._follow)
        self._follow(ca.now)

    def complete_crl(self, issuer: CaKeyId) -> PublishedCrl:
        """The newest complete CRL of a CA, or of a root; `NotFound` for one that is not ours."""
        press = self._presses.get(issuer)
        if press is not None:
            return press.complete()
        for crl in self._root_crls():
            if issuer_of(crl) == issuer:
                return _published(crl)
        raise NotFound(f"no CA {issuer} is published here")

    def delta_crl(self, issuer: CaKeyId) -> PublishedCrl:
        """The newest delta CRL of a CA; `NotFound` for one that is not ours."""
        press = self._presses.get(issuer)
        if press is None:
            raise NotFound(f"no CA {issuer} is published here")
        return press.delta()

    def all_crls(self) -> bytes:
        """Every complete CRL in PEM, one after the other: what a server that checks the whole path loads."""
        complete = []
        for press in tuple(self._presses.values()):
            try:
                complete.append(press.complete().der)
            except NotFound:  # its CA has ended
                continue
        roots = (crl.public_bytes(Encoding.DER) for crl in self._root_crls())
        return b"".join(map(crl_to_pem, (*complete, *roots)))

    def answer(self, request: bytes) -> OcspAnswer:
        """Answer an OCSP request in DER; see `answer_all`."""
        return answer_all(request, tuple(self._desks.values()))

    def certificate(self, issuer: CaKeyId) -> bytes:
        """A CA's own certificate in DER: of an issuing CA that is published, or of a root in force."""
        press = self._presses.get(issuer)
        candidates = self._ca.bundle.roots if press is None else (press.issuer.certificate,)
        for certificate in candidates:
            if key_identifier_of(certificate) == issuer:
                return certificate.public_bytes(Encoding.DER)
        raise NotFound(f"no CA {issuer} is published here")

    @property
    def issuers(self) -> tuple[CaKeyId, ...]:
        """The CAs whose CRLs are signed here."""
        return tuple(self._presses)

    def _follow(self, now: InForce) -> None:
        self._publish(now.issuer)

    def _publish(self, issuer: Issuer) -> None:
        key = key_identifier_of(issuer.certificate)
        with self._lock:
            known = self._presses.get(key)
            if known is not None and known.issuer.certificate == issuer.certificate:
                return
            self._presses[key] = CrlPress(
                issuer, ledger=self._ledger, changes=self._changes, settings=self.settings
            )
            self._desks[key] = OcspDesk(
                issuer,
                ledger=self._ledger,
                changes=self._changes,
                settings=self.settings,
                is_service=self._is_service,
            )


def _published(crl: x509.CertificateRevocationList) -> PublishedCrl:
    number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    next_update = crl.next_update_utc or crl.last_update_utc
    return PublishedCrl(
        der=crl.public_bytes(Encoding.DER),
        number=number,
        this_update=crl.last_update_utc,
        next_update=next_update,
    )

"""Revocation evidence as it comes: CRLs and OCSP answers, bounded and read, not yet believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Final, Self

from cryptography import x509
from cryptography.x509 import ocsp
from cryptography.x509.oid import CRLEntryExtensionOID, ExtensionOID

from fltrust.errors import Malformed, Oversized
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.path.names import NameKey, name_key, rdn_key
from fltrust.pki.path.types import PathLimits

_CRL_EXTENSIONS: Final = frozenset(
    {
        ExtensionOID.ISSUING_DISTRIBUTION_POINT,
        ExtensionOID.DELTA_CRL_INDICATOR,
        ExtensionOID.CRL_NUMBER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
)
_ENTRY_EXTENSIONS: Final = frozenset(
    {
        CRLEntryExtensionOID.CRL_REASON,
        CRLEntryExtensionOID.INVALIDITY_DATE,
        CRLEntryExtensionOID.CERTIFICATE_ISSUER,
    }
)
_CRITICAL_TRUE: Final = b"\x01\x01\xff"
_MAX_SINGLE_ANSWERS: Final = 256


@dataclass(frozen=True, slots=True)
class Entry:
    """One revocation: when, why, and since when the key may have been compromised."""

    at: datetime
    reason: x509.ReasonFlags
    invalid_since: datetime | None

    def is_in_force(self, at: datetime) -> bool:
        """Whether a certificate counted as revoked at `at`, looking back from later."""
        return self.at <= at or (self.invalid_since is not None and self.invalid_since <= at)


class Crl:
    """A CRL, read as far as it has to be. Only `fltrust.pki.path.crls` says whether it may be believed."""

    def __init__(self, der: bytes) -> None:
        try:
            self.crl = x509.load_der_x509_crl(der)
            self._extensions = {e.oid: e for e in self.crl.extensions}
            self.issuer: NameKey = name_key(self.crl.issuer)
            self.this_update: datetime = self.crl.last_update_utc
            self.next_update: datetime | None = self.crl.next_update_utc
        except PARSE_ERRORS as error:
            raise Malformed(f"expected a CRL in DER, found {type(error).__name__} on reading it") from None

    @property
    def scope(self) -> x509.IssuingDistributionPoint | None:
        found = self._extensions.get(ExtensionOID.ISSUING_DISTRIBUTION_POINT)
        return (
            found.value
            if found is not None and isinstance(found.value, x509.IssuingDistributionPoint)
            else None
        )

    @property
    def number(self) -> int | None:
        found = self._extensions.get(ExtensionOID.CRL_NUMBER)
        return (
            found.value.crl_number if found is not None and isinstance(found.value, x509.CRLNumber) else None
        )

    @property
    def base(self) -> int | None:
        """The number that a delta CRL builds on; None where it is complete for its scope."""
        found = self._extensions.get(ExtensionOID.DELTA_CRL_INDICATOR)
        return (
            found.value.crl_number
            if found is not None and isinstance(found.value, x509.DeltaCRLIndicator)
            else None
        )

    @property
    def authority_key(self) -> x509.AuthorityKeyIdentifier | None:
        found = self._extensions.get(ExtensionOID.AUTHORITY_KEY_IDENTIFIER)
        return (
            found.value
            if found is not None and isinstance(found.value, x509.AuthorityKeyIdentifier)
            else None
        )

    @property
    def is_indirect(self) -> bool:
        return self.scope is not None and self.scope.indirect_crl

    @cached_property
    def is_understood(self) -> bool:
        """Whether nothing critical in it, or in any entry, is unknown (RFC 5280, 5.2 and 5.3)."""
        if any(e.critical and oid not in _CRL_EXTENSIONS for oid, e in self._extensions.items()):
            return False
        if self.base is None and ExtensionOID.DELTA_CRL_INDICATOR in self._extensions:
            return False
        # Entries with a critical extension are rare: the octets of one are looked for before any is parsed.
        own = sum(e.critical for e in self._extensions.values())
        if self.crl.tbs_certlist_bytes.count(_CRITICAL_TRUE) <= own:
            return True
        try:
            return all(
                not e.critical
                or (
                    e.oid in _ENTRY_EXTENSIONS
                    and (e.oid != CRLEntryExtensionOID.CERTIFICATE_ISSUER or self.is_indirect)
                )
                for revoked in self.crl
                for e in revoked.extensions
            )
        except PARSE_ERRORS:
            return False

    def find(self, issuer: NameKey, serial: int) -> Entry | None:
        """The entry of the certificate with this issuer and serial. Raises what `cryptography` does."""
        if self.is_indirect:
            return self._index.get((issuer, serial))
        if issuer != self.issuer:
            return None
        found = self.crl.get_revoked_certificate_by_serial_number(serial)
        return None if found is None else _entry(found)

    @cached_property
    def _index(self) -> Mapping[tuple[NameKey, int], Entry]:
        """An indirect CRL names an issuer where it changes from one entry to the next (5.3.3)."""
        found: dict[tuple[NameKey, int], Entry] = {}
        issuer = self.issuer
        for revoked in self.crl:
            for extension in revoked.extensions:
                if isinstance(extension.value, x509.CertificateIssuer):
                    names = extension.value.get_values_for_type(x509.DirectoryName)
                    if len(names) != 1:
                        raise ValueError("an entry without one directory name as its issuer")
                    issuer = name_key(names[0])
            found[issuer, revoked.serial_number] = _entry(revoked)
        return found


class OcspAnswer:
    """An OCSP answer, read as far as it has to be. `fltrust.pki.path.ocsp` says whether to believe it."""

    def __init__(self, der: bytes) -> None:
        try:
            self.response = ocsp.load_der_ocsp_response(der)
            self.is_successful = self.response.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
            self.singles: tuple[ocsp.OCSPSingleResponse, ...] = (
                tuple(_bounded(self.response.responses)) if self.is_successful else ()
            )
        except PARSE_ERRORS as error:
            raise Malformed(
                f"expected an OCSP answer in DER, found {type(error).__name__} on reading it"
            ) from None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a relying party holds about revocation. Holding it proves nothing."""

    crls: tuple[Crl, ...] = ()
    answers: tuple[OcspAnswer, ...] = field(default=())

    @classmethod
    def read(
        cls,
        *,
        crls: Sequence[bytes] = (),
        ocsp_answers: Sequence[bytes] = (),
        limits: PathLimits | None = None,
    ) -> Self:
        """Read CRLs and OCSP answers in DER; `Oversized` past a bound, before parsing; else `Malformed`."""
        bounds = limits or PathLimits()
        if len(crls) > bounds.crls or len(ocsp_answers) > bounds.ocsp_responses:
            raise Oversized(
                f"expected at most {bounds.crls} CRLs and {bounds.ocsp_responses} OCSP answers, got "
                f"{len(crls)} and {len(ocsp_answers)}"
            )
        if sum(map(len, crls)) > bounds.crl_bytes:
            raise Oversized(f"expected at most {bounds.crl_bytes} bytes of CRLs, got more")
        for answer in ocsp_answers:
            if len(answer) > bounds.ocsp_bytes:
                raise Oversized(f"expected an OCSP answer of at most {bounds.ocsp_bytes} bytes, got more")
        return cls(tuple(map(Crl, crls)), tuple(map(OcspAnswer, ocsp_answers)))


def point_names(
    full: Iterable[x509.GeneralName] | None,
    relative: x509.RelativeDistinguishedName | None,
    *,
    under: Sequence[NameKey],
) -> frozenset[object]:
    """The names of a distribution point, in comparable form; a relative one continues the names `under`."""
    names: set[object] = set()
    for name in full or ():
        names.add(name_key(name.value) if isinstance(name, x509.DirectoryName) else name)
    if relative is not None:
        names.update((*base, rdn_key(relative)) for base in under)
    return frozenset(names)


def _entry(revoked: x509.RevokedCertificate) -> Entry:
    reason, since = x509.ReasonFlags.unspecified, None
    for extension in revoked.extensions:
        if isinstance(extension.value, x509.CRLReason):
            reason = extension.value.reason
        elif isinstance(extension.value, x509.InvalidityDate):
            since = extension.value.invalidity_date_utc
    return Entry(revoked.revocation_date_utc, reason, since)


def _bounded(answers: Iterable[ocsp.OCSPSingleResponse]) -> Iterable[ocsp.OCSPSingleResponse]:
    for number, answer in enumerate(answers):
        if number == _MAX_SINGLE_ANSWERS:
            raise ValueError("too many single responses")
        yield answer

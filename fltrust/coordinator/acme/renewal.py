"""Renewal information (RFC 9773): for whoever names a certificate of ours."""

from __future__ import annotations

from cryptography import x509

from fltrust.coordinator.acme.views import to_time
from fltrust.coordinator.authority import Authority
from fltrust.errors import Malformed, NotFound
from fltrust.identity import Role
from fltrust.protocols.acme.ari import id_of, read_id, suggested_window


def renewal_info(authority: Authority, text: str) -> dict[str, object]:
    """When to renew the certificate with this id; at once, if it was revoked or its CA is another by now.

    `NotFound` for an id that is none, and for a certificate that is not of a server of ours.
    """
    try:
        wanted = read_id(text)
    except Malformed:
        raise NotFound("no such certificate") from None
    with authority.ledger.reading() as tx:
        record = tx.certificates.by_serial(wanted.serial)
        status = tx.statuses.get(wanted.serial)
    if record is None or record.spiffe_id.role is not Role.SERVER:
        raise NotFound("no such certificate")
    certificate = x509.load_der_x509_certificate(record.der)
    if id_of(certificate) != wanted:
        raise NotFound("no such certificate")
    issuer = authority.ca.issuer.certificate
    key = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    start, end = suggested_window(
        not_before=record.not_before,
        not_after=record.not_after,
        now=authority.now(),
        at_once=status is not None or key.digest != wanted.issuer,
    )
    return {"suggestedWindow": {"start": to_time(start), "end": to_time(end)}}

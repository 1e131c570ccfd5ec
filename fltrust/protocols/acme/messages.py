"""What ACME's signed requests ask for: payloads, each read into a type of its own.

RFC 8555 has servers ignore members that they do not know in an account; everywhere else one is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from fltrust.errors import Malformed
from fltrust.pki.csr import MAX_CSR
from fltrust.pki.leaf import is_dns_name
from fltrust.pki.verify import MAX_CERTIFICATE
from fltrust.protocols.acme.jwk import AccountKey, read_jwk
from fltrust.protocols.acme.jws import MAX_BODY, MAX_URL, MAX_VALUES
from fltrust.protocols.acme.problems import AcmeProblem, ProblemType, malformed
from fltrust.revocation.events import RevocationReason
from fltrust.strictbase64 import from_base64url
from fltrust.strictjson import Fields, decode_any

MAX_CONTACTS = 4
MAX_CONTACT = 320
MAX_NAMES = 64
"""Identifiers of one order, before it is known how many the server may have."""
_MAILTO = re.compile(r"mailto:[^\s,?@]{1,64}@[A-Za-z0-9.-]{1,253}\Z")

REASONS: Final = {
    0: RevocationReason.UNSPECIFIED,
    1: RevocationReason.KEY_COMPROMISE,
    3: RevocationReason.AFFILIATION_CHANGED,
    4: RevocationReason.SUPERSEDED,
    5: RevocationReason.CESSATION_OF_OPERATION,
}
"""CRL reason codes (RFC 5280, 5.3.1) that a certificate's holder may give."""


@dataclass(frozen=True, slots=True)
class NewAccount:
    contacts: tuple[str, ...]
    only_existing: bool
    binding: object
    """The external account binding as it came; None without one."""


@dataclass(frozen=True, slots=True)
class AccountChange:
    contacts: tuple[str, ...] | None
    deactivate: bool


@dataclass(frozen=True, slots=True)
class NewOrder:
    names: tuple[str, ...]
    """Lower-case, sorted, each once."""
    replaces: str | None


@dataclass(frozen=True, slots=True)
class Revocation:
    certificate_der: bytes
    reason: RevocationReason


@dataclass(frozen=True, slots=True)
class KeyChange:
    account: str
    old_key: AccountKey


def read_new_account(payload: bytes) -> NewAccount:
    fields = _object(payload, "a new account")
    agreed = fields.take("termsOfServiceAgreed")
    if agreed is not None and not isinstance(agreed, bool):
        raise malformed("expected 'termsOfServiceAgreed' as true or false")
    only_existing = fields.take("onlyReturnExisting")
    if only_existing is not None and not isinstance(only_existing, bool):
        raise malformed("expected 'onlyReturnExisting' as true or false")
    binding = fields.take("externalAccountBinding")
    return NewAccount(_contacts(fields.take("contact")) or (), only_existing is True, binding)


def read_account_change(payload: bytes) -> AccountChange:
    """A status other than ``deactivated`` is refused; what else an account has cannot be changed here."""
    fields = _object(payload, "an account")
    status = fields.take("status")
    if status not in (None, "deactivated"):
        raise malformed("expected the status 'deactivated', the only one that an account can be given")
    return AccountChange(_contacts(fields.take("contact")), status is not None)


def read_new_order(payload: bytes) -> NewOrder:
    """Read the identifiers of an order, of type ``dns``.

    A wildcard or what is no DNS name is ``rejectedIdentifier``, another type ``unsupportedIdentifier``.
    Asking for other times than the profile's is refused.
    """
    fields = _object(payload, "a new order")
    names = []
    for item in fields.objects("identifiers", limit=MAX_NAMES):
        kind, value = item.text("type", limit=32), item.text("value", limit=253)
        item.done()
        if kind != "dns":
            raise AcmeProblem(
                ProblemType.UNSUPPORTED_IDENTIFIER, f"expected identifiers of type dns, got {kind!r}"
            )
        name = value.lower()
        if not is_dns_name(name) or _is_address(name):
            raise AcmeProblem(
                ProblemType.REJECTED_IDENTIFIER,
                f"expected DNS names without wildcards and addresses, got {value[:80]!r}",
            )
        names.append(name)
    if not names:
        raise malformed("expected at least one identifier")
    replaces = fields.take("replaces")
    if replaces is not None and not (isinstance(replaces, str) and 0 < len(replaces) <= 128):
        raise malformed("expected 'replaces' as the id of a certificate")
    if fields.take("notBefore") is not None or fields.take("notAfter") is not None:
        raise malformed("expected no 'notBefore' and 'notAfter': a certificate's times are its profile's")
    fields.done()
    return NewOrder(tuple(sorted(set(names))), replaces if isinstance(replaces, str) else None)


def read_finalize(payload: bytes) -> bytes:
    """The CSR, DER."""
    fields = _object(payload, "a finalization")
    csr = from_base64url(fields.text("csr", limit=2 * MAX_CSR), "the CSR")
    fields.done()
    return csr


def read_revocation(payload: bytes) -> Revocation:
    fields = _object(payload, "a revocation")
    certificate = from_base64url(fields.text("certificate", limit=2 * MAX_CERTIFICATE), "the certificate")
    code = fields.take("reason")
    fields.done()
    if code is None:
        code = 0
    if type(code) is not int or code not in REASONS:
        raise AcmeProblem(
            ProblemType.BAD_REVOCATION_REASON,
            f"expected a reason of {', '.join(map(str, REASONS))}, got another",
        )
    return Revocation(certificate, REASONS[code])


def read_key_change(payload: bytes) -> KeyChange:
    """The payload of a key change's inner JWS."""
    fields = _object(payload, "a key change")
    account, old_key = fields.text("account", limit=MAX_URL), read_jwk(fields.any("oldKey"))
    fields.done()
    return KeyChange(account, old_key)


def read_authorization_change(payload: bytes) -> None:
    """Return only for ``{"status":"deactivated"}``: the one change there is."""
    fields = _object(payload, "an authorization")
    if fields.take("status") != "deactivated":
        raise malformed("expected the status 'deactivated', the only one that an authorization can be given")
    fields.done()


def read_challenge_response(payload: bytes) -> None:
    """Return only for an object, which says nothing more (RFC 8555, 7.5.1)."""
    _object(payload, "a response to a challenge").done()


def check_empty(payload: bytes) -> None:
    """Return only for POST-as-GET: an empty payload (RFC 8555, 6.3)."""
    if payload:
        raise malformed("expected an empty payload: this is read with POST-as-GET")


def _object(payload: bytes, what: str) -> Fields:
    return Fields(decode_any(payload, limit=MAX_BODY, what=what, values=MAX_VALUES), what)


def _is_address(name: str) -> bool:
    return name.replace(".", "").isdigit()


def _contacts(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MAX_CONTACTS:
        raise Malformed(f"expected at most {MAX_CONTACTS} contacts")
    contacts = []
    for item in value:
        if not isinstance(item, str) or not item.startswith("mailto:"):
            raise AcmeProblem(ProblemType.UNSUPPORTED_CONTACT, "expected contacts as 'mailto:' URLs")
        if len(item) > MAX_CONTACT or not _MAILTO.match(item):
            raise AcmeProblem(
                ProblemType.INVALID_CONTACT, "expected one mail address in a contact, without header fields"
            )
        contacts.append(item)
    return tuple(contacts)

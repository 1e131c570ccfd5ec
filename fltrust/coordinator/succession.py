"""The CA of a live federation replaced: another issuing CA, other roots, and the end of a compromised one.

Three kinds of operation (`fltrust.coordinator.operations`). What an operation says is durable in the
transaction that approves it; the CA's folder and what is in force follow after the commit, and `settle` does
it again at a start, for what a crash came before.

    roll-issuing    {"certificate"}: the accepted next issuing CA takes over
    revoke-issuing  {"issuer","reason","compromisedSince","certificate"}: what the old one signed ends
    change-anchors  {"add":{"old","new","newWithOld","oldWithNew"}} or {"remove"}: another bundle

Certificates are base64 of DER, a root to remove is named by its fingerprint.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography import x509

from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.ledger import Work
from fltrust.coordinator.operations import Executed, Executor
from fltrust.coordinator.ports import Transaction
from fltrust.coordinator.taint import TaintDesk
from fltrust.enrollment.operation import Operation
from fltrust.enrollment.operation_ports import OperationState
from fltrust.errors import CertificateRefused, Conflict, FltrustError, Malformed, NotFound
from fltrust.identity import CaKeyId, Digest
from fltrust.pki.bundle import root_fingerprint
from fltrust.pki.ca_certificates import RootSuccession, is_issued_by
from fltrust.pki.csr import parse_csr
from fltrust.pki.issuing import Issuer
from fltrust.pki.leaf import PARSE_ERRORS, ca_key_id
from fltrust.pki.rollover import check_issuing
from fltrust.pki.types import TrustBundle, VerifiedCertificate
from fltrust.pki.verify import MAX_CERTIFICATE
from fltrust.revocation.events import EventKind, RevocationReason
from fltrust.strictbase64 import from_base64
from fltrust.strictjson import Fields

_log = logging.getLogger(__name__)

ROLL_ISSUING, REVOKE_ISSUING, CHANGE_ANCHORS = "roll-issuing", "revoke-issuing", "change-anchors"
_KINDS = (ROLL_ISSUING, REVOKE_ISSUING, CHANGE_ANCHORS)
_PAGE = 256


class CaHome(Protocol):
    """Where the CA's keys and certificates are kept. Every call is durable when it returns."""

    def request(self) -> bytes:
        """The request (PKCS#10, DER) of the issuing CA to come, whose key is made now if there is none."""
        ...

    def accept_issuing(self, certificate: x509.Certificate) -> None:
        """Take in the certificate of the issuing CA to come; the same again changes nothing."""
        ...

    def switch_issuing(self) -> Issuer:
        """Put it in the place of the present one."""
        ...

    def check_root(self, succession: RootSuccession) -> None:
        """Return only if `accept_root` would take it in now."""
        ...

    def accept_root(self, succession: RootSuccession) -> TrustBundle: ...

    def drop_root(self, fingerprint: Digest) -> TrustBundle: ...

    def bundle(self) -> TrustBundle: ...

    def cross(self) -> tuple[x509.Certificate, ...]: ...

    def former(self) -> tuple[x509.Certificate, ...]:
        """Roots that were dropped."""
        ...


class Succession:
    """Carries the three kinds out, on what is in force and where it is kept."""

    def __init__(self, ca: CurrentCa, home: CaHome, taints: TaintDesk) -> None:
        self.ca = ca
        self.home = home
        self.taints = taints

    def executors(self) -> tuple[Executor, ...]:
        return (_RollIssuing(self), _RevokeIssuing(self), _ChangeAnchors(self))

    def next_issuing(self, der: bytes, work: Work) -> x509.Certificate:
        """A certificate for the next issuing CA that may take over now: not the present key, nor one that
        is revoked."""
        certificate, present = _certificate(der), self.ca.issuer.certificate
        check_issuing(certificate, self.ca.bundle, at=work.now)
        key = ca_key_id(certificate.public_key())
        if key == ca_key_id(present.public_key()) or work.state.is_issuer_revoked(key, self.ca.domain):
            raise Conflict("expected a new key for the next issuing CA, got one that was in force before")
        return certificate

    def tell(self, work: Work, actor: VerifiedCertificate, *, sequence: int, issuer: CaKeyId | None) -> None:
        work.emit(
            EventKind.BUNDLE_CHANGED,
            actor=actor.spiffe_id,
            domain=self.ca.domain,
            sequence=sequence,
            issuer=issuer,
        )

    def take_over(self, certificate: x509.Certificate) -> None:
        """Put the next issuing CA in force, unless it is."""
        if self.ca.issuer.certificate.public_key() == certificate.public_key():
            return
        self.home.accept_issuing(certificate)
        self.ca.replace(issuer=self.home.switch_issuing())

    def add_root(self, succession: RootSuccession) -> None:
        if succession.new not in self.home.bundle().roots:
            self.home.accept_root(succession)
        self.use_bundle()

    def drop_root(self, fingerprint: Digest) -> None:
        if any(root_fingerprint(root) == fingerprint for root in self.home.bundle().roots):
            self.home.drop_root(fingerprint)
        self.use_bundle()

    def use_bundle(self) -> None:
        bundle = self.home.bundle()
        if bundle.sequence > self.ca.bundle.sequence:
            self.ca.replace(bundle=bundle, cross=self.home.cross(), former=self.home.former())

    def settle(self, tx: Transaction) -> None:
        """Do what executed operations said and a crash kept from the folder; in the order they were executed.

        What is there already changes nothing. What cannot be done any more (a root that a later operation
        dropped, a certificate that ended meanwhile) is passed over: the last word on every key is in the
        folder by then, and no word of the past keeps a coordinator from starting.
        """
        for operation in _executed(tx):
            try:
                self._again(operation)
            except (Conflict, NotFound) as error:
                _log.info("operation %s is passed over: %s", operation.operation_id, error)
            except CertificateRefused as error:
                _log.warning("operation %s cannot be done any more: %s", operation.operation_id, error)

    def _again(self, operation: Operation) -> None:
        if operation.kind == CHANGE_ANCHORS:
            change = AnchorChange.parse(operation)
            if change.remove is not None:
                self.drop_root(change.remove)
            elif change.add is not None:
                self.add_root(change.add)
            return
        der = _next_of(operation)
        if der is None:
            return
        certificate = _certificate(der)
        if certificate.public_key() == _public_key_of_request(self.home):
            self.take_over(certificate)


class _RollIssuing:
    """`roll-issuing`: leaves of the old CA stay good; from now on the new one issues."""

    kind = ROLL_ISSUING

    def __init__(self, succession: Succession) -> None:
        self._succession = succession

    def check(self, operation: Operation, work: Work) -> None:
        self._succession.next_issuing(_roll_parameters(operation), work)

    def execute(self, operation: Operation, work: Work, *, actor: VerifiedCertificate) -> Executed:
        certificate = self._succession.next_issuing(_roll_parameters(operation), work)
        self._succession.home.accept_issuing(certificate)  # before the commit: what is approved can be done
        key = ca_key_id(certificate.public_key())
        self._succession.tell(work, actor, sequence=self._succession.ca.bundle.sequence, issuer=key)
        return Executed(result={"issuer": key}, then=lambda: self._succession.take_over(certificate))


class _RevokeIssuing:
    """`revoke-issuing`: whatever leads through the CA's key is refused from this epoch on, everywhere.

    Of the CA in force, with its successor in the same words. Identities stay as they are: each gets a
    certificate of the successor with the one that it holds, if that is on record. What was sealed with a
    certificate that is not on record is tainted: somebody else signed it.
    """

    kind = REVOKE_ISSUING

    def __init__(self, succession: Succession) -> None:
        self._succession = succession

    def check(self, operation: Operation, work: Work) -> None:
        self._parse(operation, work)

    def execute(self, operation: Operation, work: Work, *, actor: VerifiedCertificate) -> Executed:
        said, certificate = self._parse(operation, work)
        if certificate is not None:
            self._succession.home.accept_issuing(certificate)
        event = work.emit(
            EventKind.ISSUER_REVOKED,
            actor=actor.spiffe_id,
            domain=self._succession.ca.domain,
            issuer=said.issuer,
            reason=said.reason,
            compromised_since=said.compromised_since,
        )
        if certificate is not None:
            self._succession.tell(
                work,
                actor,
                sequence=self._succession.ca.bundle.sequence,
                issuer=ca_key_id(certificate.public_key()),
            )
        forged = self._succession.taints.disown(work, event)
        result = {"issuer": said.issuer, "epoch": str(event.epoch), "forged": forged}

        def then() -> None:
            if certificate is not None:
                self._succession.take_over(certificate)

        return Executed(result=result, then=then)

    def _parse(self, operation: Operation, work: Work) -> tuple[CaRevocation, x509.Certificate | None]:
        said = CaRevocation.parse(operation)
        if said.compromised_since is not None and said.compromised_since > work.now:
            raise Malformed("expected a CA to be compromised since a time that is not in the future")
        if work.state.is_issuer_revoked(said.issuer, self._succession.ca.domain):
            raise Conflict(f"the CA {said.issuer} is revoked already", reason="already-revoked")
        present = ca_key_id(self._succession.ca.issuer.certificate.public_key())
        if said.issuer == present and said.certificate is None:
            raise Conflict(
                f"expected the next issuing CA's certificate with the end of the one in force, {present}",
                reason="no-successor",
                hint="fltrust ca request issuing, have it signed in a ceremony, and give --answer",
            )
        if said.issuer != present and said.certificate is not None:
            raise Conflict(
                f"expected a successor with the end of the CA in force, {present}, "
                f"got one with the end of {said.issuer}",
                reason="not-in-force",
                hint="give the CA in force (its ca/issuing.pem) as --certificate, or leave out --answer",
            )
        if said.issuer != present and work.tx.certificates.count_issued_by(said.issuer) == 0:
            raise NotFound(f"no certificate on record was issued by a CA {said.issuer}")
        if said.certificate is None:
            return said, None
        return said, self._succession.next_issuing(said.certificate, work)


class _ChangeAnchors:
    """`change-anchors`: a root is added to the bundle, certified by one that is there; or one is dropped."""

    kind = CHANGE_ANCHORS

    def __init__(self, succession: Succession) -> None:
        self._succession = succession

    def check(self, operation: Operation, work: Work) -> None:
        del work
        roots = self._succession.home.bundle().roots
        change = AnchorChange.parse(operation)
        if change.add is not None:
            self._succession.home.check_root(change.add)
            return
        left = [root for root in roots if root_fingerprint(root) != change.remove]
        if len(left) == len(roots):
            raise NotFound(f"expected a root of the bundle with fingerprint {change.remove}, found none")
        issuing = self._succession.ca.issuer.certificate
        if not any(is_issued_by(issuing, root) for root in left):
            raise Conflict(
                "expected the issuing CA in force to lead to a root that stays, it leads to none",
                reason="root-in-use",
                hint="roll the issuing CA over to one under the new root first",
            )

    def execute(self, operation: Operation, work: Work, *, actor: VerifiedCertificate) -> Executed:
        change = AnchorChange.parse(operation)
        sequence = self._succession.home.bundle().sequence + 1
        self._succession.tell(work, actor, sequence=sequence, issuer=None)

        def then() -> None:
            if change.add is not None:
                self._succession.add_root(change.add)
            elif change.remove is not None:
                self._succession.drop_root(change.remove)

        return Executed(result={"sequence": str(sequence)}, then=then)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaRevocation:
    """What a `revoke-issuing` says."""

    issuer: CaKeyId
    reason: RevocationReason
    compromised_since: datetime | None
    certificate: bytes | None
    """The successor's, in DER; for the CA in force."""

    @classmethod
    def parse(cls, operation: Operation) -> CaRevocation:
        fields = _fields(operation)
        found = cls(
            issuer=CaKeyId(fields.text("issuer", limit=40)),
            reason=fields.choice("reason", RevocationReason),
            compromised_since=None if fields.is_null("compromisedSince") else fields.time("compromisedSince"),
            certificate=None if fields.is_null("certificate") else _der(fields, "certificate"),
        )
        fields.done()
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorChange:
    """What a `change-anchors` says: one of the two."""

    add: RootSuccession | None = None
    remove: Digest | None = None

    @classmethod
    def parse(cls, operation: Operation) -> AnchorChange:
        fields = _fields(operation)
        if "remove" in operation.parameters:
            found = cls(remove=fields.digest("remove"))
        else:
            add = fields.object("add")
            names = ("old", "new", "newWithOld", "oldWithNew")
            found = cls(add=RootSuccession(*(_certificate(_der(add, name)) for name in names)))
            add.done()
        fields.done()
        return found


def _roll_parameters(operation: Operation) -> bytes:
    fields = _fields(operation)
    der = _der(fields, "certificate")
    fields.done()
    return der


def _next_of(operation: Operation) -> bytes | None:
    """The successor that an operation on the issuing CA names."""
    if operation.kind == ROLL_ISSUING:
        return _roll_parameters(operation)
    return CaRevocation.parse(operation).certificate


def _executed(tx: Transaction) -> Iterator[Operation]:
    found, after = [], ""
    while page := tx.operations.select((OperationState.EXECUTED,), after=after, limit=_PAGE):
        found += [record for record in page if record.kind in _KINDS]
        after = page[-1].operation_id
    for record in sorted(found, key=lambda record: record.decided_at or record.proposed_at):
        yield Operation.from_payload(record.payload)


def _public_key_of_request(home: CaHome) -> object:
    try:
        return parse_csr(home.request())
    except FltrustError:
        return None


def _fields(operation: Operation) -> Fields:
    return Fields(dict(operation.parameters), f"the parameters of a {operation.kind}")


def _der(fields: Fields, name: str) -> bytes:
    return from_base64(fields.text(name, limit=2 * MAX_CERTIFICATE), f"{name!r} of an operation")


def _certificate(der: bytes) -> x509.Certificate:
    if len(der) > MAX_CERTIFICATE:
        raise Malformed(f"expected a certificate of at most {MAX_CERTIFICATE} bytes, got {len(der)}")
    try:
        return x509.load_der_x509_certificate(der)
    except PARSE_ERRORS:
        raise Malformed("expected a certificate in DER, found something else") from None

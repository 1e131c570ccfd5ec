"""Kinds of sensitive operations about foreign domains: to federate, to admit one of theirs, and to end it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fltrust.coordinator.federation.desk import FederationDesk
from fltrust.coordinator.ledger import Work
from fltrust.coordinator.operations import Executed
from fltrust.enrollment.foreign import (
    ADMIT_FOREIGN,
    END_FEDERATION,
    FEDERATE,
    ForeignDomain,
    ForeignParticipant,
)
from fltrust.enrollment.operation import Operation
from fltrust.enrollment.ports import EnrolledRecord
from fltrust.errors import Conflict, LimitExceeded, Malformed, NotFound, Refusal, Revoked
from fltrust.identity import KeyId, TrustDomain
from fltrust.pki.types import TrustBundle, VerifiedCertificate
from fltrust.revocation.events import EventKind
from fltrust.revocation.state import Standing
from fltrust.strictjson import Fields

MAX_DOMAINS = 32
EVIDENCE = "federation"
"""What the record of an admitted participant says of its evidence."""


@dataclass(frozen=True, slots=True)
class Federate:
    """Federate with a domain, or change what was agreed. Nobody of it is let in by that alone.

    1. It is another domain than ours, and there are at most `MAX_DOMAINS`.
    2. Its bundle is not older than the one that is held, and of one sequence it is the same.
    3. Its roots name it, where they name a domain, and are no other domain's roots, ours included: one CA for
       two domains could name people of both.
    4. The domain is on hold until its trust feed is heard.
    """

    desk: FederationDesk
    home: TrustDomain
    kind: str = FEDERATE

    def check(self, operation: Operation, work: Work) -> None:
        wanted = ForeignDomain.from_parameters(operation.parameters)
        known = {record.domain: record for record in work.tx.foreign.all()}
        if wanted.domain == self.home:  # 1
            raise Malformed(f"expected another trust domain than our own, {self.home}")
        if wanted.domain not in known and len(known) >= MAX_DOMAINS:
            raise LimitExceeded(f"expected at most {MAX_DOMAINS} foreign domains")
        if wanted.domain in known:  # 2
            known[wanted.domain].with_bundle(wanted.bundle)
        others = (self.desk.trust().home, *(r.bundle for d, r in known.items() if d != wanted.domain))
        check_roots(wanted.bundle, others)  # 3

    def execute(self, operation: Operation, work: Work, *, actor: VerifiedCertificate) -> Executed:  # noqa: ARG002 - of every kind
        wanted = ForeignDomain.from_parameters(operation.parameters)
        known = work.tx.foreign.get(wanted.domain)
        heard = None if known is None or known.has_ended else known.heard_at
        work.tx.foreign.put(replace(wanted, heard_at=heard))
        if known is None or known.bundle.sequence != wanted.bundle.sequence:
            work.emit(
                EventKind.BUNDLE_CHANGED,
                actor=operation.proposer,
                domain=wanted.domain,
                sequence=wanted.bundle.sequence,
            )
        if (known is None or known.has_ended) and not work.state.is_domain_held(wanted.domain):  # 4
            work.emit(EventKind.DOMAIN_HELD, actor=operation.proposer, domain=wanted.domain)
        return Executed(
            result={"domain": wanted.domain, "sequence": str(wanted.bundle.sequence)}, then=self.desk.reload
        )


@dataclass(frozen=True, slots=True)
class AdmitForeign:
    """Admit one participant of a foreign domain: from now on its name and node key stand in our feed.

    1. Its domain is federated with.
    2. It is not admitted already, nor on hold. One that was revoked may be admitted again, by this alone,
       with a fresh node key; its certificates from before stay out.
    3. Nobody else ever enrolled its node key.
    """

    desk: FederationDesk
    kind: str = ADMIT_FOREIGN

    def check(self, operation: Operation, work: Work) -> None:
        asked = ForeignParticipant.from_parameters(operation.parameters)
        record = work.tx.foreign.get(asked.who.domain)
        if record is None or record.has_ended:  # 1
            raise NotFound(
                f"{asked.who.domain} is not federated with", hint="do that first: fltrust federation federate"
            )
        known = work.state.own_standing(asked.who)
        if known is Standing.HELD:  # 2
            raise Revoked(f"{asked.who} is on hold", reason=Refusal.HELD)
        if known is Standing.ACTIVE:
            raise Conflict(f"{asked.who} is admitted already", reason="already-enrolled")
        owner = work.tx.enrollments.node_key_owner(KeyId.of_spki(asked.node_key))
        if owner is not None:  # 3
            raise Conflict(
                f"expected a node key that nobody enrolled, {asked.who}'s was by "
                + ("itself, before it was revoked" if owner == asked.who else "another participant"),
                reason="node-key-taken",
                hint="its site makes a new one",
            )

    def execute(self, operation: Operation, work: Work, *, actor: VerifiedCertificate) -> Executed:  # noqa: ARG002 - of every kind
        asked = ForeignParticipant.from_parameters(operation.parameters)
        work.tx.enrollments.put(
            EnrolledRecord(asked.who, work.now, operation.proposer, EVIDENCE, asked.node_key)
        )
        event = work.emit(
            EventKind.ENROLLED, actor=operation.proposer, subject=asked.who, node_key=asked.node_key
        )
        return Executed(
            result={"participant": str(asked.who), "epoch": str(int(event.epoch))}, then=self.desk.reload
        )


@dataclass(frozen=True, slots=True)
class EndFederation:
    """End federation with a domain: nobody of it is let in any more. What was sealed stays verifiable."""

    desk: FederationDesk
    kind: str = END_FEDERATION

    def check(self, operation: Operation, work: Work) -> None:
        domain = domain_of(operation)
        record = work.tx.foreign.get(domain)
        if record is None or record.has_ended:
            raise NotFound(f"{domain} is not federated with")

    def execute(self, operation: Operation, work: Work, *, actor: VerifiedCertificate) -> Executed:  # noqa: ARG002 - of every kind
        domain = domain_of(operation)
        record = work.tx.foreign.get(domain)
        if record is not None:
            work.tx.foreign.put(replace(record, has_ended=True, heard_at=None))
        if not work.state.is_domain_held(domain):
            work.emit(EventKind.DOMAIN_HELD, actor=operation.proposer, domain=domain)
        return Executed(result={"domain": domain}, then=self.desk.reload)


def domain_of(operation: Operation) -> TrustDomain:
    """The one parameter of ``end-federation``."""
    fields = Fields(operation.parameters, "the parameters of end-federation")
    domain = fields.domain("domain")
    fields.done()
    return domain


def check_roots(bundle: TrustBundle, others: tuple[TrustBundle, ...]) -> None:
    """Refuse a bundle with a root that says it is for another domain, or whose key another domain's has."""
    taken = {_spki(root): other.domain for other in others for root in other.roots}
    for root in bundle.roots:
        owner = taken.get(_spki(root))
        if owner is not None:
            raise Conflict(
                f"expected roots of {bundle.domain}'s own, one is a root of {owner}", reason="shared-root"
            )
        for uri in _uris(root):
            if uri != f"spiffe://{bundle.domain}":
                raise Malformed(f"expected roots for {bundle.domain}, one says that it is for {uri[:80]!r}")


def _spki(root: x509.Certificate) -> bytes:
    return root.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _uris(root: x509.Certificate) -> list[str]:
    try:
        names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return list(names.get_values_for_type(x509.UniformResourceIdentifier))

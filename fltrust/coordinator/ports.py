"""What the authority needs of a store: transactions with every table in them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from fltrust.artifacts.keeping import (
    AggregateStore,
    ContributionStore,
    CosignatureStore,
    CountersignedStore,
    ModelStore,
    TaintStore,
    TrustMaterialStore,
)
from fltrust.enrollment.foreign import ForeignStore
from fltrust.enrollment.inventory import SightingStore
from fltrust.enrollment.operation_ports import OperationStore
from fltrust.enrollment.ports import CertificateStore, EnrollmentStore, TokenStore
from fltrust.enrollment.requests import RequestStore
from fltrust.identity import TrustDomain
from fltrust.protocols.acme.state import AcmeStore
from fltrust.revocation.log import EventLog
from fltrust.revocation.status import StatusStore
from fltrust.rounds.ports import RoundStore
from fltrust.tlog.ports import LogStore


class Transaction(Protocol):
    """One moment of the state; see the port of each part."""

    @property
    def tokens(self) -> TokenStore: ...
    @property
    def enrollments(self) -> EnrollmentStore: ...
    @property
    def certificates(self) -> CertificateStore: ...
    @property
    def events(self) -> EventLog: ...
    @property
    def rounds(self) -> RoundStore: ...
    @property
    def tlog(self) -> LogStore: ...
    @property
    def aggregates(self) -> AggregateStore: ...
    @property
    def models(self) -> ModelStore: ...
    @property
    def contributions(self) -> ContributionStore: ...
    @property
    def taints(self) -> TaintStore: ...
    @property
    def countersigned(self) -> CountersignedStore: ...
    @property
    def cosignatures(self) -> CosignatureStore: ...
    @property
    def trust_material(self) -> TrustMaterialStore: ...
    @property
    def statuses(self) -> StatusStore: ...
    @property
    def requests(self) -> RequestStore: ...
    @property
    def operations(self) -> OperationStore: ...
    @property
    def foreign(self) -> ForeignStore: ...
    @property
    def sightings(self) -> SightingStore: ...
    @property
    def acme(self) -> AcmeStore: ...
    def attempt(self) -> AbstractContextManager[None]:
        """In a writing transaction: undo what the block did, and nothing else, if it raises."""
        ...


class Store(Protocol):
    """Durable state, held by one coordinator at a time."""

    def writing(self) -> AbstractContextManager[Transaction]:
        """A transaction that holds the head (epoch, end of the chain) from begin to commit.

        Writers come one after the other. Durable when the block has ended without an error; an error
        inside undoes all of it. Raises `StorageUnavailable` when the store cannot; if that came from
        the commit itself, whether it took place is unknown.
        """
        ...

    def reading(self) -> AbstractContextManager[Transaction]:
        """A transaction that sees one moment, and changes nothing."""
        ...

    def claim(self, domain: TrustDomain) -> None:
        """Bind the store to one trust domain; another one raises `Conflict`."""
        ...

    def close(self) -> None: ...

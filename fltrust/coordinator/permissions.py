"""Who may call what: one table, deny by default, for the authority and the gRPC layer alike."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fltrust.errors import PermissionDenied
from fltrust.identity import Role, SpiffeId, TrustDomain

_ANYONE = frozenset({Role.PARTICIPANT, Role.AGGREGATOR, Role.OPERATOR, Role.SIGNER})
_CERTIFIED = _ANYONE | {Role.DEVICE}
_AGENTS = frozenset({Role.PARTICIPANT, Role.AGGREGATOR})
_AGGREGATOR = frozenset({Role.AGGREGATOR})
_OPERATOR = frozenset({Role.OPERATOR})
_WATCHERS_OF_RUNS = _AGGREGATOR | _OPERATOR
_SIGNERS = frozenset({Role.AGGREGATOR, Role.SIGNER})
_READERS_OF_LINEAGE = _SIGNERS | _OPERATOR

METHODS: Mapping[str, frozenset[Role]] = MappingProxyType(
    {
        "/fltrust.v1.EnrollmentService/Renew": _CERTIFIED,
        "/fltrust.v1.EnrollmentService/CertifyWorkload": _AGENTS,
        "/fltrust.v1.TrustService/GetBundle": _CERTIFIED,
        "/fltrust.v1.TrustService/Watch": _ANYONE,
        "/fltrust.v1.ParticipantService/ListParticipants": _WATCHERS_OF_RUNS,
        "/fltrust.v1.ParticipantService/GetParticipant": _OPERATOR,
        "/fltrust.v1.ParticipantService/FindParticipants": _OPERATOR,
        "/fltrust.v1.RequestService/ListRequests": _OPERATOR,
        "/fltrust.v1.RequestService/GetRequest": _OPERATOR,
        "/fltrust.v1.RequestService/ApproveRequest": _OPERATOR,
        "/fltrust.v1.RequestService/DenyRequest": _OPERATOR,
        "/fltrust.v1.BulkService/EnrollBulk": _OPERATOR,
        "/fltrust.v1.BulkService/RenewBulk": _OPERATOR,
        "/fltrust.v1.BulkService/CreateTokens": _OPERATOR,
        "/fltrust.v1.OperationService/ProposeOperation": _OPERATOR,
        "/fltrust.v1.OperationService/DecideOperation": _OPERATOR,
        "/fltrust.v1.OperationService/ListOperations": _OPERATOR,
        "/fltrust.v1.OperationService/GetOperation": _OPERATOR,
        "/fltrust.v1.TokenService/CreateToken": _OPERATOR,
        "/fltrust.v1.TokenService/ListTokens": _OPERATOR,
        "/fltrust.v1.TokenService/CancelToken": _OPERATOR,
        "/fltrust.v1.CredentialService/CreateCredential": _OPERATOR,
        "/fltrust.v1.RevocationService/Revoke": _OPERATOR,
        "/fltrust.v1.RevocationService/Hold": _OPERATOR,
        "/fltrust.v1.RevocationService/Release": _OPERATOR,
        "/fltrust.v1.RoundService/OpenRound": _AGGREGATOR,
        "/fltrust.v1.RoundService/SealRound": _AGGREGATOR,
        "/fltrust.v1.RoundService/CloseRun": _WATCHERS_OF_RUNS,
        "/fltrust.v1.RoundService/ListRounds": _WATCHERS_OF_RUNS,
        "/fltrust.v1.RoundService/GetRound": _WATCHERS_OF_RUNS,
        "/fltrust.v1.RoundService/ProveRounds": _WATCHERS_OF_RUNS,
        "/fltrust.v1.SigningService/CertifySigner": _SIGNERS,
        "/fltrust.v1.SigningService/Countersign": _SIGNERS,
        "/fltrust.v1.LineageService/DescribeRound": _AGGREGATOR,
        "/fltrust.v1.LineageService/FindLineage": _READERS_OF_LINEAGE,
        "/fltrust.v1.LineageService/BlastRadius": _OPERATOR,
        "/fltrust.v1.LineageService/GetTrust": _ANYONE,
        "/fltrust.v1.FederationService/ListForeignDomains": _AGENTS | _OPERATOR,
        "/fltrust.v1.LogService/Audit": _OPERATOR,
    }
)
"""Methods of the mTLS port, and the roles that may call them. What is not here, nobody may."""

FOREIGN_METHODS: Mapping[str, frozenset[Role]] = MappingProxyType(
    {
        "/fltrust.v1.TrustService/Watch": frozenset({Role.PARTICIPANT, Role.COORDINATOR}),
        "/fltrust.v1.TrustService/GetBundle": frozenset({Role.PARTICIPANT, Role.COORDINATOR}),
    }
)
"""What identities of a foreign domain may call: those of its participants that were admitted, and its
coordinator. Nothing else, whatever their role may at home."""

BOOTSTRAP_METHODS = frozenset(
    {
        "/fltrust.v1.EnrollmentService/Enroll",
        "/fltrust.v1.EnrollmentService/Collect",
        "/fltrust.v1.EnrollmentService/ChallengeTpm",
        "/fltrust.v1.TrustService/GetBundle",
    }
)
"""Methods of the bootstrap port, open to callers without a certificate."""


def check_permission(who: SpiffeId, method: str, *, home: TrustDomain | None = None) -> None:
    """Return only if the table allows `who` this method; `PermissionDenied` otherwise.

    For whoever is not of `home`, where that is given, the table is `FOREIGN_METHODS`.
    """
    is_foreign = home is not None and who.domain != home
    roles = (FOREIGN_METHODS if is_foreign else METHODS).get(method, frozenset())
    if who.role not in roles:
        allowed = ", ".join(sorted(roles)) or "nobody"
        raise PermissionDenied(
            f"expected a caller of role {allowed} for {method.rpartition('/')[2]}, got {who}",
            hint="use the certificate of an operator" if roles == _OPERATOR else None,
        )

import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EnrollRequest(_message.Message):
    __slots__ = ("csr", "node_key", "node_key_proof", "join_token", "oidc", "x509", "manual", "lapsed", "tpm")
    CSR_FIELD_NUMBER: _ClassVar[int]
    NODE_KEY_FIELD_NUMBER: _ClassVar[int]
    NODE_KEY_PROOF_FIELD_NUMBER: _ClassVar[int]
    JOIN_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OIDC_FIELD_NUMBER: _ClassVar[int]
    X509_FIELD_NUMBER: _ClassVar[int]
    MANUAL_FIELD_NUMBER: _ClassVar[int]
    LAPSED_FIELD_NUMBER: _ClassVar[int]
    TPM_FIELD_NUMBER: _ClassVar[int]
    csr: bytes
    node_key: bytes
    node_key_proof: bytes
    join_token: JoinTokenEvidence
    oidc: OidcEvidence
    x509: X509Evidence
    manual: ManualEvidence
    lapsed: LapsedEvidence
    tpm: TpmEvidence
    def __init__(self, csr: _Optional[bytes] = ..., node_key: _Optional[bytes] = ..., node_key_proof: _Optional[bytes] = ..., join_token: _Optional[_Union[JoinTokenEvidence, _Mapping]] = ..., oidc: _Optional[_Union[OidcEvidence, _Mapping]] = ..., x509: _Optional[_Union[X509Evidence, _Mapping]] = ..., manual: _Optional[_Union[ManualEvidence, _Mapping]] = ..., lapsed: _Optional[_Union[LapsedEvidence, _Mapping]] = ..., tpm: _Optional[_Union[TpmEvidence, _Mapping]] = ...) -> None: ...

class ChallengeTpmRequest(_message.Message):
    __slots__ = ("chain", "attestation_key")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    ATTESTATION_KEY_FIELD_NUMBER: _ClassVar[int]
    chain: _containers.RepeatedScalarFieldContainer[bytes]
    attestation_key: bytes
    def __init__(self, chain: _Optional[_Iterable[bytes]] = ..., attestation_key: _Optional[bytes] = ...) -> None: ...

class ChallengeTpmResponse(_message.Message):
    __slots__ = ("credential", "secret", "ticket")
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    credential: bytes
    secret: bytes
    ticket: bytes
    def __init__(self, credential: _Optional[bytes] = ..., secret: _Optional[bytes] = ..., ticket: _Optional[bytes] = ...) -> None: ...

class TpmEvidence(_message.Message):
    __slots__ = ("ticket", "secret", "attestation_key", "certified_key", "attestation", "signature")
    TICKET_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    ATTESTATION_KEY_FIELD_NUMBER: _ClassVar[int]
    CERTIFIED_KEY_FIELD_NUMBER: _ClassVar[int]
    ATTESTATION_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ticket: bytes
    secret: bytes
    attestation_key: bytes
    certified_key: bytes
    attestation: bytes
    signature: bytes
    def __init__(self, ticket: _Optional[bytes] = ..., secret: _Optional[bytes] = ..., attestation_key: _Optional[bytes] = ..., certified_key: _Optional[bytes] = ..., attestation: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class LapsedEvidence(_message.Message):
    __slots__ = ("chain", "proof")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    chain: _containers.RepeatedScalarFieldContainer[bytes]
    proof: bytes
    def __init__(self, chain: _Optional[_Iterable[bytes]] = ..., proof: _Optional[bytes] = ...) -> None: ...

class ManualEvidence(_message.Message):
    __slots__ = ("note",)
    NOTE_FIELD_NUMBER: _ClassVar[int]
    note: str
    def __init__(self, note: _Optional[str] = ...) -> None: ...

class OidcEvidence(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class X509Evidence(_message.Message):
    __slots__ = ("chain", "proof")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    chain: _containers.RepeatedScalarFieldContainer[bytes]
    proof: bytes
    def __init__(self, chain: _Optional[_Iterable[bytes]] = ..., proof: _Optional[bytes] = ...) -> None: ...

class JoinTokenEvidence(_message.Message):
    __slots__ = ("secret",)
    SECRET_FIELD_NUMBER: _ClassVar[int]
    secret: bytes
    def __init__(self, secret: _Optional[bytes] = ...) -> None: ...

class EnrollResponse(_message.Message):
    __slots__ = ("issued", "pending")
    ISSUED_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    issued: IssuedCertificate
    pending: PendingRequest
    def __init__(self, issued: _Optional[_Union[IssuedCertificate, _Mapping]] = ..., pending: _Optional[_Union[PendingRequest, _Mapping]] = ...) -> None: ...

class PendingRequest(_message.Message):
    __slots__ = ("request_id", "retry_after_seconds")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    retry_after_seconds: int
    def __init__(self, request_id: _Optional[str] = ..., retry_after_seconds: _Optional[int] = ...) -> None: ...

class CollectRequest(_message.Message):
    __slots__ = ("request_id", "csr")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CSR_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    csr: bytes
    def __init__(self, request_id: _Optional[str] = ..., csr: _Optional[bytes] = ...) -> None: ...

class CollectResponse(_message.Message):
    __slots__ = ("issued", "pending")
    ISSUED_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    issued: IssuedCertificate
    pending: PendingRequest
    def __init__(self, issued: _Optional[_Union[IssuedCertificate, _Mapping]] = ..., pending: _Optional[_Union[PendingRequest, _Mapping]] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr",)
    CSR_FIELD_NUMBER: _ClassVar[int]
    csr: bytes
    def __init__(self, csr: _Optional[bytes] = ...) -> None: ...

class RenewResponse(_message.Message):
    __slots__ = ("issued",)
    ISSUED_FIELD_NUMBER: _ClassVar[int]
    issued: IssuedCertificate
    def __init__(self, issued: _Optional[_Union[IssuedCertificate, _Mapping]] = ...) -> None: ...

class CertifyWorkloadRequest(_message.Message):
    __slots__ = ("csr",)
    CSR_FIELD_NUMBER: _ClassVar[int]
    csr: bytes
    def __init__(self, csr: _Optional[bytes] = ...) -> None: ...

class CertifyWorkloadResponse(_message.Message):
    __slots__ = ("issued",)
    ISSUED_FIELD_NUMBER: _ClassVar[int]
    issued: IssuedCertificate
    def __init__(self, issued: _Optional[_Union[IssuedCertificate, _Mapping]] = ...) -> None: ...

class IssuedCertificate(_message.Message):
    __slots__ = ("spiffe_id", "chain", "bundle")
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    spiffe_id: str
    chain: _containers.RepeatedScalarFieldContainer[bytes]
    bundle: TrustBundle
    def __init__(self, spiffe_id: _Optional[str] = ..., chain: _Optional[_Iterable[bytes]] = ..., bundle: _Optional[_Union[TrustBundle, _Mapping]] = ...) -> None: ...

class TrustBundle(_message.Message):
    __slots__ = ("trust_domain", "roots", "sequence")
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    trust_domain: str
    roots: _containers.RepeatedScalarFieldContainer[bytes]
    sequence: int
    def __init__(self, trust_domain: _Optional[str] = ..., roots: _Optional[_Iterable[bytes]] = ..., sequence: _Optional[int] = ...) -> None: ...

class CreateTokenRequest(_message.Message):
    __slots__ = ("role", "name", "ttl_seconds", "replace", "dns_names")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    DNS_NAMES_FIELD_NUMBER: _ClassVar[int]
    role: str
    name: str
    ttl_seconds: int
    replace: bool
    dns_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, role: _Optional[str] = ..., name: _Optional[str] = ..., ttl_seconds: _Optional[int] = ..., replace: bool = ..., dns_names: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateTokenResponse(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class ListTokensRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListTokensResponse(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    def __init__(self, tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ...) -> None: ...

class CancelTokenRequest(_message.Message):
    __slots__ = ("token_id",)
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    token_id: str
    def __init__(self, token_id: _Optional[str] = ...) -> None: ...

class CancelTokenResponse(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: Token
    def __init__(self, token: _Optional[_Union[Token, _Mapping]] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("token_id", "role", "name", "created_at", "expires_at", "created_by", "replace", "status", "dns_names")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    CREATED_BY_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DNS_NAMES_FIELD_NUMBER: _ClassVar[int]
    token_id: str
    role: str
    name: str
    created_at: _timestamp_pb2.Timestamp
    expires_at: _timestamp_pb2.Timestamp
    created_by: str
    replace: bool
    status: str
    dns_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, token_id: _Optional[str] = ..., role: _Optional[str] = ..., name: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., created_by: _Optional[str] = ..., replace: bool = ..., status: _Optional[str] = ..., dns_names: _Optional[_Iterable[str]] = ...) -> None: ...

class ListParticipantsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListParticipantsResponse(_message.Message):
    __slots__ = ("participants",)
    PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    participants: _containers.RepeatedCompositeFieldContainer[Participant]
    def __init__(self, participants: _Optional[_Iterable[_Union[Participant, _Mapping]]] = ...) -> None: ...

class GetParticipantRequest(_message.Message):
    __slots__ = ("spiffe_id",)
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    spiffe_id: str
    def __init__(self, spiffe_id: _Optional[str] = ...) -> None: ...

class GetParticipantResponse(_message.Message):
    __slots__ = ("participant",)
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    participant: Participant
    def __init__(self, participant: _Optional[_Union[Participant, _Mapping]] = ...) -> None: ...

class Participant(_message.Message):
    __slots__ = ("spiffe_id", "enrolled_at", "enrolled_by", "evidence", "node_key", "standing", "since_epoch", "certificate_serial", "certificate_not_after", "dns_names", "last_seen", "last_round", "claims", "live_certificates")
    class ClaimsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    ENROLLED_AT_FIELD_NUMBER: _ClassVar[int]
    ENROLLED_BY_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    NODE_KEY_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    SINCE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_SERIAL_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    DNS_NAMES_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_FIELD_NUMBER: _ClassVar[int]
    LAST_ROUND_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    LIVE_CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    spiffe_id: str
    enrolled_at: _timestamp_pb2.Timestamp
    enrolled_by: str
    evidence: str
    node_key: bytes
    standing: str
    since_epoch: int
    certificate_serial: str
    certificate_not_after: _timestamp_pb2.Timestamp
    dns_names: _containers.RepeatedScalarFieldContainer[str]
    last_seen: _timestamp_pb2.Timestamp
    last_round: RoundMark
    claims: _containers.ScalarMap[str, str]
    live_certificates: int
    def __init__(self, spiffe_id: _Optional[str] = ..., enrolled_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., enrolled_by: _Optional[str] = ..., evidence: _Optional[str] = ..., node_key: _Optional[bytes] = ..., standing: _Optional[str] = ..., since_epoch: _Optional[int] = ..., certificate_serial: _Optional[str] = ..., certificate_not_after: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., dns_names: _Optional[_Iterable[str]] = ..., last_seen: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_round: _Optional[_Union[RoundMark, _Mapping]] = ..., claims: _Optional[_Mapping[str, str]] = ..., live_certificates: _Optional[int] = ...) -> None: ...

class RoundMark(_message.Message):
    __slots__ = ("run_id", "step", "at")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    step: int
    at: _timestamp_pb2.Timestamp
    def __init__(self, run_id: _Optional[int] = ..., step: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class FindParticipantsRequest(_message.Message):
    __slots__ = ("role", "standing", "evidence", "prefix", "expires_by", "unseen_since", "no_round_since")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_BY_FIELD_NUMBER: _ClassVar[int]
    UNSEEN_SINCE_FIELD_NUMBER: _ClassVar[int]
    NO_ROUND_SINCE_FIELD_NUMBER: _ClassVar[int]
    role: str
    standing: str
    evidence: str
    prefix: str
    expires_by: _timestamp_pb2.Timestamp
    unseen_since: _timestamp_pb2.Timestamp
    no_round_since: _timestamp_pb2.Timestamp
    def __init__(self, role: _Optional[str] = ..., standing: _Optional[str] = ..., evidence: _Optional[str] = ..., prefix: _Optional[str] = ..., expires_by: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., unseen_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., no_round_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class FindParticipantsResponse(_message.Message):
    __slots__ = ("participants",)
    PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    participants: _containers.RepeatedCompositeFieldContainer[Participant]
    def __init__(self, participants: _Optional[_Iterable[_Union[Participant, _Mapping]]] = ...) -> None: ...

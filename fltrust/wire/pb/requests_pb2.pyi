import datetime

from fltrust.wire.pb import enrollment_pb2 as _enrollment_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EnrollmentRequest(_message.Message):
    __slots__ = ("request_id", "state", "protocol", "evidence", "key_id", "node_key_id", "role", "name", "dns_names", "replace", "granted_by", "claims", "needed", "count", "submitted_at", "expires_at", "decisions")
    class ClaimsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DNS_NAMES_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    GRANTED_BY_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    NEEDED_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    state: str
    protocol: str
    evidence: str
    key_id: str
    node_key_id: str
    role: str
    name: str
    dns_names: _containers.RepeatedScalarFieldContainer[str]
    replace: bool
    granted_by: str
    claims: _containers.ScalarMap[str, str]
    needed: int
    count: int
    submitted_at: _timestamp_pb2.Timestamp
    expires_at: _timestamp_pb2.Timestamp
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    def __init__(self, request_id: _Optional[str] = ..., state: _Optional[str] = ..., protocol: _Optional[str] = ..., evidence: _Optional[str] = ..., key_id: _Optional[str] = ..., node_key_id: _Optional[str] = ..., role: _Optional[str] = ..., name: _Optional[str] = ..., dns_names: _Optional[_Iterable[str]] = ..., replace: bool = ..., granted_by: _Optional[str] = ..., claims: _Optional[_Mapping[str, str]] = ..., needed: _Optional[int] = ..., count: _Optional[int] = ..., submitted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("operator", "serial", "is_approval", "reason", "at")
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    IS_APPROVAL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    operator: str
    serial: str
    is_approval: bool
    reason: str
    at: _timestamp_pb2.Timestamp
    def __init__(self, operator: _Optional[str] = ..., serial: _Optional[str] = ..., is_approval: bool = ..., reason: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListRequestsRequest(_message.Message):
    __slots__ = ("open_only", "after")
    OPEN_ONLY_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    open_only: bool
    after: str
    def __init__(self, open_only: bool = ..., after: _Optional[str] = ...) -> None: ...

class ListRequestsResponse(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[EnrollmentRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[EnrollmentRequest, _Mapping]]] = ...) -> None: ...

class GetRequestRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class GetRequestResponse(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: EnrollmentRequest
    def __init__(self, request: _Optional[_Union[EnrollmentRequest, _Mapping]] = ...) -> None: ...

class ApproveRequestRequest(_message.Message):
    __slots__ = ("request_id", "reason", "assignment")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    reason: str
    assignment: Assignment
    def __init__(self, request_id: _Optional[str] = ..., reason: _Optional[str] = ..., assignment: _Optional[_Union[Assignment, _Mapping]] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("role", "name", "dns_names", "replace")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DNS_NAMES_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    role: str
    name: str
    dns_names: _containers.RepeatedScalarFieldContainer[str]
    replace: bool
    def __init__(self, role: _Optional[str] = ..., name: _Optional[str] = ..., dns_names: _Optional[_Iterable[str]] = ..., replace: bool = ...) -> None: ...

class ApproveRequestResponse(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: EnrollmentRequest
    def __init__(self, request: _Optional[_Union[EnrollmentRequest, _Mapping]] = ...) -> None: ...

class DenyRequestRequest(_message.Message):
    __slots__ = ("request_id", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class DenyRequestResponse(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: EnrollmentRequest
    def __init__(self, request: _Optional[_Union[EnrollmentRequest, _Mapping]] = ...) -> None: ...

class BulkItem(_message.Message):
    __slots__ = ("who", "csr", "node_key", "node_key_proof", "proof")
    WHO_FIELD_NUMBER: _ClassVar[int]
    CSR_FIELD_NUMBER: _ClassVar[int]
    NODE_KEY_FIELD_NUMBER: _ClassVar[int]
    NODE_KEY_PROOF_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    who: Assignment
    csr: bytes
    node_key: bytes
    node_key_proof: bytes
    proof: bytes
    def __init__(self, who: _Optional[_Union[Assignment, _Mapping]] = ..., csr: _Optional[bytes] = ..., node_key: _Optional[bytes] = ..., node_key_proof: _Optional[bytes] = ..., proof: _Optional[bytes] = ...) -> None: ...

class BulkResult(_message.Message):
    __slots__ = ("spiffe_id", "certificate", "request_id", "refused")
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    spiffe_id: str
    certificate: bytes
    request_id: str
    refused: BulkRefusal
    def __init__(self, spiffe_id: _Optional[str] = ..., certificate: _Optional[bytes] = ..., request_id: _Optional[str] = ..., refused: _Optional[_Union[BulkRefusal, _Mapping]] = ...) -> None: ...

class BulkRefusal(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class EnrollBulkRequest(_message.Message):
    __slots__ = ("items", "atomic")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ATOMIC_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[BulkItem]
    atomic: bool
    def __init__(self, items: _Optional[_Iterable[_Union[BulkItem, _Mapping]]] = ..., atomic: bool = ...) -> None: ...

class EnrollBulkResponse(_message.Message):
    __slots__ = ("results", "issuers", "bundle")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ISSUERS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BulkResult]
    issuers: _containers.RepeatedScalarFieldContainer[bytes]
    bundle: _enrollment_pb2.TrustBundle
    def __init__(self, results: _Optional[_Iterable[_Union[BulkResult, _Mapping]]] = ..., issuers: _Optional[_Iterable[bytes]] = ..., bundle: _Optional[_Union[_enrollment_pb2.TrustBundle, _Mapping]] = ...) -> None: ...

class RenewBulkRequest(_message.Message):
    __slots__ = ("items", "atomic")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ATOMIC_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[BulkItem]
    atomic: bool
    def __init__(self, items: _Optional[_Iterable[_Union[BulkItem, _Mapping]]] = ..., atomic: bool = ...) -> None: ...

class RenewBulkResponse(_message.Message):
    __slots__ = ("results", "issuers", "bundle")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ISSUERS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BulkResult]
    issuers: _containers.RepeatedScalarFieldContainer[bytes]
    bundle: _enrollment_pb2.TrustBundle
    def __init__(self, results: _Optional[_Iterable[_Union[BulkResult, _Mapping]]] = ..., issuers: _Optional[_Iterable[bytes]] = ..., bundle: _Optional[_Union[_enrollment_pb2.TrustBundle, _Mapping]] = ...) -> None: ...

class CreateTokensRequest(_message.Message):
    __slots__ = ("items", "ttl_seconds")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Assignment]
    ttl_seconds: int
    def __init__(self, items: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ..., ttl_seconds: _Optional[int] = ...) -> None: ...

class CreateTokensResponse(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tokens: _Optional[_Iterable[str]] = ...) -> None: ...

import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CertifySignerRequest(_message.Message):
    __slots__ = ("csr",)
    CSR_FIELD_NUMBER: _ClassVar[int]
    csr: bytes
    def __init__(self, csr: _Optional[bytes] = ...) -> None: ...

class CertifySignerResponse(_message.Message):
    __slots__ = ("chain",)
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    chain: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, chain: _Optional[_Iterable[bytes]] = ...) -> None: ...

class CountersignRequest(_message.Message):
    __slots__ = ("envelope", "certificate", "entry_kind")
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    ENTRY_KIND_FIELD_NUMBER: _ClassVar[int]
    envelope: bytes
    certificate: bytes
    entry_kind: str
    def __init__(self, envelope: _Optional[bytes] = ..., certificate: _Optional[bytes] = ..., entry_kind: _Optional[str] = ...) -> None: ...

class CountersignResponse(_message.Message):
    __slots__ = ("bundle",)
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    bundle: bytes
    def __init__(self, bundle: _Optional[bytes] = ...) -> None: ...

class DescribeRoundRequest(_message.Message):
    __slots__ = ("run_id", "step")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    step: int
    def __init__(self, run_id: _Optional[int] = ..., step: _Optional[int] = ...) -> None: ...

class DescribeRoundResponse(_message.Message):
    __slots__ = ("run_id", "step", "round", "epoch", "log_index", "receipt", "trained_from", "opened_at", "sealed_at", "contributions")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    TRAINED_FROM_FIELD_NUMBER: _ClassVar[int]
    OPENED_AT_FIELD_NUMBER: _ClassVar[int]
    SEALED_AT_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    step: int
    round: int
    epoch: int
    log_index: int
    receipt: str
    trained_from: str
    opened_at: _timestamp_pb2.Timestamp
    sealed_at: _timestamp_pb2.Timestamp
    contributions: _containers.RepeatedCompositeFieldContainer[Contribution]
    def __init__(self, run_id: _Optional[int] = ..., step: _Optional[int] = ..., round: _Optional[int] = ..., epoch: _Optional[int] = ..., log_index: _Optional[int] = ..., receipt: _Optional[str] = ..., trained_from: _Optional[str] = ..., opened_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sealed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., contributions: _Optional[_Iterable[_Union[Contribution, _Mapping]]] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("participant", "public_name", "update", "certificate")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_NAME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    participant: str
    public_name: str
    update: str
    certificate: str
    def __init__(self, participant: _Optional[str] = ..., public_name: _Optional[str] = ..., update: _Optional[str] = ..., certificate: _Optional[str] = ...) -> None: ...

class FindLineageRequest(_message.Message):
    __slots__ = ("tensors", "step")
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    tensors: str
    step: StepOfRun
    def __init__(self, tensors: _Optional[str] = ..., step: _Optional[_Union[StepOfRun, _Mapping]] = ...) -> None: ...

class StepOfRun(_message.Message):
    __slots__ = ("run_id", "step")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    step: int
    def __init__(self, run_id: _Optional[int] = ..., step: _Optional[int] = ...) -> None: ...

class FindLineageResponse(_message.Message):
    __slots__ = ("bundle",)
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    bundle: bytes
    def __init__(self, bundle: _Optional[bytes] = ...) -> None: ...

class BlastRadiusRequest(_message.Message):
    __slots__ = ("participant", "since")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    participant: str
    since: _timestamp_pb2.Timestamp
    def __init__(self, participant: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class BlastRadiusResponse(_message.Message):
    __slots__ = ("rounds", "aggregates", "models")
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    AGGREGATES_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    rounds: _containers.RepeatedCompositeFieldContainer[SpoiltRound]
    aggregates: _containers.RepeatedCompositeFieldContainer[SpoiltAggregate]
    models: _containers.RepeatedCompositeFieldContainer[SpoiltModel]
    def __init__(self, rounds: _Optional[_Iterable[_Union[SpoiltRound, _Mapping]]] = ..., aggregates: _Optional[_Iterable[_Union[SpoiltAggregate, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[SpoiltModel, _Mapping]]] = ...) -> None: ...

class SpoiltRound(_message.Message):
    __slots__ = ("run_id", "step", "round", "log_index", "signed_at")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    SIGNED_AT_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    step: int
    round: int
    log_index: int
    signed_at: _timestamp_pb2.Timestamp
    def __init__(self, run_id: _Optional[int] = ..., step: _Optional[int] = ..., round: _Optional[int] = ..., log_index: _Optional[int] = ..., signed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SpoiltAggregate(_message.Message):
    __slots__ = ("run_id", "step", "round", "tensors", "log_index", "is_direct")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    IS_DIRECT_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    step: int
    round: int
    tensors: str
    log_index: int
    is_direct: bool
    def __init__(self, run_id: _Optional[int] = ..., step: _Optional[int] = ..., round: _Optional[int] = ..., tensors: _Optional[str] = ..., log_index: _Optional[int] = ..., is_direct: bool = ...) -> None: ...

class SpoiltModel(_message.Message):
    __slots__ = ("name", "subject", "log_index", "is_direct")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    IS_DIRECT_FIELD_NUMBER: _ClassVar[int]
    name: str
    subject: str
    log_index: int
    is_direct: bool
    def __init__(self, name: _Optional[str] = ..., subject: _Optional[str] = ..., log_index: _Optional[int] = ..., is_direct: bool = ...) -> None: ...

class GetTrustRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTrustResponse(_message.Message):
    __slots__ = ("trust",)
    TRUST_FIELD_NUMBER: _ClassVar[int]
    trust: bytes
    def __init__(self, trust: _Optional[bytes] = ...) -> None: ...

class AuditRequest(_message.Message):
    __slots__ = ("participant", "run_id", "since", "until")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    participant: str
    run_id: int
    since: _timestamp_pb2.Timestamp
    until: _timestamp_pb2.Timestamp
    def __init__(self, participant: _Optional[str] = ..., run_id: _Optional[int] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class AuditResponse(_message.Message):
    __slots__ = ("line",)
    LINE_FIELD_NUMBER: _ClassVar[int]
    line: bytes
    def __init__(self, line: _Optional[bytes] = ...) -> None: ...

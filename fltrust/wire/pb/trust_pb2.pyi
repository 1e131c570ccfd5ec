import datetime

from fltrust.wire.pb import enrollment_pb2 as _enrollment_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetBundleRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetBundleResponse(_message.Message):
    __slots__ = ("bundle",)
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    bundle: _enrollment_pb2.TrustBundle
    def __init__(self, bundle: _Optional[_Union[_enrollment_pb2.TrustBundle, _Mapping]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("after_epoch",)
    AFTER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    after_epoch: int
    def __init__(self, after_epoch: _Optional[int] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("event", "heartbeat")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    event: TrustEvent
    heartbeat: Heartbeat
    def __init__(self, event: _Optional[_Union[TrustEvent, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("epoch", "at")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    at: _timestamp_pb2.Timestamp
    def __init__(self, epoch: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class TrustEvent(_message.Message):
    __slots__ = ("epoch", "kind", "at", "actor", "subject", "identity_wide", "serials", "keys", "node_key", "run_id", "reason", "compromised_since", "domain", "sequence", "issuer")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_WIDE_FIELD_NUMBER: _ClassVar[int]
    SERIALS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    NODE_KEY_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COMPROMISED_SINCE_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    kind: str
    at: _timestamp_pb2.Timestamp
    actor: str
    subject: str
    identity_wide: bool
    serials: _containers.RepeatedScalarFieldContainer[str]
    keys: _containers.RepeatedScalarFieldContainer[str]
    node_key: bytes
    run_id: int
    reason: str
    compromised_since: _timestamp_pb2.Timestamp
    domain: str
    sequence: int
    issuer: str
    def __init__(self, epoch: _Optional[int] = ..., kind: _Optional[str] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., actor: _Optional[str] = ..., subject: _Optional[str] = ..., identity_wide: bool = ..., serials: _Optional[_Iterable[str]] = ..., keys: _Optional[_Iterable[str]] = ..., node_key: _Optional[bytes] = ..., run_id: _Optional[int] = ..., reason: _Optional[str] = ..., compromised_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., domain: _Optional[str] = ..., sequence: _Optional[int] = ..., issuer: _Optional[str] = ...) -> None: ...

class RevocationTarget(_message.Message):
    __slots__ = ("name", "serial", "key", "run_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    serial: str
    key: str
    run_id: int
    def __init__(self, name: _Optional[str] = ..., serial: _Optional[str] = ..., key: _Optional[str] = ..., run_id: _Optional[int] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("target", "reason", "compromised_since")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COMPROMISED_SINCE_FIELD_NUMBER: _ClassVar[int]
    target: RevocationTarget
    reason: str
    compromised_since: _timestamp_pb2.Timestamp
    def __init__(self, target: _Optional[_Union[RevocationTarget, _Mapping]] = ..., reason: _Optional[str] = ..., compromised_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RevokeResponse(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[TrustEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[TrustEvent, _Mapping]]] = ...) -> None: ...

class HoldRequest(_message.Message):
    __slots__ = ("target", "reason")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    target: RevocationTarget
    reason: str
    def __init__(self, target: _Optional[_Union[RevocationTarget, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class HoldResponse(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[TrustEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[TrustEvent, _Mapping]]] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("target",)
    TARGET_FIELD_NUMBER: _ClassVar[int]
    target: RevocationTarget
    def __init__(self, target: _Optional[_Union[RevocationTarget, _Mapping]] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[TrustEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[TrustEvent, _Mapping]]] = ...) -> None: ...

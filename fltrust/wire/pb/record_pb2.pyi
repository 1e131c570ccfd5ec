from fltrust.wire.pb import enrollment_pb2 as _enrollment_pb2
from fltrust.wire.pb import rounds_pb2 as _rounds_pb2
from fltrust.wire.pb import trust_pb2 as _trust_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecordLine(_message.Message):
    __slots__ = ("header", "event", "round", "tree", "place")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    header: RecordHeader
    event: _trust_pb2.TrustEvent
    round: _rounds_pb2.Round
    tree: _rounds_pb2.LogTree
    place: _rounds_pb2.PlaceProof
    def __init__(self, header: _Optional[_Union[RecordHeader, _Mapping]] = ..., event: _Optional[_Union[_trust_pb2.TrustEvent, _Mapping]] = ..., round: _Optional[_Union[_rounds_pb2.Round, _Mapping]] = ..., tree: _Optional[_Union[_rounds_pb2.LogTree, _Mapping]] = ..., place: _Optional[_Union[_rounds_pb2.PlaceProof, _Mapping]] = ...) -> None: ...

class RecordHeader(_message.Message):
    __slots__ = ("format", "run_id", "bundle", "foreign")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_FIELD_NUMBER: _ClassVar[int]
    format: str
    run_id: int
    bundle: _enrollment_pb2.TrustBundle
    foreign: _containers.RepeatedCompositeFieldContainer[_enrollment_pb2.TrustBundle]
    def __init__(self, format: _Optional[str] = ..., run_id: _Optional[int] = ..., bundle: _Optional[_Union[_enrollment_pb2.TrustBundle, _Mapping]] = ..., foreign: _Optional[_Iterable[_Union[_enrollment_pb2.TrustBundle, _Mapping]]] = ...) -> None: ...

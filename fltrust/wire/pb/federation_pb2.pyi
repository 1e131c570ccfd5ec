from fltrust.wire.pb import enrollment_pb2 as _enrollment_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListForeignDomainsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListForeignDomainsResponse(_message.Message):
    __slots__ = ("domains",)
    DOMAINS_FIELD_NUMBER: _ClassVar[int]
    domains: _containers.RepeatedCompositeFieldContainer[ForeignDomain]
    def __init__(self, domains: _Optional[_Iterable[_Union[ForeignDomain, _Mapping]]] = ...) -> None: ...

class ForeignDomain(_message.Message):
    __slots__ = ("bundle", "address", "endpoint_url", "profile", "endpoint_spiffe_id", "lent", "is_held", "has_ended")
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_URL_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    LENT_FIELD_NUMBER: _ClassVar[int]
    IS_HELD_FIELD_NUMBER: _ClassVar[int]
    HAS_ENDED_FIELD_NUMBER: _ClassVar[int]
    bundle: _enrollment_pb2.TrustBundle
    address: str
    endpoint_url: str
    profile: str
    endpoint_spiffe_id: str
    lent: _containers.RepeatedScalarFieldContainer[str]
    is_held: bool
    has_ended: bool
    def __init__(self, bundle: _Optional[_Union[_enrollment_pb2.TrustBundle, _Mapping]] = ..., address: _Optional[str] = ..., endpoint_url: _Optional[str] = ..., profile: _Optional[str] = ..., endpoint_spiffe_id: _Optional[str] = ..., lent: _Optional[_Iterable[str]] = ..., is_held: bool = ..., has_ended: bool = ...) -> None: ...

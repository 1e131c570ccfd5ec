from fltrust.wire.pb import enrollment_pb2 as _enrollment_pb2
from fltrust.wire.pb import rounds_pb2 as _rounds_pb2
from fltrust.wire.pb import trust_pb2 as _trust_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AgentRequest(_message.Message):
    __slots__ = ("identity", "check_instruction", "sign_update", "sign_second", "sign_instructions", "open_round", "seal_round", "close_run", "follow", "record_aggregate")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    CHECK_INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    SIGN_UPDATE_FIELD_NUMBER: _ClassVar[int]
    SIGN_SECOND_FIELD_NUMBER: _ClassVar[int]
    SIGN_INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    OPEN_ROUND_FIELD_NUMBER: _ClassVar[int]
    SEAL_ROUND_FIELD_NUMBER: _ClassVar[int]
    CLOSE_RUN_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    RECORD_AGGREGATE_FIELD_NUMBER: _ClassVar[int]
    identity: IdentityRequest
    check_instruction: CheckInstructionRequest
    sign_update: SignUpdateRequest
    sign_second: SignSecondRequest
    sign_instructions: SignInstructionsRequest
    open_round: _rounds_pb2.OpenRoundRequest
    seal_round: _rounds_pb2.SealRoundRequest
    close_run: _rounds_pb2.CloseRunRequest
    follow: _trust_pb2.WatchRequest
    record_aggregate: RecordAggregateRequest
    def __init__(self, identity: _Optional[_Union[IdentityRequest, _Mapping]] = ..., check_instruction: _Optional[_Union[CheckInstructionRequest, _Mapping]] = ..., sign_update: _Optional[_Union[SignUpdateRequest, _Mapping]] = ..., sign_second: _Optional[_Union[SignSecondRequest, _Mapping]] = ..., sign_instructions: _Optional[_Union[SignInstructionsRequest, _Mapping]] = ..., open_round: _Optional[_Union[_rounds_pb2.OpenRoundRequest, _Mapping]] = ..., seal_round: _Optional[_Union[_rounds_pb2.SealRoundRequest, _Mapping]] = ..., close_run: _Optional[_Union[_rounds_pb2.CloseRunRequest, _Mapping]] = ..., follow: _Optional[_Union[_trust_pb2.WatchRequest, _Mapping]] = ..., record_aggregate: _Optional[_Union[RecordAggregateRequest, _Mapping]] = ...) -> None: ...

class AgentResponse(_message.Message):
    __slots__ = ("error", "identity", "check_instruction", "sign_update", "sign_instructions", "open_round", "seal_round", "close_run", "follow", "record_aggregate", "sign_second")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    CHECK_INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    SIGN_UPDATE_FIELD_NUMBER: _ClassVar[int]
    SIGN_INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    OPEN_ROUND_FIELD_NUMBER: _ClassVar[int]
    SEAL_ROUND_FIELD_NUMBER: _ClassVar[int]
    CLOSE_RUN_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    RECORD_AGGREGATE_FIELD_NUMBER: _ClassVar[int]
    SIGN_SECOND_FIELD_NUMBER: _ClassVar[int]
    error: AgentError
    identity: IdentityResponse
    check_instruction: CheckInstructionResponse
    sign_update: SignUpdateResponse
    sign_instructions: SignInstructionsResponse
    open_round: _rounds_pb2.OpenRoundResponse
    seal_round: _rounds_pb2.SealRoundResponse
    close_run: _rounds_pb2.CloseRunResponse
    follow: _trust_pb2.WatchResponse
    record_aggregate: RecordAggregateResponse
    sign_second: SignSecondResponse
    def __init__(self, error: _Optional[_Union[AgentError, _Mapping]] = ..., identity: _Optional[_Union[IdentityResponse, _Mapping]] = ..., check_instruction: _Optional[_Union[CheckInstructionResponse, _Mapping]] = ..., sign_update: _Optional[_Union[SignUpdateResponse, _Mapping]] = ..., sign_instructions: _Optional[_Union[SignInstructionsResponse, _Mapping]] = ..., open_round: _Optional[_Union[_rounds_pb2.OpenRoundResponse, _Mapping]] = ..., seal_round: _Optional[_Union[_rounds_pb2.SealRoundResponse, _Mapping]] = ..., close_run: _Optional[_Union[_rounds_pb2.CloseRunResponse, _Mapping]] = ..., follow: _Optional[_Union[_trust_pb2.WatchResponse, _Mapping]] = ..., record_aggregate: _Optional[_Union[RecordAggregateResponse, _Mapping]] = ..., sign_second: _Optional[_Union[SignSecondResponse, _Mapping]] = ...) -> None: ...

class AgentError(_message.Message):
    __slots__ = ("error", "reason", "message", "hint")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    error: str
    reason: str
    message: str
    hint: str
    def __init__(self, error: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class IdentityRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IdentityResponse(_message.Message):
    __slots__ = ("spiffe_id", "bundle", "node_key", "foreign")
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    NODE_KEY_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_FIELD_NUMBER: _ClassVar[int]
    spiffe_id: str
    bundle: _enrollment_pb2.TrustBundle
    node_key: str
    foreign: _containers.RepeatedCompositeFieldContainer[_enrollment_pb2.TrustBundle]
    def __init__(self, spiffe_id: _Optional[str] = ..., bundle: _Optional[_Union[_enrollment_pb2.TrustBundle, _Mapping]] = ..., node_key: _Optional[str] = ..., foreign: _Optional[_Iterable[_Union[_enrollment_pb2.TrustBundle, _Mapping]]] = ...) -> None: ...

class ReceivedInstruction(_message.Message):
    __slots__ = ("signed", "content", "model", "run_id", "node_id", "message_type")
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    signed: bytes
    content: str
    model: str
    run_id: int
    node_id: int
    message_type: str
    def __init__(self, signed: _Optional[bytes] = ..., content: _Optional[str] = ..., model: _Optional[str] = ..., run_id: _Optional[int] = ..., node_id: _Optional[int] = ..., message_type: _Optional[str] = ...) -> None: ...

class CheckInstructionRequest(_message.Message):
    __slots__ = ("received",)
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    received: ReceivedInstruction
    def __init__(self, received: _Optional[_Union[ReceivedInstruction, _Mapping]] = ...) -> None: ...

class CheckInstructionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SignUpdateRequest(_message.Message):
    __slots__ = ("received", "reply", "reply_type")
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    REPLY_TYPE_FIELD_NUMBER: _ClassVar[int]
    received: ReceivedInstruction
    reply: str
    reply_type: str
    def __init__(self, received: _Optional[_Union[ReceivedInstruction, _Mapping]] = ..., reply: _Optional[str] = ..., reply_type: _Optional[str] = ...) -> None: ...

class SignUpdateResponse(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: bytes
    def __init__(self, signed: _Optional[bytes] = ...) -> None: ...

class SignSecondRequest(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: bytes
    def __init__(self, signed: _Optional[bytes] = ...) -> None: ...

class SignSecondResponse(_message.Message):
    __slots__ = ("second",)
    SECOND_FIELD_NUMBER: _ClassVar[int]
    second: bytes
    def __init__(self, second: _Optional[bytes] = ...) -> None: ...

class InstructionDraft(_message.Message):
    __slots__ = ("run_id", "round", "phase", "step", "participant", "node_id", "node_key", "message_type", "content", "model", "lifetime_seconds")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_KEY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    round: int
    phase: str
    step: int
    participant: str
    node_id: int
    node_key: str
    message_type: str
    content: str
    model: str
    lifetime_seconds: int
    def __init__(self, run_id: _Optional[int] = ..., round: _Optional[int] = ..., phase: _Optional[str] = ..., step: _Optional[int] = ..., participant: _Optional[str] = ..., node_id: _Optional[int] = ..., node_key: _Optional[str] = ..., message_type: _Optional[str] = ..., content: _Optional[str] = ..., model: _Optional[str] = ..., lifetime_seconds: _Optional[int] = ...) -> None: ...

class SignInstructionsRequest(_message.Message):
    __slots__ = ("drafts",)
    DRAFTS_FIELD_NUMBER: _ClassVar[int]
    drafts: _containers.RepeatedCompositeFieldContainer[InstructionDraft]
    def __init__(self, drafts: _Optional[_Iterable[_Union[InstructionDraft, _Mapping]]] = ...) -> None: ...

class SignInstructionsResponse(_message.Message):
    __slots__ = ("signed",)
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    signed: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, signed: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RecordAggregateRequest(_message.Message):
    __slots__ = ("run_id", "step", "round", "is_initial", "tensors", "model", "previous_step", "app", "weights")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    IS_INITIAL_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_STEP_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    step: int
    round: int
    is_initial: bool
    tensors: str
    model: str
    previous_step: int
    app: AppVersion
    weights: _containers.RepeatedCompositeFieldContainer[Weight]
    def __init__(self, run_id: _Optional[int] = ..., step: _Optional[int] = ..., round: _Optional[int] = ..., is_initial: bool = ..., tensors: _Optional[str] = ..., model: _Optional[str] = ..., previous_step: _Optional[int] = ..., app: _Optional[_Union[AppVersion, _Mapping]] = ..., weights: _Optional[_Iterable[_Union[Weight, _Mapping]]] = ...) -> None: ...

class AppVersion(_message.Message):
    __slots__ = ("fab_id", "fab_version", "fab_hash")
    FAB_ID_FIELD_NUMBER: _ClassVar[int]
    FAB_VERSION_FIELD_NUMBER: _ClassVar[int]
    FAB_HASH_FIELD_NUMBER: _ClassVar[int]
    fab_id: str
    fab_version: str
    fab_hash: str
    def __init__(self, fab_id: _Optional[str] = ..., fab_version: _Optional[str] = ..., fab_hash: _Optional[str] = ...) -> None: ...

class Weight(_message.Message):
    __slots__ = ("participant", "examples")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    participant: str
    examples: str
    def __init__(self, participant: _Optional[str] = ..., examples: _Optional[str] = ...) -> None: ...

class RecordAggregateResponse(_message.Message):
    __slots__ = ("bundle",)
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    bundle: bytes
    def __init__(self, bundle: _Optional[bytes] = ...) -> None: ...

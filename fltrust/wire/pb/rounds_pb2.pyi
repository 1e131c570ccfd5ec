import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RoundKey(_message.Message):
    __slots__ = ("run_id", "step", "round", "phase")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    step: int
    round: int
    phase: str
    def __init__(self, run_id: _Optional[int] = ..., step: _Optional[int] = ..., round: _Optional[int] = ..., phase: _Optional[str] = ...) -> None: ...

class CohortMember(_message.Message):
    __slots__ = ("participant", "node_id", "node_key", "instruction")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_KEY_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    participant: str
    node_id: int
    node_key: str
    instruction: str
    def __init__(self, participant: _Optional[str] = ..., node_id: _Optional[int] = ..., node_key: _Optional[str] = ..., instruction: _Optional[str] = ...) -> None: ...

class OpenRoundRequest(_message.Message):
    __slots__ = ("key", "cohort")
    KEY_FIELD_NUMBER: _ClassVar[int]
    COHORT_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    cohort: _containers.RepeatedCompositeFieldContainer[CohortMember]
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., cohort: _Optional[_Iterable[_Union[CohortMember, _Mapping]]] = ...) -> None: ...

class OpenRoundResponse(_message.Message):
    __slots__ = ("epoch", "refused")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    refused: _containers.RepeatedCompositeFieldContainer[RefusedMember]
    def __init__(self, epoch: _Optional[int] = ..., refused: _Optional[_Iterable[_Union[RefusedMember, _Mapping]]] = ...) -> None: ...

class RefusedMember(_message.Message):
    __slots__ = ("participant", "reason")
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    participant: str
    reason: str
    def __init__(self, participant: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("instruction", "update", "second")
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    instruction: bytes
    update: bytes
    second: bytes
    def __init__(self, instruction: _Optional[bytes] = ..., update: _Optional[bytes] = ..., second: _Optional[bytes] = ...) -> None: ...

class SealRoundRequest(_message.Message):
    __slots__ = ("key", "candidates", "refused")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    refused: _containers.RepeatedCompositeFieldContainer[RefusedMember]
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., refused: _Optional[_Iterable[_Union[RefusedMember, _Mapping]]] = ...) -> None: ...

class SealRoundResponse(_message.Message):
    __slots__ = ("receipt",)
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    receipt: bytes
    def __init__(self, receipt: _Optional[bytes] = ...) -> None: ...

class CloseRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    def __init__(self, run_id: _Optional[int] = ...) -> None: ...

class CloseRunResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRoundsRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    def __init__(self, run_id: _Optional[int] = ...) -> None: ...

class ListRoundsResponse(_message.Message):
    __slots__ = ("rounds",)
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    rounds: _containers.RepeatedCompositeFieldContainer[Round]
    def __init__(self, rounds: _Optional[_Iterable[_Union[Round, _Mapping]]] = ...) -> None: ...

class GetRoundRequest(_message.Message):
    __slots__ = ("run_id", "step")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    step: int
    def __init__(self, run_id: _Optional[int] = ..., step: _Optional[int] = ...) -> None: ...

class GetRoundResponse(_message.Message):
    __slots__ = ("round",)
    ROUND_FIELD_NUMBER: _ClassVar[int]
    round: Round
    def __init__(self, round: _Optional[_Union[Round, _Mapping]] = ...) -> None: ...

class ProveRoundsRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: int
    def __init__(self, run_id: _Optional[int] = ...) -> None: ...

class ProveRoundsResponse(_message.Message):
    __slots__ = ("tree", "place")
    TREE_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    tree: LogTree
    place: PlaceProof
    def __init__(self, tree: _Optional[_Union[LogTree, _Mapping]] = ..., place: _Optional[_Union[PlaceProof, _Mapping]] = ...) -> None: ...

class LogTree(_message.Message):
    __slots__ = ("key", "checkpoint")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    key: str
    checkpoint: bytes
    def __init__(self, key: _Optional[str] = ..., checkpoint: _Optional[bytes] = ...) -> None: ...

class PlaceProof(_message.Message):
    __slots__ = ("index", "inclusion", "consistency")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    INCLUSION_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    index: int
    inclusion: _containers.RepeatedScalarFieldContainer[bytes]
    consistency: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, index: _Optional[int] = ..., inclusion: _Optional[_Iterable[bytes]] = ..., consistency: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Round(_message.Message):
    __slots__ = ("key", "status", "aggregator", "opened_at", "opened_epoch", "cohort", "receipt", "evidence")
    KEY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    AGGREGATOR_FIELD_NUMBER: _ClassVar[int]
    OPENED_AT_FIELD_NUMBER: _ClassVar[int]
    OPENED_EPOCH_FIELD_NUMBER: _ClassVar[int]
    COHORT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    key: RoundKey
    status: str
    aggregator: str
    opened_at: _timestamp_pb2.Timestamp
    opened_epoch: int
    cohort: _containers.RepeatedCompositeFieldContainer[CohortMember]
    receipt: bytes
    evidence: _containers.RepeatedCompositeFieldContainer[Candidate]
    def __init__(self, key: _Optional[_Union[RoundKey, _Mapping]] = ..., status: _Optional[str] = ..., aggregator: _Optional[str] = ..., opened_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., opened_epoch: _Optional[int] = ..., cohort: _Optional[_Iterable[_Union[CohortMember, _Mapping]]] = ..., receipt: _Optional[bytes] = ..., evidence: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ...) -> None: ...

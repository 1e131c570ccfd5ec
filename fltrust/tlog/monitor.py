"""A monitor: remembers what a log showed, and says when it shows something else or something unexpected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from fltrust import strictjson
from fltrust.clock import to_rfc3339
from fltrust.errors import EvidenceInvalid, Malformed
from fltrust.files import read_bounded, write_durably
from fltrust.identity import Epoch
from fltrust.strictjson import Fields
from fltrust.tlog.checkpoint import CheckpointPolicy, VerifiedCheckpoint
from fltrust.tlog.entries import CertificateLeaf, ParticipantCertificate, PrecertificateLeaf
from fltrust.tlog.expectations import Expectations, LoggedCertificate
from fltrust.tlog.merkle import verify_consistency
from fltrust.tlog.note import MAX_NOTE
from fltrust.tlog.sequence import EntrySequence

MAX_ALERTS = 1000
"""Alerts of one step; if there are more, the last says so. Each is counted."""

_STATE_TYPE = "urn:fltrust:log-monitor:v1"
_MAX_STATE = 2 * MAX_NOTE


class AlertKind(StrEnum):
    FORK = "fork"
    """Two signed trees, of which neither extends the other: the log lied to somebody."""
    REWIND = "rewind"
    """Fewer entries than were there before: the log, or what is between, shows an old state."""
    TAMPERED = "tampered"
    """Tiles or entries are served that do not hash to the signed root."""
    UNEXPECTED_CERTIFICATE = "unexpected-certificate"
    UNLISTED_NAME = "unlisted-name"
    UNREADABLE_CERTIFICATE = "unreadable-certificate"
    BAD_ENTRY = "bad-entry"
    """An entry that no honest log of ours has (`fltrust.tlog.sequence`)."""
    MORE = "more"
    """There were more alerts than are kept of one step."""

    @property
    def is_misbehaviour(self) -> bool:
        """Of the log itself, or of what stands between: nothing it shows is to be believed."""
        return self in (AlertKind.FORK, AlertKind.REWIND, AlertKind.TAMPERED, AlertKind.BAD_ENTRY)


@dataclass(frozen=True, slots=True)
class Alert:
    """What somebody must look at. For a fork or rewind, the two notes are the proof."""

    kind: AlertKind
    message: str
    origin: str
    index: int | None = None
    name: str | None = None
    certificate: str | None = None
    known: str | None = None
    found: str | None = None

    def to_json(self) -> dict[str, object]:
        return {
            "type": "urn:fltrust:log-alert:v1",
            "alert": str(self.kind),
            "message": self.message,
            "origin": self.origin,
            "index": self.index,
            "name": self.name,
            "certificate": self.certificate,
            "knownCheckpoint": self.known,
            "foundCheckpoint": self.found,
        }


@dataclass(frozen=True, slots=True)
class MonitorState:
    """What a monitor remembers: the newest checkpoint up to which every entry was read, and its counts."""

    origin: str
    checkpoint: VerifiedCheckpoint | None = None
    epoch: Epoch | None = None
    """Of the last trust event that was read."""
    checked_at: datetime | None = None
    alerts: Mapping[str, int] = field(default_factory=dict)
    """How often each kind of alert was given, ever."""

    @property
    def size(self) -> int:
        return 0 if self.checkpoint is None else self.checkpoint.head.size

    def encode(self) -> bytes:
        return strictjson.encode(
            {
                "type": _STATE_TYPE,
                "origin": self.origin,
                "checkpoint": None if self.checkpoint is None else self.checkpoint.note.decode(),
                "epoch": None if self.epoch is None else str(self.epoch),
                "checkedAt": None if self.checked_at is None else to_rfc3339(self.checked_at),
                "alerts": {str(kind): str(count) for kind, count in self.alerts.items()},
            }
        )

    @classmethod
    def parse(cls, data: bytes, policy: CheckpointPolicy) -> MonitorState:
        """Read a state; its checkpoint must be signed by the log, and be of the log that is watched."""
        fields = Fields(
            strictjson.decode(data, limit=_MAX_STATE, what="a monitor's state"), "a monitor's state"
        )
        if fields.text("type", limit=64) != _STATE_TYPE:
            raise Malformed(f"expected a monitor's state of type {_STATE_TYPE}, got another")
        origin = fields.text("origin", limit=512)
        if origin != policy.origin:
            raise Malformed(
                f"expected the state of a monitor of {policy.origin}, got one of {origin!r}",
                hint="each log needs a state file of its own",
            )
        note = None if fields.is_null("checkpoint") else fields.text("checkpoint", limit=MAX_NOTE)
        epoch = None if fields.is_null("epoch") else Epoch(fields.decimal("epoch", bits=63))
        checked_at = None if fields.is_null("checkedAt") else fields.time("checkedAt")
        alerts = _read_counts(fields.any("alerts"))
        fields.done()
        known = None if note is None else CheckpointPolicy(policy.log).verify(note.encode())
        return cls(origin, known, epoch, checked_at, alerts)


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one look at the log. `state` is what to remember, once the alerts are handed on."""

    state: MonitorState
    alerts: tuple[Alert, ...]


def advance(
    state: MonitorState,
    new: VerifiedCheckpoint,
    *,
    proof: tuple[bytes, ...],
    entries: Iterable[tuple[int, bytes]],
    expectations: Expectations,
    at: datetime,
) -> Step:
    """Judge a newer checkpoint and what is new under it.

    `proof` is the consistency proof from the remembered tree to the new one, `entries` are those from the
    remembered size on, already checked against the new root. Pure but for reading `entries`.

    1. A smaller tree is a rewind, another past a fork: the state keeps the old checkpoint, and nothing of
       the new one is read.
    2. Every new entry is read; what is no entry of an honest log is an alert, and so is a certificate
       that is not expected.
    3. The state moves on to the new checkpoint.
    """
    known = state.checkpoint
    if known is not None:  # 1.
        bad = _check_past(known, new, proof)
        if bad is not None:
            return Step(count_alerts(replace(state, checked_at=at), [bad]), (bad,))
    sequence = EntrySequence(state.origin, index=state.size, epoch=state.epoch)
    alerts: list[Alert] = []
    more = 0
    for index, data in entries:  # 2.
        found = _look_at(sequence, index, data, expectations)
        if found is not None and len(alerts) < MAX_ALERTS:
            alerts.append(found)
        elif found is not None:
            more += 1
    if sequence.index != new.head.size:
        raise Malformed(f"expected the entries up to {new.head.size}, got those up to {sequence.index}")
    if more:
        alerts.append(Alert(AlertKind.MORE, f"there are {more} more alerts", state.origin))
    moved = MonitorState(state.origin, new, sequence.epoch, at, state.alerts)  # 3.
    return Step(count_alerts(moved, alerts), tuple(alerts))


def load_state(path: Path, policy: CheckpointPolicy) -> MonitorState:
    """The state in a file, or that of a monitor that has seen nothing where there is none yet."""
    if not path.exists():
        return MonitorState(policy.origin)
    return MonitorState.parse(read_bounded(path, limit=_MAX_STATE), policy)


def save_state(path: Path, state: MonitorState) -> None:
    write_durably(path, state.encode())


def _check_past(known: VerifiedCheckpoint, new: VerifiedCheckpoint, proof: tuple[bytes, ...]) -> Alert | None:
    before, after = known.head.size, new.head.size
    kind, message = AlertKind.REWIND, f"the log was seen with {before} entries, and now shows {after}"
    if after >= before:
        try:
            verify_consistency(proof, old=known.head, new=new.head)
            return None
        except EvidenceInvalid as error:
            kind = AlertKind.FORK
            message = f"the log shows another past than it did at {before} entries: {error.message}"
    return Alert(kind, message, known.origin, known=known.note.decode(), found=new.note.decode())


def _look_at(sequence: EntrySequence, index: int, data: bytes, expectations: Expectations) -> Alert | None:
    if index != sequence.index:
        raise Malformed(f"expected entry {sequence.index} next, got {index}")
    origin = sequence.origin
    try:
        entry = sequence.read(data)
    except EvidenceInvalid as error:
        sequence.skip()
        return Alert(AlertKind.BAD_ENTRY, error.message, origin, index=index)
    if not isinstance(entry, CertificateLeaf | PrecertificateLeaf | ParticipantCertificate):
        return None
    unexpected = expectations.judge(entry)
    if unexpected is None:
        return None
    return Alert(
        AlertKind(unexpected.kind),
        unexpected.message,
        origin,
        index=index,
        name=unexpected.name or None,
        certificate=_fingerprint(entry),
    )


def _fingerprint(entry: LoggedCertificate) -> str | None:
    if isinstance(entry, CertificateLeaf):
        return str(entry.fingerprint)
    return str(entry.certificate) if isinstance(entry, ParticipantCertificate) else None


def _read_counts(value: object) -> dict[str, int]:
    counts = Fields(value, "the alerts in a monitor's state")
    found = {
        str(kind): counts.decimal(kind, bits=63)
        for kind in AlertKind
        if isinstance(value, dict) and kind in value
    }
    counts.done()
    return found


def count_alerts(state: MonitorState, alerts: Sequence[Alert]) -> MonitorState:
    """The state with these alerts among those given."""
    counts = dict(state.alerts)
    for alert in alerts:
        counts[str(alert.kind)] = counts.get(str(alert.kind), 0) + 1
    return replace(state, alerts=counts)

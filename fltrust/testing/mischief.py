"""What a hostile site can do to a reply after its agent has signed it: ready to plug in.

    federation["site-1"].mischief = mischief.tamper

Each takes the instruction and the signed reply, and gives what leaves the node instead.
"""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fltrust.flower import _private
from fltrust.flower.records import RESERVED, Carried, attach, detach
from fltrust.testing.local_grid import copy_records


def tamper(_instruction: Message, reply: Message) -> Message:
    """Flip the last bit of the first tensor, under the old signature."""
    records = copy_records(reply.content)
    for record in records.values():
        if isinstance(record, ArrayRecord) and record:
            key, array = next(iter(record.items()))
            data = array.data[:-1] + bytes([array.data[-1] ^ 1])
            record[key] = Array(dtype=array.dtype, shape=array.shape, stype=array.stype, data=data)
            break
    else:
        records["smuggled"] = MetricRecord({"x": 1})
    return _private.copy_message(reply, records)


def strip(_instruction: Message, reply: Message) -> Message:
    """Send the reply without its signature, as an app that is not wrapped does."""
    bare, _ = detach(reply.content)
    return _private.copy_message(reply, bare)


def forge(_instruction: Message, reply: Message) -> Message:
    """Put bytes where the signed statement belongs."""
    bare, _ = detach(reply.content)
    return _private.copy_message(reply, attach(bare, Carried(b"fltrust-signed-v1\x00" + bytes(64))))


def garble(_instruction: Message, reply: Message) -> Message:
    """Put another kind of record under the reserved name."""
    records = copy_records(reply.content)
    del records[RESERVED]
    records[RESERVED] = ConfigRecord({"statement": "text", "more": 1})
    return _private.copy_message(reply, records)


def echo(instruction: Message, reply: Message) -> Message:
    """Send the instruction back, with the aggregator's own signature on it."""
    return _private.copy_message(reply, instruction.content)


def empty(_instruction: Message, reply: Message) -> Message:
    """Send nothing at all, in a message that is well formed."""
    return _private.copy_message(reply, RecordDict())


def hang(_instruction: Message, _reply: Message) -> None:
    """Train, sign, and never answer."""
    return


class Replay:
    """Send the first reply again in every later round."""

    def __init__(self) -> None:
        self._first: RecordDict | None = None

    def __call__(self, _instruction: Message, reply: Message) -> Message:
        if self._first is None:
            self._first = copy_records(reply.content)
        return _private.copy_message(reply, copy_records(self._first))

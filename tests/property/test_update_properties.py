"""Invariant 5: what is signed is everything. Flip any bit of it, and it is something else or refused."""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from update_world import NOW, World, content, npy, stands_well

from fltrust.errors import FltrustError
from fltrust.identity import Digest
from fltrust.updates import (
    Content,
    Envelope,
    Record,
    RecordKind,
    SignedStatement,
    Statement,
    StructurePolicy,
    Tensor,
    VerifiedInstruction,
    VerifiedUpdate,
    Verifier,
    check_structure,
    content_digest,
    digest_content,
    model_digest,
    parse_statement,
)
from fltrust.updates.npy import read_header

LATER = NOW + timedelta(minutes=2)

# -- contents ----------------------------------------------------------------------------------------------

names = st.text(max_size=8)
ints = st.integers(-(2**63), 2**64 - 1)
floats = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack(">d", bits.to_bytes(8, "big"))[0])
tensors = st.builds(
    Tensor,
    dtype=st.sampled_from(["float32", "int8", ""]),
    shape=st.lists(st.integers(0, 2**40), max_size=4).map(tuple),
    stype=st.sampled_from(["numpy.ndarray", "raw", ""]),
    data=st.binary(max_size=64),
)
numbers = st.one_of(ints, floats, st.lists(ints, max_size=4), st.lists(floats, max_size=4))
settings_values = st.one_of(
    numbers, names, st.binary(max_size=8), st.booleans(), st.lists(st.booleans(), max_size=4),
    st.lists(names, max_size=3), st.lists(st.binary(max_size=4), max_size=3),
)  # fmt: skip


def records(kind: RecordKind, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Record]:
    items = st.dictionaries(names, values, max_size=4).map(lambda found: tuple(found.items()))
    return st.builds(Record, name=names, kind=st.just(kind), items=items)


any_record = st.one_of(
    records(RecordKind.ARRAYS, tensors),
    records(RecordKind.METRICS, numbers),
    records(RecordKind.CONFIG, settings_values),
)
contents = st.lists(any_record, max_size=4, unique_by=lambda record: record.name).map(
    lambda found: Content(tuple(found))
)


def bits(value: Any) -> Any:
    """A value so that equal means equal in every bit and type."""
    if isinstance(value, tuple):
        return ("list", *map(bits, value))
    if isinstance(value, Tensor):
        return (value.dtype, value.shape, value.stype, bytes(value.data))
    return (type(value).__name__, struct.pack(">d", value) if isinstance(value, float) else value)


def form(held: Content) -> Any:
    return [(r.name, r.kind, [(key, bits(value)) for key, value in r.items]) for r in held.records]


@given(contents, contents)
def test_two_contents_share_a_digest_only_if_they_are_the_same_in_every_bit(
    one: Content, other: Content
) -> None:
    assert (content_digest(one) == content_digest(other)) == (form(one) == form(other))
    arrays = (Content(one.arrays()), Content(other.arrays()))
    assert (model_digest(one) == model_digest(other)) == (form(arrays[0]) == form(arrays[1]))


@given(contents.filter(lambda c: bool(c.records)), st.data())
def test_a_small_change_anywhere_changes_the_digest(before: Content, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(before.records) - 1))
    record = before.records[place]
    changed = data.draw(changes_of(record))
    others = [r for at, r in enumerate(before.records) if at != place]
    assume(changed.name not in {r.name for r in others})
    after = Content((*before.records[:place], changed, *before.records[place + 1 :]))
    assume(form(after) != form(before))
    digests, changed_digests = digest_content(before), digest_content(after)
    assert digests.content != changed_digests.content
    assert (digests.model != changed_digests.model) == (RecordKind.ARRAYS in (record.kind, changed.kind))


@st.composite
def changes_of(draw: st.DrawFn, record: Record) -> Record:
    kinds = ["name", "drop", "swap", "rename"] + ["value"] * 4
    kind = draw(st.sampled_from(kinds if record.items else ["name"]))
    if kind == "name":
        return replace(record, name=draw(names))
    at = draw(st.integers(0, len(record.items) - 1))
    key, value = record.items[at]
    rest = (*record.items[:at], *record.items[at + 1 :])
    if kind == "drop":
        return replace(record, items=rest)
    if kind == "swap":
        return replace(record, items=((key, value), *rest))
    if kind == "rename":
        renamed = draw(names)
        assume(renamed not in dict(rest))
        return replace(record, items=(*record.items[:at], (renamed, value), *record.items[at + 1 :]))
    return replace(record, items=(*record.items[:at], (key, draw(changed(value))), *record.items[at + 1 :]))


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, Tensor):
        field = draw(st.sampled_from(["dtype", "stype", "shape", "data"]))
        if field == "data" and value.data:
            return replace(
                value, data=flipped(bytes(value.data), draw(st.integers(0, len(value.data) * 8 - 1)))
            )
        if field == "shape":
            return replace(value, shape=value.shape[::-1] if draw(st.booleans()) else (*value.shape, 1))
        return replace(value, stype=draw(names)) if field == "stype" else replace(value, dtype=draw(names))
    if isinstance(value, tuple):
        return value[::-1] if draw(st.booleans()) else value[:-1]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value ^ 1 if draw(st.booleans()) else float(value)
    if isinstance(value, float):
        raw = struct.pack(">d", value)
        return struct.unpack(">d", flipped(raw, draw(st.integers(0, 63))))[0]
    return value + value[:1] if draw(st.booleans()) else value[::-1]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@given(contents, st.integers(1, 4))
def test_workers_and_memory_layout_do_not_matter(held: Content, workers: int) -> None:
    viewed = Content(
        tuple(replace(r, items=tuple((key, view_of(value)) for key, value in r.items)) for r in held.records)
    )
    assert digest_content(viewed, workers=workers) == digest_content(held, workers=1)


def view_of(value: Any) -> Any:
    return replace(value, data=memoryview(bytearray(value.data))) if isinstance(value, Tensor) else value


# -- statements --------------------------------------------------------------------------------------------

MODEL, REPLY = content(1.0, 2.0), content(3.0, 4.0)


@cache
def world() -> World:
    return World()


@cache
def signed_pair() -> tuple[SignedStatement, SignedStatement]:
    instruction = world().instruction(MODEL)
    update = world().update(REPLY, answers=instruction)
    return world().aggregator.sign(instruction), world().site_a.sign(update)


def verify_update(signed: SignedStatement, reply: Content | Digest = REPLY) -> VerifiedUpdate:
    expected = world().expected_update(world().instruction(MODEL))
    return Verifier(world().bundle).verify_update(
        signed, at=LATER, judge=stands_well, expected=expected, content=reply
    )


def verify_instruction(signed: SignedStatement) -> VerifiedInstruction:
    return Verifier(world().bundle).verify_instruction(
        signed,
        at=LATER,
        judge=stands_well,
        expected=world().expected_instruction(),
        content_digest=content_digest(MODEL),
        model_digest=model_digest(MODEL),
    )


def outcome(data: bytes, verify: Any) -> Any:
    """The verified statement, or None if refused; any error that is not ours is the test's failure."""
    try:
        return verify(SignedStatement.from_bytes(data)).statement
    except FltrustError:
        return None


def test_the_unchanged_pair_verifies() -> None:
    instruction, update = signed_pair()
    assert verify_instruction(instruction).content_checked
    assert verify_update(update).content_checked


def mutations(size: int) -> st.SearchStrategy[tuple[int, int, bytes]]:
    """Cut `count` bytes out at `at` and put others there."""
    return st.tuples(st.integers(0, size), st.integers(0, 40), st.binary(max_size=40))


@pytest.mark.parametrize("which", [0, 1], ids=["instruction", "update"])
@settings(max_examples=150)
@given(data=st.data())
def test_one_flipped_bit_anywhere_in_a_signed_statement_is_refused(which: int, data: st.DataObject) -> None:
    signed, verify = signed_pair()[which], (verify_instruction, verify_update)[which]
    raw = signed.to_bytes()
    # Bits of the issuing certificate beyond the leaf's are the authority's and bind nothing of the statement;
    # they too must be refused or leave the statement as it was.
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    result = outcome(flipped(raw, bit), verify)
    leaf_ends = len(raw) - len(signed.chain_der[1])
    assert result is None or (bit // 8 >= leaf_ends and result == verify(signed).statement)


@settings(max_examples=150)
@given(data=st.data())
def test_mutated_envelopes_never_verify_and_raise_only_our_errors(data: st.DataObject) -> None:
    signed = signed_pair()[1]
    at, count, filling = data.draw(mutations(len(signed.envelope_json)))
    mutated = signed.envelope_json[:at] + filling + signed.envelope_json[at + count :]
    assume(mutated and mutated != signed.envelope_json)
    with pytest.raises(FltrustError):
        verify_update(replace(signed, envelope_json=mutated))


@settings(max_examples=200)
@given(data=st.data())
def test_a_mutated_payload_signed_anew_by_the_same_key_says_something_else_or_is_refused(
    data: st.DataObject,
) -> None:
    """A dishonest participant holds a good key: the strict form and the expectations must hold alone."""
    signed = signed_pair()[1]
    payload = Envelope.from_json(signed.envelope_json).payload
    at, count, filling = data.draw(mutations(len(payload)))
    mutated = payload[:at] + filling + payload[at + count :]
    assume(mutated != payload)
    envelope = Envelope.sign(mutated, signer=world().site_a.signer)
    try:
        verified = verify_update(replace(signed, envelope_json=envelope.to_json()))
    except FltrustError:
        return
    assert verified.statement != parse_statement(payload)  # only its time is the participant's to choose
    assert replace(verified.statement, signed_at=NOW) == replace(
        verify_update(signed).statement, signed_at=NOW
    )


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_only_our_errors(data: bytes) -> None:
    for parse in (
        SignedStatement.from_bytes,
        Envelope.from_json,
        parse_statement,
        lambda raw: read_header(memoryview(raw)),
        lambda raw: read_header(memoryview(b"\x93NUMPY\x01\x00" + raw)),
    ):
        with pytest.raises(FltrustError):
            parse(data)


@given(held=contents)
def test_only_the_content_that_was_signed_passes(held: Content) -> None:
    assume(form(held) != form(REPLY))
    with pytest.raises(FltrustError) as caught:
        verify_update(signed_pair()[1], held)
    assert caught.value.reason == "digest-mismatch"


delays = st.timedeltas(timedelta(0), timedelta(minutes=50))


@given(
    run=st.integers(0, 2**64 - 1), node=st.integers(0, 2**64 - 1), number=st.integers(0, 2**31 - 1),
    delay=delays, epoch=st.integers(0, 2**63 - 1),
    reason=st.from_regex(r"[a-z0-9-]{1,64}", fullmatch=True),
)  # fmt: skip
def test_statements_round_trip(
    run: int, node: int, number: int, delay: timedelta, epoch: int, reason: str
) -> None:
    instruction = world().instruction(
        MODEL,
        run_id=run,
        node_id=node,
        round=number,
        step=number,
        expires_at=NOW + delay + timedelta(seconds=1),
    )
    update = world().update(REPLY, answers=instruction, signed_at=NOW + delay)
    refused = ((world().site_b.spiffe_id, reason),)
    receipt = world().receipt(update, epoch=epoch, refused=refused, sealed_at=NOW + delay)
    statements: list[Statement] = [instruction, update, receipt]
    for statement in statements:
        assert parse_statement(statement.to_payload()) == statement


# -- structure ---------------------------------------------------------------------------------------------


@given(data=st.data())
def test_no_change_to_an_array_file_reads_as_more_or_other_data(data: st.DataObject) -> None:
    good = npy([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], (2, 3))
    at, count, filling = data.draw(mutations(len(good)))
    mutated = good[:at] + filling + good[at + count :]
    model = Content(
        (Record("a", RecordKind.ARRAYS, (("w", Tensor("float32", (2, 3), "numpy.ndarray", good)),)),)
    )
    update = Content(
        (Record("a", RecordKind.ARRAYS, (("w", Tensor("float32", (2, 3), "numpy.ndarray", mutated)),)),)
    )
    for policy in (StructurePolicy.EXACT, StructurePolicy.READABLE):
        try:
            check_structure(update, like=model, policy=policy, allow_non_finite=True)
        except FltrustError:
            continue
        header = read_header(memoryview(mutated))
        assert (header.dtype, header.shape, len(mutated) - header.offset) == ("float32", (2, 3), 24)

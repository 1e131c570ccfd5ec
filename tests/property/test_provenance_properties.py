"""Provenance and lineage under any change: refused, or something else; never the same by another way."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from fltrust.artifacts.inputs import AppVersion, UpdateInput
from fltrust.artifacts.lineage import verify_lineage
from fltrust.artifacts.provenance import MAX_PROVENANCE_BYTES, Provenance
from fltrust.errors import FltrustError
from fltrust.identity import Digest, Epoch, RunId

sys.path.append(str(Path(__file__).parents[1] / "artifacts"))
from lineage_world import DOMAIN, believe, bundles, chain, initial, round_after, wrap

names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
words = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=64)
digests = st.binary(min_size=32, max_size=32).map(lambda value: Digest("sha256", value))
public_names = st.one_of(
    names.map(lambda name: f"spiffe://{DOMAIN}/participant/{name}"),
    st.binary(min_size=16, max_size=16).map(lambda value: f"pseudonym:{value.hex()}"),
)
updates = st.builds(
    UpdateInput,
    public_name=public_names,
    update=digests,
    certificate=digests,
    examples=st.none() | st.integers(0, 10**19).map(str),
)


@st.composite
def rounds(draw: st.DrawFn) -> Provenance:
    before = initial(run=draw(st.integers(0, 2**64 - 1)))
    made = round_after(before, log_index=draw(st.integers(5, 2**62)))
    assert made.sealed is not None
    given_updates = draw(st.lists(updates, min_size=1, max_size=6, unique_by=lambda u: u.public_name))
    return replace(
        made,
        step=draw(st.integers(1, 2**31 - 1)),
        round=draw(st.integers(0, 2**31 - 1)),
        tensors=draw(digests),
        app=draw(st.none() | st.builds(AppVersion, words, words, words)),
        updates=tuple(given_updates),
        sealed=replace(made.sealed, epoch=Epoch(draw(st.integers(0, 2**63 - 1)))),
    )


@given(rounds())
def test_any_statement_survives_its_bytes(statement: Provenance) -> None:
    payload = statement.to_payload()
    assert len(payload) <= MAX_PROVENANCE_BYTES
    assert Provenance.from_payload(payload) == statement


@given(rounds(), st.data())
def test_a_flipped_bit_is_refused_or_says_something_else(statement: Provenance, data: st.DataObject) -> None:
    payload = bytearray(statement.to_payload())
    bit = data.draw(st.integers(0, len(payload) * 8 - 1))
    payload[bit // 8] ^= 1 << bit % 8
    try:
        read = Provenance.from_payload(bytes(payload))
    except FltrustError:
        return
    assert read != statement
    assert read.to_payload() == bytes(payload)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_our_errors(data: bytes) -> None:
    try:
        Provenance.from_payload(data)
    except FltrustError:
        return
    raise AssertionError("bytes by chance were taken for provenance")


@settings(max_examples=200)
@given(st.integers(1, 6), st.data())
def test_a_lineage_of_which_anything_was_moved_left_out_or_doubled_is_refused(
    length: int, data: st.DataObject
) -> None:
    lines = bundles(chain(length))
    picked = data.draw(st.lists(st.integers(0, length), max_size=length + 2))
    changed = [lines[number] for number in picked]
    if changed == lines:
        return
    try:
        verify_lineage(changed, head=None, verify_bundle=believe, domain=DOMAIN)
    except FltrustError:
        return
    # What is left must be a whole lineage of an earlier model.
    assert changed == lines[length + 1 - len(changed) :]


@given(st.integers(1, 4), st.data())
def test_a_lineage_with_any_statement_exchanged_is_refused(length: int, data: st.DataObject) -> None:
    statements = chain(length)
    at = data.draw(st.integers(1, length))
    said, index = statements[at]
    other = data.draw(
        st.sampled_from(
            [
                replace(said, tensors=Digest.sha256_of(b"x")),
                replace(said, model=Digest("fltrust-model-v1", b"x" * 32)),
                initial(run=int(RunId(7))),
            ]
        )
    )
    lines = bundles(statements)
    lines[at] = wrap(other, log_index=index)
    try:
        verify_lineage(lines, head=None, verify_bundle=believe, domain=DOMAIN)
    except FltrustError:
        return
    raise AssertionError("an exchanged statement was taken")

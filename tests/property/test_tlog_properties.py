"""The log, against everything that can be drawn: one tree whatever the batches, and no bit is idle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_world import AT, LogWorld, MemoryLog, enrolled, sealed_round

from fltrust.errors import FltrustError, InvalidInput, Tampered
from fltrust.tlog.checkpoint import Checkpoint, CheckpointPolicy, add_signatures
from fltrust.tlog.entries import new_entry, parse_entry
from fltrust.tlog.expectations import Expectations
from fltrust.tlog.merkle import (
    Edge,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    tree_head,
    verify_consistency,
    verify_inclusion,
)
from fltrust.tlog.mirror import verify_mirror
from fltrust.tlog.monitor import MonitorState
from fltrust.tlog.note import VerifierKey, parse_note
from fltrust.tlog.ports import NewEntry, TreeHead
from fltrust.tlog.proof import TlogProof
from fltrust.tlog.reader import TileReader
from fltrust.tlog.tiles import Tile, decode_bundle, encode_bundle
from fltrust.tlog.watching import look
from fltrust.tlog.witness import AddCheckpoint, Witness

_MOST = 1200


def _log(count: int) -> MemoryLog:
    log = MemoryLog()
    log.append([NewEntry("x", AT, str(i).encode()) for i in range(count)])
    return log


LOG = _log(_MOST)
LEAVES = [leaf_hash(entry.data) for entry in LOG.entries]
WORLD = LogWorld()
WORLD.grow(700)
sizes = st.integers(1, _MOST)


def mth(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, word for word."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else sha256(b"").digest()
    k = max(1 << i for i in range(20) if 1 << i < len(leaves))
    return node_hash(mth(leaves[:k]), mth(leaves[k:]))


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962, 2.1.1, word for word."""
    if len(leaves) == 1:
        return []
    k = max(1 << i for i in range(20) if 1 << i < len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: Sequence[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962, 2.1.2, word for word."""
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = max(1 << i for i in range(20) if 1 << i < len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


@given(cuts=st.lists(st.integers(0, _MOST), max_size=12), total=sizes)
@settings(max_examples=60, deadline=None)
def test_any_batching_gives_the_same_tree(cuts: list[int], total: int) -> None:
    edge, found = Edge(), []
    bounds = sorted({0, total, *(cut for cut in cuts if cut < total)})
    for start, end in pairwise(bounds):
        edge, new = edge.append(LEAVES[start:end])
        edge = Edge.parse(bytes(edge))
        found += new
    assert edge.head == tree_head(LOG, total) == TreeHead(total, mth(LEAVES[:total]))
    assert edge == Edge.of(LOG, total)
    for level in {new.level for new in found}:
        row = [new for new in found if new.level == level]
        assert [new.index for new in row] == list(range(total >> 8 * level))
        assert [new.hash for new in row] == list(LOG.hashes(level, 0, total >> 8 * level))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_proofs_are_the_ones_of_the_rfc_and_hold(data: st.DataObject) -> None:
    size = data.draw(sizes)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    head = tree_head(LOG, size)
    inclusion = inclusion_proof(LOG, index, size=size)
    assert list(inclusion) == path(index, LEAVES[:size])
    verify_inclusion(inclusion, leaf=LEAVES[index], index=index, head=head)
    consistency = consistency_proof(LOG, old, size=size)
    assert list(consistency) == subproof(old, LEAVES[:size], True)
    verify_consistency(consistency, old=tree_head(LOG, old), new=head)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_an_inclusion_proof_with_anything_changed_is_refused(data: st.DataObject) -> None:
    size = data.draw(sizes)
    index = data.draw(st.integers(0, size - 1))
    proof, head = inclusion_proof(LOG, index, size=size), tree_head(LOG, size)
    change = data.draw(st.sampled_from(["leaf", "root", "index", "hash", "drop", "double", "more", "swap"]))
    leaf, changed = LEAVES[index], proof
    if change == "leaf":
        leaf = _flip(data, leaf)
    elif change == "root":
        head = TreeHead(size, _flip(data, head.root))
    elif change == "index":
        index = data.draw(st.integers(-1, size).filter(lambda other: other != index))
    else:
        changed = _change(data, proof, change)
        if changed == proof:
            return
    with pytest.raises(FltrustError):
        verify_inclusion(changed, leaf=leaf, index=index, head=head)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_consistency_proof_with_anything_changed_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, _MOST))
    before = data.draw(st.integers(1, size - 1))
    proof = consistency_proof(LOG, before, size=size)
    old, new = tree_head(LOG, before), tree_head(LOG, size)
    change = data.draw(st.sampled_from(["old", "new", "hash", "drop", "double", "more", "swap"]))
    changed = proof
    if change == "old":
        old = TreeHead(before, _flip(data, old.root))
    elif change == "new":
        new = TreeHead(size, _flip(data, new.root))
    else:
        changed = _change(data, proof, change)
        if changed == proof:
            return
    with pytest.raises(FltrustError):
        verify_consistency(changed, old=old, new=new)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_checkpoint_with_any_bit_flipped_is_refused(data: st.DataObject) -> None:
    policy = CheckpointPolicy(WORLD.policy.log, (WORLD.witness.verifier,), 1)
    note = WORLD.note()
    line = WORLD.witness.cosign(Checkpoint.parse(parse_note(note).text), at=AT)
    note = add_signatures(note, (line,))
    assert policy.verify(note).head == WORLD.log.head
    with pytest.raises(FltrustError):
        policy.verify(_flip(data, note))


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_tlog_proof_with_any_bit_flipped_is_refused(data: st.DataObject) -> None:
    index = data.draw(st.integers(0, 700))
    proof = TlogProof(index, inclusion_proof(WORLD.log, index, size=701), WORLD.note()).encode()
    leaf = leaf_hash(WORLD.log.entries[index].data)
    TlogProof.parse(proof).verify(leaf=leaf, policy=WORLD.policy)
    with pytest.raises(FltrustError):
        TlogProof.parse(_flip(data, proof)).verify(leaf=leaf, policy=WORLD.policy)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_any_bit_flipped_in_any_file_of_a_mirror_is_refused(data: st.DataObject) -> None:
    paths = ["checkpoint", "tile/0/000", "tile/0/002.p/189", "tile/1/000.p/2"]
    paths += ["tile/entries/001", "tile/entries/002.p/189"]
    target = data.draw(st.sampled_from(paths))

    def fetch(path: str) -> bytes:
        return _flip(data, WORLD.fetch(path)) if path == target else WORLD.fetch(path)

    with pytest.raises(FltrustError):
        verify_mirror(fetch, WORLD.policy)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_reader_never_gives_what_is_not_in_the_tree(data: st.DataObject) -> None:
    """Whatever bits of whatever tiles are flipped: an entry that comes out is the one that was logged."""
    size = data.draw(st.integers(1, 701))
    bad = data.draw(st.sets(st.sampled_from(["0", "1", "entries"]), min_size=1))

    def fetch(path: str) -> bytes:
        honest = WORLD.fetch(path)
        return _flip(data, honest) if path.split("/")[1] in bad and data.draw(st.booleans()) else honest

    reader = TileReader(fetch, tree_head(WORLD.log, size))
    try:
        for index, entry in reader.entries(0, size):
            assert entry == WORLD.log.entries[index].data
    except Tampered:
        pass


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_who_saw_one_history_is_not_shown_another(data: st.DataObject) -> None:
    """A log's own key signs two trees that part at one entry: monitor and witness refuse the second."""
    part = data.draw(st.integers(1, 40))
    seen, shown = data.draw(st.integers(part + 1, 60)), data.draw(st.integers(part + 1, 60))
    world, fork = LogWorld(), LogWorld()
    fork.key = world.key
    for log, at_part in ((world, sealed_round(1)), (fork, sealed_round(2))):
        log.append(*[new_entry(enrolled(i)) for i in range(1, part)], new_entry(at_part))
        log.append(*[new_entry(sealed_round(i)) for i in range(60)])

    def fetch(path: str) -> bytes:
        return fork.note(shown) if path == "checkpoint" else fork.fetch(path)

    def honest(path: str) -> bytes:
        return world.note(seen) if path == "checkpoint" else world.fetch(path)

    start = MonitorState(world.key.name)
    known = look(honest, world.policy, start, Expectations(), at=AT)
    step = look(fetch, world.policy, known.state, Expectations(), at=AT)
    assert [str(a.kind) for a in step.alerts] == ["rewind" if shown < seen else "fork"]
    assert step.state.checkpoint == known.state.checkpoint

    memory = _Memory()
    witness = Witness(world.witness, (world.policy,), store=memory, clock=_Clock())
    assert witness.add_checkpoint(AddCheckpoint(0, (), world.note(seen)).encode()).status == 200
    old = min(seen, shown)
    request = AddCheckpoint(old, consistency_proof(fork.log, old, size=shown), fork.note(shown))
    assert witness.add_checkpoint(request.encode()).status in (409, 422)
    assert memory.latest(world.key.name) == tree_head(world.log, seen)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_parsers_say_what_is_wrong_with_any_bytes(noise: bytes) -> None:
    parsers: list[Callable[[bytes], object]] = [
        parse_note,
        parse_entry,
        AddCheckpoint.parse,
        TlogProof.parse,
        Edge.parse,
        lambda data: decode_bundle(data, width=3),
        lambda data: Tile.parse(data.decode("latin-1")),
        lambda data: VerifierKey.parse(data.decode("latin-1")),
        lambda data: Checkpoint.parse(data.decode("latin-1")),
    ]
    for prefix in (b"", b"\x00\x00", b'{"type":"', b"old 0\n", b"c2sp.org/tlog-proof@v1\n", b"tile/0/"):
        for parse in parsers:
            with suppress(InvalidInput):
                parse(prefix + noise)


@given(st.sampled_from(WORLD.log.entries[:8]), st.data())
@settings(max_examples=200, deadline=None)
def test_an_entry_with_a_bit_flipped_is_refused_or_is_another_entry(entry, data: st.DataObject) -> None:
    changed = _flip(data, entry.data)
    assert leaf_hash(changed) != leaf_hash(entry.data)
    try:
        parsed = parse_entry(changed)
    except FltrustError:
        return
    assert parsed != parse_entry(entry.data)
    assert parsed.encode() == changed


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=256))
@settings(max_examples=60, deadline=None)
def test_bundles_come_apart_as_they_were_put_together(entries: list[bytes]) -> None:
    assert decode_bundle(encode_bundle(entries), width=len(entries)) == tuple(entries)


class _Memory:
    def __init__(self) -> None:
        self._notes: dict[str, bytes] = {}

    def latest(self, origin: str) -> TreeHead:
        note = self._notes.get(origin)
        return (
            TreeHead(0, sha256(b"").digest())
            if note is None
            else Checkpoint.parse(parse_note(note).text).head
        )

    def record(self, origin: str, note: bytes) -> None:
        self._notes[origin] = note


class _Clock:
    now = staticmethod(lambda: AT)
    monotonic = staticmethod(lambda: 0.0)


def _flip(data: st.DataObject, value: bytes) -> bytes:
    bit = data.draw(st.integers(0, 8 * len(value) - 1))
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _change(data: st.DataObject, proof: tuple[bytes, ...], how: str) -> tuple[bytes, ...]:
    if how == "more" or not proof:
        return (*proof, bytes(32))
    at = data.draw(st.integers(0, len(proof) - 1))
    if how == "hash":
        return (*proof[:at], _flip(data, proof[at]), *proof[at + 1 :])
    if how == "drop":
        return (*proof[:at], *proof[at + 1 :])
    if how == "double":
        return (*proof[:at], proof[at], *proof[at:])
    return tuple(reversed(proof))

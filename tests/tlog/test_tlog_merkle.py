"""The tree against the vectors that every RFC 6962 implementation is checked with."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
from log_world import MemoryLog

from fltrust.errors import EvidenceInvalid, Malformed, NotFound
from fltrust.tlog.merkle import (
    EMPTY_HEAD,
    EMPTY_ROOT,
    Edge,
    Prover,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    split_hashes,
    tree_head,
    verify_consistency,
    verify_inclusion,
)
from fltrust.tlog.ports import TreeHead

# Leaves, roots and proofs of certificate-transparency's own Merkle tree tests.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
_A = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
_B = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
_C = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
_D = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
_E = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
_F = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
_G = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"
_H = "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
_I = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
INCLUSION = [(0, 1, []), (0, 8, [_B, _C, _D]), (5, 8, [_E, _F, _G]), (2, 3, [_H]), (1, 5, [_A, _C, _E])]
CONSISTENCY = [(1, 1, []), (1, 8, [_B, _C, _D]), (6, 8, [_I, _F, _G]), (2, 5, [_C, _E])]


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog()
    log.edge, hashes = log.edge.append([leaf_hash(leaf) for leaf in LEAVES])
    log.levels[0] = [new.hash for new in hashes]
    return log


def test_the_root_of_the_empty_tree_is_the_hash_of_nothing() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Edge().head == EMPTY_HEAD == tree_head(MemoryLog(), 0)


@pytest.mark.parametrize("size", range(1, 9))
def test_the_known_roots_come_out(log: MemoryLog, size: int) -> None:
    assert tree_head(log, size).root.hex() == ROOTS[size - 1]
    edge, _ = Edge().append([leaf_hash(leaf) for leaf in LEAVES[:size]])
    assert edge.head.root.hex() == ROOTS[size - 1]


@pytest.mark.parametrize(("index", "size", "path"), INCLUSION)
def test_the_known_inclusion_proofs_come_out_and_hold(
    log: MemoryLog, index: int, size: int, path: list[str]
) -> None:
    proof = inclusion_proof(log, index, size=size)
    assert [item.hex() for item in proof] == path
    verify_inclusion(
        proof,
        leaf=leaf_hash(LEAVES[index]),
        index=index,
        head=TreeHead(size, bytes.fromhex(ROOTS[size - 1])),
    )


@pytest.mark.parametrize(("old", "new", "path"), CONSISTENCY)
def test_the_known_consistency_proofs_come_out_and_hold(
    log: MemoryLog, old: int, new: int, path: list[str]
) -> None:
    proof = consistency_proof(log, old, size=new)
    assert [item.hex() for item in proof] == path
    verify_consistency(proof, old=_head(old), new=_head(new))


def test_from_the_empty_tree_the_proof_is_empty_and_nothing_else() -> None:
    verify_consistency((), old=EMPTY_HEAD, new=_head(5))
    with pytest.raises(EvidenceInvalid, match="empty"):
        verify_consistency((bytes(32),), old=EMPTY_HEAD, new=_head(5))
    with pytest.raises(EvidenceInvalid, match="nothing"):
        verify_consistency((), old=TreeHead(0, bytes(32)), new=_head(5))


def test_two_roots_at_one_size_are_refused() -> None:
    with pytest.raises(EvidenceInvalid, match="different roots"):
        verify_consistency((), old=_head(5), new=TreeHead(5, bytes(32)))


def test_a_smaller_tree_extends_nothing(log: MemoryLog) -> None:
    with pytest.raises(EvidenceInvalid, match="at least 6"):
        verify_consistency(consistency_proof(log, 5, size=6), old=_head(6), new=_head(5))


def test_an_index_outside_of_the_tree_is_refused(log: MemoryLog) -> None:
    for index in (-1, 8):
        with pytest.raises(EvidenceInvalid):
            verify_inclusion((), leaf=bytes(32), index=index, head=_head(8))
        with pytest.raises(Malformed):
            inclusion_proof(log, index, size=8)
    for old in (-1, 9):
        with pytest.raises(Malformed):
            consistency_proof(log, old, size=8)


def test_proofs_longer_than_any_tree_are_refused_before_hashing() -> None:
    with pytest.raises(EvidenceInvalid, match="at most 63"):
        verify_inclusion((bytes(32),) * 64, leaf=bytes(32), index=0, head=TreeHead(2**62, bytes(32)))
    with pytest.raises(EvidenceInvalid, match="32 bytes"):
        verify_consistency((bytes(31),), old=_head(2), new=_head(5))


def test_a_missing_hash_is_said_not_guessed() -> None:
    log = MemoryLog()
    with pytest.raises(NotFound, match="level 0"):
        tree_head(log, 5)


class _Counting:
    """Any hash at any place; remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []

    def hashes(self, level: int, start: int, end: int) -> Sequence[bytes]:
        self.asked.append((level, start, end))
        return [sha256(f"{level}/{i}".encode()).digest() for i in range(start, end)]


@pytest.mark.parametrize("size", [1_000, 60_000, 1_000_000, 2**40 + 12345])
def test_what_a_proof_reads_grows_with_the_height_of_the_tree_alone(size: int) -> None:
    levels = -(-size.bit_length() // 8)
    for ask in (
        lambda prover: prover.inclusion(size // 3),
        lambda prover: prover.consistency(size // 3),
        lambda prover: prover.head,
    ):
        source = _Counting()
        ask(Prover(source, size))
        assert len(source.asked) <= 2 * levels
        assert all(end - start <= 256 for _, start, end in source.asked)
        assert len(set(source.asked)) == len(source.asked)


def test_the_edge_of_a_tree_is_read_back_and_refuses_what_is_none() -> None:
    edge, _ = Edge().append([leaf_hash(bytes([i])) for i in range(77)])
    assert Edge.parse(bytes(edge)) == edge
    for damaged in (b"", bytes(edge)[:-1], bytes(edge) + bytes(32), b"\xff" * 8 + bytes(64 * 32)):
        with pytest.raises(Malformed):
            Edge.parse(damaged)
    with pytest.raises(Malformed, match="whole hashes"):
        split_hashes(bytes(33))


def _head(size: int) -> TreeHead:
    return TreeHead(size, bytes.fromhex(ROOTS[size - 1]) if size else EMPTY_ROOT)

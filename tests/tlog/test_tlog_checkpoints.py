"""Checkpoints: who must have signed, and what is believed."""

from __future__ import annotations

from base64 import b64encode
from datetime import timedelta

import pytest
from log_world import AT, ORIGIN, LogWorld

from fltrust.errors import EvidenceInvalid, EvidenceMissing, Malformed, SignatureInvalid
from fltrust.keys.ed25519 import generate_note_key
from fltrust.tlog.checkpoint import (
    Checkpoint,
    CheckpointPolicy,
    CosignerKey,
    add_signatures,
    parse_size,
    sign_checkpoint,
)
from fltrust.tlog.merkle import EMPTY_HEAD, inclusion_proof, leaf_hash
from fltrust.tlog.note import NoteKey, NoteSignature, parse_note, sign_note
from fltrust.tlog.ports import TreeHead
from fltrust.tlog.proof import TlogProof

WORLD = LogWorld()
WORLD.grow(20)
NOTE = WORLD.note()
WITNESSES = [CosignerKey(f"witness.example/w{i}", generate_note_key()) for i in range(3)]


def demand(*witnesses: CosignerKey, quorum: int) -> CheckpointPolicy:
    return CheckpointPolicy((WORLD.key.verifier,), tuple(w.verifier for w in witnesses), quorum)


def cosigned(*witnesses: CosignerKey, note: bytes = NOTE) -> bytes:
    checkpoint = Checkpoint.parse(parse_note(note).text)
    return add_signatures(note, tuple(w.cosign(checkpoint, at=AT) for w in witnesses))


def test_a_checkpoint_says_origin_size_and_root_and_verifies() -> None:
    lines = NOTE.decode().split("\n")
    assert lines[:3] == [ORIGIN, "21", b64encode(WORLD.log.head.root).decode()]
    verified = WORLD.policy.verify(NOTE)
    assert (verified.head, verified.origin, verified.note) == (WORLD.log.head, ORIGIN, NOTE)


def test_the_example_of_the_specification_parses() -> None:
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    checkpoint = Checkpoint.parse(text)
    assert (checkpoint.origin, checkpoint.head.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.text == text


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n5\n",
        f"{ORIGIN}\n05\n{'A' * 43}=\n",
        f"{ORIGIN}\n-5\n{'A' * 43}=\n",
        f"{ORIGIN}\n+5\n{'A' * 43}=\n",
        f"{ORIGIN}\n5 \n{'A' * 43}=\n",
        f"{ORIGIN}\n٥\n{'A' * 43}=\n",
        f"{ORIGIN}\n{2**63}\n{'A' * 43}=\n",
        f"{ORIGIN}\n5\n{'A' * 43}\n",
        f"{ORIGIN}\n5\n{'A' * 42}B=\n",
        f"{ORIGIN}\n5\n{'A' * 40}\n",
        f"{ORIGIN}\n0\n{'A' * 43}=\n",
        f"\n5\n{'A' * 43}=\n",
        f"{ORIGIN}\n5\n{'A' * 43}=\n\nx\n",
        f"{ORIGIN}\n5\n{'A' * 43}=\n" + "x\n" * 20,
    ],
)
def test_a_text_that_is_no_checkpoint_is_refused_even_if_signed(text: str) -> None:
    with pytest.raises(Malformed):
        WORLD.policy.verify(sign_note(text, (WORLD.key,)))


def test_extension_lines_are_kept_and_signed() -> None:
    text = Checkpoint(ORIGIN, WORLD.log.head, ("more",)).text
    assert WORLD.policy.verify(sign_note(text, (WORLD.key,))).checkpoint.extensions == ("more",)


def test_a_checkpoint_of_another_origin_is_refused_though_the_key_is_right() -> None:
    text = Checkpoint("other.example/log", WORLD.log.head).text
    with pytest.raises(EvidenceInvalid, match=r"other\.example/log"):
        WORLD.policy.verify(sign_note(text, (WORLD.key,)))


def test_any_of_the_logs_keys_will_do_while_they_overlap() -> None:
    new = NoteKey(ORIGIN, generate_note_key())
    policy = CheckpointPolicy((WORLD.key.verifier, new.verifier))
    assert policy.verify(NOTE).head == policy.verify(sign_checkpoint(WORLD.log.head, new)).head


def test_so_many_witnesses_as_are_demanded_must_have_cosigned() -> None:
    policy = demand(*WITNESSES, quorum=2)
    with pytest.raises(EvidenceMissing, match=r"2 of 3 witnesses.*found 1") as missing:
        policy.verify(cosigned(WITNESSES[0]))
    assert missing.value.reason == "witnesses"
    assert policy.verify(cosigned(*WITNESSES[1:])).cosigned == {w.name: AT for w in WITNESSES[1:]}


def test_a_witness_counts_once_however_often_it_signed() -> None:
    twice = cosigned(WITNESSES[0])
    later = WITNESSES[0].cosign(WORLD.checkpoint().checkpoint, at=AT + timedelta(seconds=5))
    twice = add_signatures(twice, (later,))
    assert len(parse_note(twice).signatures) == 3
    with pytest.raises(EvidenceMissing, match="found 1"):
        demand(*WITNESSES, quorum=2).verify(twice)
    assert demand(*WITNESSES, quorum=1).verify(twice).cosigned == {
        WITNESSES[0].name: AT + timedelta(seconds=5)
    }


def test_a_bad_cosignature_by_a_known_witness_refuses_and_by_another_does_not() -> None:
    line = WITNESSES[0].cosign(Checkpoint(ORIGIN, EMPTY_HEAD), at=AT)
    note = add_signatures(NOTE, (line,))
    with pytest.raises(SignatureInvalid):
        demand(WITNESSES[0], quorum=0).verify(note)
    assert demand(WITNESSES[1], quorum=0).verify(note).cosigned == {}


def test_a_cosignature_holds_for_its_time_alone() -> None:
    line = WITNESSES[0].cosign(WORLD.checkpoint().checkpoint, at=AT)
    later = NoteSignature(
        line.name, line.key_id, (int(AT.timestamp()) + 1).to_bytes(8, "big") + line.signature[8:]
    )
    for damaged in (later, NoteSignature(line.name, line.key_id, line.signature[:-1])):
        with pytest.raises(SignatureInvalid):
            demand(WITNESSES[0], quorum=1).verify(add_signatures(NOTE, (damaged,)))
    far = NoteSignature(line.name, line.key_id, b"\xff" * 8 + line.signature[8:])
    with pytest.raises(SignatureInvalid, match="10000"):
        demand(WITNESSES[0], quorum=1).verify(add_signatures(NOTE, (far,)))


def test_a_cosignature_does_not_stand_in_for_the_logs_own() -> None:
    witness = CosignerKey(ORIGIN, WORLD.key.signer)
    text = Checkpoint(ORIGIN, WORLD.log.head).text
    alone = (text + "\n" + witness.cosign(Checkpoint.parse(text), at=AT).line).encode()
    with pytest.raises(SignatureInvalid, match="found none"):
        WORLD.policy.verify(alone)


def test_a_policy_that_cannot_mean_what_it_says_is_refused() -> None:
    log, (w0, w1, _) = WORLD.key.verifier, WITNESSES
    twice = CosignerKey("witness.example/other", w0.signer)
    self_made = CosignerKey("witness.example/self", WORLD.key.signer)
    for keys, witnesses, quorum in (
        ((), (), 0),
        ((w0.verifier,), (), 0),
        ((log, NoteKey("x.example", generate_note_key()).verifier), (), 0),
        ((log,), (log,), 1),
        ((log,), (w0.verifier, twice.verifier), 2),
        ((log,), (CosignerKey(w0.name, w1.signer).verifier, w0.verifier), 1),
        ((log,), (self_made.verifier,), 1),
        ((log,), (w0.verifier,), 2),
        ((log,), (w0.verifier,), -1),
    ):
        with pytest.raises(Malformed):
            CheckpointPolicy(keys, witnesses, quorum)
    assert CheckpointPolicy.of(str(log), witnesses=(str(w0.verifier),)).quorum == 1


def test_numbers_are_read_in_one_form() -> None:
    assert parse_size(str(2**63 - 1)) == 2**63 - 1
    for text in ("", "01", "1_0", " 1", "1\n", "9" * 19, "9" * 5000):
        with pytest.raises(Malformed):
            parse_size(text)


def test_a_proof_in_a_file_convinces_whoever_knows_the_key() -> None:
    path = inclusion_proof(WORLD.log, 7, size=21)
    for extra in (None, b"", b"anything"):
        proof = TlogProof(7, path, cosigned(WITNESSES[0]), extra)
        again = TlogProof.parse(proof.encode())
        assert again == proof
        leaf = leaf_hash(WORLD.log.entries[7].data)
        assert again.verify(leaf=leaf, policy=demand(WITNESSES[0], quorum=1)).head == WORLD.log.head
        with pytest.raises(EvidenceInvalid):
            again.verify(leaf=leaf_hash(WORLD.log.entries[8].data), policy=WORLD.policy)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b"proof@v1", b"proof@v2"),
        lambda data: data.replace(b"index 7", b"index 07"),
        lambda data: data.replace(b"index 7\n", b""),
        lambda data: data.replace(b"index 7\n", b"index 7\n" + b"AAAA\n" * 2),
        lambda data: data.replace(b"index 7\n", b"index 7\n" + b64encode(bytes(32)) + b"\n" + b"\xff\n"),
        lambda data: data.partition(b"\n\n")[0],
        lambda data: data.replace(b"index 7\n", b"index 7\n" + (b64encode(bytes(32)) + b"\n") * 70),
    ],
)
def test_what_is_no_proof_is_refused(damage) -> None:
    data = TlogProof(7, inclusion_proof(WORLD.log, 7, size=21), NOTE).encode()
    with pytest.raises(Malformed):
        TlogProof.parse(damage(data))


def test_the_head_of_an_empty_log_can_be_signed() -> None:
    empty = sign_checkpoint(EMPTY_HEAD, WORLD.key)
    assert WORLD.policy.verify(empty).head == TreeHead(0, EMPTY_HEAD.root)

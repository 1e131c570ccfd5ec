"""Notes and keys of notes, against vectors that others made, and against hostile ones."""

from __future__ import annotations

import pytest

from fltrust.errors import InvalidInput, Malformed, Oversized, SignatureInvalid
from fltrust.keys.ed25519 import generate_note_key
from fltrust.tlog.note import (
    MAX_NOTE,
    MAX_SIGNATURES,
    KeyType,
    NoteKey,
    VerifierKey,
    parse_note,
    sign_note,
    verify_note,
)

# From the documentation of golang.org/x/mod/sumdb/note.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
KEY = NoteKey("hospitals.example/log", generate_note_key())
TEXT = "text\n\nof a note\n"


def test_a_note_signed_by_go_verifies() -> None:
    key = VerifierKey.parse(GO_KEY)
    assert verify_note(parse_note(GO_NOTE), [key]) == (key,)
    assert parse_note(GO_NOTE).encode() == GO_NOTE


@pytest.mark.parametrize(
    "vkey", [GO_KEY, "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"]
)
def test_a_key_is_written_as_it_was_read(vkey: str) -> None:
    assert str(VerifierKey.parse(vkey)) == vkey


def test_a_note_of_ours_has_the_form_and_verifies() -> None:
    note = sign_note(TEXT, (KEY,))
    text, _, line = note.decode().rpartition("\n\n")
    assert text + "\n" == TEXT
    assert line.startswith("— hospitals.example/log ")
    assert verify_note(parse_note(note), [KEY.verifier]) == (KEY.verifier,)
    assert KEY.verifier.full_id[:4] == KEY.verifier.key_id == parse_note(note).signatures[0].key_id


def test_signatures_by_unknown_keys_are_ignored_whatever_they_are() -> None:
    stranger = NoteKey("stranger.example", generate_note_key())
    note = sign_note(TEXT, (stranger, KEY)) + "— post.quantum AAAAAQID\n".encode()
    assert verify_note(parse_note(note), [KEY.verifier]) == (KEY.verifier,)
    with pytest.raises(SignatureInvalid, match="found none"):
        verify_note(parse_note(sign_note(TEXT, (stranger,))), [KEY.verifier])


def test_one_bad_signature_by_a_known_key_refuses_the_note() -> None:
    good, bad = sign_note(TEXT, (KEY,)), sign_note("another\n", (KEY,))
    both = good + bad.decode().rpartition("\n\n")[2].encode()
    with pytest.raises(SignatureInvalid, match="does not verify"):
        verify_note(parse_note(both), [KEY.verifier])


def test_the_same_name_with_another_key_is_another_signer() -> None:
    namesake = NoteKey(KEY.name, generate_note_key())
    with pytest.raises(SignatureInvalid, match="found none"):
        verify_note(parse_note(sign_note(TEXT, (namesake,))), [KEY.verifier])


def test_a_witness_key_does_not_verify_a_plain_signature() -> None:
    witness = VerifierKey(KEY.name, KeyType.COSIGNATURE, KEY.signer.public_key_raw)
    assert witness.key_id != KEY.verifier.key_id
    with pytest.raises(Malformed, match="Ed25519"):
        verify_note(parse_note(sign_note(TEXT, (KEY,))), [witness])


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"text\n\nno signature\n",
        GO_NOTE[:-1],
        GO_NOTE + b"\n",
        GO_NOTE.replace(b"cryptography", b"crypto\tgraphy"),
        GO_NOTE.replace(b"cryptography", b"crypto\rgraphy"),
        GO_NOTE.replace(b"cryptography", b"\xff"),
        GO_NOTE.replace("— ".encode(), b"- "),
        GO_NOTE.replace(b" x08go", b"  x08go"),
        GO_NOTE.replace(b"nAM=", b"nAM"),
        GO_NOTE.replace(b"nAM=", b"nAN="),
        GO_NOTE.replace("— PeterNeumann".encode(), "— Peter+Neumann".encode()),
        GO_NOTE.replace("— PeterNeumann".encode(), "— Peter\u00a0Neumann".encode()),
    ],
)
def test_what_is_no_note_is_refused(damaged: bytes) -> None:
    assert damaged != GO_NOTE
    with pytest.raises(Malformed):
        parse_note(damaged)


def test_notes_are_bounded_and_take_what_every_verifier_must() -> None:
    line = "— k.example " + "A" * 6_800 + "\n"
    assert len(parse_note(f"t\n\n{line * 16}".encode()).signatures) == 16
    with pytest.raises(Oversized):
        parse_note(b"t" * (MAX_NOTE + 1))
    with pytest.raises(Oversized):
        parse_note(("t\n\n" + "— k AAAAAAAA\n" * (MAX_SIGNATURES + 1)).encode())


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        GO_KEY.replace("c74f20a3", "c74f20a4"),
        GO_KEY.replace("+ARpc", "+BRpc"),
        GO_KEY.replace("c74f20a3", "C74F20A3"),
        GO_KEY + "=",
        GO_KEY[:-4],
        "with space+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "x" * 2000 + GO_KEY,
    ],
)
def test_what_is_no_key_is_refused(vkey: str) -> None:
    with pytest.raises(InvalidInput):
        VerifierKey.parse(vkey)


@pytest.mark.parametrize("text", ["no newline", "tab\t\n", "\x00\n", ""])
def test_text_that_no_note_can_carry_is_not_signed(text: str) -> None:
    with pytest.raises(Malformed):
        sign_note(text, (KEY,))

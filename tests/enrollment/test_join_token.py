from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fltrust.enrollment.token import (
    MAX_TOKEN,
    PREFIX,
    decode_token,
    encode_token,
    hash_of,
    new_secret,
    token_id_of,
)
from fltrust.enrollment.types import JoinToken
from fltrust.errors import InvalidInput, Malformed, Oversized

TOKEN = JoinToken("coordinator.example:8441", "[2001:db8::1]:8442", b"\x30" * 500, b"\x07" * 32)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=1, max_size=900))
def test_a_token_comes_back_as_it_was_written_in_at_most_two_kibibytes(secret: bytes, root: bytes) -> None:
    token = JoinToken("a.example:1", "b.example:65535", root, secret)
    text = encode_token(token)
    assert decode_token(text) == token
    assert decode_token(f"  {text}\n") == token
    assert len(text) <= MAX_TOKEN


@given(st.data())
def test_a_token_with_any_character_changed_is_refused_or_another_token(data: st.DataObject) -> None:
    text = encode_token(TOKEN)
    position = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(
        st.characters(min_codepoint=33, max_codepoint=126).filter(lambda c: c != text[position])
    )
    changed = text[:position] + other + text[position + 1 :]
    try:
        read, said = decode_token(changed), ""
    except InvalidInput as error:
        read, said = None, str(error)
    assert read != TOKEN
    assert base64.urlsafe_b64encode(TOKEN.secret).decode()[:16] not in said


@given(st.text(max_size=300))
def test_any_other_text_is_refused(text: str) -> None:
    for candidate in (text, PREFIX + text):
        with pytest.raises(InvalidInput):
            decode_token(candidate)


def test_a_token_cut_short_is_refused() -> None:
    text = encode_token(TOKEN)
    for end in range(len(text)):
        with pytest.raises(Malformed):
            decode_token(text[:end])


def test_a_token_that_is_too_long_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(Oversized):
        decode_token(PREFIX + "A" * MAX_TOKEN)


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": base64.urlsafe_b64encode(b"x" * 31).rstrip(b"=").decode()},
        {"secret": 7},
        {"bootstrap": "no-port"},
        {"address": "host:0"},
        {"address": "host:70000"},
        {"address": "ho st:1"},
        {"root": ""},
        {"extra": "field"},
    ],
)
def test_fields_that_are_not_as_they_must_be_are_refused(changes: dict[str, object]) -> None:
    body = encode_token(TOKEN)[len(PREFIX) :]
    fields = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))) | changes
    text = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(Malformed):
        decode_token(PREFIX + base64.urlsafe_b64encode(text).rstrip(b"=").decode())


def test_what_is_stored_of_a_secret_does_not_give_it_away() -> None:
    secret = new_secret(lambda n: b"\x09" * n)
    assert len(secret) == 32
    assert hash_of(secret) != secret
    assert len(token_id_of(hash_of(secret))) == 16
    assert token_id_of(hash_of(secret)) not in hash_of(secret).hex()

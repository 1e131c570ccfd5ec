"""Signed statements as they travel."""

from __future__ import annotations

from dataclasses import replace

import pytest
from update_world import World, content

from fltrust.errors import InvalidInput, Malformed, Oversized, StatementRefused
from fltrust.identity import Digest
from fltrust.updates import MAX_SEALED_SIGNED_BYTES, MAX_SIGNED_BYTES, SignedStatement, sign_statement


@pytest.fixture(scope="module")
def signed(world: World) -> SignedStatement:
    return world.aggregator.sign(world.instruction(content()))


def test_a_signed_statement_round_trips(signed: SignedStatement, world: World) -> None:
    data = signed.to_bytes()
    assert SignedStatement.from_bytes(data) == signed
    assert SignedStatement.from_bytes(data).to_bytes() == data


def test_every_prefix_and_any_trailing_byte_is_refused(signed: SignedStatement) -> None:
    data = signed.to_bytes()
    for end in range(len(data)):
        with pytest.raises(InvalidInput):
            SignedStatement.from_bytes(data[:end])
    with pytest.raises(Malformed):
        SignedStatement.from_bytes(data + b"\x00")


def test_what_is_too_large_is_refused_unparsed(signed: SignedStatement) -> None:
    with pytest.raises(Oversized):
        SignedStatement.from_bytes(bytes(MAX_SIGNED_BYTES + 1))
    with pytest.raises(Malformed):
        SignedStatement.from_bytes(bytes(MAX_SIGNED_BYTES + 1), limit=MAX_SEALED_SIGNED_BYTES)
    with pytest.raises(Oversized):
        replace(signed, envelope_json=b"")
    with pytest.raises(Oversized):
        replace(signed, chain_der=(b"x" * (16 * 1024 + 1),))


@pytest.mark.parametrize("count", [0, 5, 255])
def test_a_chain_has_one_to_four_certificates(signed: SignedStatement, count: int) -> None:
    with pytest.raises(Malformed):
        replace(signed, chain_der=signed.chain_der[:1] * count)
    head = signed.to_bytes()[: 18 + 4 + len(signed.envelope_json)]
    with pytest.raises(Malformed):
        SignedStatement.from_bytes(head + bytes([count]) + b"\x00\x00\x00\x01x" * count)


def test_nobody_signs_what_no_verifier_would_accept(world: World) -> None:
    statement = world.instruction(content())
    signer, chain = world.aggregator.signer, world.aggregator.chain
    for said, by, beside in (
        (replace(statement, certificate=Digest.sha256_of(b"x")), signer, chain),
        (statement, world.site_a.signer, chain),
        (statement, signer, world.site_a.chain),
        (statement, signer, ()),
    ):
        with pytest.raises(StatementRefused) as caught:
            sign_statement(said, signer=by, chain=beside)
        assert caught.value.reason == "wrong-certificate"
    garbage = replace(statement, certificate=Digest.sha256_of(b"x"))
    with pytest.raises(Malformed):
        sign_statement(garbage, signer=signer, chain=(b"x",))

"""Whatever bytes come as a signed request, they are refused in ACME's words, and reading is one-to-one."""

from __future__ import annotations

import ipaddress
import json
from contextlib import suppress

from acme_client import Key, b64, jws
from hypothesis import given
from hypothesis import strategies as st

from fltrust.coordinator.acme.targets import is_permitted
from fltrust.errors import InvalidInput
from fltrust.identity import Serial
from fltrust.protocols.acme.ari import CertificateId, read_id
from fltrust.protocols.acme.jws import check_signature, read_jws
from fltrust.protocols.acme.messages import (
    read_account_change,
    read_finalize,
    read_key_change,
    read_new_account,
    read_new_order,
    read_revocation,
)
from fltrust.protocols.acme.problems import AcmeProblem

KEY = Key()
URL = "https://trust.example/acme/new-order"
SIGNED = json.dumps(jws(KEY, {"alg": "ES256", "nonce": "n", "url": URL, "jwk": KEY.jwk}, {"a": 1})).encode()

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    with suppress(AcmeProblem, InvalidInput):
        read_jws(body)


@given(values)
def test_whatever_header_comes_is_read_or_refused(header: object) -> None:
    body = {"protected": b64(json.dumps(header)), "payload": "", "signature": b64(bytes(64))}
    with suppress(AcmeProblem, InvalidInput):
        read_jws(json.dumps(body).encode())


@given(values)
def test_whatever_payload_comes_is_read_or_refused(payload: object) -> None:
    data = json.dumps(payload).encode()
    for read in (
        read_new_account,
        read_account_change,
        read_new_order,
        read_finalize,
        read_revocation,
        read_key_change,
    ):
        with suppress(AcmeProblem, InvalidInput):
            read(data)


@given(st.integers(0, len(SIGNED) - 1), st.integers(0, 7))
def test_one_bit_that_flips_is_refused_or_says_the_same(at: int, bit: int) -> None:
    flipped = bytearray(SIGNED)
    flipped[at] ^= 1 << bit
    try:
        request = read_jws(bytes(flipped))
        assert request.key is not None
        check_signature(request, request.key)
    except (AcmeProblem, InvalidInput):
        return
    whole = read_jws(SIGNED)  # spaces of the JSON around it: what is signed is the same
    assert (request.signing_input, request.payload) == (whole.signing_input, whole.payload)


@given(st.binary(min_size=1, max_size=32), st.integers(1, 2**159 - 1))
def test_an_id_of_a_certificate_has_one_form(issuer: bytes, serial: int) -> None:
    made = CertificateId(issuer, Serial(serial))
    assert read_id(str(made)) == made


@given(st.ip_addresses())
def test_what_is_private_in_either_form_is_out_of_bounds(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if not address.is_global or address.is_multicast:
        assert not is_permitted(address, ())
    if isinstance(address, ipaddress.IPv4Address):
        mapped = ipaddress.ip_address(f"::ffff:{address}")
        assert is_permitted(mapped, ()) == is_permitted(address, ())

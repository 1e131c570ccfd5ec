"""Parsers of enrollment protocols: whatever comes, they answer with an error of ours or with a message."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from cryptography import x509
from hypothesis import example, given
from hypothesis import strategies as st

from fltrust.enrollment.jwt import read_jwks, read_token
from fltrust.errors import FltrustError
from fltrust.keys import generate
from fltrust.pki import create_csr
from fltrust.pki.csr import parse_request
from fltrust.protocols.cmp import messages as cmp
from fltrust.protocols.cmp import requests as cmp_requests
from fltrust.protocols.est.messages import read_request
from fltrust.protocols.scep import messages as scep

CSR = next(csr for csr in iter(lambda: create_csr(generate()), b"") if csr[-1] % 2 == 0)
"""A request; its last bit is 0, so that DER allows to say that it does not count."""
UNUSED_BITS = CSR.rindex(x509.load_der_x509_csr(CSR).signature) - 1
"""Where the signature's BIT STRING says how many bits of its last octet do not count."""
READERS: dict[str, Callable[[bytes], object]] = {
    "csr": parse_request,
    "cmp": cmp.read_message,
    "cmp-ir": lambda data: cmp_requests.certificate_request(cmp.Body.IR, data),
    "cmp-rr": cmp_requests.revocation,
    "cmp-conf": cmp_requests.confirmed,
    "cmp-poll": cmp_requests.polled,
    "est": read_request,
    "scep": scep.read_message,
    "jwks": read_jwks,
    "jwt": lambda data: read_token(data.decode("latin-1")),
}

ders = st.recursive(
    st.one_of(st.binary(max_size=24), st.just(CSR)),
    lambda inner: st.tuples(
        st.sampled_from([0x02, 0x03, 0x04, 0x06, 0x13, 0x30, 0x31, *range(0xA0, 0xBF)]),
        st.lists(inner, max_size=4).map(b"".join),
    ).map(lambda found: _tlv(*found)),
    max_leaves=12,
)


def _tlv(tag: int, content: bytes) -> bytes:
    size = bytes([len(content)]) if len(content) < 128 else b"\x82" + len(content).to_bytes(2, "big")
    return bytes([tag]) + size + content


@pytest.mark.parametrize("name", READERS)
@given(data=st.one_of(ders, st.binary(max_size=200)))
def test_a_parser_raises_nothing_but_our_errors(name: str, data: bytes) -> None:
    with contextlib.suppress(FltrustError):
        READERS[name](data)


@given(at=st.integers(0, len(CSR) - 1), bit=st.integers(0, 7))
@example(at=UNUSED_BITS, bit=0)
def test_a_request_with_any_bit_flipped_is_refused(at: int, bit: int) -> None:
    touched = bytearray(CSR)
    touched[at] ^= 1 << bit
    with pytest.raises(FltrustError):
        parse_request(bytes(touched))

"""What must always hold of timestamps, certificate timestamps and trusted roots, whatever comes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given
from hypothesis import strategies as st

from fltrust.artifacts.signers import read_signer, require_path
from fltrust.artifacts.trustroot import TransparencyLog, build_trusted_root, parse_trusted_root
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.notary import scratch_notary
from fltrust.errors import EvidenceInvalid, InvalidInput, Refused
from fltrust.identity import Role, SpiffeId, TrustDomain
from fltrust.keys import generate
from fltrust.pki import Issuer, create_issuing, create_root, make_bundle
from fltrust.pki import rfc3161 as tsp
from fltrust.pki.codesigning import SigningDraft, issue_signer
from fltrust.pki.sct import (
    SignedCertificateTimestamp,
    log_id_of,
    parse_sct_list,
    sct_extension,
    sign_sct,
    verify_embedded_sct,
)
from fltrust.pki.timestamping import MAX_REQUEST
from fltrust.pki.timestamps import verify_timestamp

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DOMAIN = TrustDomain("hospitals.example")


class Stopped:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


ROOT_SIGNER, ISSUING_SIGNER, CT, KEY = generate(), generate(), generate(), generate()
ROOT = create_root(DOMAIN, signer=ROOT_SIGNER, now=NOW)
ISSUING = create_issuing(root=ROOT, root_signer=ROOT_SIGNER, public_key=ISSUING_SIGNER.public_key, now=NOW)
ISSUER = Issuer(certificate=ISSUING, signer=ISSUING_SIGNER)
NOTARY = scratch_notary(CurrentCa(ISSUER, make_bundle(DOMAIN, [ROOT])), clock=Stopped())
TRUST = NOTARY.trusted_root(make_bundle(DOMAIN, [ROOT]))
TRUST_JSON = build_trusted_root(TRUST)
LOGS = [
    TransparencyLog("https://ct.example", CT.public_key, log_id_of(CT.public_key), NOW - timedelta(days=1))
]
LEAF = issue_signer(
    ISSUER,
    SigningDraft.of(SpiffeId.of(DOMAIN, Role.SIGNER, "release"), KEY.public_key, now=NOW),
    promise=lambda key_hash, tbs: sign_sct(CT, key_hash=key_hash, tbs=tbs, at=NOW),
).certificate.public_bytes(Encoding.DER)
REQUEST = asn1.encode_der(
    tsp.TimeStampReq(
        version=1,
        message_imprint=tsp.MessageImprint(
            hash_algorithm=tsp.Algorithm(algorithm=tsp.SHA256, parameters=asn1.Null()),
            hashed_message=b"\x07" * 32,
        ),
        req_policy=None,
        nonce=2**63,
        cert_req=True,
        extensions=None,
    )
)
TOKEN = NOTARY.timestamps.timestamp(b"a signature")

quiet = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")


def status_of(answer: bytes) -> int:
    return int(asn1.decode_der(tsp.TimeStampResp, answer).status.status)


@given(st.binary(max_size=MAX_REQUEST + 10))
@example(b"")
@example(REQUEST + b"\x00")
@example(REQUEST * 50)
def test_whatever_is_asked_gets_a_refusal_in_der(asked: bytes) -> None:
    assert status_of(NOTARY.timestamps.answer(asked)) == 2


@given(st.integers(0, len(REQUEST) * 8 - 1))
def test_a_request_with_a_flipped_bit_is_refused_or_answered_for_what_it_says(bit: int) -> None:
    flipped = bytearray(REQUEST)
    flipped[bit // 8] ^= 1 << bit % 8
    answer = asn1.decode_der(tsp.TimeStampResp, NOTARY.timestamps.answer(bytes(flipped)))
    if answer.status.status == 0:
        asked = asn1.decode_der(tsp.TimeStampReq, bytes(flipped))
        assert answer.token is not None
        info = asn1.decode_der(tsp.TstInfo, answer.token.content.content.content)
        assert info.nonce == asked.nonce
        assert info.message_imprint.hashed_message == asked.message_imprint.hashed_message
        assert (answer.token.content.certificates is not None) == asked.cert_req


@quiet
@given(st.integers(0, len(TOKEN) - 1), st.integers(1, 255))
def test_a_timestamp_with_a_changed_byte_is_refused(index: int, change: int) -> None:
    changed = bytearray(TOKEN)
    changed[index] ^= change
    with pytest.raises((InvalidInput, EvidenceInvalid)):
        verify_timestamp(bytes(changed), message=b"a signature", authorities=TRUST.timestamp_authorities)


def verify(der: bytes) -> None:
    signer = read_signer(der)
    issuer = require_path(signer, anchor=ROOT, intermediates=[ISSUING], at=NOW)
    verify_embedded_sct(signer.certificate, issuer, LOGS)


def test_the_certificate_that_is_changed_below_is_good() -> None:
    verify(LEAF)


@quiet
@pytest.mark.filterwarnings("ignore:Parsed a serial number:UserWarning")
@given(st.integers(0, len(LEAF) - 1), st.integers(1, 255))
def test_a_signing_certificate_with_a_changed_byte_is_refused(index: int, change: int) -> None:
    changed = bytearray(LEAF)
    changed[index] ^= change
    with pytest.raises(Refused):
        verify(bytes(changed))


TIMESTAMPS = st.builds(
    SignedCertificateTimestamp,
    log_id=st.binary(min_size=32, max_size=32),
    timestamp_ms=st.integers(0, 2**47),
    signature=st.binary(min_size=1, max_size=72),
    extensions=st.binary(max_size=40),
    algorithm=st.sampled_from([b"\x04\x03", b"\x04\x01"]),
)


@given(st.lists(TIMESTAMPS, min_size=1, max_size=8))
def test_certificate_timestamps_are_read_as_they_were_written(timestamps: Any) -> None:
    content = asn1.decode_der(bytes, sct_extension(timestamps).value)
    assert parse_sct_list(content) == tuple(timestamps)


@given(st.binary(max_size=300))
def test_a_list_of_certificate_timestamps_is_read_in_one_way_or_not(data: bytes) -> None:
    try:
        read = parse_sct_list(data)
    except InvalidInput:
        return
    assert asn1.decode_der(bytes, sct_extension(read).value) == data


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def paths(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [path] if path else []
    items: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, inner in items:
        found += paths(inner, (*path, key))
    return found


PATHS = paths(json.loads(TRUST_JSON))


@given(st.sampled_from(PATHS), JSON)
def test_a_trusted_root_with_anything_in_any_place_is_read_or_refused_and_never_breaks(
    path: tuple[str | int, ...], value: object
) -> None:
    root: Any = json.loads(TRUST_JSON)
    place = root
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    try:
        found = parse_trusted_root(json.dumps(root).encode())
    except InvalidInput:
        return
    assert parse_trusted_root(build_trusted_root(found)) == found


@given(st.binary(max_size=200))
def test_what_is_no_trusted_root_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_trusted_root(data)

"""The envelope: DSSE as the protocol says, in one byte form, checked from outside by OpenSSL."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from update_world import World, content

from fltrust.errors import InvalidInput, Malformed, Oversized, StatementRefused
from fltrust.updates import PAYLOAD_TYPE, Envelope, pae
from fltrust.updates.dsse import MAX_ENVELOPE_BYTES


def test_the_pre_authentication_encoding_is_that_of_the_protocol() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "


def test_openssl_verifies_an_envelope(world: World, tmp_path: Path) -> None:
    signed = world.aggregator.sign(world.instruction(content()))
    envelope = json.loads(signed.envelope_json)
    (signature,) = envelope["signatures"]
    key = world.aggregator.signer.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "sig").write_bytes(base64.b64decode(signature["sig"]))
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    (tmp_path / "pae").write_bytes(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
    command = ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "sig", "pae"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout == b"Verified OK\n"
    assert signature["keyid"] == world.aggregator.signer.key_id
    assert kind == b"application/vnd.in-toto+json"


@pytest.fixture
def envelope(world: World) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.aggregator.sign(world.instruction(content())).envelope_json)
    return found


def written(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def test_an_envelope_round_trips_byte_for_byte(envelope: dict[str, Any]) -> None:
    data = written(envelope)
    assert Envelope.from_json(data).to_json() == data


@pytest.mark.parametrize("change", [
    lambda e: e | {"extra": 1},
    lambda e: {k: v for k, v in e.items() if k != "payload"},
    lambda e: e | {"payload": 1},
    lambda e: e | {"payload": e["payload"] + "="},
    lambda e: e | {"payload": e["payload"] + "\n"},
    lambda e: e | {"payload": "YR=="},  # the padding's spare bits are not zero
    lambda e: e | {"payload": "a_-b"},
    lambda e: e | {"signatures": []},
    lambda e: e | {"signatures": e["signatures"] * 2},
    lambda e: e | {"signatures": e["signatures"][0]},
    lambda e: e | {"signatures": [e["signatures"][0] | {"cert": "x"}]},
    lambda e: e | {"signatures": [{"sig": e["signatures"][0]["sig"]}]},
    lambda e: e | {"signatures": [e["signatures"][0] | {"keyid": "me"}]},
    lambda e: e | {"signatures": [e["signatures"][0] | {"sig": ""}]},
    lambda e: e | {"signatures": [e["signatures"][0] | {"sig": "A" * 128}]},
    lambda e: [e],
    lambda _: 1.5,
])  # fmt: skip
def test_an_envelope_of_any_other_shape_is_malformed(envelope: dict[str, Any], change: Any) -> None:
    with pytest.raises(Malformed):
        Envelope.from_json(written(change(envelope)))


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda d: b" " + d,
        lambda d: d + b"\n",
        lambda d: d.replace(b":", b": ", 1),
        lambda d: d.replace(b'{"payload":', b'{"payload":"","payload":', 1),
        lambda d: d.replace(b"payloadType", b"payload\\u0054ype", 1),
        lambda d: b"\xef\xbb\xbf" + d,
        lambda d: d.replace(b"keyid", b"key\xff", 1),
        lambda _: b"[" * 50_000,
        lambda _: b"1" * 5_000,
        lambda _: b"{}",
        lambda _: b"",
        lambda _: b"NaN",
        lambda d: d[:-1],
    ],
)
def test_an_envelope_in_any_other_bytes_is_malformed(envelope: dict[str, Any], rewrite: Any) -> None:
    with pytest.raises(Malformed):
        Envelope.from_json(rewrite(written(envelope)))


def test_an_envelope_past_the_bound_is_refused_unparsed() -> None:
    with pytest.raises(Oversized):
        Envelope.from_json(b"x" * (MAX_ENVELOPE_BYTES + 1))


def test_an_envelope_of_another_payload_type_is_of_unknown_type(envelope: dict[str, Any]) -> None:
    with pytest.raises(StatementRefused) as caught:
        Envelope.from_json(written(envelope | {"payloadType": "text/plain"}))
    assert caught.value.reason == "unknown-type"


def test_an_envelope_needs_exactly_one_signature() -> None:
    with pytest.raises(InvalidInput):
        Envelope(PAYLOAD_TYPE, b"{}", ())

"""Trusted roots: ours are written and read, Sigstore's own are read, and nothing is guessed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fltrust.artifacts.trustroot import (
    MEDIA_TYPE,
    TransparencyLog,
    TrustedRoot,
    build_trusted_root,
    parse_trusted_root,
)
from fltrust.clock import SystemClock
from fltrust.errors import Malformed, Oversized
from fltrust.testing import FakeClock
from fltrust.testing.desk import ScratchDesk
from fltrust.tlog.note import KeyType, VerifierKey


@pytest.fixture(scope="module")
def desk() -> ScratchDesk:
    return ScratchDesk(clock=SystemClock())


def as_json(desk: ScratchDesk) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(build_trusted_root(desk.trusted_root))
    return found


def parse(value: object) -> TrustedRoot:
    return parse_trusted_root(json.dumps(value).encode())


def test_what_is_written_is_read_back(desk: ScratchDesk) -> None:
    assert parse_trusted_root(build_trusted_root(desk.trusted_root)) == desk.trusted_root
    assert build_trusted_root(desk.trusted_root) == build_trusted_root(desk.trusted_root)


def test_a_log_of_signed_notes_is_named_as_its_signature_lines_are(desk: ScratchDesk) -> None:
    """The trap between clients: sigstore-python and sigstore-js look for the note's four bytes in the id."""
    notes, promises = desk.trusted_root.tlogs
    key = VerifierKey("hospitals.example/log", KeyType.ED25519, desk.notary.note.public_key_raw)
    assert notes.log_id == key.full_id
    assert notes.note_key_id == key.key_id
    assert notes.base_url == "https://hospitals.example/log"
    assert promises.log_id == desk.trusted_root.ct_logs[0].log_id == desk.notary.ct_log_id
    key_of_checkpoints = b"\x01\x02\x03\x04" + b"\x00" * 28
    named = TransparencyLog(
        "https://x", notes.public_key, b"\x09" * 32, notes.start, None, key_of_checkpoints
    )
    assert named.note_key_id == b"\x01\x02\x03\x04"


def test_a_part_covers_its_window_with_both_ends(desk: ScratchDesk) -> None:
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    log = TransparencyLog("https://x", desk.notary.ct.public_key, b"\x00" * 32, start, end)
    moment = timedelta(microseconds=1)
    assert [log.covers(at) for at in (start - moment, start, end, end + moment)] == [False, True, True, False]
    assert TransparencyLog("https://x", log.public_key, log.log_id, start).covers(
        datetime.max.replace(tzinfo=UTC)
    )


def test_old_timestamp_authorities_stay_with_their_windows() -> None:
    clock = FakeClock()
    desk = ScratchDesk(clock=clock)
    before = desk.notary.timestamps.certificate
    clock.advance(timedelta(days=61))
    assert desk.notary.timestamps.certificate != before
    first, second = desk.trusted_root.timestamp_authorities
    assert first.certificates[0] == before
    assert first.end is not None
    assert second.start < first.end  # they overlap
    assert parse_trusted_root(build_trusted_root(desk.trusted_root)) == desk.trusted_root


@pytest.mark.parametrize("instance", ["tuf-repo-cdn.sigstore.dev", "tuf-repo-cdn.sigstage.dev"])
def test_the_public_instances_roots_are_read(instance: str) -> None:
    sigstore = pytest.importorskip("sigstore", reason="the extra 'sigstore' is not installed")
    (path,) = Path(sigstore.__file__).parent.glob(f"_store/*{instance}/trusted_root.json")
    root = parse_trusted_root(path.read_bytes())
    assert any(isinstance(log.public_key, ed25519.Ed25519PublicKey) for log in root.tlogs)
    assert root.certificate_authorities[-1].end is None
    assert root.ct_logs
    assert root.timestamp_authorities
    kinds = {type(log.public_key) for log in root.ct_logs}
    assert any(issubclass(kind, ec.EllipticCurvePublicKey) for kind in kinds)
    assert any(issubclass(kind, rsa.RSAPublicKey) for kind in kinds) == ("sigstage" in instance)
    assert parse_trusted_root(build_trusted_root(root)) == root


def test_protobufs_freedoms_are_granted(desk: ScratchDesk) -> None:
    """Unknown and null fields, a missing window, the other base64, another offset, the newer version."""
    value = as_json(desk)
    value["somethingNew"] = {"a": [1, 2]}
    value["mediaType"] = "application/vnd.dev.sigstore.trustedroot.v0.2+json"
    value["ctlogs"] = None
    ca = value["certificateAuthorities"][0]
    ca["operator"] = "somebody"
    ca["validFor"] = {"start": "2026-01-01T01:00:00.123456789+01:00"}
    log = value["tlogs"][0]
    log["checkpointKeyId"] = None
    del log["publicKey"]["validFor"]
    log["logId"]["keyId"] = base64.urlsafe_b64encode(b"\xff" * 32).decode().rstrip("=")
    found = parse(value)
    assert found.ct_logs == ()
    assert found.certificate_authorities[0].start == datetime(2026, 1, 1, 0, 0, 0, 123456, UTC)
    assert found.tlogs[0].log_id == b"\xff" * 32
    assert found.tlogs[0].start == datetime(1970, 1, 1, tzinfo=UTC)
    assert found.tlogs[0].end is None


@pytest.mark.parametrize("details", ["PKIX_ML_DSA_65", "PKIX_ECDSA_P384_SHA_384", "PKIX_RSA_PSS_2048_SHA256"])
def test_a_log_whose_key_is_not_known_or_not_as_stated_is_left_out(desk: ScratchDesk, details: str) -> None:
    value = as_json(desk)
    value["tlogs"][0]["publicKey"]["keyDetails"] = details
    assert parse(value).tlogs == desk.trusted_root.tlogs[1:]


def test_a_log_with_another_hash_is_left_out(desk: ScratchDesk) -> None:
    value = as_json(desk)
    value["tlogs"][1]["hashAlgorithm"] = "SHA3_256"
    assert parse(value).tlogs == desk.trusted_root.tlogs[:1]


def changed(path: tuple[str | int, ...], value: object) -> Callable[[dict[str, Any]], None]:
    def change(root: dict[str, Any]) -> None:
        found: Any = root
        for step in path[:-1]:
            found = found[step]
        found[path[-1]] = value

    return change


CA, LOG = ("certificateAuthorities", 0), ("tlogs", 0)
WRONG = {
    "another type": changed(("mediaType",), "application/json"),
    "another version": changed(("mediaType",), MEDIA_TYPE.replace("0.1", "9")),
    "no list": changed(("tlogs",), {}),
    "no object": changed(CA, "x"),
    "no authority": changed(("certificateAuthorities",), []),
    "no chain": changed((*CA, "certChain"), None),
    "an empty chain": changed((*CA, "certChain", "certificates"), []),
    "no certificate": changed((*CA, "certChain", "certificates", 0, "rawBytes"), "AAAA"),
    "no base64": changed((*CA, "certChain", "certificates", 0, "rawBytes"), "!!!!"),
    "a time without zone": changed((*CA, "validFor", "start"), "2026-01-01T00:00:00"),
    "a time before the first": changed((*CA, "validFor", "start"), "0001-01-01T00:00:00+23:59"),
    "a list as type": changed(("mediaType",), []),
    "a URL that no encoding has": changed((*LOG, "baseUrl"), "https://\ud800"),
    "no time": changed((*CA, "validFor", "end"), "soon"),
    "a number as time": changed((*CA, "validFor", "start"), 0),
    "no key": changed((*LOG, "publicKey"), None),
    "a broken key": changed((*LOG, "publicKey", "rawBytes"), "AAAA"),
    "a short id": changed((*LOG, "logId", "keyId"), "AAA="),
    "no id": changed((*LOG, "logId"), None),
    "a number as URL": changed((*LOG, "baseUrl"), 7),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_what_cannot_be_read_is_malformed(desk: ScratchDesk, change: Any) -> None:
    value = as_json(desk)
    change(value)
    with pytest.raises(Malformed):
        parse(value)


def test_a_field_that_stands_twice_is_malformed(desk: ScratchDesk) -> None:
    data = build_trusted_root(desk.trusted_root)
    assert data.startswith(b"{")
    with pytest.raises(Malformed):
        parse_trusted_root(b'{"tlogs":[],' + data[1:])
    for bad in (b"", b"[]", b"null", b"{", b"\xff"):
        with pytest.raises(Malformed):
            parse_trusted_root(bad)


def test_sizes_are_bounded_before_anything_is_parsed(desk: ScratchDesk) -> None:
    with pytest.raises(Oversized):
        parse_trusted_root(b" " * (4 * 2**20 + 1))
    value = as_json(desk)
    value["tlogs"] = value["tlogs"] * 200
    with pytest.raises(Oversized):
        parse(value)
    value = as_json(desk)
    value["certificateAuthorities"][0]["certChain"]["certificates"] *= 9
    with pytest.raises(Oversized):
        parse(value)
    value = as_json(desk)
    value["tlogs"][0]["publicKey"]["rawBytes"] = base64.b64encode(b"\x00" * 20_000).decode()
    with pytest.raises(Oversized):
        parse(value)


def test_keys_of_every_kind_are_written_as_they_are_read() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    desk = ScratchDesk()
    keys = [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 3072),
        ed25519.Ed25519PrivateKey.generate(),
    ]
    logs = tuple(
        TransparencyLog(f"https://log{i}.example", key.public_key(), bytes([i]) * 32, start)
        for i, key in enumerate(keys)
    )
    root = TrustedRoot(desk.trusted_root.certificate_authorities, (), logs, ())
    found = parse_trusted_root(build_trusted_root(root)).tlogs
    spki = [
        [log.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for log in several]
        for several in (logs, found)
    ]
    assert spki[0] == spki[1]

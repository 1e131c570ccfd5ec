"""Mirrors: brought up to date over real HTTP, and verified from their files alone."""

from __future__ import annotations

import gzip
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from log_http import from_fetch, send, serving
from log_world import AT, LogWorld, enrolled, sealed_round

from fltrust.errors import (
    EvidenceInvalid,
    EvidenceMissing,
    FltrustError,
    Malformed,
    NotFound,
    Oversized,
    SignatureInvalid,
    Tampered,
    Unavailable,
)
from fltrust.keys.ed25519 import generate_note_key
from fltrust.tlog.checkpoint import CheckpointPolicy, CosignerKey, add_signatures, sign_checkpoint
from fltrust.tlog.entries import new_entry
from fltrust.tlog.fetching import FolderLog, HttpLog, open_source
from fltrust.tlog.mirror import download, verify_mirror
from fltrust.tlog.ports import NewEntry

Damage = Callable[[bytes], bytes]


@pytest.fixture
def world() -> LogWorld:
    world = LogWorld()
    world.grow(600)
    return world


def test_a_whole_log_is_verified_from_its_files(world: LogWorld, tmp_path: Path) -> None:
    report = verify_mirror(FolderLog(world.write_to(tmp_path)), world.policy)
    assert report.kinds == {"log-opened": 1, "sealed-round": 300, "trust-event": 300}
    assert report.checkpoint.head == world.log.head
    assert report.last_epoch == 300


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512])
def test_a_log_of_any_size_is_verified(size: int, tmp_path: Path) -> None:
    world = LogWorld()
    world.grow(max(0, size - 1))
    if size == 0:
        (tmp_path / "checkpoint").write_bytes(world.note(0))
    else:
        world.write_to(tmp_path)
    assert sum(verify_mirror(FolderLog(tmp_path), world.policy).kinds.values()) == size


def test_a_mirror_is_downloaded_and_brought_up_to_date(world: LogWorld, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    for more in (0, 1, 423, 0, 500):
        world.grow(more)
        with serving(from_fetch(world.fetch)) as url:
            download(HttpLog(f"{url}/log"), mirror, world.policy)
        assert verify_mirror(FolderLog(mirror), world.policy).checkpoint.head == world.log.head
        straight = world.write_to(tmp_path / f"straight-{world.log.head.size}-{more}")
        assert _files(mirror) == _files(straight)


def test_a_mirror_can_be_mirrored_and_verified_over_http(world: LogWorld, tmp_path: Path) -> None:
    first = tmp_path / "first"
    download(world.fetch, first, world.policy)
    with serving(from_fetch(FolderLog(first))) as url:
        source = open_source(f"{url}/log/")
        assert verify_mirror(source, world.policy).checkpoint.head == world.log.head
        download(source, tmp_path / "second", world.policy)
        source.close()
    assert _files(first) == _files(tmp_path / "second")


def test_only_what_is_new_is_fetched(world: LogWorld, tmp_path: Path) -> None:
    download(world.fetch, tmp_path, world.policy)
    world.grow(10)
    asked: list[str] = []

    def fetch(path: str) -> bytes:
        asked.append(path)
        return world.fetch(path)

    download(fetch, tmp_path, world.policy)
    assert set(asked) == {
        "checkpoint",
        "tile/0/002.p/99",
        "tile/1/000.p/2",
        "tile/entries/002.p/99",
    }


def test_a_download_that_is_cut_short_leaves_the_old_mirror_whole(world: LogWorld, tmp_path: Path) -> None:
    download(world.fetch, tmp_path, world.policy)
    old = world.log.head
    world.grow(700)

    def fails_late(path: str) -> bytes:
        if path.startswith("tile/entries/004"):
            raise Unavailable("cut")
        return world.fetch(path)

    with pytest.raises(Unavailable):
        download(fails_late, tmp_path, world.policy)
    assert verify_mirror(FolderLog(tmp_path), world.policy).checkpoint.head == old
    download(world.fetch, tmp_path, world.policy)
    assert verify_mirror(FolderLog(tmp_path), world.policy).checkpoint.head == world.log.head


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    "path",
    ["tile/0/000", "tile/0/002.p/89", "tile/1/000.p/2", "tile/entries/001", "tile/entries/002.p/89"],
)
@pytest.mark.parametrize("damage", [_flip, lambda data: data[:-1], lambda data: data + b"x", lambda _: b""])
def test_a_damaged_file_of_a_mirror_is_caught(path: str, damage: Damage, tmp_path: Path) -> None:
    world = LogWorld()
    world.grow(600)
    file = world.write_to(tmp_path) / path
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises((Tampered, Oversized, EvidenceInvalid)):
        verify_mirror(FolderLog(tmp_path), world.policy)


def test_a_missing_file_of_a_mirror_is_missed(world: LogWorld, tmp_path: Path) -> None:
    paths = [p for p in world.write_to(tmp_path).rglob("*") if p.is_file()]
    for path in paths:
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(NotFound):
            verify_mirror(FolderLog(tmp_path), world.policy)
        path.write_bytes(data)


def test_a_checkpoint_of_fewer_or_other_entries_does_not_fit_the_files(tmp_path: Path) -> None:
    world, other = LogWorld(), LogWorld()
    world.grow(300)
    other.key = world.key
    other.append(new_entry(sealed_round(1)))
    other.grow(299)
    (world.write_to(tmp_path) / "checkpoint").write_bytes(other.note())
    with pytest.raises(Tampered, match="root"):
        verify_mirror(FolderLog(tmp_path), world.policy)


def test_a_log_that_rewinds_is_caught_and_the_mirror_stays(world: LogWorld, tmp_path: Path) -> None:
    download(world.fetch, tmp_path, world.policy)
    before = _files(tmp_path)

    def rewound(path: str) -> bytes:
        return world.note(500) if path == "checkpoint" else world.fetch(path)

    with pytest.raises(Tampered) as caught:
        download(rewound, tmp_path, world.policy)
    assert caught.value.reason == "rewind"
    assert _files(tmp_path) == before


@pytest.mark.parametrize("more", [0, 1, 300])
def test_a_log_that_forks_is_caught_and_the_mirror_stays(world: LogWorld, tmp_path: Path, more: int) -> None:
    download(world.fetch, tmp_path, world.policy)
    before = _files(tmp_path)
    fork = LogWorld()
    fork.key = world.key  # the log's own key signs another history
    fork.grow(599)
    fork.append(new_entry(sealed_round(99_999)))
    fork.grow(more)
    with pytest.raises(Tampered) as caught:
        download(fork.fetch, tmp_path, world.policy)
    assert caught.value.reason == "fork"
    assert _files(tmp_path) == before


def test_an_entry_of_an_unknown_kind_fails_the_verification_by_name(world: LogWorld, tmp_path: Path) -> None:
    world.append(NewEntry("coffee", AT, b'{"type":"urn:fltrust:log:coffee:v1"}'))
    with pytest.raises(EvidenceInvalid, match=r"entry 601 .*coffee") as caught:
        verify_mirror(FolderLog(world.write_to(tmp_path)), world.policy)
    assert caught.value.reason == "unknown-type"


def test_a_trust_epoch_that_is_left_out_fails_the_verification(tmp_path: Path) -> None:
    world = LogWorld()
    world.append(new_entry(enrolled(1)), new_entry(enrolled(3)))
    with pytest.raises(EvidenceInvalid, match="epoch 2, got 3") as caught:
        verify_mirror(FolderLog(world.write_to(tmp_path)), world.policy)
    assert caught.value.reason == "epoch-gap"


def test_a_log_is_opened_once_and_by_its_own_name(tmp_path: Path) -> None:
    world = LogWorld()
    opening = world.log.entries[0]
    world.append(NewEntry(opening.kind, opening.at, opening.data))
    with pytest.raises(EvidenceInvalid, match="open the log"):
        verify_mirror(FolderLog(world.write_to(tmp_path / "twice")), world.policy)
    other = LogWorld(origin="other.example/log")
    other.log.edge, other.log.levels, other.log.entries = world.log.edge, world.log.levels, world.log.entries
    with pytest.raises(EvidenceInvalid, match="opens the log"):
        verify_mirror(FolderLog(other.write_to(tmp_path / "other")), other.policy)


def test_another_key_or_a_missing_witness_is_refused(world: LogWorld, tmp_path: Path) -> None:
    world.write_to(tmp_path)
    with pytest.raises(SignatureInvalid):
        verify_mirror(FolderLog(tmp_path), LogWorld().policy)
    witness = CosignerKey("w.example", generate_note_key())
    strict = CheckpointPolicy(world.policy.log, (witness.verifier,), 1)
    with pytest.raises(EvidenceMissing):
        verify_mirror(FolderLog(tmp_path), strict)
    note = add_signatures(world.note(), (witness.cosign(world.checkpoint().checkpoint, at=AT),))
    (tmp_path / "checkpoint").write_bytes(note)
    assert verify_mirror(FolderLog(tmp_path), strict).checkpoint.cosigned == {"w.example": AT}


def test_a_gzip_encoded_log_is_read_and_a_bomb_is_not(world: LogWorld, tmp_path: Path) -> None:
    def zipped(handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.removeprefix("/log/")
        send(handler, gzip.compress(world.fetch(path)), Content_Encoding="gzip")

    with serving(zipped) as url:
        assert download(HttpLog(f"{url}/log"), tmp_path, world.policy).head == world.log.head

    for bomb in (gzip.compress(bytes(300_000)), gzip.compress(b"x")[:-3], b"not gzip"):
        with (
            serving(lambda handler, bomb=bomb: send(handler, bomb, Content_Encoding="gzip")) as url,
            pytest.raises((Oversized, Malformed)),
        ):
            HttpLog(url)("checkpoint")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda handler: send(handler, b"x", 500), Unavailable),
        (lambda handler: send(handler, b"", 302, Location="http://127.0.0.1:1/"), Unavailable),
        (lambda handler: send(handler, bytes(20_000), 404), NotFound),
        (lambda handler: send(handler, bytes(8193)), Oversized),
        (lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n"), Unavailable),
        (lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"), Unavailable),
        (lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500), Unavailable),
        (lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000), Unavailable),
    ],
)
def test_what_a_server_may_answer_ends_in_an_error_of_ours(
    answer: Callable[[BaseHTTPRequestHandler], None], error: type[FltrustError]
) -> None:
    def once(handler: BaseHTTPRequestHandler) -> None:
        answer(handler)
        handler.close_connection = True

    with serving(once) as url, pytest.raises(error):
        HttpLog(url, timeout=5)("tile/0/000")


def test_a_server_that_drips_does_not_hold_a_reader_for_ever() -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(100):
            handler.wfile.write(f"X-{number}: 1\r\n".encode())
            handler.wfile.flush()
            time.sleep(0.1)

    with serving(drip) as url, pytest.raises(Unavailable, match="within"):
        HttpLog(url, timeout=0.5)("checkpoint")


def test_over_https_the_server_is_held_to_the_given_authorities(world: LogWorld, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "log")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "ca.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    with serving(from_fetch(world.fetch), tls=tls) as url:
        assert verify_mirror(HttpLog(f"{url}/log", ca_file=tmp_path / "ca.pem"), world.policy)
        with pytest.raises(Unavailable, match="certificate"):
            HttpLog(f"{url}/log")("checkpoint")
    with pytest.raises(Malformed, match="PEM"):
        HttpLog(url, ca_file=tmp_path / "key.pem")


def test_nobody_there_is_unavailable() -> None:
    with serving(lambda handler: send(handler, b"")) as url:
        pass
    with pytest.raises(Unavailable):
        HttpLog(url, timeout=2)("checkpoint")


@pytest.mark.parametrize(
    "place",
    [
        "ftp://x/log",
        "file:///etc",
        "http://",
        "https://user:secret@x/log",
        "https://x/log?q=1",
        "https://x/log#f",
        "http://x:99999/",
        "http://x/a b",
        "http://x/\n",
    ],
)
def test_an_address_that_is_none_is_refused(place: str) -> None:
    with pytest.raises(Malformed) as refused:
        open_source(place)
    assert "secret" not in str(refused.value)


def test_a_path_that_is_none_of_a_log_is_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    for path in ("secret", "../secret", "tile/../secret"):
        with pytest.raises(Malformed):
            FolderLog(tmp_path)(path)
    with pytest.raises(NotFound):
        FolderLog(tmp_path / "none")


def test_a_connection_that_the_server_closed_meanwhile_is_opened_anew(world: LogWorld) -> None:
    served = from_fetch(world.fetch)

    def closes(handler: BaseHTTPRequestHandler) -> None:
        served(handler)
        handler.close_connection = True  # without having said so

    with serving(closes) as url:
        source = HttpLog(f"{url}/log")
        for _ in range(3):
            assert source("checkpoint") == world.note()
            time.sleep(0.05)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_signed_head_of_an_empty_log_is_no_excuse_for_files_that_lack(tmp_path: Path) -> None:
    world = LogWorld()
    (tmp_path / "checkpoint").write_bytes(sign_checkpoint(world.log.head, world.key))
    with pytest.raises(NotFound):
        verify_mirror(FolderLog(tmp_path), world.policy)

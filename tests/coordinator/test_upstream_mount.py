"""An upstream that lies, stalls, redirects or floods gets nothing past us, and never the token twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from fltrust.coordinator import vault
from fltrust.coordinator.ca import CurrentCa
from fltrust.coordinator.folder import CoordinatorSettings
from fltrust.coordinator.upstream_settings import UpstreamSettings
from fltrust.coordinator.vault import VaultMount
from fltrust.errors import CertificateRefused, Conflict, Malformed, Unavailable
from fltrust.identity import Name, Role, Serial, SpiffeId, TrustDomain
from fltrust.keys import generate
from fltrust.pki import Draft, create_csr
from fltrust.pki.upstream import SigningOrder, UpstreamIssuer, open_upstream
from fltrust.testing.identities import ScratchCa

DOMAIN = TrustDomain("scratch.example")
WHO = SpiffeId(DOMAIN, Role.PARTICIPANT, Name("site-a"))
Answer = Callable[[str, dict[str, Any]], tuple[int, dict[str, str], bytes]]


@contextmanager
def server(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            seen.append(self.path)
            status, headers, data = answer(self.path, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = reply  # noqa: N815 - the names that the base class calls

        def log_message(self, *args: object) -> None:
            del args

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}", seen
    finally:
        http.shutdown()
        http.server_close()


def settings(tmp_path: Path, url: str, **more: Any) -> UpstreamSettings:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("the-token")
    return UpstreamSettings(url=url, mount="pki", token_file=token, **more)


def order() -> SigningOrder:
    return SigningOrder(WHO, (), datetime.now(UTC) + timedelta(hours=1), create_csr(generate()))


@pytest.mark.parametrize(
    ("status", "headers", "data"),
    [
        (302, {"Location": "http://127.0.0.1:1/steal"}, b""),
        (403, {}, b'{"errors":["permission denied\x1b[2J"]}'.replace(b"\x1b", b"\\u001b")),
        (500, {}, b"<html>"),
        (200, {}, b""),
        (200, {}, b"[]"),
        (200, {}, b'{"data":{}}'),
        (200, {}, b'{"data":{"certificate":7}}'),
        (200, {}, b'{"data":{"certificate":"junk"}}'),
        (200, {}, b"[" * 100_000),
        (200, {}, b"x" * (vault.MAX_ANSWER + 1)),
    ],
)
def test_an_answer_that_is_no_certificate_is_unavailable_and_nothing_is_followed(
    tmp_path: Path, status: int, headers: dict[str, str], data: bytes
) -> None:
    with server(lambda _path, _body: (status, headers, data)) as (url, seen):
        with pytest.raises(Unavailable) as refused:
            VaultMount(settings(tmp_path, url)).sign(order())
        assert seen == ["/v1/pki/sign/fltrust-participant"]
        assert "the-token" not in str(refused.value)
        assert "\x1b" not in str(refused.value)


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault, "TIMEOUT", timedelta(milliseconds=200))
    release = threading.Event()

    def stall(_path: str, _body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        release.wait(10)
        return 200, {}, b"{}"

    with server(stall) as (url, seen):
        with pytest.raises(Unavailable):
            VaultMount(settings(tmp_path, url)).sign(order())
        release.set()
        assert len(seen) == 1


def test_a_serial_is_named_as_the_mount_does(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def answer(_path: str, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        asked.append(body)
        return 204, {}, b""

    with server(answer) as (url, _):
        mount = VaultMount(settings(tmp_path, url))
        mount.revoke(Serial(0x0A0B))
        mount.revoke(Serial(0xFF00))
        mount.close()
    assert asked == [{"serial_number": "0a:0b"}, {"serial_number": "ff:00"}]


# ---- what comes back, held against the draft ----


class Mount:
    """Our own CA behind the port, which answers with what it is told to."""

    def __init__(self) -> None:
        self.ca = ScratchCa.make(DOMAIN)
        self.answer: Callable[[SigningOrder], x509.Certificate] = self.honest

    def authority(self) -> tuple[x509.Certificate, ...]:
        return (self.ca.issuer.certificate, *self.ca.bundle.roots)

    def honest(self, order: SigningOrder, **changes: Any) -> x509.Certificate:
        key = x509.load_der_x509_csr(order.csr_der).public_key()
        how: dict[str, Any] = {"lifetime": order.not_after - datetime.now(UTC) - timedelta(seconds=1)}
        who = changes.pop("who", order.spiffe_id)
        draft = Draft.of(who, changes.pop("key", key), now=datetime.now(UTC), **{**how, **changes})
        return self.ca.issuer.redeem(draft)

    def sign(self, order: SigningOrder) -> x509.Certificate:
        return self.answer(order)

    def revoke(self, serial: Serial) -> None:
        del serial


def draft(**more: Any) -> Draft:
    key = generate()
    how: dict[str, Any] = {"now": datetime.now(UTC), "csr_der": create_csr(key)}
    return Draft.of(WHO, key.public_key, **{**how, **more})


def test_an_honest_mount_is_believed_once() -> None:
    mount = Mount()
    issuer = open_upstream(mount, roots=mount.ca.bundle.roots)
    one = draft()
    assert issuer.redeem(one).public_key() == one.public_key
    with pytest.raises(Conflict):
        issuer.redeem(one)


@pytest.mark.parametrize(
    "lie",
    [
        lambda mount, order: mount.honest(order, who=SpiffeId(DOMAIN, Role.PARTICIPANT, Name("site-b"))),
        lambda mount, order: mount.honest(order, who=SpiffeId(DOMAIN, Role.OPERATOR, Name("site-a"))),
        lambda mount, order: mount.honest(order, key=generate().public_key),
        lambda mount, order: mount.honest(order, lifetime=timedelta(hours=20)),
        lambda _mount, order: Mount().honest(order),
        lambda mount, _order: mount.ca.issuer.certificate,
        lambda mount, _order: mount.ca.bundle.roots[0],
    ],
)
def test_a_mount_that_signs_something_else_is_not_believed(
    lie: Callable[[Mount, SigningOrder], x509.Certificate],
) -> None:
    mount = Mount()
    issuer = open_upstream(mount, roots=mount.ca.bundle.roots)
    mount.answer = lambda order: lie(mount, order)
    one = draft()
    with pytest.raises(CertificateRefused):
        issuer.redeem(one)
    with pytest.raises(Conflict):
        issuer.redeem(one)


def test_what_an_upstream_cannot_do_is_refused_before_it_is_asked() -> None:
    mount = Mount()
    issuer = open_upstream(mount, roots=mount.ca.bundle.roots)
    mount.answer = lambda _order: pytest.fail("it was asked")
    end = issuer.certificate.not_valid_after_utc
    for wrong in (
        draft(csr_der=None),
        draft(csr_der=create_csr(generate())),
        draft(lifetime=timedelta(days=2)),
        draft(now=end),
    ):
        with pytest.raises(CertificateRefused):
            issuer.redeem(wrong)


def test_a_ca_of_another_domain_is_no_upstream_of_ours() -> None:
    mount, ours = Mount(), ScratchCa.make("a.example")
    issuer = UpstreamIssuer(mount, certificate=mount.ca.issuer.certificate)
    with pytest.raises(Conflict):
        CurrentCa(ours.issuer, ours.bundle, upstream=issuer)
    with pytest.raises(CertificateRefused):
        open_upstream(mount, roots=ours.bundle.roots)


def test_the_section_reads_back_as_it_was_written(tmp_path: Path) -> None:
    full = settings(
        tmp_path, "https://bao.a.example:8200", ca_file=tmp_path / "ca.pem", namespace="a/b", role_prefix="f"
    )
    whole = CoordinatorSettings(domain=DOMAIN, bootstrap="a:1", address="a:2", upstream=full)
    assert CoordinatorSettings.from_toml(whole.to_toml()) == whole


@pytest.mark.parametrize(
    "table",
    [
        {"url": "https://a:1", "mount": "pki"},
        {"url": "http://a:1", "mount": "pki", "token-file": "/t"},
        {"url": "https://a:1", "mount": "../sys", "token-file": "/t"},
        {"url": "https://a:1", "mount": "pki", "token-file": "/t", "token": "secret"},
        {"url": 1, "mount": "pki", "token-file": "/t"},
        [],
    ],
)
def test_a_section_that_says_something_else_is_refused(table: object) -> None:
    with pytest.raises(Malformed):
        UpstreamSettings.from_table(table)


def test_there_is_no_upstream_unless_it_is_named() -> None:
    assert UpstreamSettings.from_table(None) is None

"""Revocation, judged by those who did not write it: OpenSSL, nginx, Envoy and pkilint."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from status_site import (
    FLTRUST,
    SERVED_NAME,
    Holder,
    Site,
    coordinator_process,
    eventually,
    free_port,
    listens,
)

from fltrust.identity import Name, Role
from fltrust.keys import generate
from fltrust.pki.pointers import issuer_of
from fltrust.pki.signing import SignerKey
from fltrust.revocation.events import RevocationReason
from fltrust.revocation.ports import RevocationTarget
from tools.strangers import ENVOY, PKILINT, environment

pytestmark = pytest.mark.client


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with coordinator_process(tmp_path_factory.mktemp("status")) as site:
        yield site


def target(holder: Holder) -> RevocationTarget:
    return RevocationTarget(name=(holder.role, Name(holder.name)))


def revoke(site: Site, holder: Holder) -> None:
    site.client.revoke(target(holder), reason=RevocationReason.KEY_COMPROMISE)


# OpenSSL


def verified(site: Site, holder: Holder, crls: Path, *more: str | Path, code: int = 0) -> str:
    return site.run(
        *("openssl", "verify", "-x509_strict", "-crl_check_all", "-CAfile", site.root),
        *("-untrusted", holder.issuer, "-CRLfile", crls, *more, holder.leaf),
        code=code,
    )


def test_openssl_checks_the_whole_path_against_our_crls(site: Site) -> None:
    good, bad = site.join("ossl-good"), site.join("ossl-bad")
    crls = site.crls()
    for holder in (good, bad):
        assert ": OK" in verified(site, holder, crls)
    revoke(site, bad)
    crls = site.crls()
    assert ": OK" in verified(site, good, crls)
    assert "certificate revoked" in verified(site, bad, crls, code=2)


def test_openssl_puts_our_delta_onto_a_complete_crl_and_takes_it_off_again(site: Site) -> None:
    held = site.join("ossl-held")
    before = site.crls("before.pem")

    def with_delta() -> Path:
        delta = x509.load_der_x509_crl(site.delta(held))
        path = site.folder / "with-delta.pem"
        path.write_bytes(before.read_bytes() + delta.public_bytes(Encoding.PEM))
        return path

    deltas = ("-use_deltas", "-extended_crl")
    assert ": OK" in verified(site, held, with_delta(), *deltas)
    site.client.hold(target(held), reason=RevocationReason.UNSPECIFIED)
    assert "certificate revoked" in verified(site, held, with_delta(), *deltas, code=2)
    assert ": OK" in verified(site, held, before)
    held_list = site.crls("held.pem")
    site.client.release(target(held))
    assert ": OK" in verified(site, held, site.crls())
    freed = x509.load_der_x509_crl(site.delta(held))
    path = site.folder / "freed.pem"
    path.write_bytes(held_list.read_bytes() + freed.public_bytes(Encoding.PEM))
    assert ": OK" in verified(site, held, path, *deltas)


def ocsp(site: Site, holder: Holder, *more: str, code: int = 0) -> str:
    return site.run(
        *("openssl", "ocsp", "-issuer", holder.issuer, "-cert", holder.leaf, "-CAfile", site.root),
        *("-url", f"{site.public}/ocsp", "-verify_other", holder.issuer, *more),
        code=code,
    )


def test_openssl_asks_by_ocsp_with_a_nonce(site: Site) -> None:
    holder = site.join("ocsp-one")
    words = ocsp(site, holder, "-nonce")
    assert "Response verify OK" in words
    assert f"{holder.leaf}: good" in words
    assert "nonce" not in words.lower(), "it warns where the nonce did not come back"
    revoke(site, holder)
    words = ocsp(site, holder, "-no_nonce")
    assert "Response verify OK" in words
    assert ": revoked" in words
    assert "Reason: keyCompromise" in words


def test_openssl_asks_about_many_at_once_and_about_what_was_never_issued(site: Site) -> None:
    holder = site.join("ocsp-many")
    words = ocsp(site, holder, "-sha256", "-serial", "0x1234567890abcdef")
    assert "Response verify OK" in words
    assert f"{holder.leaf}: good" in words
    assert "0x1234567890abcdef: unknown" in words


def test_openssl_follows_the_pointers_in_the_certificate(site: Site) -> None:
    holder = site.join("pointers")
    where = site.run("openssl", "x509", "-in", holder.leaf, "-noout", "-ocsp_uri").strip()
    assert where == f"{site.public}/ocsp"
    point = holder.certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value[0]
    assert point.full_name is not None
    crl = x509.load_der_x509_crl(site.get(point.full_name[0].value.removeprefix(site.public)))
    assert crl.issuer == holder.certificate.issuer
    words = site.run(
        *("openssl", "verify", "-crl_check", "-crl_download", "-CAfile", site.root),
        *("-untrusted", holder.issuer, holder.leaf),
    )
    assert ": OK" in words


def test_the_command_asks_and_writes_what_a_server_staples(site: Site) -> None:
    holder = site.join("stapler", Role.SERVER)
    assert "Good until" in site.run(FLTRUST, "ocsp", "check", holder.chain)
    file = site.folder / "staple.der"
    site.run(FLTRUST, "ocsp", "staple", holder.chain, "-o", file)
    words = site.run("openssl", "ocsp", "-respin", file, "-resp_text", "-noverify")
    assert "Cert Status: good" in words
    before = file.read_bytes()
    revoke(site, holder)
    assert "revoked" in site.run(FLTRUST, "ocsp", "staple", holder.chain, "-o", file, code=4)
    assert file.read_bytes() == before
    assert "revoked" in site.run(FLTRUST, "ocsp", "check", holder.chain, code=4)


# nginx

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"


@contextmanager
def nginx(site: Site, server: Holder, *directives: str) -> Iterator[tuple[int, Callable[[], None]]]:
    """nginx that wants client certificates; yields its port and the way to have it read its files anew."""
    port, home = free_port(), site.folder / f"nginx-{server.name}"
    home.mkdir()
    (home / "temporary").mkdir()
    temporary = "".join(
        f"{kind}_temp_path {home}/temporary;\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (home / "nginx.conf").write_text(
        f"""
daemon off;
pid {home}/pid;
error_log {home}/error.log info;
events {{}}
http {{
    access_log off;
    {temporary}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_protocols TLSv1.3 TLSv1.2;
        ssl_session_tickets off;
        ssl_session_cache off;
        ssl_certificate {server.chain};
        ssl_certificate_key {server.key};
        {" ".join(directives)}
        location / {{ return 200 "hello\\n"; }}
    }}
}}
"""
    )
    user = ["-g", "user root;"] if Path("/root").stat().st_uid == 0 else []
    process = subprocess.Popen(
        [NGINX, "-c", home / "nginx.conf", "-p", home, *user],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )

    def reload() -> None:
        log = home / "error.log"
        began = log.stat().st_size
        process.send_signal(signal.SIGHUP)
        eventually(lambda: "exited with code 0" in log.read_text()[began:], lambda: log.read_text()[-2000:])

    try:
        eventually(lambda: listens(port) or process.poll() is not None, lambda: "nginx does not listen")
        assert process.poll() is None, process.stdout and process.stdout.read()
        yield port, reload
    finally:
        process.terminate()
        process.wait(20)


def curl(site: Site, port: int, client: Holder | None) -> str:
    """What a client of this certificate gets: the body, or why there is none."""
    shown = () if client is None else ("--cert", client.chain, "--key", client.key)
    return site.run(
        *("curl", "-sS", "--max-time", "20", "--cacert", site.root, *shown),
        *("--resolve", f"{SERVED_NAME}:{port}:127.0.0.1", f"https://{SERVED_NAME}:{port}/"),
        code=None,
    )


def test_nginx_turns_away_whoever_is_on_our_crl(site: Site) -> None:
    server, good, bad = site.join("web", Role.SERVER), site.join("web-good"), site.join("web-bad")
    crls = site.crls("nginx-crls.pem")
    asks = (
        f"ssl_client_certificate {site.root};",
        "ssl_verify_client on;",
        "ssl_verify_depth 2;",
        f"ssl_crl {crls};",
    )
    with nginx(site, server, *asks) as (port, reload):
        assert curl(site, port, good) == curl(site, port, bad) == "hello\n"
        assert "400" in curl(site, port, None)
        revoke(site, bad)
        site.crls("nginx-crls.pem")
        reload()
        assert curl(site, port, good) == "hello\n"
        refused = curl(site, port, bad)
        assert "hello" not in refused
        assert "400" in refused


def test_nginx_staples_our_answer(site: Site) -> None:
    server = site.join("stapling-web", Role.SERVER)
    file = site.folder / "nginx-staple.der"
    site.run(FLTRUST, "ocsp", "staple", server.chain, "-o", file)
    with nginx(site, server, "ssl_stapling on;", f"ssl_stapling_file {file};") as (port, _):
        words = site.run(
            *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", SERVED_NAME),
            *("-status", "-CAfile", site.root, "-verify_return_error"),
        )
        assert "OCSP Response Status: successful" in words
        assert "Cert Status: good" in words
        listened = site.run(
            *("curl", "-sS", "--cert-status", "--max-time", "20", "--cacert", site.root),
            *("--resolve", f"{SERVED_NAME}:{port}:127.0.0.1", f"https://{SERVED_NAME}:{port}/"),
        )
        assert listened == "hello\n"


# Envoy


def test_envoy_turns_away_whoever_is_on_our_crl(site: Site) -> None:
    server, good, bad = site.join("mesh", Role.SERVER), site.join("mesh-good"), site.join("mesh-bad")
    crls = site.crls("envoy-crls.pem")
    with envoy(site, server, crls) as port:
        assert curl(site, port, good) == curl(site, port, bad) == "hello\n"
    revoke(site, bad)
    crls = site.crls("envoy-crls.pem")
    with envoy(site, server, crls) as port:
        assert curl(site, port, good) == "hello\n"
        assert "hello" not in curl(site, port, bad)


@contextmanager
def envoy(site: Site, server: Holder, crls: Path) -> Iterator[int]:
    """A real Envoy that serves 'hello' to client certificates that are not on our CRLs."""
    port, config, log = free_port(), site.folder / "envoy.json", site.folder / "envoy.log"
    config.write_text(json.dumps(_envoy_config(site, server, crls, port)))
    binary = environment(ENVOY).with_name("envoy")
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [binary, "-c", config, "--disable-hot-restart", "--concurrency", "1"],
            stdout=sink,
            stderr=sink,
            cwd=site.folder,
        )
    try:
        eventually(lambda: listens(port) or process.poll() is not None, lambda: log.read_text()[-3000:])
        assert process.poll() is None, log.read_text()[-3000:]
        yield port
    finally:
        process.kill()
        process.wait()


def _envoy_config(site: Site, server: Holder, crls: Path, port: int) -> dict[str, object]:
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(server.chain)},
                    "private_key": {"filename": str(server.key)},
                }
            ],
            "validation_context": {
                "trusted_ca": {"filename": str(site.root)},
                "crl": {"filename": str(crls)},
            },
        },
    }
    hello = {
        "name": "hello",
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "routes": [
                    {
                        "match": {"prefix": "/"},
                        "direct_response": {"status": 200, "body": {"inline_string": "hello\n"}},
                    }
                ],
            }
        ],
    }
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "hello",
        "route_config": hello,
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    listener = {
        "name": "hello",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
                "filters": [
                    {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                ],
            }
        ],
    }
    return {"static_resources": {"listeners": [listener]}}


# pkilint


@pytest.fixture(scope="module")
def lint() -> Callable[[str, Path], str]:
    folder = environment(PKILINT).parent

    def run(kind: str, file: Path) -> str:
        options = {"crl": ["lint", "-t", "CRL", "-p", "PKIX"], "ocsp_response": ["lint"]}[kind]
        done = subprocess.run(
            [folder / f"lint_{kind}", *options, "-s", "NOTICE", file], capture_output=True, text=True
        )
        return (done.stdout + done.stderr).strip()

    return run


def test_pkilint_finds_nothing_in_our_crls(site: Site, lint: Callable[[str, Path], str]) -> None:
    holder, held = site.join("lint-crl"), site.join("lint-held")
    site.get("/crl.pem")
    revoke(site, holder)
    site.client.hold(target(held), reason=RevocationReason.UNSPECIFIED)
    key = issuer_of(holder.certificate)
    root = issuer_of(x509.load_pem_x509_certificate(holder.issuer.read_bytes()))
    for name in (f"{key}.crl", f"{key}-delta.crl", f"{root}.crl"):
        file = site.folder / name
        file.write_bytes(site.get(f"/crl/{name}"))
        assert lint("crl", file) == "", name


def test_pkilint_does_find_what_is_wrong(site: Site, lint: Callable[[str, Path], str]) -> None:
    signer, file = generate(), site.folder / "bare.crl"
    now = datetime.now(UTC).replace(microsecond=0)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")])
    builder = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(now)
    crl = builder.next_update(now + timedelta(days=1)).sign(SignerKey(signer), SHA256())
    file.write_bytes(crl.public_bytes(Encoding.DER))
    assert "crl_number" in lint("crl", file)


def test_pkilint_finds_nothing_in_our_ocsp_answers(site: Site, lint: Callable[[str, Path], str]) -> None:
    holder = site.join("lint-ocsp")
    for name in ("good", "revoked"):
        file = site.folder / f"{name}.resp"
        ocsp(site, holder, "-respout", str(file))
        assert lint("ocsp_response", file) == "", name
        revoke(site, holder)
    unknown = site.folder / "unknown.resp"
    site.run(
        *("openssl", "ocsp", "-issuer", holder.issuer, "-serial", "77", "-noverify"),
        *("-url", f"{site.public}/ocsp", "-respout", unknown),
    )
    assert lint("ocsp_response", unknown) == ""

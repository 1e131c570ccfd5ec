"""Status over the public port, asked with curl: paths, kinds, caching, and what is refused."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.x509 import ocsp
from server_world import Person, ServedWorld, served
from status_world import question
from test_public_http import SETTINGS, curl, url

from fltrust.pki.pointers import key_identifier_of

GOOD, REVOKED = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorld]:
    with served(tmp_path_factory.mktemp("status"), settings=SETTINGS) as world:
        yield world


def issuer(world: ServedWorld) -> x509.Certificate:
    return world.in_force.issuer.certificate


def get(world: ServedWorld, request: bytes, *options: str) -> tuple[int, dict[str, str], bytes]:
    return curl(url(world, "/ocsp/" + quote(base64.b64encode(request).decode(), safe="")), *options)


def test_crls_are_served_as_files_of_their_ca(world: ServedWorld) -> None:
    person = world.join("site-crl")
    world.revoke(person)
    key = key_identifier_of(issuer(world))
    status, headers, der = curl(url(world, f"/crl/{key}.crl"))
    assert (status, headers["content-type"]) == (200, "application/pkix-crl")
    assert [entry.serial_number for entry in x509.load_der_x509_crl(der)]
    status, headers, der = curl(url(world, f"/crl/{key}-delta.crl"))
    assert (status, headers["content-type"]) == (200, "application/pkix-crl")
    assert x509.load_der_x509_crl(der).extensions.get_extension_for_class(x509.DeltaCRLIndicator)
    status, headers, pem = curl(url(world, "/crl.pem"))
    assert (status, headers["content-type"]) == (200, "application/x-pem-file")
    assert x509.load_pem_x509_crl(pem)


def test_the_ca_s_certificate_is_served_where_certificates_point(world: ServedWorld) -> None:
    for certificate in (issuer(world), world.ca.bundle.roots[0]):
        status, headers, der = curl(url(world, f"/ca/{key_identifier_of(certificate)}.cer"))
        assert (status, headers["content-type"]) == (200, "application/pkix-cert")
        assert x509.load_der_x509_certificate(der) == certificate


@pytest.mark.parametrize(
    "path",
    [
        f"/crl/{'0' * 40}.crl",
        f"/crl/{'0' * 40}-delta.crl",
        f"/crl/{'A' * 40}.crl",
        "/crl/x.crl",
        "/crl/../ca/root.key",
        "/crl/..%2f..%2fca%2froot.key",
        f"/ca/{'0' * 40}.cer",
        "/ca/root.key",
        "/crl/",
        "/ca/",
    ],
)
def test_nothing_else_is_served_there(world: ServedWorld, path: str) -> None:
    assert curl(url(world, path))[0] == 404


def test_a_crl_says_how_long_it_may_be_kept_and_is_not_sent_twice(world: ServedWorld) -> None:
    where = url(world, f"/crl/{key_identifier_of(issuer(world))}.crl")
    _, headers, der = curl(where)
    crl = x509.load_der_x509_crl(der)
    age = re.search(r"max-age=(\d+)", headers["cache-control"])
    assert age is not None
    assert 0 < int(age[1]) <= 60
    assert "must-revalidate" in headers["cache-control"]
    assert crl.next_update_utc is not None
    assert headers["expires"] == f"{crl.next_update_utc:%a, %d %b %Y %H:%M:%S} GMT".lower()
    status, again, body = curl(where, "-H", f"If-None-Match: {headers['etag']}")
    assert (status, body, again["etag"]) == (304, b"", headers["etag"])
    assert curl(where, "-H", f"If-Modified-Since: {headers['last-modified']}")[0] == 304
    assert curl(where, "-H", 'If-None-Match: "other"')[0] == 200
    assert curl(where, "-H", "If-Modified-Since: yesterday")[0] == 200
    world.revoke(world.join("site-cache"))
    assert curl(where, "-H", f"If-None-Match: {headers['etag']}")[0] == 200


def test_ocsp_by_get_may_be_kept_and_changes_with_a_revocation(world: ServedWorld) -> None:
    person = world.join("site-get")
    request = _ask(world, person)
    status, headers, der = get(world, request)
    assert (status, headers["content-type"]) == (200, "application/ocsp-response")
    assert ocsp.load_der_ocsp_response(der).certificate_status is GOOD
    assert "max-age" in headers["cache-control"]
    assert get(world, request, "-H", f"If-None-Match: {headers['etag']}")[0] == 304
    world.revoke(person)
    status, _, der = get(world, request, "-H", f"If-None-Match: {headers['etag']}")
    assert status == 200
    assert ocsp.load_der_ocsp_response(der).certificate_status is REVOKED


def test_ocsp_by_post_is_kept_by_nobody(world: ServedWorld, tmp_path: Path) -> None:
    request = tmp_path / "request"
    request.write_bytes(_ask(world, world.join("site-post")))
    kind = ["-H", "Content-Type: application/ocsp-request"]
    for path in ("/ocsp", "/ocsp/"):
        status, headers, der = curl(url(world, path), *kind, "--data-binary", f"@{request}")
        assert (status, headers["cache-control"]) == (200, "no-store")
        assert ocsp.load_der_ocsp_response(der).certificate_status is GOOD
    assert curl(url(world, "/ocsp"), "--data-binary", f"@{request}")[0] == 415
    request.write_bytes(b"0" * 20_000)
    assert curl(url(world, "/ocsp"), *kind, "--data-binary", f"@{request}")[0] == 413


def test_an_answer_with_a_nonce_is_kept_by_nobody(world: ServedWorld) -> None:
    _, headers, der = get(world, question(4711, issuer(world), nonce=b"n" * 32))
    assert headers["cache-control"] == "no-store"
    assert ocsp.load_der_ocsp_response(der).extensions.get_extension_for_class(x509.OCSPNonce)


@pytest.mark.parametrize("text", ["", "x", "MDAw%20", "M%2FA", "%00", "MA==MA==", "MA", "%ff%fe"])
def test_what_is_no_request_in_base64_is_malformed(world: ServedWorld, text: str) -> None:
    status, headers, der = curl(url(world, f"/ocsp/{text}"))
    assert (status, headers["content-type"]) == (200, "application/ocsp-response")
    assert ocsp.load_der_ocsp_response(der).response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST


def test_slashes_and_pluses_of_base64_arrive(world: ServedWorld) -> None:
    person = world.join("site-slash")
    for attempt in range(200):
        request = question(_serial(person), issuer(world), nonce=attempt.to_bytes(2, "big") * 8)
        text = base64.b64encode(request).decode()
        if "/" in text and "+" in text:
            break
    for path in (quote(text, safe=""), text):
        answer = ocsp.load_der_ocsp_response(curl(url(world, f"/ocsp/{path}"))[2])
        assert answer.certificate_status is GOOD


def _serial(person: Person) -> int:
    return x509.load_pem_x509_certificate(person.credentials.chain_pem).serial_number


def _ask(world: ServedWorld, person: Person) -> bytes:
    return question(_serial(person), issuer(world))

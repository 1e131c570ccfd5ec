"""EST, from inside: what is refused, and what waits for operators. What goes well is tried with curl."""

from __future__ import annotations

import http.client
import json
import ssl
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from server_world import Person, ServedWorld, served

from fltrust.coordinator.est import answer, check_same_names, read_password
from fltrust.coordinator.serving import ServerSettings
from fltrust.enrollment.token import encode_token
from fltrust.enrollment.types import Pending
from fltrust.errors import Malformed, Oversized, Unauthenticated
from fltrust.identity import Role
from fltrust.keys import generate
from fltrust.pki import create_csr
from fltrust.pki.bundle import bundle_to_pem
from fltrust.pki.signing import SignerKey
from fltrust.protocols.est.messages import read_request, to_lines

PKCS10 = {"content-type": "application/pkcs10"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedWorld]:
    settings = ServerSettings(
        services="127.0.0.1:0", rate=10_000, burst=10_000, services_rate=1_000, services_burst=1_000
    )
    with served(tmp_path_factory.mktemp("est"), settings=settings) as world:
        yield world


def call(
    world: ServedWorld,
    operation: str,
    body: bytes = b"",
    *,
    method: str = "POST",
    token: str | None = None,
    person: Person | None = None,
    headers: dict[str, str] | None = None,
    folder: Path | None = None,
) -> tuple[int, dict[str, str], bytes]:
    context = ssl.create_default_context(cadata=bundle_to_pem(world.ca.bundle).decode())
    context.check_hostname = False
    if person is not None and folder is not None:
        (folder / "chain.pem").write_bytes(person.credentials.chain_pem)
        (folder / "key.pem").write_bytes(person.credentials.key_pem)
        context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    host, _, port = (world.server.services_address or "").rpartition(":")
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=20)
    sent = dict(PKCS10 if headers is None else headers)
    if token is not None:
        sent["authorization"] = "Basic " + b64encode(f"device:{token}".encode()).decode()
    connection.request(method, f"/.well-known/est/{operation}", body=body, headers=sent)
    reply = connection.getresponse()
    found = reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()
    connection.close()
    return found


def csr() -> bytes:
    return to_lines(create_csr(generate()))


def test_without_evidence_or_with_another_a_device_is_told_what_to_show(world: ServedWorld) -> None:
    unknown = "a" * 42 + "A"  # in its one form; the ones after it are the same bytes in others
    for token in (None, "", unknown, "a" * 43, unknown + "=", "fltrust-join-v1.AAAA", "wrong"):
        status, headers, body = call(world, "simpleenroll", csr(), token=token)
        assert status == (403 if token == unknown else 401), token
        assert token is None or token == "" or token.encode() not in body
        assert status == 403 or headers["www-authenticate"].startswith("Basic ")


def test_a_token_works_once(world: ServedWorld) -> None:
    token = encode_token(world.token("once", Role.DEVICE))
    assert call(world, "simpleenroll", csr(), token=token)[0] == 200
    assert call(world, "simpleenroll", csr(), token=token)[0] == 403


def test_keys_are_not_made_here_and_what_is_not_offered_says_so(world: ServedWorld) -> None:
    assert call(world, "serverkeygen", csr())[0] == 501
    assert call(world, "fullcmc", csr())[0] == 501
    assert call(world, "somethingelse", csr())[0] == 404
    assert call(world, "label/simpleenroll", csr())[0] == 404
    assert call(world, "simpleenroll", method="GET")[0] == 405


def test_a_body_that_is_no_request_is_refused_and_leaves_the_token_good(world: ServedWorld) -> None:
    token = encode_token(world.token("body", Role.DEVICE))
    assert call(world, "simpleenroll", b"no base64!", token=token)[0] == 400
    assert call(world, "simpleenroll", b"", token=token)[0] == 400
    assert call(world, "simpleenroll", to_lines(b"no request"), token=token)[0] == 400
    assert call(world, "simpleenroll", b"A" * 100_000, token=token)[0] == 413
    json_type = {"content-type": "application/json"}
    assert call(world, "simpleenroll", json.dumps({}).encode(), token=token, headers=json_type)[0] == 415
    assert call(world, "simpleenroll", csr(), token=token)[0] == 200


def test_re_enrolling_takes_a_certificate_of_ours_that_stands_well(
    world: ServedWorld, tmp_path: Path
) -> None:
    assert call(world, "simplereenroll", csr())[0] == 401
    token = encode_token(world.token("nobody", Role.DEVICE))
    assert call(world, "simplereenroll", csr(), token=token)[0] == 401
    device = world.join("dev", Role.DEVICE)
    assert call(world, "simplereenroll", csr(), person=device, folder=tmp_path)[0] == 200
    world.revoke(device)
    assert call(world, "simplereenroll", csr(), person=device, folder=tmp_path)[0] == 403
    assert call(world, "simpleenroll", csr(), person=device, folder=tmp_path)[0] == 403


def named(names: list[x509.GeneralName], subject: x509.Name | None = None) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject or x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(SignerKey(generate()), SHA256()).public_bytes(Encoding.DER)


def test_a_request_in_another_name_than_the_certificates_renews_nothing(
    world: ServedWorld, tmp_path: Path
) -> None:
    device = world.join("own", Role.DEVICE)
    own = x509.UniformResourceIdentifier(str(device.spiffe_id))
    other = x509.UniformResourceIdentifier("spiffe://hospitals.example/operator/root")
    leaf = x509.load_pem_x509_certificate(device.credentials.chain_pem)
    check_same_names(named([own]), leaf)
    somebody = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody")])
    for request in (named([other]), named([own, other]), named([own], somebody)):
        with pytest.raises(Malformed):
            check_same_names(request, leaf)
        status, _, _ = call(world, "simplereenroll", to_lines(request), person=device, folder=tmp_path)
        assert status == 400


@pytest.mark.parametrize("header", ["Bearer x", "Basic", "Basic !!!", "Basic " + "A" * 9_000, "basic bm8="])
def test_a_header_that_is_not_basic_is_refused(header: str) -> None:
    with pytest.raises(Unauthenticated):
        read_password(header)


@pytest.mark.parametrize("between", [b"", b"\n", b"\r\n", b" "])
def test_base64_is_read_with_whatever_line_breaks(between: bytes) -> None:
    der = create_csr(generate())
    lines = to_lines(der).split(b"\n")
    assert read_request(between.join(lines)) == der
    assert max(map(len, lines)) == 64
    with pytest.raises(Oversized):
        read_request(bytes(40_000))


def test_what_waits_for_operators_is_to_be_asked_for_again() -> None:
    waits = answer(Pending("an id that stays here", timedelta(seconds=90)))
    assert (waits.status_code, waits.headers["retry-after"]) == (202, "90")
    assert b"an id" not in waits.body

"""pkilint finds nothing in a certificate of any profile, but that it does not know SPIFFE's URIs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.pki.pointers import PublicUrl
from fltrust.pki.profile_file import narrow
from fltrust.pki.profiles import CaKind, Profiles, builtin
from tools.strangers import PKILINT, environment

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "pki"))
from every_certificate import Made, every_certificate

pytestmark = pytest.mark.client

POLICIES = 'version = 1\npolicies = ["1.3.6.1.4.1.99999.1.2"]'
WAYS = {
    "without a public URL": (builtin(), None),
    "with pointers and policies": (
        narrow(builtin(), POLICIES),
        PublicUrl("http://pki.hospitals.example"),
    ),
}
_FINDING = re.compile(r"^ +(\S+) \((?:NOTICE|WARNING|ERROR|FATAL)\)(?:: (.*))?$", re.MULTILINE)


def lint(command: str, *files: Path) -> list[tuple[str, str]]:
    tool = environment(PKILINT).parent / command
    done = subprocess.run([tool, "lint", "-s", "NOTICE", *files], capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    findings = _FINDING.findall(done.stdout)
    assert len(findings) == done.stdout.count(" @ ") or not done.stdout.strip()
    return findings


def allowed(certificate: x509.Certificate) -> set[tuple[str, str]]:
    """Exactly this certificate's own SPIFFE URI, and nothing else of that kind."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert all(uri.startswith("spiffe://") for uri in uris)
    return {("pkix.invalid_uri_syntax", f'Invalid URI syntax: "{uri}"') for uri in uris}


def judge(folder: Path, kind: str, made: Made, *, with_issuer: bool) -> set[tuple[str, str]]:
    own, issuer = folder / f"{kind}.pem", folder / f"{kind}-issuer.pem"
    own.write_bytes(made.certificate.public_bytes(Encoding.PEM))
    issuer.write_bytes(made.issuer.public_bytes(Encoding.PEM))
    findings = lint("lint_pkix_cert", own)
    if with_issuer and made.issuer != made.certificate:
        findings += lint("lint_pkix_signer_signee_cert_chain", issuer, own)
    return set(findings) - allowed(made.certificate)


@pytest.fixture(scope="module")
def workers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.mark.parametrize("way", WAYS)
def test_pkilint_finds_nothing_in_a_certificate_of_any_profile(
    tmp_path: Path, workers: ThreadPoolExecutor, way: str
) -> None:
    profiles: Profiles = WAYS[way][0]
    url = WAYS[way][1]
    made = every_certificate(at=datetime.now(UTC), profiles=profiles, public_url=url)

    def found_in(kind: str) -> set[tuple[str, str]]:
        return judge(tmp_path, kind, made[kind], with_issuer=url is not None)  # type: ignore[index]

    found = zip(made, workers.map(found_in, made), strict=True)
    assert {kind: findings for kind, findings in found if findings} == {}


def test_pkilint_does_find_what_is_wrong(tmp_path: Path) -> None:
    made = every_certificate(at=datetime.now(UTC), profiles=builtin(), public_url=None)
    root = made[CaKind.ROOT].certificate
    other = every_certificate(at=datetime.now(UTC), profiles=builtin(), public_url=None)
    stranger = other[CaKind.ROOT].certificate
    assert judge(tmp_path, "posing", Made(made[CaKind.ISSUING].certificate, stranger), with_issuer=True)
    assert allowed(root) == {("pkix.invalid_uri_syntax", 'Invalid URI syntax: "spiffe://hospitals.example"')}

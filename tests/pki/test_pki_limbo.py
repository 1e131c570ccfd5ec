"""x509-limbo, cases that we did not write: the path that it calls bad is refused, the good one is found.

Its leaves are servers of the Web PKI, without a SPIFFE ID, so the whole verifier refuses every one of them;
what the suite can judge is the path alone. Where our path differs, the table says where and why.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from fltrust.errors import CertificateRefused
from fltrust.identity import TrustDomain
from fltrust.pki import TrustBundle, verify_certificate
from fltrust.pki.leaf import PARSE_ERRORS
from fltrust.pki.verify import verify_path

LIMBO = Path(__file__).parents[3] / "shared" / "data" / "limbo.json"
GROUPS = ("rfc5280::", "pathlen::", "invalid::", "pathological::")

STRICTER = {
    "pathlen::validation-ignores-pathlen-in-leaf": "a CA is never a leaf",
    "pathlen::self-issued-certs-pathlen": "a self-issued CA counts towards the path length as any other",
    "rfc5280::ca-as-leaf": "a CA is never a leaf",
    "rfc5280::nc::permitted-dn-match": "constraints on directory names are not processed, so refused",
}
LEFT_TO_THE_PROFILE = {
    "rfc5280::eku::ee-eku-empty": "the profile wants exact extended key usages",
    "rfc5280::san::underscore-dns": "the profile wants exact names",
    "rfc5280::serial::zero": "the leaf's serial is parsed as a `Serial`",
}


def load_cases() -> list[Any]:
    if not LIMBO.exists():
        return []
    found = json.loads(LIMBO.read_text())["testcases"]
    return [pytest.param(case, id=case["id"]) for case in found if case["id"].startswith(GROUPS)]


ABSENT = pytest.param(None, marks=pytest.mark.skip("x509-limbo is not at ../shared/data/limbo.json"))
CASES = load_cases() or [ABSENT]


def certificates(pems: list[str]) -> list[x509.Certificate]:
    return [x509.load_pem_x509_certificate(pem.encode()) for pem in pems]


@pytest.mark.filterwarnings("ignore:Parsed a serial number:UserWarning")
@pytest.mark.parametrize("case", CASES)
def test_limbo_and_our_path_agree(case: Any) -> None:
    try:
        chain = certificates([case["peer_certificate"], *case["untrusted_intermediates"]])
        roots = certificates(case["trusted_certs"])
    except PARSE_ERRORS:
        assert case["expected_result"] == "FAILURE"
        return
    at = datetime.fromisoformat(case["validation_time"] or "2026-03-01T00:00:00+00:00").astimezone(UTC)
    bundle = TrustBundle(TrustDomain("example.com"), tuple(roots), 1)
    with pytest.raises(CertificateRefused):
        verify_certificate(chain, bundle=bundle, at=at)
    good = case["expected_result"] == "SUCCESS" and case["id"] not in STRICTER
    if good or case["id"] in LEFT_TO_THE_PROFILE:
        assert verify_path(chain, roots=roots, at=at)[0] == chain[0]
    else:
        with pytest.raises(CertificateRefused):
            verify_path(chain, roots=roots, at=at)

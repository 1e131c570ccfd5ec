"""sigstore-python, unmodified and offline, checks what we sign: the newest three minor versions."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from pathlib import Path

import pytest
from cases import Case
from conftest import ask_about, made

from fltrust.artifacts.evidence import Trust, verify_bundle
from fltrust.artifacts.identity import IdentityRule, require_identity
from fltrust.artifacts.trustfile import TrustFile
from fltrust.errors import FltrustError
from tools import strangers

pytestmark = pytest.mark.slow  # the first run installs


NOT_MINDED = {"dsse-0.0.1: with a timestamp of another"}
"""Rekor v1 signs a time of its own: sigstore-python takes that and passes over a timestamp that fails. Ours
refuses (`test_ours_judges_the_same`)."""


@pytest.mark.parametrize("version", strangers.SIGSTORE)
def test_sigstore_python_takes_what_is_good_and_nothing_else(
    version: str, cases: tuple[Case, ...], tmp_path: Path
) -> None:
    python = made(lambda: strangers.environment(version))
    answers = ask_about(python, "sigstore_verify.py", cases, tmp_path)
    taken = {name for name, answer in answers.items() if "error" not in answer}
    assert taken - NOT_MINDED == {case.name for case in cases if case.is_good}, answers
    for case in cases:
        if case.is_good:
            assert answers[case.name]["sha256"] == sha256(payload_of(case.bundle)).hexdigest()
    refused = answers["hashedrekord-0.0.2: for another identity"]["error"]
    assert "somebody-else" in refused


def test_ours_judges_the_same(cases: tuple[Case, ...]) -> None:
    taken = {case.name for case in cases if ours_takes(case)}
    assert taken == {case.name for case in cases if case.is_good}


def ours_takes(case: Case) -> bool:
    trust = Trust.of(TrustFile.parse(case.root))
    try:
        found = verify_bundle(case.bundle.encode(), trust=trust, require_timestamp=True)
        require_identity([IdentityRule(case.identity, case.issuer)], found.signer, found.issuer)
    except FltrustError:
        return False
    return True


def payload_of(bundle: str) -> bytes:
    return base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"])

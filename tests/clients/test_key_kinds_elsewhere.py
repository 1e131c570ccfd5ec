"""The suite for every kind of key, in an environment that has the libraries of a TPM and of AWS KMS."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tools import strangers

pytestmark = pytest.mark.client

SUITES = ["tests/keys/test_key_kinds.py", "tests/keys/test_key_kms.py"]


@pytest.mark.parametrize(
    ("kind", "tool", "package"), [("tpm", "swtpm", "swtpm"), ("awskms", "openssl", "openssl")]
)
def test_every_promise_holds_for_it(kind: str, tool: str, package: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} (Debian: {package}) is not on this machine")
    try:
        python = strangers.environment(strangers.HARDWARE)
    except strangers.CannotInstall as reason:
        pytest.skip(f"libtss2-dev is needed to build tpm2-pytss: {reason}")
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", *SUITES],
        capture_output=True,
        text=True,
        cwd=strangers.ROOT,
        env={**os.environ, "FLTRUST_TEST_KEY_KINDS": kind},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "not on this machine" not in done.stdout
    assert " passed" in done.stdout

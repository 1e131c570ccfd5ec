"""A site enrolls by its TPM, for real: a software TPM with a CA of its maker, and whoever lies about one."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tools import strangers

pytestmark = pytest.mark.client


def test_a_tpm_s_word_earns_a_name_and_nothing_less_does() -> None:
    missing = [
        tool for tool in ("swtpm", "swtpm_setup", "tpm2_dictionarylockout") if shutil.which(tool) is None
    ]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)} (Debian: swtpm, swtpm-tools, tpm2-tools)")
    try:
        python = strangers.environment(strangers.HARDWARE)
    except strangers.CannotInstall as reason:
        pytest.skip(f"libtss2-dev is needed to build tpm2-pytss: {reason}")
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "tests/tpm_suite.py"],
        capture_output=True,
        text=True,
        cwd=strangers.ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "skipped" not in done.stdout

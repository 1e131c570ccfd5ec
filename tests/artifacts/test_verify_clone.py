"""A model in a clone: its repository is not part of what was signed, and only the caller may say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from fltrust.artifacts import sign, verify
from fltrust.artifacts.recipe import load_trust
from fltrust.errors import ArtifactRefused, Tampered
from fltrust.testing.desk import ScratchDesk


def test_a_repository_is_ignored_by_the_caller_s_word_alone_and_a_warning_tells_it(tmp_path: Path) -> None:
    desk = ScratchDesk()
    trust = load_trust(desk.trust_file())
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_bytes(b"ref: refs/heads/main")
    with pytest.raises(ArtifactRefused) as signing:
        sign(tmp_path, desk=desk, trust=trust)
    sign(tmp_path, desk=desk, trust=trust, ignore=[".git"])

    with pytest.raises(Tampered) as verifying:
        verify(tmp_path, trust=trust, identity=str(desk.caller))
    verified = verify(tmp_path, trust=trust, identity=str(desk.caller), ignore=[".git"])

    assert signing.value.reason == verifying.value.reason == "git-directory"
    assert verified.statement.ignored == (".git",)
    assert any(".git" in warning for warning in verified.warnings)


def test_a_model_signed_by_shards_verifies_and_one_changed_does_not(tmp_path: Path) -> None:
    desk = ScratchDesk()
    trust = load_trust(desk.trust_file())
    model = tmp_path / "model.bin"
    model.write_bytes(bytes(3_000_000))
    sign(model, desk=desk, trust=trust, shard_bytes=2**20)
    verify(model, trust=trust, identity=str(desk.caller))

    model.write_bytes(bytes(2_999_999) + b"!")
    with pytest.raises(Tampered):
        verify(model, trust=trust, identity=str(desk.caller))

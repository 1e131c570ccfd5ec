"""model-signing, the reference implementation of OMS, checks models that we sign; and OMS's own format.

Through its `sigstore` method: the only one of its three that knows identities, time and a log.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cases import ISSUER, SIGNER, new_desk, root_of, write_model
from conftest import ask, made

from fltrust.artifacts import sign
from fltrust.artifacts.ports import EntryKind
from fltrust.artifacts.trustfile import TrustFile
from fltrust.testing.desk import ScratchDesk
from tools import strangers

pytestmark = pytest.mark.slow  # the first run installs


@pytest.fixture(scope="module")
def desk() -> ScratchDesk:
    return new_desk()


@pytest.fixture(scope="module")
def trust_config(desk: ScratchDesk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What model-signing and sigstore's command take for a deployment of one's own."""
    path = tmp_path_factory.mktemp("oms") / "trust_config.json"
    path.write_bytes(TrustFile.parse(root_of(desk)).to_client_trust_config())
    return path


def signed(path: Path, desk: ScratchDesk, kind: EntryKind = EntryKind.HASHEDREKORD) -> Path:
    sign(path, desk=desk, trust=TrustFile.parse(root_of(desk)), entry_kind=kind)
    return path


def verdict(trust: Path, model: Path, signature: Path, *, identity: str = str(SIGNER)) -> str | None:
    python = made(lambda: strangers.environment(strangers.ORACLE))
    case = {"model": str(model), "signature": str(signature), "identity": identity, "issuer": ISSUER}
    answers = ask(python, "oms_verify.py", {"trust": str(trust), "cases": [case]})
    assert isinstance(answers, list)
    answer = answers[0]
    assert answer is None or isinstance(answer, str)
    return answer


@pytest.mark.parametrize("kind", EntryKind)
def test_the_oracle_verifies_a_directory_signed_by_ours(
    kind: EntryKind, desk: ScratchDesk, trust_config: Path, tmp_path: Path
) -> None:
    model = signed(write_model(tmp_path / "digits"), desk, kind)
    assert verdict(trust_config, model, model / "model.sig") is None


def test_the_oracle_verifies_a_single_file_signed_by_ours(
    desk: ScratchDesk, trust_config: Path, tmp_path: Path
) -> None:
    (tmp_path / "weights.dat").write_bytes(b"\x01" * 10_000)
    model = signed(tmp_path / "weights.dat", desk)
    assert verdict(trust_config, model, tmp_path / "weights.dat.sig") is None


def test_the_oracle_passes_over_the_lineage_that_lies_in_the_directory(
    desk: ScratchDesk, trust_config: Path, tmp_path: Path
) -> None:
    model = signed(write_model(tmp_path / "digits"), desk)
    (model / "model.lineage.jsonl").write_text("{}\n")
    assert verdict(trust_config, model, model / "model.sig") is None


def test_the_oracle_refuses_another_identity(desk: ScratchDesk, trust_config: Path, tmp_path: Path) -> None:
    model = signed(write_model(tmp_path / "digits"), desk)
    answer = verdict(trust_config, model, model / "model.sig", identity=f"{ISSUER}/signer/mallory")
    assert answer is not None
    assert "mallory" in answer


def _flip(model: Path) -> None:
    data = bytearray((model / "parts" / "weights.dat").read_bytes())
    data[100] ^= 1
    (model / "parts" / "weights.dat").write_bytes(data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_flip, "Hash mismatch"),
        (lambda model: (model / "extra.txt").write_text("x"), "Extra files"),
        (lambda model: (model / "config.json").unlink(), "Missing files"),
        (lambda model: shutil.move(model / "config.json", model / "c.json"), "Extra files"),
    ],
    ids=["changed", "added", "missing", "renamed"],
)
def test_the_oracle_refuses_other_bytes(
    change: Callable[[Path], object], words: str, desk: ScratchDesk, trust_config: Path, tmp_path: Path
) -> None:
    model = signed(write_model(tmp_path / "digits"), desk)
    change(model)
    answer = verdict(trust_config, model, model / "model.sig")
    assert answer is not None
    assert words in answer


def test_the_oracles_command_does_the_same(desk: ScratchDesk, trust_config: Path, tmp_path: Path) -> None:
    made(lambda: strangers.environment(strangers.ORACLE))
    model = signed(write_model(tmp_path / "digits"), desk)
    command = strangers.HOME / strangers.ORACLE / "bin" / "model_signing"
    arguments = ["verify", "sigstore", model, "--signature", model / "model.sig"]
    arguments += ["--trust_config", trust_config, "--identity_provider", ISSUER]
    for identity, code in ((str(SIGNER), 0), (f"{ISSUER}/signer/mallory", 1)):
        done = subprocess.run(
            [command, *arguments, "--identity", identity], capture_output=True, text=True, timeout=100
        )
        assert done.returncode == code, done.stdout + done.stderr

"""The whole way: an enrolled signer signs at a coordinator; every stranger checks what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cases import Case, write_model
from conftest import ask_about, made

from fltrust.artifacts import sign, verify
from fltrust.artifacts.ports import EntryKind
from fltrust.artifacts.trustfile import TrustFile
from fltrust.coordinator.authority import Session
from fltrust.errors import UntrustedSigner
from fltrust.identity import Role
from fltrust.testing import ScratchCoordinator
from tools import strangers

pytestmark = pytest.mark.slow  # the first run installs


@pytest.fixture(scope="module")
def coordinator() -> Iterator[ScratchCoordinator]:
    with ScratchCoordinator() as coordinator:
        for name in ("site-a", "site-b"):
            coordinator.enroll(name)
        yield coordinator


@pytest.fixture(scope="module")
def desk(coordinator: ScratchCoordinator) -> Session:
    return coordinator.session(coordinator.enroll("release", Role.SIGNER))


@pytest.fixture(scope="module")
def signed(desk: Session, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ...]:
    folder = tmp_path_factory.mktemp("coordinator")
    model = write_model(folder / "digits")
    found = []
    for kind in EntryKind:
        done = sign(model, desk=desk, lineage=desk, entry_kind=kind, out=folder / f"{kind}.sig")
        root = json.dumps(TrustFile.parse(desk.trust_file()).trusted_root).encode()
        text, issuer = done.signature.read_text(), str(done.evidence.issuer)
        good = Case(f"{kind}: as signed", text, root, True, identity=done.signer, issuer=issuer, kind=kind)
        found.append(good)
        other = f"{issuer}/signer/somebody-else"
        found.append(replace(good, name=f"{kind}: for somebody else", is_good=False, identity=other))
    return tuple(found)


@pytest.mark.parametrize("version", strangers.SIGSTORE)
def test_sigstore_python_takes_the_coordinators_bundles(
    version: str, signed: tuple[Case, ...], tmp_path: Path
) -> None:
    python = made(lambda: strangers.environment(version))
    answers = ask_about(python, "sigstore_verify.py", signed, tmp_path)
    assert {n for n, a in answers.items() if "error" not in a} == {c.name for c in signed if c.is_good}, (
        answers
    )


@pytest.mark.parametrize("major", ["3", "4"])
def test_npm_takes_the_coordinators_bundles(major: str, signed: tuple[Case, ...], tmp_path: Path) -> None:
    node, modules = made(strangers.node), made(strangers.node_modules)
    answers = ask_about(node, "verify.cjs", signed, tmp_path, major=major, modules=str(modules))
    known = {c.name for c in signed if c.is_good and (major == "4" or c.kind is EntryKind.DSSE)}
    assert {n for n, a in answers.items() if "error" not in a} == known, answers


def test_ours_verifies_with_the_coordinators_trust_file(desk: Session, tmp_path: Path) -> None:
    model = write_model(tmp_path / "digits")
    done = sign(model, desk=desk, lineage=desk)
    found = verify(model, trust=desk.trust_file(), identity=done.signer)
    assert found.signer == done.signer
    assert found.status is not None
    with pytest.raises(UntrustedSigner):
        verify(model, trust=desk.trust_file(), identity=f"{found.issuer}/signer/another")

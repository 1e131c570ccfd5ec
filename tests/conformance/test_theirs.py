"""Ours checks theirs: what sigstore-python and model-signing sign, and what of it is refused, and why."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import STATEMENT, with_payload, write_model
from conftest import ask, made

from fltrust.artifacts import verify
from fltrust.artifacts.evidence import Trust, verify_bundle
from fltrust.artifacts.policy import Policy
from fltrust.artifacts.trustfile import TrustFile
from fltrust.errors import Malformed, SignatureInvalid, Tampered, UntrustedSigner
from fltrust.testing.sigstore_double import SigstoreDouble
from tools import strangers

pytestmark = pytest.mark.slow  # the first run installs

WHO = "release@hospitals.example"


@pytest.fixture(scope="module")
def double() -> Iterator[SigstoreDouble]:
    with SigstoreDouble() as double:
        yield double


@pytest.fixture(scope="module")
def config(double: SigstoreDouble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("double") / "client.json"
    path.write_bytes(double.client_config)
    return path


@pytest.mark.parametrize("version", strangers.SIGSTORE)
def test_a_statement_signed_by_sigstore_python_verifies(
    version: str, double: SigstoreDouble, config: Path
) -> None:
    python = made(lambda: strangers.environment(version))
    question = {"trust": str(config), "token": double.token(WHO), "statement": STATEMENT.decode()}
    bundle = ask(python, "sigstore_sign.py", question)
    assert isinstance(bundle, str)
    trust = Trust.of(TrustFile.parse(double.trusted_root))
    found = verify_bundle(bundle.encode(), trust=trust, require_timestamp=True)
    assert (found.signer, found.issuer, found.payload) == (WHO, double.url, STATEMENT)
    with pytest.raises(SignatureInvalid):
        verify_bundle(with_payload(bundle, b"digits", b"digitz").encode(), trust=trust)


def signed_by_oracle(model: Path, method: str, **more: object) -> Path:
    python = made(lambda: strangers.environment(strangers.ORACLE))
    signature = model / "model.sig" if model.is_dir() else model.with_name(f"{model.name}.sig")
    assert (
        ask(
            python,
            "oms_sign.py",
            {"model": str(model), "signature": str(signature), "method": method, **more},
        )
        is None
    )
    return signature


def test_a_model_signed_by_model_signing_verifies(
    double: SigstoreDouble, config: Path, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "digits")
    signed_by_oracle(model, "sigstore", token=double.token(WHO), trust=str(config))
    found = verify(model, trust=double.trusted_root, identity=WHO, issuer=double.url)
    assert (found.signer, found.issuer) == (WHO, double.url)
    with pytest.raises(UntrustedSigner):
        verify(model, trust=double.trusted_root, identity="mallory@hospitals.example", issuer=double.url)
    (model / "config.json").write_text("{}")
    with pytest.raises(Tampered, match=r"config\.json"):
        verify(model, trust=double.trusted_root, identity=WHO, issuer=double.url)


def test_a_single_file_signed_by_model_signing_verifies(
    double: SigstoreDouble, config: Path, tmp_path: Path
) -> None:
    model = tmp_path / "weights.dat"
    model.write_bytes(b"\x01" * 10_000)
    signed_by_oracle(model, "sigstore", token=double.token(WHO), trust=str(config))
    assert verify(model, trust=double.trusted_root, identity=WHO, issuer=double.url).signer == WHO
    model.write_bytes(b"\x02" * 10_000)
    with pytest.raises(Tampered):
        verify(model, trust=double.trusted_root, identity=WHO, issuer=double.url)


def test_a_model_that_model_signing_signed_in_shards_verifies(
    double: SigstoreDouble, config: Path, tmp_path: Path
) -> None:
    """Which model-signing itself does not verify without being told the size of the shards."""
    model = tmp_path / "digits"
    model.mkdir()
    (model / "weights.dat").write_bytes(bytes(range(256)) * 20)
    signed_by_oracle(model, "sigstore", token=double.token(WHO), trust=str(config), shards=2048)
    assert verify(model, trust=double.trusted_root, identity=WHO, issuer=double.url).signer == WHO


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A key, its self-signed CA and a certificate for code signing, as OpenSSL makes them."""
    folder = tmp_path / "keys"
    folder.mkdir()
    new = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    sign = ["x509", "-req", "-CA", "ca.pem", "-CAkey", "ca.key"]
    for command in (
        [*new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "9"],
        [*new, "-keyout", "key.pem", "-out", "leaf.csr", "-subj", "/CN=signer"],
        [*sign, "-in", "leaf.csr", "-out", "leaf.pem", "-days", "9", "-extfile", "extensions"],
    ):
        (folder / "extensions").write_text("keyUsage=digitalSignature\nextendedKeyUsage=codeSigning\n")
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True, timeout=60)
    return folder


@pytest.mark.parametrize(("method", "reason"), [("key", "public-key"), ("certificate", "certificate-count")])
def test_the_methods_without_identity_time_and_log_are_refused_and_say_so(
    method: str, reason: str, keys: Path, double: SigstoreDouble, tmp_path: Path
) -> None:
    """A bare key names nobody, and a chain of one's own says neither who signed nor when."""
    model = write_model(tmp_path / "digits")
    files = {
        "key": str(keys / "key.pem"),
        "certificate": str(keys / "leaf.pem"),
        "chain": str(keys / "ca.pem"),
    }
    signed_by_oracle(model, method, **files)
    for policy in (Policy(), Policy(require_log=False, require_timestamp=False)):
        with pytest.raises(Malformed) as refused:
            verify(model, trust=double.trusted_root, identity=WHO, issuer=double.url, policy=policy)
        assert refused.value.reason == reason
        assert "expected" in refused.value.message
        assert "certificate" in refused.value.message

"""Keyless signing, with the real Sigstore client, at an instance that runs in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from signed_world import safetensors

from fltrust.artifacts.bundle import SigstoreBundle
from fltrust.artifacts.keyless import TOKEN_VARIABLE, Instance, sign_keyless
from fltrust.artifacts.recipe import verify
from fltrust.errors import Malformed, Unauthenticated, Unavailable, UntrustedSigner
from fltrust.testing.sigstore_double import SigstoreDouble

pytest.importorskip("sigstore", reason="keyless signing needs the extra 'sigstore'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ALICE = "alice@hospital.example"


@pytest.fixture(scope="module")
def double() -> Iterator[SigstoreDouble]:
    with SigstoreDouble() as running:
        yield running


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors())
    return path


@pytest.fixture
def instance(double: SigstoreDouble, tmp_path: Path) -> Instance:
    path = tmp_path / "config.json"
    path.write_bytes(double.client_config)
    return Instance.of(staging=False, trust_config=path)


def token_file(folder: Path, token: str) -> Path:
    path = folder / "token"
    path.write_text(token + "\n")
    return path


@pytest.mark.parametrize("subject", [ALICE, "https://ci.example/job/7"])
def test_a_model_signed_keyless_verifies_for_name_and_issuer(
    double: SigstoreDouble, instance: Instance, model: Path, subject: str
) -> None:
    token = token_file(model.parent, double.token(subject))
    signed = sign_keyless(model, instance=instance, token=token)
    assert (signed.signer, signed.evidence.issuer) == (subject, double.url)
    found = verify(model, trust=double.trusted_root, identity=subject, issuer=double.url)
    assert found.statement == signed.statement
    for identity, issuer in ((subject, "https://accounts.example"), ("bob@hospital.example", double.url)):
        with pytest.raises(UntrustedSigner):
            verify(model, trust=double.trusted_root, identity=identity, issuer=issuer)


def test_a_name_that_is_no_spiffe_id_needs_its_issuer(double: SigstoreDouble, model: Path) -> None:
    with pytest.raises(Malformed, match="issuer"):
        verify(model, trust=double.trusted_root, identity=ALICE)


def test_the_stock_client_takes_what_was_signed_keyless(
    double: SigstoreDouble, instance: Instance, model: Path
) -> None:
    from sigstore.models import Bundle, TrustedRoot
    from sigstore.verify import Verifier, policy

    signed = sign_keyless(model, instance=instance, token=token_file(model.parent, double.token(ALICE)))
    root = model.parent / "trusted_root.json"
    root.write_bytes(double.trusted_root)
    kind, payload = Verifier(trusted_root=TrustedRoot.from_file(str(root))).verify_dsse(
        Bundle.from_json(signed.signature.read_bytes()), policy.Identity(identity=ALICE, issuer=double.url)
    )
    assert kind == "application/vnd.in-toto+json"
    assert payload == signed.statement.encode()


def test_a_statement_that_the_stock_client_signed_is_read(double: SigstoreDouble, instance: Instance) -> None:
    """Not a model: its evidence holds, and it is refused for what it says."""
    from sigstore.dsse import StatementBuilder, Subject
    from sigstore.oidc import IdentityToken
    from sigstore.sign import SigningContext

    from fltrust.artifacts.evidence import verify_bundle
    from fltrust.artifacts.recipe import load_trust

    statement = (
        StatementBuilder()
        .subjects([Subject(name="x", digest={"sha256": "11" * 32})])
        .predicate_type("https://example.com/p/v1")
        .predicate({"a": 1})
        .build()
    )
    with SigningContext.from_trust_config(instance.load()).signer(
        IdentityToken(double.token(ALICE))
    ) as signer:
        bundle = signer.sign_dsse(statement).to_json().encode()
    found = verify_bundle(bundle, trust=load_trust(double.trusted_root))
    assert found.signer == ALICE
    assert json.loads(found.payload)["predicate"] == {"a": 1}


def test_a_signature_over_a_bare_file_states_nothing(double: SigstoreDouble, instance: Instance) -> None:
    from sigstore.oidc import IdentityToken
    from sigstore.sign import SigningContext

    with SigningContext.from_trust_config(instance.load()).signer(
        IdentityToken(double.token(ALICE))
    ) as signer:
        bundle = signer.sign_artifact(b"weights").to_json().encode()
    with pytest.raises(Malformed) as caught:
        SigstoreBundle.parse(bundle)
    assert caught.value.reason == "message-signature"


def test_the_token_may_stand_in_the_environment(
    double: SigstoreDouble, instance: Instance, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, double.token(ALICE))
    assert sign_keyless(model, instance=instance).signer == ALICE


def test_without_a_token_nobody_signs(
    instance: Instance, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (TOKEN_VARIABLE, "GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "BUILDKITE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sigstore.oidc.detect_credential", lambda *_: None)
    with pytest.raises(Unauthenticated) as caught:
        sign_keyless(model, instance=instance)
    assert caught.value.reason == "identity-token"
    assert not Path(f"{model}.sig").exists()


def test_a_token_that_ran_out_is_refused_without_being_repeated(
    double: SigstoreDouble, instance: Instance, model: Path
) -> None:
    old = double.token(ALICE, lifetime=timedelta(minutes=-5))
    with pytest.raises(Unauthenticated) as caught:
        sign_keyless(model, instance=instance, token=token_file(model.parent, old))
    assert old not in str(caught.value)


def test_an_instance_that_does_not_answer_leaves_nothing_behind(
    double: SigstoreDouble, model: Path, tmp_path: Path
) -> None:
    config = json.loads(double.client_config)
    for service in ("caUrls", "rekorTlogUrls", "tsaUrls"):
        config["signingConfig"][service][0]["url"] = "http://127.0.0.1:9"
    path = tmp_path / "dead.json"
    path.write_text(json.dumps(config))
    with pytest.raises(Unavailable):
        sign_keyless(
            model,
            instance=Instance.of(staging=False, trust_config=path),
            token=token_file(model.parent, double.token(ALICE)),
        )
    assert not Path(f"{model}.sig").exists()


def test_staging_and_a_configuration_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(Malformed):
        Instance.of(staging=True, trust_config=tmp_path / "config.json")


def test_a_configuration_that_is_none_is_malformed(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    with pytest.raises(Malformed):
        sign_keyless(model, instance=Instance.of(staging=False, trust_config=path))

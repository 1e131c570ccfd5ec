"""Signing a model keyless: with an OIDC identity, at Sigstore's public instance or any other.

Needs the extra ``sigstore``, whose client does the talking; the statement, the files beside the model
and the check of what came back are those of `fltrust.artifacts.signing`. A lineage is not bound: that is
the coordinator's to give.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fltrust import strictjson
from fltrust.artifacts.evidence import Trust, verify_bundle
from fltrust.artifacts.hashing import Progress
from fltrust.artifacts.manifest import sidecar_paths
from fltrust.artifacts.measuring import build_manifest
from fltrust.artifacts.oms import ModelStatement
from fltrust.artifacts.signing import SignedModel
from fltrust.artifacts.trustfile import MAX_TRUST, TrustFile
from fltrust.errors import EvidenceInvalid, Malformed, Unauthenticated, Unavailable
from fltrust.files import read_bounded, write_durably
from fltrust.identity import Digest

TOKEN_VARIABLE = "SIGSTORE_ID_TOKEN"  # noqa: S105 - a variable's name
_MAX_TOKEN = 16 * 1024


@dataclass(frozen=True, slots=True)
class Instance:
    """Which Sigstore to sign at: the public one, its staging, or that of a client trust configuration."""

    is_staging: bool = False
    trust_config: Path | None = None

    @classmethod
    def of(cls, *, staging: bool, trust_config: Path | None) -> Self:
        if staging and trust_config is not None:
            raise Malformed("expected the staging instance or a trust configuration, got both")
        return cls(staging, trust_config)

    def load(self) -> Any:
        """The client's configuration; the public instances' come over the network, signed (TUF)."""
        from sigstore.models import ClientTrustConfig

        if self.trust_config is not None:
            data = read_bounded(self.trust_config, limit=MAX_TRUST)
            try:
                return ClientTrustConfig.from_json(data.decode())
            except ValueError as error:
                raise Malformed(f"expected a client trust configuration: {str(error)[:120]}") from None
        return ClientTrustConfig.staging() if self.is_staging else ClientTrustConfig.production()


def sign_keyless(
    path: str | Path,
    *,
    instance: Instance | None = None,
    token: Path | None = None,
    out: str | Path | None = None,
    ignore: Collection[str] = (),
    workers: int | None = None,
    progress: Progress | None = None,
) -> SignedModel:
    """Sign a file or a directory with a certificate that the instance gives for an OIDC identity.

    The identity token is that in the file `token`, in ``SIGSTORE_ID_TOKEN``, or the CI system's own, in
    this order; `Unauthenticated` without one. What comes back is verified against the instance's trusted
    root before it is written, whole or not at all. `Unavailable` where the instance does not answer.
    """
    model = Path(path)
    config = (instance or Instance()).load()
    identity = _identity(token)
    manifest = build_manifest(model, ignore=ignore, workers=workers, progress=progress)
    statement = ModelStatement(name=model.resolve().name, manifest=manifest, ignored=tuple(sorted(ignore)))
    payload = statement.encode()
    bundle = _sign(payload, config, identity)
    # The client shows its trusted root no other way than this; the offline test holds it to that.
    root = strictjson.decode_any(
        config.trusted_root._inner.to_json().encode(), limit=MAX_TRUST, what="a trusted root"
    )
    if not isinstance(root, dict):
        raise Malformed("expected a trusted root as an object")
    evidence = verify_bundle(bundle, trust=Trust.of(TrustFile(root)))
    if evidence.payload != payload:
        raise EvidenceInvalid("expected a bundle of the statement that was signed, got one of another")
    signature = Path(out) if out is not None else sidecar_paths(model).signature
    write_durably(signature, bundle, mode=0o644)
    return SignedModel(
        path=model,
        signature=signature,
        lineage=None,
        statement=statement,
        evidence=evidence,
        bundle=Digest.sha256_of(bundle),
    )


def _sign(payload: bytes, config: Any, identity: Any) -> bytes:
    from requests import RequestException
    from sigstore.dsse import Statement
    from sigstore.errors import Error
    from sigstore.sign import SigningContext

    try:
        context = SigningContext.from_trust_config(config)
        with context.signer(identity) as signer:
            return str(signer.sign_dsse(Statement(payload)).to_json()).encode()
    except (RequestException, Error) as error:
        raise _unavailable(error) from None
    except Exception as error:
        # The clients of its services raise errors of their own, which are not public.
        if type(error).__module__.startswith("sigstore."):
            raise _unavailable(error) from None
        raise


def _identity(token: Path | None) -> Any:
    from sigstore.oidc import IdentityError, IdentityToken, detect_credential

    try:
        if token is not None:
            raw: str | None = read_bounded(token, limit=_MAX_TOKEN).decode("ascii", "replace").strip()
        else:
            raw = os.environ.get(TOKEN_VARIABLE) or detect_credential()
        if not raw:
            raise Unauthenticated(
                "expected an OIDC identity token, found none",
                reason="identity-token",
                hint=f"--identity-token FILE, {TOKEN_VARIABLE}, or a CI job that may ask for one",
            )
        return IdentityToken(raw)
    except IdentityError as error:
        raise Unauthenticated(
            f"expected an identity token that is valid now: {str(error)[:160]}", reason="identity-token"
        ) from None


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(
        f"the Sigstore instance did not sign: {type(error).__name__}: {str(error)[:160]}",
        reason="sigstore-unavailable",
    )

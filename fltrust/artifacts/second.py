"""A model's second signature (ML-DSA-65), in ``<model>.second.json`` beside the model. Experimental.

It is over the payload that the first signature is over, which names every file; so it needs no hashing of
its own, and whoever does not know it verifies the model as ever.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from fltrust.artifacts.bundle import MAX_BUNDLE, SigstoreBundle
from fltrust.artifacts.manifest import sidecar_paths
from fltrust.artifacts.recipe import VerifiedModel
from fltrust.errors import EvidenceMissing, Malformed
from fltrust.files import read_bounded, write_durably
from fltrust.identity import Digest, SpiffeId
from fltrust.keys.mldsa import MldsaSigner
from fltrust.pki.second import SecondLeaf
from fltrust.updates.second import MAX_SECOND, SecondSignature, require_second


def second_path(model: Path) -> Path:
    """Where a model's second signature lies: beside it, also for a directory, which is signed whole."""
    absolute = model.absolute()
    return absolute.with_name(f"{absolute.name}.second.json")


def sign_second(
    model: Path,
    *,
    signer: MldsaSigner,
    chain: Sequence[bytes],
    root: x509.Certificate,
    who: SpiffeId,
    signature: Path | None = None,
) -> Path:
    """Sign what the model's first signature is over, and write it beside the model, durably; returns where.

    The chain must be `who`'s under `root` when the first signature's certificate began, and for this key:
    what no verifier would accept is not written.
    """
    bundle = SigstoreBundle.parse(_read(signature or sidecar_paths(model).signature))
    at = x509.load_der_x509_certificate(bundle.certificate).not_valid_before_utc
    second = SecondSignature.sign(bundle.envelope.payload, signer=signer, chain=chain)
    require_second(second, payload=bundle.envelope.payload, who=who, root=root, at=at)
    out = second_path(model)
    write_durably(out, second.to_json(), mode=0o644)
    return out


def verify_second(
    verified: VerifiedModel,
    *,
    root: x509.Certificate,
    signature: Path | None = None,
    second: Path | None = None,
) -> SecondLeaf:
    """Demand the second signature of a model whose first one was verified.

    1. The first signature's file is the one that was verified.
    2. The second one is there (`EvidenceMissing`, ``second-signature-missing``) and reads.
    3. It is of the same identity, over the same payload, good when the first was made (`require_second`).
    """
    # 1.
    data = _read(signature or sidecar_paths(verified.path).signature)
    if not hmac.compare_digest(Digest.sha256_of(data).value, verified.bundle.value):
        raise Malformed("expected the signature that was verified, its file has changed meanwhile")
    # 2.
    path = second or second_path(verified.path)
    if not path.is_file():
        raise EvidenceMissing(
            f"expected the model's second signature at {path}, found none",
            reason="second-signature-missing",
            hint="fltrust second sign writes it; --second names one elsewhere",
        )
    found = SecondSignature.from_json(read_bounded(path, limit=MAX_SECOND))
    # 3.
    return require_second(
        found,
        payload=SigstoreBundle.parse(data).envelope.payload,
        who=SpiffeId.parse(verified.signer),
        root=root,
        at=verified.signed_at,
    )


def _read(path: Path) -> bytes:
    return read_bounded(path, limit=MAX_BUNDLE)

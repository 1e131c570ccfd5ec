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
from fltrust.errors import EvidenceMissing, Malformed, UntrustedSigner
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
    verified: VerifiedModel,
    *,
    signer: MldsaSigner,
    chain: Sequence[bytes],
    root: x509.Certificate,
    signature: Path | None = None,
) -> Path:
    """Sign what a verified model's first signature is over, and write it beside the model; returns where.

    What no verifier would accept is not written. This key signs nothing but models that verify as its own
    identity's, whatever lies beside them:

    1. The model is accepted (`UntrustedSigner`), and the first signature's file is the one that was verified.
    2. The chain is that of the model's signer under `root`, at the time of the first signature, and for this
       key (`CertificateRefused`, `SignatureInvalid`).
    """
    # 1.
    if not verified.is_accepted:
        raise UntrustedSigner(f"expected a model that is accepted, {verified.path} is not")
    payload = _payload_of(verified, signature)
    # 2.
    second = SecondSignature.sign(payload, signer=signer, chain=chain)
    who = SpiffeId.parse(verified.signer)
    require_second(second, payload=payload, who=who, root=root, at=verified.signed_at)
    out = second_path(verified.path)
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
    payload = _payload_of(verified, signature)
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
        payload=payload,
        who=SpiffeId.parse(verified.signer),
        root=root,
        at=verified.signed_at,
    )


def _payload_of(verified: VerifiedModel, signature: Path | None) -> bytes:
    data = read_bounded(signature or sidecar_paths(verified.path).signature, limit=MAX_BUNDLE)
    if not hmac.compare_digest(Digest.sha256_of(data).value, verified.bundle.value):
        raise Malformed("expected the signature that was verified, its file has changed meanwhile")
    return SigstoreBundle.parse(data).envelope.payload

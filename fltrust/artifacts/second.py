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
from fltrust.artifacts.oms import parse_statement
from fltrust.artifacts.recipe import VerifiedModel
from fltrust.artifacts.signers import read_signer
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
    model: Path,
    *,
    signer: MldsaSigner,
    chain: Sequence[bytes],
    root: x509.Certificate,
    who: SpiffeId,
    signature: Path | None = None,
) -> Path:
    """Sign what the model's first signature is over, and write it beside the model, durably; returns where.

    What no verifier would accept is not written, and this key signs nothing but models that `who` signed:

    1. The first signature is its certificate's key's, and that names `who` (`SignatureInvalid`,
       `UntrustedSigner`).
    2. What it is over is the statement of a model (`fltrust.artifacts.oms`), never an update or another.
    3. The chain is `who`'s under `root` when the first certificate began, and for this key.
    """
    # 1.
    bundle = SigstoreBundle.parse(_read(signature or sidecar_paths(model).signature))
    first = read_signer(bundle.certificate)
    bundle.envelope.verify(first.public_key)
    if first.name != str(who):
        raise UntrustedSigner(f"expected a model that {who} signed, {first.name} did")
    # 2.
    parse_statement(bundle.envelope.payload)
    # 3.
    at = first.certificate.not_valid_before_utc
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

"""A verdict for others to build on: SLSA Verification Summary Attestation v1.

An in-toto statement with predicate ``https://slsa.dev/verification_summary/v1`` about the model: who
verified it, when, against which policy, from which evidence, and ``PASSED`` or ``FAILED``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from fltrust import __version__
from fltrust.clock import to_rfc3339
from fltrust.identity import Digest
from fltrust.updates import intoto

VSA_PREDICATE = "https://slsa.dev/verification_summary/v1"
VERIFIER = "urn:fltrust:verifier"


def verification_summary(
    *,
    name: str,
    subject: Digest,
    is_passed: bool,
    at: datetime,
    policy: Digest,
    policy_uri: str,
    inputs: Mapping[str, Digest],
    reasons: tuple[str, ...] = (),
) -> bytes:
    """Write the summary: unsigned, in one byte form. `subject` is the model's, as its signature states it;
    `inputs` are the digests of signature, lineage and trust file by what they are called.

    ``verifiedLevels`` is empty: no SLSA level is claimed. `reasons` of a failed verdict stand beside it,
    in a field of ours.
    """
    predicate: dict[str, object] = {
        "verifier": {"id": VERIFIER, "version": {"fltrust": __version__}},
        "timeVerified": to_rfc3339(at),
        "resourceUri": f"model:{name}",
        "policy": {"uri": policy_uri, "digest": {policy.algorithm: policy.hex}},
        "inputAttestations": [
            {"uri": what, "digest": {digest.algorithm: digest.hex}} for what, digest in inputs.items()
        ],
        "verificationResult": "PASSED" if is_passed else "FAILED",
        "verifiedLevels": [],
        "slsaVersion": "1.0",
    }
    if reasons:
        predicate["fltrust"] = {"reasons": list(reasons)}
    return intoto.encode(VSA_PREDICATE, name, subject, predicate)

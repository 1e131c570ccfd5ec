"""Signed models: manifest, Sigstore bundle, lineage, policy, and loading only what was verified.

    verified = fltrust.artifacts.verify("model.safetensors", trust="trust.json",
                                        identity="spiffe://hospitals.example/signer/release")
    tensors = fltrust.artifacts.load_safetensors("model.safetensors", trust=…, identity=…)

Names are loaded when they are first used: verifying must not pay for signing, nor a desk for loading.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fltrust.artifacts.loading import load_safetensors as load_safetensors
    from fltrust.artifacts.loading import load_torch as load_torch
    from fltrust.artifacts.policy import Policy as Policy
    from fltrust.artifacts.recipe import VerifiedModel as VerifiedModel
    from fltrust.artifacts.recipe import verify as verify
    from fltrust.artifacts.signing import SignedModel as SignedModel
    from fltrust.artifacts.signing import sign as sign

_HOMES = {
    "Policy": "policy",
    "SignedModel": "signing",
    "VerifiedModel": "recipe",
    "load_safetensors": "loading",
    "load_torch": "loading",
    "sign": "signing",
    "verify": "recipe",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)

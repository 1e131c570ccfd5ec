"""What model-signing takes for the same work; run by its own Python (`tools.strangers`), prints JSON.

Usage: oms_reference.py KEY PUBLIC-KEY REPETITIONS PATH…
Its API with a bare key: no certificate, timestamp or log entry, so that hashing is all but all of it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import model_signing


def measure(key: str, public_key: str, path: Path, repetitions: int) -> dict[str, float]:
    signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=key)
    verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    best = {"sign": float("inf"), "verify": float("inf")}
    with tempfile.TemporaryDirectory() as folder:
        signature = Path(folder) / "model.sig"
        for _ in range(repetitions):
            for name, act in (("sign", signer.sign), ("verify", verifier.verify)):
                began = time.perf_counter()
                act(path, signature)
                best[name] = min(best[name], time.perf_counter() - began)
    return best


if __name__ == "__main__":
    _, key, public_key, repetitions, *paths = sys.argv
    print(json.dumps({path: measure(key, public_key, Path(path), int(repetitions)) for path in paths}))

"""Run inside the oracle's environment: sign a model with model-signing, by one of its three methods.

Reads `{"model", "signature", "method", …}` from standard input: `key` for "key" (a PEM file), `key`,
`certificate` and `chain` for "certificate", `token` and `trust` for "sigstore".
"""

from __future__ import annotations

import json
import pathlib
import sys

import model_signing


def main() -> None:
    given = json.load(sys.stdin)
    config = model_signing.signing.Config()
    if given["method"] == "key":
        config.use_elliptic_key_signer(private_key=given["key"])
    elif given["method"] == "certificate":
        config.use_certificate_signer(
            private_key=given["key"],
            signing_certificate=given["certificate"],
            certificate_chain=[given["chain"]],
        )
    else:
        config.use_sigstore_signer(
            identity_token=given["token"], trust_config=pathlib.Path(given["trust"]), client_id="sigstore"
        )
    model, signature = pathlib.Path(given["model"]), pathlib.Path(given["signature"])
    if given.get("shards"):
        hashing = model_signing.hashing.Config().use_shard_serialization(shard_size=given["shards"])
        config.set_hashing_config(hashing)
    config.sign(model, signature)
    json.dump(None, sys.stdout)


main()

"""Run inside the oracle's environment: verify models with model-signing's own `sigstore` verifier.

Reads `{"trust": <client trust config>, "cases": [{"model", "signature", "identity", "issuer"}]}` from
standard input; answers with a list of `null`, or the error's class and words.
"""

from __future__ import annotations

import json
import pathlib
import sys

import model_signing


def main() -> None:
    given = json.load(sys.stdin)
    answers = []
    for case in given["cases"]:
        try:
            model_signing.verifying.Config().use_sigstore_verifier(
                identity=case["identity"],
                oidc_issuer=case["issuer"],
                trust_config=pathlib.Path(given["trust"]),
            ).verify(pathlib.Path(case["model"]), pathlib.Path(case["signature"]))
            answers.append(None)
        except Exception as error:
            answers.append(f"{type(error).__name__}: {error}"[:400])
    json.dump(answers, sys.stdout)


main()

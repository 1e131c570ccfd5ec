"""Run inside a stranger's environment: verify bundles with sigstore-python's public API alone, offline.

Reads `{"cases": [{"bundle", "root", "identity", "issuer"}]}` from standard input, with `root` the path of
a trusted_root.json. Answers with a list: the payload's SHA-256 where the bundle verified, or the error.
"""

from __future__ import annotations

import hashlib
import json
import sys

from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier, policy


def main() -> None:
    given = json.load(sys.stdin)
    answers = []
    for case in given["cases"]:
        try:
            bundle = Bundle.from_json(case["bundle"].encode())
            who = policy.Identity(identity=case["identity"], issuer=case["issuer"])
            kind, payload = Verifier(trusted_root=TrustedRoot.from_file(case["root"])).verify_dsse(
                bundle, who
            )
            answers.append({"sha256": hashlib.sha256(payload).hexdigest(), "type": kind})
        except Exception as error:
            answers.append({"error": f"{type(error).__name__}: {error}"[:400]})
    json.dump(answers, sys.stdout)


main()

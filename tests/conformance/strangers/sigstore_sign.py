"""Run inside a stranger's environment: sign a statement with sigstore-python (DSSE), keyless.

Reads `{"trust": <client trust config>, "token", "statement"}` from standard input; answers with the bundle.
"""

from __future__ import annotations

import json
import sys

from sigstore.dsse import Statement
from sigstore.models import ClientTrustConfig
from sigstore.oidc import IdentityToken
from sigstore.sign import SigningContext


def main() -> None:
    given = json.load(sys.stdin)
    with open(given["trust"]) as file:
        config = ClientTrustConfig.from_json(file.read())
    token = IdentityToken(given["token"], "sigstore")
    with SigningContext.from_trust_config(config).signer(token) as signer:
        bundle = signer.sign_dsse(Statement(given["statement"].encode()))
    json.dump(bundle.to_json(), sys.stdout)


main()

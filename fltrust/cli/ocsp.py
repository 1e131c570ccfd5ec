"""`fltrust ocsp`: the status of a certificate, asked as any relying party asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from fltrust.cli.options import AsJson
from fltrust.cli.output import print_json, say

if TYPE_CHECKING:
    from fltrust.pki.stapling import Staple

app = typer.Typer(help="The status of a certificate, asked by OCSP.", no_args_is_help=True)

Chain = Annotated[
    Path, typer.Argument(help="The certificate and its issuer's, in PEM.", exists=True, dir_okay=False)
]
Url = Annotated[
    str | None, typer.Option("--url", help="Responder to ask. Default: the one the certificate names.")
]
_MAX_CHAIN = 256 * 1024


@app.command("check")
def check(chain: Chain, url: Url = None, as_json: AsJson = False) -> None:
    """Ask whether a certificate is good. Exits with 4 if it is revoked or on hold."""
    staple = _ask(chain, url)
    if as_json:
        print_json({"status": "good", "until": staple.until})
        return
    say(f"Good until {staple.until:%Y-%m-%dT%H:%M:%SZ}.")


@app.command("staple")
def staple(
    chain: Chain,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the answer goes, in DER.")],
    url: Url = None,
) -> None:
    """Write an answer for a TLS server to staple (nginx: ssl_stapling_file). Run it from a timer, at a
    quarter of an answer's life.

    The answer is checked before it is written. When it cannot be had, the file stays as it is, and a
    server goes on with the last one until that is over.
    """
    from fltrust.files import write_durably

    answer = _ask(chain, url)
    write_durably(output, answer.der, mode=0o644)
    say(f"Wrote {output}: good until {answer.until:%Y-%m-%dT%H:%M:%SZ}.")


def _ask(chain: Path, url: str | None) -> Staple:
    from fltrust.clock import SystemClock
    from fltrust.errors import Malformed, Unavailable
    from fltrust.files import read_bounded
    from fltrust.pki.bundle import certificates_from_pem
    from fltrust.pki.stapling import MAX_ANSWER, check_staple, responder_of, staple_request
    from fltrust.strictbase64 import to_base64
    from fltrust.tlog.fetching import HttpClient

    certificates = certificates_from_pem(read_bounded(chain, limit=_MAX_CHAIN), limit=4)
    if len(certificates) < 2:
        raise Malformed(
            f"expected a certificate and its issuer's in {chain}, found {len(certificates)}",
            hint="append the issuing CA's certificate; coordinators serve it below /ca/",
        )
    leaf, issuer = certificates[:2]
    where = url or responder_of(leaf)
    client = HttpClient(where)
    try:
        question = quote(to_base64(staple_request(leaf, issuer)), safe="")
        status, _, data = client.request("GET", question, limit=MAX_ANSWER)
    finally:
        client.close()
    if status != 200:
        raise Unavailable(f"expected an OCSP answer from {where}, got HTTP status {status}")
    return check_staple(data, leaf=leaf, issuer=issuer, at=SystemClock().now())

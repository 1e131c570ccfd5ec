"""`fltrust ca roll-issuing`, `revoke-issuing` and `change-anchors`: the CA of a coordinator that runs.

Each is a sensitive operation: signed by the operator, and approved by as many others as the coordinator asks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import AsJson, State
from fltrust.cli.propose import Reason, Within
from fltrust.errors import Malformed
from fltrust.revocation.events import RevocationReason

if TYPE_CHECKING:
    from cryptography import x509

    from fltrust.ceremony.files import Act

AnswerFile = Annotated[Path, typer.Argument(help="What the ceremony answered.", show_default=False)]


def register(app: typer.Typer) -> None:
    app.command("roll-issuing")(roll_issuing)
    app.command("revoke-issuing")(revoke_issuing)
    app.command("change-anchors")(change_anchors)


def roll_issuing(
    answer: AnswerFile,
    reason: Reason,
    within: Within = "1d",
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Let the next issuing CA take over, while everybody goes on. What the present one signed stays good.

    ANSWER is of a ceremony for 'fltrust ca request issuing'.
    """
    from fltrust.ceremony.files import Act
    from fltrust.cli.propose import propose, tell
    from fltrust.cli.session import operator_session

    certificate = _certificates(answer, Act.ISSUING)[0]
    with operator_session(state) as (client, me):
        parameters = {"certificate": _text(certificate)}
        record = propose(client, me, "roll-issuing", parameters, reason=reason, within=within)
    tell(record, "The next issuing CA is in force.", as_json=as_json)


def revoke_issuing(
    certificate: Annotated[
        Path, typer.Argument(help="The certificate (PEM) of the CA to end.", show_default=False)
    ],
    reason: Reason,
    answer: Annotated[
        Path | None,
        typer.Option(
            help="The ceremony's answer with the next issuing CA; needed for the one in force.",
            show_default=False,
        ),
    ] = None,
    why: Annotated[RevocationReason, typer.Option(help="RFC 5280, 5.3.1.")] = RevocationReason.KEY_COMPROMISE,
    compromised_since: Annotated[
        str | None,
        typer.Option(
            help="Since when its key may be in other hands: a time (UTC), or a duration ago such as 2d.",
            show_default=False,
        ),
    ] = None,
    within: Within = "1h",
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """End an issuing CA whose key is not alone any more: at once, everywhere, whatever it signed.

    Who holds a certificate that is on record gets one of the next issuing CA by itself, within seconds.
    Updates that were signed with certificates that are not on record count as tainted.
    """
    from fltrust.ceremony.files import Act
    from fltrust.cli.propose import propose, tell
    from fltrust.cli.session import operator_session
    from fltrust.cli.times import parse_time
    from fltrust.clock import SystemClock, to_rfc3339
    from fltrust.pki.authority import read_certificate
    from fltrust.pki.leaf import ca_key_id

    since = None if compromised_since is None else parse_time(compromised_since, now=SystemClock().now())
    following = None if answer is None else _text(_certificates(answer, Act.ISSUING)[0])
    issuer = ca_key_id(read_certificate(certificate).public_key())
    parameters = {
        "issuer": issuer,
        "reason": why.value,
        "compromisedSince": None if since is None else to_rfc3339(since),
        "certificate": following,
    }
    with operator_session(state) as (client, me):
        record = propose(client, me, "revoke-issuing", parameters, reason=reason, within=within)
    tell(record, f"Nothing that the CA {issuer} signed is good any more.", as_json=as_json)


def change_anchors(
    reason: Reason,
    answer: Annotated[
        Path | None,
        typer.Option("--add", help="A ceremony's answer to 'ca request root'.", show_default=False),
    ] = None,
    remove: Annotated[
        str | None, typer.Option(help="sha256:… of the root to trust no more.", show_default=False)
    ] = None,
    within: Within = "1d",
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Add the next root to the trust bundle, or drop the old one once nothing is under it any more.

    Agents fetch the bundle within half a minute. Wait for that before anything is issued under a new root.
    """
    from fltrust.ceremony.files import Act
    from fltrust.cli.propose import propose, tell
    from fltrust.cli.session import operator_session

    if (answer is None) == (remove is None):
        raise Malformed("expected --add ANSWER or --remove sha256:…, one of them")
    parameters: dict[str, object] = {"remove": remove}
    if answer is not None:
        names = ("old", "new", "newWithOld", "oldWithNew")
        certificates = _certificates(answer, Act.ROLLOVER)
        parameters = {"add": {name: _text(c) for name, c in zip(names, certificates, strict=True)}}
    with operator_session(state) as (client, me):
        record = propose(client, me, "change-anchors", parameters, reason=reason, within=within)
    tell(record, "The trust bundle is changed.", as_json=as_json)


def _certificates(answer: Path, act: Act) -> tuple[x509.Certificate, ...]:
    from fltrust.ceremony.files import Answer

    found = Answer.read(answer)
    if found.act is not act:
        raise Malformed(f"expected the answer of a ceremony for {act}, got one for {found.act}")
    return found.certificates


def _text(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    from fltrust.strictbase64 import to_base64

    return to_base64(certificate.public_bytes(Encoding.DER))

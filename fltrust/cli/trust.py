"""`fltrust trust`: the trust file, which is all that offline verification needs."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import AsJson
from fltrust.cli.output import Row, print_json, print_rows, say, text_of
from fltrust.errors import Malformed, NotFound

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from fltrust.artifacts.evidence import Trust
    from fltrust.artifacts.status import Status
    from fltrust.artifacts.trustfile import TrustFile

app = typer.Typer(help="The trust file: what models are verified with, offline.", no_args_is_help=True)

_DEFAULT = Path("trust.json")
_COLUMNS = {"what": "TRUSTS", "sha256": "SHA-256", "until": "UNTIL", "name": "NAME"}


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="Where to write the trust file.")] = _DEFAULT,
    sigstore: Annotated[
        Path | None,
        typer.Option(help="Write Sigstore's trusted_root.json, too, for stock clients.", show_default=False),
    ] = None,
    trust_config: Annotated[
        Path | None,
        typer.Option(
            help="Write Sigstore's client trust configuration, too, as model-signing takes it.",
            show_default=False,
        ),
    ] = None,
    pem: Annotated[
        Path | None,
        typer.Option(help="Write the roots in PEM, too, for openssl and the like.", show_default=False),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="Fetch it from the coordinator's public address, without an identity.", show_default=False
        ),
    ] = None,
    pin: Annotated[
        str | None,
        typer.Option(
            metavar="sha256:HEX",
            help="With --url: the fingerprint of the root, as 'coordinator init' printed it.",
            show_default=False,
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            envvar="FLTRUST_STATE",
            help="Folder of the identity to act as. Default: any one under FLTRUST_HOME.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the trust file of the federation: trusted root and status, as of now.

    From the coordinator as any enrolled identity; or with --url and --pin from its public address, where
    everything in it is held against the root's fingerprint. A trust file of the same federation that is there
    is not replaced by an older one.
    """
    from fltrust.artifacts.trustfile import TrustFile
    from fltrust.files import write_durably

    if (url is None) != (pin is None):
        raise Malformed(
            "expected --url and --pin together, got one of them",
            hint="what comes over plain HTTP is held against the root's fingerprint",
        )
    data = _ask(state) if url is None else _fetch(url, str(pin))
    found = TrustFile.parse(data)
    roots = _roots(found)
    _require_no_older(found, file)
    write_durably(file, data, mode=0o644)
    if sigstore is not None:
        from fltrust import strictjson

        write_durably(sigstore, strictjson.encode(found.trusted_root), mode=0o644)
    if trust_config is not None:
        write_durably(trust_config, found.to_client_trust_config(), mode=0o644)
    if pem is not None:
        write_durably(pem, roots, mode=0o644)
    if as_json:
        print_json({"file": str(file), **_fields(found)})
    else:
        say(f"Wrote {file}: {found.domain}, sequence {found.sequence}, status of {text_of(found.created)}.")


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A trust file, or a trusted_root.json.")],
    as_json: AsJson = False,
) -> None:
    """Show what a trust file trusts, and what its status says. The status is verified first."""
    from fltrust.artifacts.evidence import Trust
    from fltrust.artifacts.judgement import verify_status
    from fltrust.artifacts.trustfile import TrustFile

    found = TrustFile.read(file)
    trust = Trust.of(found)
    status = None if found.status is None else verify_status(found.status, trust=trust)
    rows = _materials(trust)
    if as_json:
        print_json({**_fields(found), "trusts": rows, "status": _status_fields(status)})
        return
    if found.domain is not None:
        say(f"{found.domain}, sequence {found.sequence}, made {text_of(found.created)}")
    short: list[Row] = [
        {**row, "sha256": str(row["sha256"])[:16], "until": _day(row["until"])} for row in rows
    ]
    print_rows(short, columns=_COLUMNS, as_json=False, empty="")
    _tell_status(status)


def _ask(state: Path | None) -> bytes:
    """The trust file, from the coordinator as whoever is enrolled on this machine."""
    from fltrust.agent.session import connect
    from fltrust.agent.state import list_states

    folder = state or next(iter(sorted(list_states(), key=_standing_of)), None)
    if folder is None:
        raise NotFound(
            "expected an enrolled identity on this machine, found none",
            hint="run 'fltrust join' first, or fetch with --url and --pin",
        )
    with connect(folder) as (client, _):
        return client.trust_file()


def _standing_of(folder: Path) -> int:
    """Operators and signers first: a participant's state belongs to its agent."""
    order = ("operator-", "signer-", "aggregator-", "participant-")
    return next((n for n, prefix in enumerate(order) if folder.name.startswith(prefix)), len(order))


def _fetch(url: str, pin: str) -> bytes:
    """The trust file from a public address, bound to the root with this fingerprint."""
    from fltrust.artifacts.pinned import check_pinned
    from fltrust.artifacts.trustfile import MAX_TRUST
    from fltrust.clock import SystemClock
    from fltrust.errors import Unavailable
    from fltrust.identity import Digest
    from fltrust.tlog.fetching import HttpClient

    root = Digest.parse(pin if ":" in pin else f"sha256:{pin}")
    client = HttpClient(url)
    try:
        status, _, data = client.request("GET", "trust.json", limit=MAX_TRUST)
    finally:
        client.close()
    if status != 200:
        raise Unavailable(
            f"expected the trust file at {url}, got HTTP status {status}",
            hint="is this the coordinator's public address?",
        )
    check_pinned(data, root=root, at=SystemClock().now())
    return data


def _require_no_older(found: TrustFile, file: Path) -> None:
    """Refuse what was kept back on its way: it says nothing of what was revoked since.

    By the two statuses, which are signed; what else stands in a trust file, anybody can write there.
    """
    from fltrust.artifacts.evidence import Trust
    from fltrust.artifacts.judgement import verify_status
    from fltrust.artifacts.trustfile import TrustFile
    from fltrust.errors import FltrustError, PolicyNotMet

    try:
        known = TrustFile.read(file)
        if known.status is None or not set(_anchors(known)) & set(_anchors(found)):
            return
        before = verify_status(known.status, trust=Trust.of(known))
    except FltrustError:
        return  # none, or none to go by
    now = None if found.status is None else verify_status(found.status, trust=Trust.of(found))
    if now is None or now.epoch < before.epoch or now.at < before.at:
        raise PolicyNotMet(
            f"expected a status of {before.at:%Y-%m-%dT%H:%M:%SZ} or later, as in {file}; got an older one",
            reason="status-stale",
            hint="it was kept back on its way; if the coordinator was set back to a backup, remove the file",
        )


def _anchors(found: TrustFile) -> tuple[Certificate, ...]:
    from fltrust.artifacts.trustroot import trusted_root_from

    root = trusted_root_from(found.trusted_root)
    return tuple(dict.fromkeys(ca.anchor for ca in root.certificate_authorities))


def _roots(found: TrustFile) -> bytes:
    from fltrust.pki.bundle import chain_to_pem

    return chain_to_pem(_anchors(found))


def _fields(found: TrustFile) -> Row:
    return {
        "domain": None if found.domain is None else str(found.domain),
        "sequence": found.sequence,
        "created": found.created,
    }


def _materials(trust: Trust) -> list[Row]:
    """Everything that is trusted, with its window."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from fltrust.identity import Digest

    def row(what: str, name: str, data: bytes, start: datetime, end: datetime | None) -> Row:
        return {
            "what": what,
            "name": name,
            "sha256": Digest.sha256_of(data).hex,
            "from": start,
            "until": end,
        }

    rows = []
    for what, chains in (
        ("certificate authority", trust.root.certificate_authorities),
        ("timestamp authority", trust.root.timestamp_authorities),
    ):
        for chain in chains:
            first = chain.certificates[0]
            name = first.subject.rfc4514_string()
            rows.append(row(what, name, first.public_bytes(Encoding.DER), chain.start, chain.end))
    for what, logs in (("certificate log", trust.root.ct_logs), ("log", trust.root.tlogs)):
        for log in logs:
            spki = log.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            rows.append(row(what, log.base_url, spki, log.start, log.end))
    return rows


def _day(at: object) -> str | None:
    return at.strftime("%Y-%m-%d") if isinstance(at, datetime) else None


def _status_fields(status: Status | None) -> Row | None:
    if status is None:
        return None
    return {
        "epoch": int(status.epoch),
        "at": status.at,
        "revoked": [
            {
                "name": item.name,
                "at": item.at,
                "compromised_since": item.compromised_since,
                "identity_wide": item.is_identity_wide,
                "reason": item.reason,
            }
            for item in status.revoked
        ],
        "tainted_aggregates": [
            {
                "run_id": str(int(i.run_id)),
                "step": i.step,
                "tensors": str(i.tensors),
                "is_direct": i.is_direct,
            }
            for i in status.tainted_aggregates
        ],
        "tainted_models": [
            {"name": i.name, "subject": str(i.subject), "is_direct": i.is_direct}
            for i in status.tainted_models
        ],
    }


def _tell_status(status: Status | None) -> None:
    if status is None:
        say("No status: nothing is known of revocation.")
        return
    say(f"Status of {text_of(status.at)}, epoch {int(status.epoch)}:")
    say(
        f"  {len(status.revoked)} revocations, {len(status.tainted_aggregates)} tainted aggregates, "
        f"{len(status.tainted_models)} tainted models"
    )
    for item in status.revoked:
        since = (
            "" if item.compromised_since is None else f", compromised since {text_of(item.compromised_since)}"
        )
        say(f"  revoked {text_of(item.at)}  {text_of(item.name)} ({item.reason}{since})")

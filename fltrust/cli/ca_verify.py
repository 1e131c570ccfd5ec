"""`fltrust ca verify`: whether a certificate has a path to a root that holds at a stated time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Self

import typer

from fltrust.cli.options import AsJson
from fltrust.cli.output import print_json, say, shown, text_of

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from fltrust.pki.path import ValidatedPath
    from fltrust.pki.path.types import PeerName

_PURPOSES: Final = {
    "server": "1.3.6.1.5.5.7.3.1",
    "client": "1.3.6.1.5.5.7.3.2",
    "code-signing": "1.3.6.1.5.5.7.3.3",
    "email": "1.3.6.1.5.5.7.3.4",
    "timestamping": "1.3.6.1.5.5.7.3.8",
    "ocsp-signing": "1.3.6.1.5.5.7.3.9",
}
_MAX_FILE: Final = 1024 * 1024
MAX_CRL_FILE: Final = 64 * 1024 * 1024


def verify(
    chain: Annotated[
        Path,
        typer.Argument(help="The certificate, in PEM or DER; others after it may be intermediates."),
    ],
    roots: Annotated[
        list[Path] | None,
        typer.Option("--roots", help="Trust anchors, in PEM or DER. May be repeated.", show_default=False),
    ] = None,
    view: Annotated[
        Path | None,
        typer.Option(
            help="The view of an offline site, with anchors, CAs and CRLs: fltrust ca offline take.",
            show_default=False,
        ),
    ] = None,
    untrusted: Annotated[
        list[Path] | None,
        typer.Option(
            help="Intermediates and signers of CRLs, in any order. May be repeated.", show_default=False
        ),
    ] = None,
    crl: Annotated[
        list[Path] | None,
        typer.Option(help="CRLs, complete or delta, in PEM or DER. May be repeated.", show_default=False),
    ] = None,
    ocsp: Annotated[
        list[Path] | None,
        typer.Option(help="An OCSP answer in DER. May be repeated.", show_default=False),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(help="The time to validate at, such as 2026-01-31T12:00:00Z or 2h. Default: now."),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="OID of a certificate policy that must be valid along the path. May be repeated.",
            show_default=False,
        ),
    ] = None,
    purpose: Annotated[
        str | None,
        typer.Option(
            help=f"What the certificate must be good for: {', '.join(_PURPOSES)}, or an OID.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="A name that it must have: a DNS name, an address, a mailbox or a URI.", show_default=False
        ),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(help="Where nothing tells whether it is revoked: hard-fail, soft-fail or best-effort."),
    ] = "hard-fail",
    grace: Annotated[
        str, typer.Option(help="How long soft-fail goes on with evidence that is over.")
    ] = "24h",
    pins: Annotated[
        Path | None,
        typer.Option(
            help="Pins with backups, in JSON: a key of the path must be one of them.", show_default=False
        ),
    ] = None,
    lenient: Annotated[
        bool,
        typer.Option("--lenient", help="Let pass what a conforming CA does not issue (RFC 5280, section 4)."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Validate a certification path by RFC 5280, offline, with CRLs and OCSP answers as evidence.

    Exits with 0 if the path holds; 3: it does not, or nothing that is fresh tells whether it is revoked;
    4: revoked or on hold; 8: a file is not what it should be.
    """
    from cryptography import x509

    from fltrust.cli.times import parse_duration, parse_time
    from fltrust.clock import SystemClock
    from fltrust.errors import Malformed
    from fltrust.pki.path import ANY_POLICY, Evidence, PathPolicy, RevocationMode, validate_path

    now = SystemClock().now()
    limits = PathPolicy().limits
    if mode not in list(RevocationMode):
        raise Malformed(f"expected a mode of {', '.join(RevocationMode)}, got {mode[:40]!r}")
    try:
        policies = frozenset(map(x509.ObjectIdentifier, policy or ())) or frozenset({ANY_POLICY})
        asked = None if purpose is None else x509.ObjectIdentifier(_PURPOSES.get(purpose, purpose))
    except ValueError:
        raise Malformed("expected OIDs in dotted form, such as 1.3.6.1.4.1.1") from None
    rules = PathPolicy(
        purpose=asked,
        peer=None if name is None else _peer(name),
        policies=policies,
        require_explicit_policy=bool(policy),
        strict=not lenient,
        revocation=RevocationMode(mode),
        grace=parse_duration(grace),
    )
    leaf, *others = read_parts([chain], "CERTIFICATE", limit=limits.certificates)
    held = _Held.of(view)
    anchors: list[bytes | Certificate] = [
        *held.anchors,
        *read_parts(roots or (), "CERTIFICATE", limit=limits.certificates),
    ]
    if not anchors:
        raise Malformed("expected trust anchors: --roots FILE, or --view FILE", reason="trust-required")
    validated = validate_path(
        leaf,
        anchors=anchors,
        intermediates=[
            *others,
            *held.certificates,
            *read_parts(untrusted or (), "CERTIFICATE", limit=limits.certificates),
        ],
        evidence=Evidence.read(
            crls=[*held.crls, *read_parts(crl or (), "X509 CRL", limit=limits.crls, size=MAX_CRL_FILE)],
            ocsp_answers=read_parts(ocsp or (), "OCSP RESPONSE", limit=limits.ocsp_responses),
        ),
        at=now if at is None else parse_time(at, now=now),
        policy=rules,
    )
    if pins is not None:
        _check_pins(pins, validated)
    _tell(validated, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Held:
    """What comes from an offline view, or nothing."""

    anchors: tuple[Certificate, ...] = ()
    certificates: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, path: Path | None) -> Self:
        if path is None:
            return cls()
        from fltrust.anchors.offline import MAX_OFFLINE_VIEW, OfflineView
        from fltrust.files import read_bounded

        view = OfflineView.from_json(read_bounded(path, limit=MAX_OFFLINE_VIEW))
        return cls(view.bundle.roots, view.certificates, view.crls)


def _check_pins(path: Path, validated: ValidatedPath) -> None:
    from fltrust.files import read_bounded
    from fltrust.pki.path.pinning import MAX_PIN_FILE, PinSet

    if PinSet.from_json(read_bounded(path, limit=MAX_PIN_FILE)).check(validated).only_backup:
        say("warning: only a backup pin was met: pin the new key, and a new backup, soon")


def _tell(validated: ValidatedPath, *, as_json: bool) -> None:
    rows: list[dict[str, object]] = []
    for number, certificate in enumerate(validated.certificates):
        status = validated.statuses[number] if number < len(validated.statuses) else None
        rows.append(
            {
                "subject": certificate.subject.rfc4514_string() or _first_name(certificate),
                "serial": f"{certificate.serial_number:x}",
                "status": "trust anchor" if status is None else str(status.kind),
                "evidence": None if status is None else status.source or None,
                "fresh_until": None if status is None else status.fresh_until,
            }
        )
    if as_json:
        print_json(
            {
                "valid": True,
                "at": validated.at,
                "path": rows,
                "policies": sorted(oid.dotted_string for oid in validated.policies),
                "second_opinion": validated.second_opinion,
                "warnings": list(validated.warnings),
            }
        )
        return
    for row in rows:
        typer.echo(shown(str(row["subject"])))
        told = (
            ""
            if row["evidence"] is None
            else f" by {row['evidence']}, fresh until {text_of(row['fresh_until'])}"
        )
        typer.echo(f"  serial {row['serial']}: {row['status']}{told}")
    for warning in validated.warnings:
        say(f"warning: {warning}")
    say(f"the path holds at {_shown(validated.at)}")


def _first_name(certificate: Certificate) -> str:
    from cryptography import x509

    from fltrust.pki.leaf import PARSE_ERRORS

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return str(next(iter(names)).value)
    except (x509.ExtensionNotFound, StopIteration, *PARSE_ERRORS):
        return "–"


def read_parts(
    paths: list[Path] | tuple[()], label: str, *, limit: int, size: int = _MAX_FILE
) -> list[bytes]:
    """The DER of everything of one kind in these files."""
    from fltrust.files import read_bounded
    from fltrust.pki.path.pem import der_of

    return [der for path in paths for der in der_of(read_bounded(path, limit=size), label=label, limit=limit)]


def _peer(text: str) -> PeerName:
    from ipaddress import ip_address

    from cryptography import x509

    from fltrust.errors import Malformed

    try:
        if "://" in text:
            return x509.UniformResourceIdentifier(text)
        if "@" in text:
            return x509.RFC822Name(text)
        try:
            return x509.IPAddress(ip_address(text))
        except ValueError:
            return x509.DNSName(text)
    except ValueError:
        raise Malformed(f"expected a DNS name, an address, a mailbox or a URI, got {text[:80]!r}") from None


def _shown(at: datetime) -> str:
    from fltrust.clock import to_rfc3339

    return to_rfc3339(at)

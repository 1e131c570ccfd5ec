"""`fltrust verify`: whether a model is what somebody whom you trust signed, offline, from one trust file."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fltrust.cli.options import AsJson
from fltrust.cli.output import print_json, say, shown

if TYPE_CHECKING:
    from collections.abc import Collection

    from fltrust.artifacts.evidence import Trust
    from fltrust.artifacts.identity import IdentityRule
    from fltrust.artifacts.policy import Policy
    from fltrust.artifacts.recipe import VerifiedModel
    from fltrust.errors import FltrustError

TRUST_VARIABLE = "FLTRUST_TRUST"

TrustOption = Annotated[
    Path | None,
    typer.Option(
        "--trust",
        envvar=TRUST_VARIABLE,
        help="The trust file of 'fltrust trust export', or a Sigstore trusted_root.json.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    app.command()(verify)


def verify(
    path: Annotated[Path, typer.Argument(help="The model: a file or a directory.", show_default=False)],
    trust: TrustOption = None,
    policy: Annotated[
        Path | None,
        typer.Option(envvar="FLTRUST_POLICY", help="What to demand, in TOML.", show_default=False),
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option(
            envvar="FLTRUST_IDENTITY",
            help="Who must have signed: a SPIFFE ID ('*' allowed in its path), or a name with --issuer.",
            show_default=False,
        ),
    ] = None,
    issuer: Annotated[
        str | None,
        typer.Option(envvar="FLTRUST_ISSUER", help="The OIDC issuer of the identity.", show_default=False),
    ] = None,
    signature: Annotated[
        Path | None, typer.Option(help="Default: beside the model.", show_default=False)
    ] = None,
    lineage: Annotated[
        Path | None, typer.Option(help="Default: beside the model.", show_default=False)
    ] = None,
    status: Annotated[
        Path | None,
        typer.Option(help="A newer status than the trust file's, or a newer trust file.", show_default=False),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            help="A file or directory of the model not to verify, such as .git.", show_default=False
        ),
    ] = None,
    second_root: Annotated[
        Path | None,
        typer.Option(
            help="Demand a second signature (ML-DSA-65) under this root, too. Experimental.",
            show_default=False,
        ),
    ] = None,
    second: Annotated[
        Path | None, typer.Option(help="Default: <model>.second.json.", show_default=False)
    ] = None,
    advisory: Annotated[
        bool, typer.Option("--advisory", help="Tell what would be refused, and exit with 0.")
    ] = False,
    vsa: Annotated[
        Path | None,
        typer.Option(help="Write the verdict here, as SLSA Verification Summary.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify a model offline: who signed it, when, that these are the bytes, and where it comes from.

    Exits with 0 if it is accepted; 11: signed by somebody else; 12: other bytes; 13: evidence is missing;
    4: the signer is revoked; 14: tainted; 15: another demand of the policy; 5 and 8: damaged or forged.
    """
    from fltrust.artifacts.policy import Mode, Policy
    from fltrust.artifacts.recipe import load_trust, signers_of
    from fltrust.clock import SystemClock
    from fltrust.errors import Malformed

    if trust is None:
        raise Malformed(
            "expected a trust file: --trust FILE, or FLTRUST_TRUST",
            reason="trust-required",
            hint="the federation's operator gives it out: fltrust trust export",
        )
    # What the caller says is settled before the model is looked at: it fails in advisory mode, too.
    rules = Policy() if policy is None else Policy.read(policy)
    if advisory:
        rules = replace(rules, mode=Mode.ADVISORY)
    signers = signers_of(rules, identity, issuer)
    trusted = load_trust(trust)
    job = _Job(path, trusted, rules, signers, SystemClock().now())
    if second_root is not None:
        job.second = (second_root, second)
    elif second is not None:
        raise Malformed("expected --second-root beside --second: under which root is it to verify?")
    outcome = job.run(signature=signature, lineage=lineage, status=status, ignore=ignore or ())
    if vsa is not None:
        outcome.write_summary(vsa, trust=trust, policy=policy)
    outcome.tell(as_json=as_json)


class _Job:
    """One verification, as the command line asks for it."""

    def __init__(
        self, path: Path, trust: Trust, policy: Policy, signers: tuple[IdentityRule, ...], at: datetime
    ) -> None:
        self.path, self.trust, self.policy, self.signers, self.at = path, trust, policy, signers, at
        self.second: tuple[Path, Path | None] | None = None

    def run(
        self, *, signature: Path | None, lineage: Path | None, status: Path | None, ignore: Collection[str]
    ) -> _Outcome:
        from fltrust.artifacts.recipe import verify as verify_model
        from fltrust.cli.progress import progress_on_stderr
        from fltrust.errors import InvalidInput, Refused

        try:
            with progress_on_stderr("verifying") as progress:
                verified = verify_model(
                    self.path,
                    trust=self.trust,
                    policy=replace(self.policy, signers=self.signers),
                    signature=signature,
                    lineage=lineage,
                    status=status,
                    at=self.at,
                    ignore=ignore,
                    progress=progress,
                )
            if self.second is not None:
                self._verify_second(verified, signature)
        except (Refused, InvalidInput) as error:  # no verdict: not found, or a disk that does not answer
            return _Outcome(self, None, (error,))
        return _Outcome(self, verified, verified.refusals)

    def _verify_second(self, verified: VerifiedModel, signature: Path | None) -> None:
        from fltrust.artifacts.second import verify_second
        from fltrust.pki.second import read_second_ca

        if self.second is not None:
            root, second = self.second
            verify_second(verified, root=read_second_ca(root), signature=signature, second=second)


class _Outcome:
    """The verdict, and how it is told."""

    def __init__(self, job: _Job, verified: VerifiedModel | None, refusals: tuple[FltrustError, ...]) -> None:
        self.job, self.verified, self.refusals = job, verified, refusals

    @property
    def is_advisory(self) -> bool:
        return self.job.policy.mode == "advisory"

    def tell(self, *, as_json: bool) -> None:
        """Print the verdict; leave with the code of the first refusal, or 0 in advisory mode."""
        from fltrust.cli.verdict import explain, fields_of, lines_of

        if as_json:
            print_json(
                fields_of(self.job.path, self.job.policy, self.verified, self.refusals, at=self.job.at)
            )
        elif self.verified is not None and (not self.refusals or self.is_advisory):
            for line in lines_of(self.verified):
                typer.echo(shown(line))
        for warning in self.verified.warnings if self.verified is not None else ():
            say(f"warning: {shown(warning)}")
        if not self.refusals:
            return
        if not self.is_advisory:
            raise self.refusals[0]
        say("ADVISORY: this model would be REFUSED in enforce mode:")
        for refusal in self.refusals:
            explain(refusal)

    def write_summary(self, out: Path, *, trust: Path, policy: Path | None) -> None:
        """Write the verdict as a Verification Summary. A refused model is named by what lies there."""
        from fltrust.artifacts.measuring import build_manifest
        from fltrust.artifacts.oms import ModelStatement
        from fltrust.artifacts.trustfile import MAX_TRUST
        from fltrust.artifacts.vsa import verification_summary
        from fltrust.files import read_bounded, write_durably
        from fltrust.identity import Digest

        path, found = self.job.path, self.verified
        name = path.resolve().name
        if found is not None:
            subject = found.subject
        else:
            subject = ModelStatement(name, build_manifest(path, with_tensors=False)).subject
        inputs = {f"file:{trust.name}": Digest.sha256_of(read_bounded(trust, limit=MAX_TRUST))}
        if found is not None:
            inputs[f"file:{name}.sig"] = found.bundle
            if found.statement.lineage is not None and found.lineage is not None:
                inputs["urn:fltrust:lineage"] = found.statement.lineage.bundle
        summary = verification_summary(
            name=name,
            subject=subject,
            is_passed=not self.refusals,
            at=self.job.at,
            policy=self.job.policy.digest,
            policy_uri=f"file:{policy.name}" if policy is not None else "urn:fltrust:policy:default",
            inputs=inputs,
            reasons=tuple(refusal.reason for refusal in self.refusals),
        )
        write_durably(out, summary, mode=0o644)

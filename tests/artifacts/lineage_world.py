"""A lineage without keys: statements in what stands for a bundle, and a verifier that believes it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

from fltrust.artifacts.lineage import SignedProvenance
from fltrust.artifacts.provenance import AppVersion, BuildType, Provenance, SealedIn, UpdateInput
from fltrust.identity import Digest, Epoch, Role, RunId, SpiffeId, TrustDomain
from fltrust.updates import Phase

DOMAIN = TrustDomain("hospitals.example")
MAIN = SpiffeId.of(DOMAIN, Role.AGGREGATOR, "main")
AT = datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)


def sha(text: str) -> Digest:
    return Digest.sha256_of(text.encode())


def initial(run: int = 1, **changes: object) -> Provenance:
    statement = Provenance(
        build_type=BuildType.INITIAL_MODEL,
        domain=DOMAIN,
        run_id=RunId(run),
        step=0,
        round=0,
        phase=Phase.TRAIN,
        tensors=sha(f"{run}/0"),
        model=Digest("fltrust-model-v1", sha(f"model {run}/0").value),
        app=AppVersion("fltrust/digits", "1.0.0", "ab" * 32),
        builder=MAIN,
        previous=None,
        updates=(),
        sealed=None,
        started_at=AT,
        finished_at=AT,
    )
    return replace(statement, **changes)  # type: ignore[arg-type]


def round_after(
    before: Provenance, *, log_index: int, sites: tuple[str, ...] = ("a", "b", "c"), **changes: object
) -> Provenance:
    """The next round; its receipt stands right before it in the log, and `before` two entries earlier."""
    step = before.step + 1
    where = f"{int(before.run_id)}/{step}"
    statement = replace(
        before,
        build_type=BuildType.FEDERATED_ROUND,
        step=step,
        round=step,
        tensors=sha(where),
        model=Digest("fltrust-model-v1", sha(f"model {where}").value),
        previous=before.as_input(log_index=log_index - 2),
        updates=tuple(
            UpdateInput(
                public_name=f"spiffe://{DOMAIN}/participant/site-{name}",
                update=sha(f"{where} {name}"),
                certificate=sha(name),
                examples="100",
            )
            for name in sites
        ),
        sealed=SealedIn(Epoch(10 + step), sha(f"receipt {where}"), log_index - 1),
    )
    return replace(statement, **changes)  # type: ignore[arg-type]


def wrap(statement: Provenance, *, log_index: int, signer: SpiffeId | None = None) -> bytes:
    """What stands for a bundle here."""
    value = {
        "payload": statement.to_payload().decode(),
        "signer": str(signer or statement.builder),
        "index": log_index,
    }
    return json.dumps(value).encode()


def believe(bundle: bytes) -> SignedProvenance:
    value = json.loads(bundle)
    return SignedProvenance(value["payload"].encode(), SpiffeId.parse(value["signer"]), AT, value["index"])


def chain(rounds: int = 3) -> list[tuple[Provenance, int]]:
    """A run of so many rounds with the places of its statements in the log, the newest first."""
    found = [(initial(), 10)]
    for _ in range(rounds):
        before, index = found[0]
        found.insert(0, (round_after(before, log_index=index + 2), index + 2))
    return found


def bundles(statements: list[tuple[Provenance, int]]) -> list[bytes]:
    return [wrap(statement, log_index=index) for statement, index in statements]

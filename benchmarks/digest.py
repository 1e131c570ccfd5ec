"""What trust costs an update of 100 MB, measured against one SHA-256 pass over the same bytes.

Sign side: digest and sign. Verify side: digest and verify (envelope, certificate path, signature,
statement, expectations). Repetitions are interleaved and the fastest of each kind is taken, so that
a busy machine disturbs all of them alike. Run it: ``python -m benchmarks.digest`` prints JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from cryptography.hazmat.primitives.serialization import Encoding

from fltrust.identity import Digest, KeyId, NodeId, Role, RunId, SpiffeId, TrustDomain
from fltrust.keys.file import FileSigner, generate
from fltrust.pki.authority import create_issuing, create_root
from fltrust.pki.bundle import make_bundle
from fltrust.pki.issuing import Draft, Issuer
from fltrust.pki.types import TrustBundle
from fltrust.updates import (
    Content,
    ExpectedUpdate,
    Phase,
    Record,
    RecordKind,
    SignedStatement,
    Tensor,
    UpdateStatement,
    Verifier,
    content_digest,
    sign_statement,
)

TOTAL_BYTES = 100_000_000
SHARES = {"embedding": 0.5, "encoder": 0.25, "decoder": 0.15, **{f"layer.{i}": 0.1 / 200 for i in range(200)}}
"""One tensor of half the bytes, two large ones, and two hundred of 50 kB."""


def make_update() -> Content:
    """About 100 MB of random bytes as tensors of very different sizes, with metrics."""
    tensors = []
    for name, share in SHARES.items():
        count = int(TOTAL_BYTES * share) // 4
        tensors.append((name, Tensor("float32", (count,), "numpy.ndarray", os.urandom(4 * count))))
    return Content(
        (
            Record("arrays", RecordKind.ARRAYS, tuple(tensors)),
            Record("metrics", RecordKind.METRICS, (("num-examples", 1000), ("loss", 0.5))),
        )
    )


class Exchange:
    """One participant with a certificate, and the update that it signs over and over."""

    def __init__(self, content: Content) -> None:
        self.now = datetime.now(UTC)
        domain = TrustDomain("bench.example")
        self.signer: FileSigner = generate()
        participant = SpiffeId.of(domain, Role.PARTICIPANT, "site-a")
        self.bundle, self.chain = _certified(domain, participant, self.signer, self.now)
        self.statement = UpdateStatement(
            domain=domain,
            run_id=RunId(1),
            round=1,
            phase=Phase.TRAIN,
            step=1,
            participant=participant,
            node_id=NodeId(1),
            node_key=KeyId("0" * 64),
            message_type="train",
            instruction_id="0" * 32,
            instruction=Digest.sha256_of(b""),
            model=Digest("fltrust-model-v1", bytes(32)),
            content=content_digest(content),
            signed_at=self.now,
            certificate=Digest.sha256_of(self.chain[0]),
        )
        self.content = content
        self.signed = self.sign(None)
        said = self.statement
        self.expected = ExpectedUpdate(
            domain=domain,
            run_id=said.run_id,
            round=1,
            phase=Phase.TRAIN,
            step=1,
            participant=participant,
            node_id=said.node_id,
            node_key=said.node_key,
            message_type="train",
            instruction_id=said.instruction_id,
            instruction=said.instruction,
            model=said.model,
        )

    def sign(self, workers: int | None) -> SignedStatement:
        statement = replace(self.statement, content=content_digest(self.content, workers=workers))
        return sign_statement(statement, signer=self.signer, chain=self.chain)

    def verify(self, workers: int | None) -> None:
        Verifier(self.bundle).verify_update(
            self.signed,
            at=self.now,
            judge=lambda _: None,
            expected=self.expected,
            content=self.content,
            workers=workers,
        )


def measure(repetitions: int = 15) -> dict[str, float | int]:
    """Seconds (fastest of `repetitions`) and the ratios made from them."""
    content = make_update()
    exchange = Exchange(content)
    whole = b"".join(t.view for r in content.arrays() for _, t in r.tensors())
    cases: dict[str, Callable[[], object]] = {
        "sha256_pass_s": lambda: sha256(whole).digest(),
        "sign_one_core_s": lambda: exchange.sign(1),
        "verify_one_core_s": lambda: exchange.verify(1),
        "sign_two_cores_s": lambda: exchange.sign(2),
        "verify_two_cores_s": lambda: exchange.verify(2),
    }
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(repetitions):
        for name, case in cases.items():
            began = time.perf_counter()
            case()
            best[name] = min(best[name], time.perf_counter() - began)
    return {
        "bytes": len(whole),
        "cores": os.cpu_count() or 1,
        **{name: round(seconds, 5) for name, seconds in best.items()},
        "sign_ratio_one_core": round(best["sign_one_core_s"] / best["sha256_pass_s"], 3),
        "verify_ratio_one_core": round(best["verify_one_core_s"] / best["sha256_pass_s"], 3),
        "sign_speedup_two_cores": round(best["sign_one_core_s"] / best["sign_two_cores_s"], 3),
        "verify_speedup_two_cores": round(best["verify_one_core_s"] / best["verify_two_cores_s"], 3),
    }


def _certified(
    domain: TrustDomain, who: SpiffeId, signer: FileSigner, now: datetime
) -> tuple[TrustBundle, tuple[bytes, ...]]:
    root_signer, issuing_signer = generate(), generate()
    began = now - timedelta(hours=1)
    root = create_root(domain, signer=root_signer, now=began)
    issuing = create_issuing(
        root=root, root_signer=root_signer, public_key=issuing_signer.public_key, now=began
    )
    issuer = Issuer(certificate=issuing, signer=issuing_signer)
    leaf = issuer.redeem(Draft.of(who, signer.public_key, now=now))
    chain = tuple(certificate.public_bytes(Encoding.DER) for certificate in (leaf, issuing))
    return make_bundle(domain, [root]), chain


if __name__ == "__main__":
    json.dump(measure(), sys.stdout, indent=2)
    sys.stdout.write("\n")

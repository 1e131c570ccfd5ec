"""A signed model with two rounds of lineage behind it: all real, but for the coordinator around the desk."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lineage_world import initial, round_after

from fltrust.artifacts.bundle import SigstoreBundle
from fltrust.artifacts.measuring import build_manifest
from fltrust.artifacts.ports import EntryKind
from fltrust.artifacts.provenance import Provenance
from fltrust.artifacts.recipe import VerifiedModel, verify
from fltrust.artifacts.signing import SignedModel, sign
from fltrust.clock import Clock
from fltrust.identity import Digest, Role, SpiffeId
from fltrust.testing.desk import DOMAIN, ScratchDesk

RELEASE = f"spiffe://{DOMAIN}/signer/release"
MAIN = SpiffeId.of(DOMAIN, Role.AGGREGATOR, "main")


def safetensors(values: bytes = b"\x00\x00\x80?" * 4) -> bytes:
    """A file of one tensor, made by hand: four float32."""
    header = {"weight": {"dtype": "F32", "shape": [len(values) // 4], "data_offsets": [0, len(values)]}}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + values


@dataclass
class SignedWorld:
    folder: Path
    desk: ScratchDesk
    model: Path

    @classmethod
    def make(
        cls,
        folder: Path,
        *,
        name: str = "m.safetensors",
        data: bytes | None = None,
        clock: Clock | None = None,
    ) -> SignedWorld:
        model = folder / name
        model.write_bytes(safetensors() if data is None else data)
        return cls(folder, ScratchDesk(clock=clock), model)

    @property
    def tensors(self) -> Digest:
        (found,) = build_manifest(self.model).tensors.values()
        return found.tensors.set

    def record_lineage(self, *, sites: tuple[str, ...] = ("a", "b", "c"), rounds: int = 2) -> None:
        """Let the model be the aggregate of the last of some rounds, each signed by the aggregator."""
        aggregator = self.desk.acting_as(MAIN)
        statement, lines = initial(), []
        for step in range(rounds + 1):
            if step:
                # The desk logs a certificate, then the statement: `round_after` wants the receipt before it.
                self.desk.tree.append(b"receipt %d" % step)
                index = len(self.desk.tree.leaves)
                before = lines[0]
                statement = self._after(statement, before, index=index, sites=sites)
            if step == rounds:
                statement = self._of(statement)
            lines.insert(0, aggregator.sign(statement.to_payload()))
        self.desk.lineages[self.tensors] = tuple(lines)

    def _of(self, statement: Provenance) -> Provenance:
        return replace(statement, tensors=self.tensors)

    def _after(
        self, statement: Provenance, before: bytes, *, index: int, sites: tuple[str, ...]
    ) -> Provenance:
        logged = SigstoreBundle.parse(before).entries[0].index
        made = round_after(statement, log_index=index, sites=sites)
        return replace(made, previous=statement.as_input(log_index=logged))

    def sign(self, **options: Any) -> SignedModel:
        return sign(self.model, desk=self.desk, lineage=self.desk, **options)

    def verify(self, **options: Any) -> VerifiedModel:
        options.setdefault("identity", RELEASE)
        options.setdefault("trust", self.desk.trust_file())
        options.setdefault("at", self.desk.clock.now())
        return verify(self.model, **options)

    @property
    def signature(self) -> Path:
        return Path(f"{self.model}.sig")

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the signature's JSON in place."""
        value = json.loads(self.signature.read_bytes())
        change(value)
        self.signature.write_text(json.dumps(value))


__all__ = ["MAIN", "RELEASE", "EntryKind", "SignedWorld", "safetensors"]

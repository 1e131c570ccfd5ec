"""What a trusted run demands, and how long it waits: frozen, stated once, logged with the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from math import ceil
from pathlib import Path
from typing import Any

from fltrust.errors import Malformed
from fltrust.revocation.view import ReachMode, ReachPolicy
from fltrust.updates import StructurePolicy


class OnFailure(StrEnum):
    """What follows when too few updates were admitted."""

    FAIL = "fail"
    """Seal the round for the record, then raise `QuorumNotMet`."""
    KEEP_MODEL = "keep-model"
    """Give the strategy no updates: Flower's strategies then keep the model of the round before."""


@dataclass(frozen=True, slots=True)
class QuorumPolicy:
    """How many admitted updates a train exchange needs. Both bounds count when both are set.

    `min_fraction` is of the participants that were sent an instruction (0…1, rounded up).
    Other phases (evaluate, query) have no quorum: Flower goes on without their answers.
    """

    min_updates: int | None = 1
    min_fraction: float | None = None
    on_failure: OnFailure = OnFailure.KEEP_MODEL

    def __post_init__(self) -> None:
        if self.min_updates is not None and self.min_updates < 0:
            raise Malformed(f"expected min_updates of 0 or more, got {self.min_updates}")
        if self.min_fraction is not None and not 0.0 <= self.min_fraction <= 1.0:
            raise Malformed(f"expected min_fraction between 0 and 1, got {self.min_fraction}")
        object.__setattr__(self, "on_failure", OnFailure(self.on_failure))

    def needed(self, asked: int) -> int:
        """The updates that must be admitted when `asked` participants were sent an instruction."""
        by_fraction = 0 if self.min_fraction is None else ceil(self.min_fraction * asked - 1e-9)
        return max(self.min_updates or 0, by_fraction)


@dataclass(frozen=True, slots=True)
class WaitPolicy:
    """How long the grid waits, and for what. Nothing in fltrust waits without a bound.

    `timeout`: for the replies of one exchange; the strategy's own timeout and the message's
    time to live bound it too, whichever is shortest. `stall`: for one pull that does not come
    back, which is how an announced reply that is never uploaded shows; a large model on a slow
    line needs more. `nodes`: for enough nodes in good standing once a run has begun;
    `startup`: the same before its first exchange. `patience`: for the coordinator, the agent or
    the relay to come back.
    """

    timeout: timedelta | None = None
    stall: timedelta = timedelta(seconds=60)
    nodes: timedelta = timedelta(seconds=60)
    startup: timedelta = timedelta(minutes=10)
    patience: timedelta = timedelta(seconds=30)
    poll: timedelta = timedelta(milliseconds=100)
    """The first pause between two pulls that came back empty; it grows to ten times that."""
    pullers: int = 64
    """Replies that are waited for at the same time, each on a thread and a connection of its own."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Keep every admitted training update, encrypted, so that rounds can be made again without somebody.

    `folder` is private to this user; `recipient` the public half of a recovery key
    (``fltrust rounds recovery-key``), whose private half is not here; `max_bytes` bounds what is kept of all
    runs together. Who holds that key can read every update of every site: that is a decision of the
    federation's, not a default.
    """

    folder: Path
    recipient: Path
    max_bytes: int = 10 * 2**30

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        object.__setattr__(self, "recipient", Path(self.recipient))
        if self.max_bytes <= 0:
            raise Malformed(f"expected max_bytes above 0, got {self.max_bytes}")


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """Everything that a trusted run demands.

    `structure` is how closely an update must resemble the model that was sent (train only; what
    carries no model is only read). None lets `TrustedStrategy` choose: TREES for Flower's
    XGBoost strategies, whose models grow, and TENSORS for all others.

    Flower's strategies stop the run when replies disagree in their metrics. `weight_key` names the
    metric that weighs a reply (``num-examples``); where it is set, replies that disagree with most
    others, or whose weight is negative, not finite or above `max_weight`, are refused instead. None
    lets `TrustedStrategy` take the strategy's own `weighted_by_key`; "" turns this off.

    `lineage`: record each aggregate with its provenance, so that a released model can be followed back
    to its rounds. What follows when the coordinator is out of reach is `reach`'s, as with the seal.
    `retention`, off by default, keeps the updates themselves.

    `second_roots`: PEM files, one of each trust domain. Where there are any, every answer must carry a second
    signature (ML-DSA-65) of its participant, which verifies under its domain's; see how-to/post-quantum.
    """

    quorum: QuorumPolicy = field(default_factory=QuorumPolicy)
    waits: WaitPolicy = field(default_factory=WaitPolicy)
    reach: ReachPolicy = field(default_factory=ReachPolicy)
    structure: StructurePolicy | None = None
    allow_non_finite: bool = False
    weight_key: str | None = None
    max_weight: float | None = None
    lineage: bool = True
    retention: Retention | None = None
    second_roots: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "second_roots", tuple(map(Path, self.second_roots)))
        if self.retention is not None and not self.lineage:
            raise Malformed("expected lineage where updates are retained: a replay is signed by it")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TrustPolicy:
        """Read the ``fltrust-…`` keys of a run config (``[tool.flwr.app.config]`` or ``--run-config``).

            fltrust-min-updates = 3             fltrust-reach = "soft-fail"
            fltrust-min-fraction = 0.5          fltrust-structure = "tensors"
            fltrust-on-quorum-failure = "fail"  fltrust-allow-non-finite = false
            fltrust-timeout = 600 (seconds)     fltrust-stall-timeout = 60
            fltrust-node-wait = 60              fltrust-max-weight = 100000
            fltrust-lineage = true              fltrust-second-root = "second-root.pem"

        Raises `Malformed` for an unknown ``fltrust-`` key or a value that does not fit.
        """
        policy = cls()
        for key, value in config.items():
            if not key.startswith("fltrust-"):
                continue
            if key not in _SETTERS:
                raise Malformed(
                    f"expected one of {', '.join(sorted(_SETTERS))} in the run config, got {key!r}"
                )
            try:
                policy = _SETTERS[key](policy, value)
            except (TypeError, ValueError) as error:
                raise Malformed(f"expected a value that fits for {key}, got {value!r}: {error}") from None
        return policy


def _quorum(name: str, cast: Any) -> Any:
    return lambda policy, value: replace(policy, quorum=replace(policy.quorum, **{name: cast(value)}))


def _wait(name: str) -> Any:
    return lambda policy, value: replace(
        policy, waits=replace(policy.waits, **{name: timedelta(seconds=float(value))})
    )


def _reach(policy: TrustPolicy, value: Any) -> TrustPolicy:
    return replace(policy, reach=replace(policy.reach, mode=ReachMode(value)))


def _plain(name: str, cast: Any) -> Any:
    return lambda policy, value: replace(policy, **{name: cast(value)})


def _one_path(value: Any) -> tuple[Path, ...]:
    """None for the empty text alone: what is no text must not turn a demand off."""
    if not isinstance(value, str):
        raise TypeError("expected a path")
    return (Path(value),) if value else ()


_SETTERS: dict[str, Any] = {
    "fltrust-min-updates": _quorum("min_updates", int),
    "fltrust-min-fraction": _quorum("min_fraction", float),
    "fltrust-on-quorum-failure": _quorum("on_failure", OnFailure),
    "fltrust-timeout": _wait("timeout"),
    "fltrust-stall-timeout": _wait("stall"),
    "fltrust-node-wait": _wait("nodes"),
    "fltrust-reach": _reach,
    "fltrust-structure": _plain("structure", StructurePolicy),
    "fltrust-allow-non-finite": _plain("allow_non_finite", bool),
    "fltrust-max-weight": _plain("max_weight", float),
    "fltrust-lineage": _plain("lineage", bool),
    "fltrust-second-root": _plain("second_roots", _one_path),
}

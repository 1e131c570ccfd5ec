"""One verdict on one model: the recipe of `fltrust.artifacts.verify`, as a gate records and enforces it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from fltrust.artifacts.policy import Mode, Policy
from fltrust.artifacts.recipe import VerifiedModel, verify
from fltrust.clock import Clock, SystemClock, to_rfc3339
from fltrust.errors import FltrustError
from fltrust.eventlog import EventLog
from fltrust.registry.settings import GateSettings

TAG_PREFIX = "fltrust."
_MAX_TAG = 500
_log = logging.getLogger("fltrust.registry")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found: a model, or the reason why not. Both, where the evidence is genuine but will not do."""

    at: datetime
    mode: Mode
    model: VerifiedModel | None = None
    refusal: FltrustError | None = None

    @property
    def is_let_in(self) -> bool:
        """Verified; or refused where the mode only advises."""
        return self.refusal is None or self.mode is Mode.ADVISORY

    def tags(self) -> Mapping[str, str]:
        """What a registry keeps beside the version: who signed, when, where it stands in the log.

        MLflow calls the input and output schema of a model its signature; ours is the attestation.
        """
        tags = {"fltrust.attestation": "verified", "fltrust.verified-at": to_rfc3339(self.at)}
        if self.refusal is not None:
            tags["fltrust.attestation"] = "refused"
            tags["fltrust.reason"] = self.refusal.reason
        if self.model is not None:
            tags["fltrust.signer"] = self.model.signer
            tags["fltrust.signed-at"] = to_rfc3339(self.model.signed_at)
            tags["fltrust.subject"] = str(self.model.subject)
            tags["fltrust.bundle"] = str(self.model.bundle)
            if self.model.evidence.log_index is not None:
                tags["fltrust.log-index"] = str(self.model.evidence.log_index)
            if self.model.warnings:
                tags["fltrust.warnings"] = "; ".join(self.model.warnings)
        return {key: value[:_MAX_TAG] for key, value in tags.items()}

    def message(self) -> str:
        """The refusal in one line, for a client that sees nothing else."""
        if self.refusal is None:
            return "verified"
        return f"fltrust refuses this model ({self.refusal.reason}): {self.refusal}"


class Judge:
    """Gives verdicts. Trust file and policy are read for each: a newer one counts from the next verdict."""

    def __init__(
        self, settings: GateSettings, *, clock: Clock | None = None, events: EventLog | None = None
    ) -> None:
        self.settings = settings
        self._clock = clock or SystemClock()
        self._events = events or EventLog.from_environment(process="registry")

    def judge(self, path: Path, *, of: str) -> Verdict:
        """Verify what lies at `path`; `of` names it in events. Anything unexpected is a refusal."""
        at, mode = self._clock.now(), self.settings.mode or Mode.ENFORCE
        try:
            policy = Policy.read(self.settings.policy) if self.settings.policy else Policy()
            mode = self.settings.mode or policy.mode
            model = verify(
                path,
                trust=self.settings.trust,
                policy=replace(policy, mode=Mode.ADVISORY),  # tells more; enforcing is done here
                identity=self.settings.identity,
                issuer=self.settings.issuer,
                at=at,
            )
        except FltrustError as error:
            return self.refuse(error, of=of, mode=mode)
        except Exception as error:
            _log.exception("a model could not be judged: %s", of)
            wrapped = FltrustError(f"the model could not be judged: {type(error).__name__}")
            return self.refuse(wrapped, of=of, mode=Mode.ENFORCE)
        if model.refusals:
            return self.refuse(model.refusals[0], of=of, mode=mode, model=model)
        self._events.emit("model-verified", model=of, signer=model.signer, log_index=model.evidence.log_index)
        return Verdict(at, mode, model=model)

    def refuse(
        self, error: FltrustError, *, of: str, mode: Mode | None = None, model: VerifiedModel | None = None
    ) -> Verdict:
        """A verdict of no; also where the model could not be reached. Recorded like any other."""
        mode = mode or self.settings.mode or Mode.ENFORCE
        verdict = Verdict(self._clock.now(), mode, model=model, refusal=error)
        self._events.emit(
            "model-refused", model=of, reason=error.reason, detail=error.message, mode=verdict.mode
        )
        _log.warning("%s: %s", of, verdict.message())
        return verdict

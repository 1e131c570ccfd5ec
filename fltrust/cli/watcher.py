"""What is between two looks of `fltrust log watch`: the state file, the hook, the metrics."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

from fltrust.cli.output import print_json, say, shown
from fltrust.clock import SystemClock
from fltrust.errors import FltrustError, Malformed, PolicyNotMet, Tampered, Unavailable
from fltrust.tlog.checkpoint import CheckpointPolicy
from fltrust.tlog.expectations import Expectations, load_expectations
from fltrust.tlog.fetching import open_source
from fltrust.tlog.monitor import Alert, MonitorState, Step, load_state, save_state
from fltrust.tlog.watching import look, write_metrics

_HOOK_SECONDS = 60.0


class Watcher:
    """Looks at one log again and again."""

    def __init__(
        self,
        place: str,
        policy: CheckpointPolicy,
        *,
        state: Path,
        expect: Path | None,
        hook: str | None,
        metrics: Path | None,
        ca: Path | None,
        as_json: bool,
    ) -> None:
        self._policy = policy
        self._source = open_source(place, ca_file=ca)
        self._state, self._expect, self._metrics = state, expect, metrics
        self._hook = _split(hook)
        self._as_json = as_json

    def look(self, *, is_patient: bool) -> None:
        """Look once; raise what the exit code is to say. A patient one only complains about an outage, and
        goes on after an unexpected certificate."""
        known = load_state(self._state, self._policy)
        expected = Expectations() if self._expect is None else load_expectations(self._expect)
        try:
            step = look(self._source, self._policy, known, expected, at=SystemClock().now())
        except FltrustError as error:
            self._write_metrics(known, is_up=False)
            if not is_patient or not isinstance(error, Unavailable):
                raise
            say(f"warning [{error.reason}]: {error.message}")
            return
        self._hand_on(step)
        if step.alerts:
            self._end(step.alerts, is_patient=is_patient)
        elif not is_patient:
            say(f"The log {known.origin} is consistent up to {step.state.size} entries; nothing unexpected.")

    def _hand_on(self, step: Step) -> None:
        """Alerts first, then the state: what dies in between gives an alert twice, not never."""
        delivered = [self._give(alert) for alert in step.alerts]
        if all(delivered):
            save_state(self._state, step.state)
        self._write_metrics(step.state, is_up=True)

    def _give(self, alert: Alert) -> bool:
        if self._as_json:
            print_json(alert.to_json(), lines=True)
        else:
            where = "" if alert.index is None else f" at entry {alert.index}"
            say(f"ALERT [{alert.kind}]{where}: {shown(alert.message)}")
        if not self._hook:
            return True
        try:
            subprocess.run(  # noqa: S603 - the operator's own command, and no shell
                self._hook, input=json.dumps(alert.to_json()).encode(), timeout=_HOOK_SECONDS, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            say(f"warning: the hook failed, the alert will be given again: {error}")
            return False
        return True

    def _end(self, alerts: tuple[Alert, ...], *, is_patient: bool) -> None:
        worst = next((alert for alert in alerts if alert.kind.is_misbehaviour), None)
        if worst is not None:
            raise Tampered(worst.message, reason=str(worst.kind), hint="keep the alert: it holds the proof")
        if not is_patient:
            raise PolicyNotMet(f"{len(alerts)} alert(s): {alerts[0].message}", reason=str(alerts[0].kind))

    def _write_metrics(self, state: MonitorState, *, is_up: bool) -> None:
        if self._metrics is not None:
            write_metrics(self._metrics, state, is_up=is_up)


def _split(command: str | None) -> list[str]:
    try:
        return shlex.split(command or "")
    except ValueError as error:
        raise Malformed(f"expected a command as --hook: {error}") from None

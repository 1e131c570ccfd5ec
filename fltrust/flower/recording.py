"""Lineage of a run as it goes: each aggregate recorded as soon as the strategy has made it.

An aggregate is recorded by its digests; the arrays stay here. What an aggregate was made of is not taken from
the strategy: the agent states what the coordinator sealed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fltrust.agent.ports import AggregateDraft
from fltrust.artifacts.inputs import AppVersion
from fltrust.errors import InvalidInput, NotFound, Unavailable
from fltrust.flower import _private
from fltrust.flower.records import tensor_set_of_record, to_content
from fltrust.flower.retention import INITIAL, Kept
from fltrust.flower.services import Services, Trained
from fltrust.identity import RunId
from fltrust.rounds.types import RoundKey
from fltrust.updates import Phase, digest_content

_log = logging.getLogger("fltrust.flower")

ARRAYS = "arrays"
"""The record's name under which Flower's strategies send out their model."""


class LineageRecorder:
    """Records what strategies make of the rounds of one grid, in order; for one thread at a time.

    While the coordinator is out of reach the run fails or goes on as the reach policy says; what waits is
    recorded first as soon as it answers. A step that cannot be recorded at all (its round was not sealed, or
    several exchanges went into it) ends the lineage until the next `begin`: that is said loudly, and what is
    released without a whole lineage is refused by those who demand one.
    """

    def __init__(self, services: Services, *, run: _private.Run, is_on: bool) -> None:
        self._services = services
        self._run_id = RunId(run.run_id)
        self._app = _app_of(run)
        self._is_on = is_on
        self._record = ARRAYS
        self._waiting: deque[AggregateDraft] = deque()
        self._previous: int | None = None
        self._bundles: list[bytes] = []

    @property
    def bundles(self) -> tuple[bytes, ...]:
        """Provenance since the last `begin`, the newest first."""
        return tuple(self._bundles)

    def begin(self, arrays: ArrayRecord, *, record: str = ARRAYS) -> None:
        """Record the arrays that a strategy begins with. `record` is the name that it sends them under."""
        if not self._is_on:
            return
        self._record, self._bundles = record, []
        self._waiting.clear()
        self._services.trained.clear()
        step = self._services.numbers.initial_step()
        self._add(arrays, step=step, round_=0, trained=None)

    def record(self, arrays: ArrayRecord | None) -> None:
        """Record what a strategy made of the exchange that was sealed since the last call. None: nothing."""
        trained = [found for found in self._services.trained if found.count]
        self._services.trained.clear()
        if not self._is_on or arrays is None or self._previous is None:
            return
        if len(trained) != 1:
            self._end(f"made of {len(trained)} exchanges, and provenance speaks of one sealed round")
        elif not trained[0].is_sealed:
            self._end("made of a round that was not sealed")
        else:
            self._add(arrays, step=trained[0].key.step, round_=trained[0].key.round, trained=trained[0])

    def finish(self) -> None:
        """Record what still waits, once more, or say that it is not recorded."""
        if self._waiting:
            self._flush()
        if self._waiting:
            self._end("not recorded: the coordinator was out of reach to the end")

    def _add(self, arrays: ArrayRecord, *, step: int, round_: int, trained: Trained | None) -> None:
        try:
            tensors = tensor_set_of_record(arrays)
            content = to_content(RecordDict({self._record: arrays}))
            digests = digest_content(content)
        except InvalidInput as error:
            self._end(f"not of tensors that can be named: {error}")
            return
        self._waiting.append(
            AggregateDraft(
                run_id=self._run_id,
                step=step,
                round=round_,
                is_initial=trained is None,
                tensors=tensors,
                model=digests.model,
                previous_step=None if trained is None else self._previous,
                app=self._app,
                weights=() if trained is None else trained.weights,
            )
        )
        self._previous = step
        if trained is None:
            key = RoundKey(self._run_id, step, round_, Phase.TRAIN)
            self._services.retain(key, [Kept(INITIAL, tensors, digests.content, content)])
        self._flush()

    def _flush(self) -> None:
        agent = self._services.agent
        while self._waiting:
            draft = self._waiting[0]
            key = RoundKey(draft.run_id, draft.step, draft.round, Phase.TRAIN)
            try:
                bundle = self._services.patiently(lambda: agent.record_aggregate(draft), "record")  # noqa: B023 - called at once
            except Unavailable as error:
                self._services.go_on_without(error, what="recorded", key=key)
                return
            except NotFound as error:
                if error.reason != "no-notary":
                    raise
                self._end(f"not recorded: {error.message}")
                return
            self._waiting.popleft()
            self._bundles.insert(0, bundle)
            self._services.emit(key, "aggregate-recorded", tensors=str(draft.tensors))

    def _end(self, why: str) -> None:
        """The lineage ends here: what comes after could not name what it was made from."""
        self._previous = None
        self._waiting.clear()
        _log.error("the lineage of run %d ends: the aggregate is %s", self._run_id, why)
        self._services.events.emit("lineage-ended", run_id=str(int(self._run_id)), detail=why)


@contextmanager
def recorded(
    strategy: Strategy, recorder: LineageRecorder, initial: ArrayRecord, *, record: str
) -> Iterator[None]:
    """Record the initial arrays, and every aggregate that `strategy` makes until the block ends.

    Its `aggregate_train` is shadowed on the instance, so whatever class it is of, and whatever wraps whatever
    inside it, what it returns is what is recorded.
    """
    recorder.begin(initial, record=record)
    made = strategy.aggregate_train

    def aggregate_train(*args: Any, **kwargs: Any) -> Any:
        result = made(*args, **kwargs)
        recorder.record(result[0])
        return result

    had_own = "aggregate_train" in vars(strategy)
    strategy.aggregate_train = aggregate_train  # type: ignore[method-assign]  # shadowed, as said above
    try:
        yield
        recorder.finish()
    finally:
        if had_own:
            strategy.aggregate_train = made  # type: ignore[method-assign]  # as it was
        else:
            del strategy.aggregate_train


def _app_of(run: _private.Run) -> AppVersion | None:
    """What Flower says of the app; None where it runs none of its own (notebooks, simulation)."""
    if not any((run.fab_id, run.fab_version, run.fab_hash)):
        return None
    try:
        return AppVersion(run.fab_id, run.fab_version, run.fab_hash)
    except InvalidInput as error:
        _log.warning("the app is left out of the lineage: %s", error)
        return None

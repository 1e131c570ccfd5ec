"""Replies that agree with each other: what Flower's strategies demand before they average.

They stop the whole run when one reply's metrics are named otherwise, or average with any weight that
is claimed. So the odd ones are refused here, and the run goes on with those who agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isfinite

from fltrust.artifacts.inputs import examples_text
from fltrust.errors import Refusal
from fltrust.flower.verdicts import Answer, Refused, Verdict
from fltrust.updates import Content, Phase, RecordKind

_Form = tuple[tuple[str, str, frozenset[tuple[str, int | None]]], ...]

_MOST = 2.0**53
"""Above this a float does not count exactly, and two such weights can sum to infinity: whatever is divided by
that is 0, and so is the model."""


def agree(
    answers: Sequence[Answer], *, phase: Phase, weight_key: str, max_weight: float | None
) -> list[Verdict]:
    """Each answer, or its refusal (``structure``), in the order given.

    1. A weight that is not one number, is negative, is more than any count of examples can be, or is above
       `max_weight`, is refused.
    2. Those whose metrics (and in training, tensors) are not named like most others' are refused; of
       two forms that are equally frequent, one that has the weight, then the one that came first.
    3. If all that are left weigh nothing together, they are refused: there is no average.
    """
    refused: dict[int, Refused] = {}
    weights = {id(answer): _weights(answer.content, weight_key) for answer in answers}
    for answer in answers:  # 1
        error = _weight_error(answer, weights[id(answer)], max_weight)
        if error is not None:
            refused[id(answer)] = error
    sane = [answer for answer in answers if id(answer) not in refused]
    usual = _usual_form(sane, phase, {key for key, found in weights.items() if found})
    for answer in sane:  # 2
        if _form(answer.content, phase) != usual:
            refused[id(answer)] = _refusal(
                answer, "expected the same records and keys as in most other replies, got others"
            )
    left = [answer for answer in sane if id(answer) not in refused]
    if left and all(weights[id(a)] for a in left) and not any(any(weights[id(a)]) for a in left):  # 3
        for answer in left:
            refused[id(answer)] = _refusal(answer, f"expected a positive {weight_key!r} of somebody, got 0")
    return [refused.get(id(answer), answer) for answer in answers]


def weight_text(content: Content, weight_key: str) -> str | None:
    """The weight of a reply as provenance states it; None where it has none, or not one."""
    found = _weights(content, weight_key)
    return examples_text(found[0]) if len(found) == 1 else None


def _weights(content: Content, weight_key: str) -> list[float | None]:
    """Every value under the weight's name; None stands for one that is not a single finite number."""
    found: list[float | None] = []
    for record in content.records:
        if record.kind is RecordKind.METRICS:
            for key, value in record.items:
                if key == weight_key:
                    number = value if isinstance(value, int | float) else None
                    found.append(number if number is not None and isfinite(number) else None)
    return found


def _weight_error(answer: Answer, weights: list[float | None], max_weight: float | None) -> Refused | None:
    for weight in weights:
        if weight is None:
            return _refusal(answer, "expected one finite number as its weight, got something else")
        if weight < 0:
            return _refusal(answer, f"expected a weight of 0 or more, got {weight}")
        if weight > _MOST:
            return _refusal(answer, f"expected a count of examples as its weight, got {weight:g}")
        if max_weight is not None and weight > max_weight:
            return _refusal(answer, f"expected a weight of at most {max_weight}, got {weight}")
    return None


def _usual_form(answers: Sequence[Answer], phase: Phase, weighed: set[int]) -> _Form | None:
    if not answers:
        return None
    forms = [_form(answer.content, phase) for answer in answers]
    frequency = Counter(forms)
    has_weight = {form for form, answer in zip(forms, answers, strict=True) if id(answer) in weighed}
    return max(forms, key=lambda form: (frequency[form], form in has_weight, -forms.index(form)))


def _form(content: Content, phase: Phase) -> _Form:
    """What Flower compares: records, keys, and the length of lists. The order does not count."""
    return tuple(
        sorted(
            (record.kind.value, record.name, frozenset((key, _length(value)) for key, value in record.items))
            for record in content.records
            if record.kind is RecordKind.METRICS
            or (record.kind is RecordKind.ARRAYS and phase is Phase.TRAIN)
        )
    )


def _length(value: object) -> int | None:
    return len(value) if isinstance(value, tuple) else None


def _refusal(answer: Answer, text: str) -> Refused:
    return Refused(answer.asked, Refusal.STRUCTURE, text)

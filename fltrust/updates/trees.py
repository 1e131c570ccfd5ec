"""Is this tensor a model of boosted trees, as XGBoost writes it in JSON?

Flower's XGBoost strategies read every update's JSON while they aggregate, and one that is not theirs
would stop the run. What passes here has every field that they touch.
"""

from __future__ import annotations

import json
from typing import Any

from fltrust.errors import Refusal, UpdateRefused
from fltrust.updates.npy import NpyHeader

_MAX_TREES = 10_000_000


def check_trees(data: memoryview, header: NpyHeader, *, where: str) -> None:
    """Raise `UpdateRefused` (``structure``) unless the array is bytes of XGBoost's JSON, with its trees.

    1. It is a ``uint8`` array of one dimension.
    2. It is JSON with ``learner.gradient_booster.model`` and, in it, the counts, trees and indexes.
    3. There are at least as many trees as it says to hold in parallel.
    """
    if header.dtype != "uint8" or len(header.shape) != 1:  # 1
        raise _refused(where, f"bytes in one dimension, got {header.dtype}{list(header.shape)}")
    try:  # 2
        document = json.loads(bytes(data[header.offset :]))
        model = document["learner"]["gradient_booster"]["model"]
        counts = model["gbtree_model_param"]
        total, parallel = _count(counts["num_trees"]), _count(counts["num_parallel_tree"])
        trees, groups, starts = (model[key] for key in ("trees", "tree_info", "iteration_indptr"))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _refused(where, "a model of trees in JSON, got something else") from None
    lists = all(isinstance(found, list) for found in (trees, groups, starts))
    if not lists or not starts or not isinstance(starts[-1], int):
        raise _refused(where, "lists of trees, groups and starts, got something else")
    if not (len(trees) >= max(parallel, total) and all(isinstance(tree, dict) for tree in trees)):  # 3
        raise _refused(where, f"{max(parallel, total)} trees, got {len(trees)}")


def _count(value: Any) -> int:
    """XGBoost writes its counts as text."""
    number = int(value)
    if not 0 <= number <= _MAX_TREES:
        raise ValueError(number)
    return number


def _refused(where: str, text: str) -> UpdateRefused:
    return UpdateRefused(f"{where}: expected {text}", reason=Refusal.STRUCTURE)

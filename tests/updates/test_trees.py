"""What XGBoost's strategies would stumble over is refused before they see it."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest

from fltrust.errors import UpdateRefused
from fltrust.updates import Content, Record, RecordKind, StructurePolicy, Tensor, check_structure


def model(**change: Any) -> dict[str, Any]:
    inner = {
        "gbtree_model_param": {"num_trees": "1", "num_parallel_tree": "1"},
        "iteration_indptr": [0, 1],
        "tree_info": [0],
        "trees": [{"id": 0}],
    }
    return {"learner": {"gradient_booster": {"model": {**inner, **change}}}}


def content(data: bytes, *, dtype: str = "uint8") -> Content:
    array = np.frombuffer(data, dtype=np.uint8).astype(dtype)
    buffer = io.BytesIO()
    np.save(buffer, array)
    tensor = Tensor(dtype, array.shape, "numpy.ndarray", buffer.getvalue())
    return Content((Record("arrays", RecordKind.ARRAYS, (("0", tensor),)),))


def check(update: Content) -> None:
    check_structure(update, like=None, policy=StructurePolicy.TREES)


def test_a_model_of_trees_passes() -> None:
    check(content(json.dumps(model()).encode()))


@pytest.mark.parametrize(
    "data",
    [
        b"not json",
        b"{}",
        b"[]",
        b"[" * 100_000,
        json.dumps(model(trees=[])).encode(),
        json.dumps(model(trees=[1])).encode(),
        json.dumps(model(trees={})).encode(),
        json.dumps(model(iteration_indptr=[])).encode(),
        json.dumps(model(tree_info=None)).encode(),
        json.dumps(model(gbtree_model_param={"num_trees": "-1", "num_parallel_tree": "1"})).encode(),
        json.dumps(model(gbtree_model_param={"num_trees": "x", "num_parallel_tree": "1"})).encode(),
        json.dumps(model(gbtree_model_param={"num_trees": "9", "num_parallel_tree": "1"})).encode(),
        json.dumps(model(gbtree_model_param={"num_trees": "1"})).encode(),
    ],
)
def test_what_is_no_model_of_trees_is_refused(data: bytes) -> None:
    with pytest.raises(UpdateRefused) as refused:
        check(content(data))
    assert refused.value.reason == "structure"


def test_numbers_instead_of_bytes_are_refused() -> None:
    with pytest.raises(UpdateRefused, match="bytes in one dimension"):
        check(content(json.dumps(model()).encode(), dtype="float32"))

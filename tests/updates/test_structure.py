"""The structure check, against arrays that numpy itself wrote and against what a hostile node writes."""

from __future__ import annotations

import io
import math
import struct
from typing import Any

import numpy as np
import pytest
from update_world import arrays, npy, tensor

from fltrust.errors import InvalidInput, UpdateRefused
from fltrust.updates import (
    Content,
    Record,
    RecordKind,
    StructurePolicy,
    StructureSpec,
    Tensor,
    TensorSpec,
    check_structure,
)
from fltrust.updates import finite as finite_module
from fltrust.updates.npy import MAX_HEADER_BYTES, read_header


def saved(array: Any, **changes: Any) -> Tensor:
    """What Flower's ``Array(ndarray)`` holds."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    claims = {"dtype": str(array.dtype), "shape": tuple(array.shape), "stype": "numpy.ndarray"}
    return Tensor(**(claims | {"data": buffer.getvalue()} | changes))


def held(**tensors: Tensor) -> Content:
    return Content((arrays(**tensors),))


def refusal(update: Content, **arguments: Any) -> UpdateRefused:
    with pytest.raises(UpdateRefused) as caught:
        check_structure(update, **arguments)
    return caught.value


DTYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128"
SHAPES = [(), (0,), (1,), (7,), (3, 4), (2, 0, 5), (1,) * 20]


@pytest.mark.parametrize("dtype", [*DTYPES.split(), ">f4", ">i8"])
def test_every_array_of_numbers_that_numpy_saves_is_read(dtype: str) -> None:
    for shape in SHAPES:
        for order in "CF":
            array = np.ones(shape, dtype=dtype, order=order)  # type: ignore[call-overload]
            model = held(w=saved(array))
            assert StructureSpec.of(model).tensors == (TensorSpec("arrays", "w", str(array.dtype), shape),)
            check_structure(model, like=model)


def test_format_2_is_read_as_well() -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ones((2, 3), "float32"), version=(2, 0))
    check_structure(
        held(w=Tensor("float32", (2, 3), "numpy.ndarray", buffer.getvalue())),
        like=None,
        policy=StructurePolicy.READABLE,
    )


@pytest.mark.parametrize(
    "shape", ["(03, 4)", "(01,)", "(0, 9223372036854775808)", "(0, 4611686018427387904)"]
)
def test_a_shape_that_numpy_itself_would_not_read_is_refused(shape: str) -> None:
    """What passes here goes to `np.load` in the middle of an aggregation, which must not stop the run."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    body = b"" if shape.startswith("(0,") else bytes(48)
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body
    with pytest.raises(ValueError, match=r"header|dimension|big|shape"):
        np.load(io.BytesIO(data), allow_pickle=False)
    for dtype, declared in (("", ()), ("float32", (3, 4))):
        update = held(w=Tensor(dtype, declared, "numpy.ndarray", data))
        assert refusal(update, like=None, policy=StructurePolicy.READABLE).reason == "structure"


def test_legacy_flower_declares_nothing_and_the_header_speaks() -> None:
    array = np.zeros((2, 3), "float32")
    legacy = held(w=saved(array, dtype="", shape=()))
    check_structure(legacy, like=held(w=saved(array)))
    other = refusal(legacy, like=held(w=saved(array.T)))
    assert other.reason == "structure"


def test_legacy_flowers_empty_stand_in_counts_as_a_tensor_of_its_own() -> None:
    empty = held(_empty=Tensor("", (), "numpy.ndarray", b""))
    check_structure(empty, like=empty)
    filled = held(_empty=tensor([1.0], (1,)))
    assert "empty[]" in refusal(empty, like=filled).message
    assert "empty[]" in refusal(filled, like=empty).message


A, B = tensor([1.0, 2.0], (2,)), tensor([1.0], (1,))
MODEL = held(a=A, b=B)


@pytest.mark.parametrize(
    ("update", "says"),
    [
        (held(a=A), "arrays/b float32[1], got no such tensor"),
        (held(a=A, b=B, c=A), "arrays/c float32[2]: it is extra"),
        (held(b=B, a=A), "expected arrays/a float32[2]"),
        (held(a=B, b=B), "got arrays/a float32[1]"),
        (held(a=A, bb=B), "got arrays/bb float32[1]"),
        (held(a=A, b=saved(np.ones(1, "float64"))), "got arrays/b float64[1]"),
        (held(a=A, b=saved(np.ones(1, ">f4"))), "got arrays/b >f4[1]"),
        (held(a=A, b=saved(np.ones((1, 1), "float32"))), "got arrays/b float32[1, 1]"),
        (Content((Record("other", RecordKind.ARRAYS, arrays(a=A, b=B).items),)), "array records ['arrays']"),
        (Content((arrays(a=A, b=B), Record("more", RecordKind.ARRAYS, ()))), "array records ['arrays']"),
        (Content(()), "array records ['arrays']"),
    ],
)
def test_whatever_differs_from_the_model_is_refused_by_name(update: Content, says: str) -> None:
    for like in (MODEL, StructureSpec.of(MODEL)):
        error = refusal(update, like=like)
        assert error.reason == "structure"
        assert says in error.message


def test_other_records_do_not_matter() -> None:
    check_structure(Content((Record("m", RecordKind.METRICS, (("n", 1),)), *MODEL.records)), like=MODEL)


def test_each_policy_frees_what_it_says_and_nothing_more() -> None:
    renamed_record = Content((Record("other", RecordKind.ARRAYS, arrays(a=A, b=B).items),))
    renamed_keys, resized = held(x=A, y=B), held(a=A, b=A)
    unreadable = held(a=A, b=Tensor("float32", (1,), "numpy.ndarray", b"x"))
    custom = held(a=Tensor("float32", (1,), "mine", b"x"))
    strict_first = [renamed_record, renamed_keys, resized, unreadable]
    policies = [
        StructurePolicy.EXACT,
        StructurePolicy.TENSORS,
        StructurePolicy.SHAPES,
        StructurePolicy.READABLE,
    ]
    for looseness, policy in enumerate([*policies, StructurePolicy.OPAQUE]):
        for place, update in enumerate(strict_first):
            if place < looseness:
                check_structure(update, like=MODEL, policy=policy)
            else:
                assert refusal(update, like=MODEL, policy=policy).reason == "structure"
    assert "mine" in refusal(custom, like=None, policy=StructurePolicy.READABLE).message
    check_structure(custom, like=None, policy=StructurePolicy.OPAQUE)


def test_a_policy_that_compares_needs_a_model() -> None:
    with pytest.raises(ValueError, match="model"):
        check_structure(MODEL, like=None)


def test_a_tensor_that_claims_another_form_than_its_data_is_refused() -> None:
    array = np.ones((2, 3), "float32")
    for lie in ({"dtype": "float64"}, {"shape": (3, 2)}, {"shape": ()}, {"dtype": ""}):
        error = refusal(held(w=saved(array, **lie)), like=held(w=saved(array)))
        assert "tensor arrays/w" in error.message


def test_arrays_of_anything_but_numbers_are_refused() -> None:
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    odd = [
        np.array(["text"]),
        np.array([b"bytes"]),
        np.zeros(1, "V2"),
        np.zeros(1, "datetime64[s]"),
        np.zeros(1, "f4,i4"),
    ]
    data = [
        pickled.getvalue(),
        *(bytes(saved(array).data) for array in odd),
        bytes(saved(np.ones(1, "longdouble")).data),
    ]
    for each in data:
        with pytest.raises(InvalidInput):
            read_header(memoryview(each))
        bad = held(w=Tensor("", (), "numpy.ndarray", each))
        assert refusal(bad, like=None, policy=StructurePolicy.READABLE).reason == "structure"


GOOD = npy([1.0, 2.0], (2,))


def with_header(text: bytes, body: bytes = GOOD[-8:], version: bytes = b"\x01\x00") -> bytes:
    width = 2 if version[0] == 1 else 4
    return b"\x93NUMPY" + version + len(text).to_bytes(width, "little") + text + body


PLAIN = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n"


def test_the_plain_header_is_read() -> None:
    assert read_header(memoryview(with_header(PLAIN))).shape == (2,)
    assert read_header(memoryview(with_header(PLAIN, version=b"\x02\x00"))).dtype == "float32"


@pytest.mark.parametrize("data", [
    b"",
    b"\x93NUMPY",
    b"\x93NUMPY\x01\x00\x05",
    GOOD[:40],
    GOOD[:-1],
    GOOD + b"\x00",
    b"\x93NUMPX" + GOOD[6:],
    with_header(PLAIN, version=b"\x03\x00"),
    with_header(PLAIN, version=b"\x01\x01"),
    with_header(PLAIN[:-1]),
    with_header(PLAIN + b" "),
    with_header(PLAIN + b"\n"),
    with_header(b" " + PLAIN),
    with_header(PLAIN.replace(b"(2,)", b"(2)")),
    with_header(PLAIN.replace(b"(2,)", b"(-2,)")),
    with_header(PLAIN.replace(b"(2,)", b"(2.0,)")),
    with_header(PLAIN.replace(b"(2,)", b"(1+1,)")),
    with_header(PLAIN.replace(b"(2,)", b"(2,)*1")),
    with_header(PLAIN.replace(b"(2,)", b"[2]")),
    with_header(PLAIN.replace(b"(2,)", b"(True, 2)")),
    with_header(PLAIN.replace(b"False", b"0")),
    with_header(PLAIN.replace(b"False", b"exit()")),
    with_header(PLAIN.replace(b"<f4", b"=f4")),
    with_header(PLAIN.replace(b"<f4", b"|f4")),
    with_header(PLAIN.replace(b"<f4", b"f4")),
    with_header(PLAIN.replace(b"<f4", b"<f3")),
    with_header(PLAIN.replace(b"<f4", b"|O")),
    with_header(PLAIN.replace(b"'<f4'", b"[('a', '<f4')]")),
    with_header(PLAIN.replace(b"'shape'", b"'extra': 1, 'shape'")),
    with_header(PLAIN.replace(b"'shape': (2,), ", b"'shape': (2,), 'shape': (1,), ")),
    with_header(PLAIN.replace(b"(2,)", b"(9999999999999999999,)")),
    with_header(PLAIN.replace(b"(2,)", b"(" + b"1, " * 64 + b"2)")),
    with_header(b" " * (MAX_HEADER_BYTES + 1)),
    b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100),
])  # fmt: skip
def test_a_header_that_numpy_would_not_write_or_data_of_another_length_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_header(memoryview(data))
    bad = held(w=Tensor("float32", (2,), "numpy.ndarray", data))
    assert refusal(bad, like=bad).reason == "structure"


@pytest.fixture(params=["with numpy", "without numpy"])
def numpy_or_not(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "without numpy":
        monkeypatch.setattr(finite_module, "_numpy", lambda: None)


@pytest.mark.usefixtures("numpy_or_not")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", ">f8", "complex64", "complex128"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_single_number_that_is_not_finite_is_found_wherever_it_stands(dtype: str, bad: float) -> None:
    array = np.ones(150_001, dtype=dtype)  # more than one block
    model = held(w=saved(array))
    check_structure(model, like=model)
    for place in (0, 131_072, 150_000):
        spoiled = array.copy()
        spoiled[place] = bad * 1j if dtype.startswith("complex") and place else bad
        update = held(w=saved(spoiled))
        error = refusal(update, like=model)
        assert error.reason == "not-finite"
        assert "arrays/w" in error.message
        check_structure(update, like=model, allow_non_finite=True)


@pytest.mark.usefixtures("numpy_or_not")
def test_the_largest_finite_numbers_are_finite() -> None:
    for dtype in ("float16", "float32", "float64"):
        model = held(w=saved(np.full(1000, np.finfo(dtype).max, dtype)))
        check_structure(model, like=model)


def test_integers_are_not_scanned() -> None:
    looks_like_nan = np.frombuffer(struct.pack("<f", math.nan) * 4, dtype="int32")
    model = held(w=saved(looks_like_nan))
    check_structure(model, like=model)


@pytest.mark.parametrize("value", [math.nan, math.inf, [1.0, -math.inf]])
def test_a_metric_that_is_not_finite_is_refused_unless_allowed(value: Any) -> None:
    update = Content((*MODEL.records, Record("metrics", RecordKind.METRICS, (("num-examples", value),))))
    for policy in StructurePolicy:
        error = refusal(update, like=MODEL, policy=policy)
        assert error.reason == "not-finite"
        assert "metrics/num-examples" in error.message
    check_structure(update, like=MODEL, allow_non_finite=True)

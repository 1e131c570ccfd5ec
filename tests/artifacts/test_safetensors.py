"""The safetensors format has one reading; whatever has another is refused."""

from __future__ import annotations

import json

import numpy
import pytest
import torch
from safetensors.numpy import save
from safetensors.torch import save as save_torch

from fltrust.artifacts.safetensors import MAX_HEADER_BYTES, header_bytes, parse_header, raw_tensors
from fltrust.errors import Malformed, Oversized

W = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
TEXT = json.dumps(W).encode()


def _file(header: object, data: bytes = bytes(8), *, pad: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return len(text + pad).to_bytes(8, "little") + text + pad + data


def test_a_file_of_the_format_s_own_writer_is_read() -> None:
    data = save({"w": numpy.ones((2, 3), "f4"), "n": numpy.array(3, "i8")}, metadata={"format": "pt"})

    header = parse_header(data, file_size=len(data))

    assert {t.name: (t.dtype, t.shape, t.size) for t in header.tensors} == {
        "w": ("F32", (2, 3), 24),
        "n": ("I64", (), 8),
    }
    assert header.metadata == {"format": "pt"}
    assert header.size == 8 + int.from_bytes(data[:8], "little")


@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.complex64, torch.bool],
)
def test_dtypes_that_only_torch_has_are_read(dtype: torch.dtype) -> None:
    tensor = torch.ones(4).to(dtype)
    (raw,) = raw_tensors(save_torch({"w": tensor}))

    assert bytes(raw.data) == tensor.view(torch.uint8).numpy().tobytes()


def test_tensors_come_in_the_order_of_their_data_whatever_the_header_s() -> None:
    u8 = {"dtype": "U8", "shape": [1]}
    header = {
        "second": {**u8, "data_offsets": [1, 2]},
        "none": {**u8, "shape": [0], "data_offsets": [1, 1]},
        "first": {**u8, "data_offsets": [0, 1]},
    }
    data = _file(header, b"ab")

    assert [(raw.name, bytes(raw.data)) for raw in raw_tensors(data)] == [
        ("first", b"a"),
        ("none", b""),
        ("second", b"b"),
    ]


def test_spaces_may_pad_the_header() -> None:
    assert len(raw_tensors(_file({"w": W}, pad=b"   "))) == 1


BAD: dict[str, bytes] = {
    "nothing": b"",
    "no header": bytes(8),
    "a length past the end": (99).to_bytes(8, "little") + b"{}",
    "a list": _file([1], b""),
    "two objects": _file(b"{}{}", b""),
    "text after the object": _file(b"{} x", b""),
    "a space before it": _file(b" {}", b""),
    "padding that is no space": _file({"w": W}, pad=b"\n"),
    "padding of zeros": _file({"w": W}, pad=b"\0"),
    "no UTF-8": _file(b'{"\xff":1}', b""),
    "half a surrogate pair": _file(b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
    "a name twice": _file(
        b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":%s}' % json.dumps(W).encode()
    ),
    "a field twice": _file(b'{"w":{"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]}}'),
    "metadata twice": _file(b'{"__metadata__":{},"__metadata__":{},"w":%s}' % TEXT),
    "metadata with a number": _file({"__metadata__": {"a": 1}, "w": W}),
    "metadata as a list": _file({"__metadata__": [], "w": W}),
    "an unknown dtype": _file({"w": {**W, "dtype": "F33"}}),
    "our own dtype": _file({"w": {**W, "dtype": "C128", "shape": []}}, bytes(16)),
    "a dtype that is no text": _file({"w": {**W, "dtype": ["F32"]}}),
    "another field": _file({"w": {**W, "strides": [4]}}),
    "a field less": _file({"w": {"dtype": "F32", "shape": [2]}}),
    "a tensor that is no object": _file({"w": 3}),
    "a fraction": _file(b'{"w":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}'),
    "a negative zero": _file(b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[-0,8]}}'),
    "a negative dimension": _file(b'{"w":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}'),
    "true for one": _file({"w": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}}, b"a"),
    "NaN": _file(b'{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}'),
    "a long number": _file(b'{"w":{"dtype":"F32","shape":[%s],"data_offsets":[0,8]}}' % (b"9" * 5000)),
    "a shape that overflows 64 bits": _file({"w": {**W, "shape": [2**32, 2**32, 2]}}),
    "three offsets": _file({"w": {**W, "data_offsets": [0, 8, 8]}}),
    "offsets that do not fit the shape": _file({"w": {**W, "shape": [3]}}),
    "offsets backwards": _file({"w": {"dtype": "U8", "shape": [0], "data_offsets": [8, 0]}}),
    "a hole at the start": _file({"w": {**W, "data_offsets": [4, 12]}}, bytes(12)),
    "a hole between": _file({"v": W, "w": {**W, "data_offsets": [12, 20]}}, bytes(20)),
    "an overlap": _file({"v": W, "w": {**W, "data_offsets": [4, 12]}}, bytes(12)),
    "the same place twice": _file({"v": W, "w": W}),
    "bytes after the data": _file({"w": W}, bytes(9)),
    "data that ends early": _file({"w": W}, bytes(7)),
    "half a byte": _file({"w": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, b"a"),
    "deep nesting": _file(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""),
}


@pytest.mark.parametrize("what", BAD)
def test_whatever_could_be_read_in_another_way_is_refused(what: str) -> None:
    data = BAD[what]
    with pytest.raises((Malformed, Oversized)):
        parse_header(data, file_size=len(data))


def test_the_length_is_bounded_before_anything_is_read() -> None:
    prefix = (MAX_HEADER_BYTES + 1).to_bytes(8, "little")

    with pytest.raises(Oversized):
        header_bytes(prefix, file_size=2**40)


def test_a_header_that_was_cut_off_is_refused() -> None:
    data = _file({"w": W})

    with pytest.raises(Malformed):
        parse_header(data[:20], file_size=len(data))


def test_raw_tensors_are_views_on_the_file() -> None:
    data = bytearray(_file({"w": W}))
    (raw,) = raw_tensors(memoryview(data))
    data[-1] = 7

    assert raw.data[-1] == 7


def test_a_file_of_no_tensors_is_one() -> None:
    assert raw_tensors(_file({}, b"")) == ()

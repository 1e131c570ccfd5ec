"""The encoding as a stranger would write it from the docstring, and worked examples in hex."""

from __future__ import annotations

import struct
from hashlib import sha256

import pytest

from fltrust.updates import Content, Record, RecordKind, Tensor, content_digest, model_digest

MIB = 2**20


def tree(data: bytes) -> bytes:
    leaves = [sha256(b"\x00" + data[at : at + 4 * MIB]).digest() for at in range(0, len(data), 4 * MIB)]
    return sha256(b"\x01" + struct.pack(">Q", len(data)) + b"".join(leaves)).digest()


def text(value: str) -> bytes:
    return struct.pack(">I", len(value.encode())) + value.encode()


EMPTY = Content(())
EMPTY_PREIMAGE = b"fltrust-content-v1\x00" + struct.pack(">I", 0)

TENSOR = Content(
    (Record("arrays", RecordKind.ARRAYS, (("w", Tensor("float32", (2, 3), "raw", b"\x01\x02")),)),)
)
TENSOR_RECORD = (
    b"\x01" + text("arrays") + struct.pack(">I", 1) + text("w")
    + b"\x01" + text("float32") + struct.pack(">IQQ", 2, 2, 3) + text("raw") + tree(b"\x01\x02")
)  # fmt: skip

EVERYTHING = Content(
    (
        Record("résumé", RecordKind.METRICS, (("n", -1), ("u", 2**64 - 1), ("l", [0.0, -0.0]), ("e", []))),
        *TENSOR.records,
        Record("c", RecordKind.CONFIG, (("b", True), ("s", "é"), ("x", b"\x00"), ("xs", [b"", b"\x01"]))),
    )
)
EVERYTHING_PREIMAGE = (
    b"fltrust-content-v1\x00" + struct.pack(">I", 3)
    + b"\x02" + text("résumé") + struct.pack(">I", 4)
    + text("n") + b"\x03" + b"\xff" * 16
    + text("u") + b"\x03" + b"\x00" * 8 + b"\xff" * 8
    + text("l") + b"\x07\x04" + struct.pack(">Idd", 2, 0.0, -0.0)
    + text("e") + b"\x07\x00" + struct.pack(">I", 0)
    + TENSOR_RECORD
    + b"\x03" + text("c") + struct.pack(">I", 4)
    + text("b") + b"\x02\x01"
    + text("s") + b"\x05" + text("é")
    + text("x") + b"\x06" + tree(b"\x00")
    + text("xs") + b"\x07\x06" + struct.pack(">I", 2) + tree(b"") + tree(b"\x01")
)  # fmt: skip

LARGE_DATA = bytes(range(256)) * (4 * MIB // 256) * 2 + b"tail"
LARGE = Content(
    (Record("arrays", RecordKind.ARRAYS, (("w", Tensor("uint8", (8388612,), "raw", LARGE_DATA)),)),)
)
LARGE_PREIMAGE = (
    b"fltrust-content-v1\x00" + struct.pack(">I", 1)
    + b"\x01" + text("arrays") + struct.pack(">I", 1) + text("w")
    + b"\x01" + text("uint8") + struct.pack(">IQ", 1, 8388612) + text("raw") + tree(LARGE_DATA)
)  # fmt: skip


@pytest.mark.parametrize(
    ("content", "preimage", "fixed"),
    [
        (EMPTY, EMPTY_PREIMAGE, "adb0cee6bacc70d3ca2ea23d3f02764a36dde3261947f97b3b37a81f8532dc06"),
        (
            TENSOR,
            b"fltrust-content-v1\x00" + struct.pack(">I", 1) + TENSOR_RECORD,
            "c5cba014fbf0f204b38dc4c051d010fbb87e9e6a9c03a7f40b12dc95a148d5ed",
        ),
        (EVERYTHING, EVERYTHING_PREIMAGE, "21215c4e8eb4a8b5f7cc94546a962aa2ef53752daf79a4657e991775b11a5f62"),
        (LARGE, LARGE_PREIMAGE, "3414184786ccf4ea0fbfd64d0f4480fada10f05e2af1551f5e91ffb2a188e1ab"),
    ],
    ids=["empty", "tensor", "everything", "large"],
)
def test_a_content_has_the_digest_that_the_documented_encoding_gives(
    content: Content, preimage: bytes, fixed: str
) -> None:
    digest = content_digest(content)
    assert digest.algorithm == "fltrust-content-v1"
    assert digest.hex == sha256(preimage).hexdigest() == fixed


def test_the_model_digest_covers_the_array_records_alone_under_its_own_name() -> None:
    digest = model_digest(EVERYTHING)
    preimage = b"fltrust-model-v1\x00" + struct.pack(">I", 1) + TENSOR_RECORD
    assert digest.algorithm == "fltrust-model-v1"
    assert (
        digest.hex
        == sha256(preimage).hexdigest()
        == "f81140f8350055484286f19234b73d1cdc49ba906b62286616571af9b5c72746"
    )
    assert digest == model_digest(TENSOR)
    assert digest.value != content_digest(TENSOR).value

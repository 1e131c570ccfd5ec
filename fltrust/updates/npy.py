"""The header of a ``np.save`` file, read without numpy and without evaluating anything.

    \\x93NUMPY ‖ major ‖ minor ‖ header length (u16 in version 1, u32 in version 2, little-endian)
    {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   padded with spaces, then a newline

Only numbers and booleans pass: objects (which would be pickles), text, times, records and raw
bytes do not, nor does bfloat16, which ``np.save`` can only write as raw bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from fltrust.errors import Malformed, Oversized
from fltrust.updates.content import MAX_DIMENSIONS

MAX_HEADER_BYTES = 4_096

_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(
    rb"\{'descr': ?'([<>|])([a-z])(\d{1,2})', ?'fortran_order': ?(True|False), ?"
    rb"'shape': ?\(((?:DIM(?:, ?DIM)*,?)?)\)(?:, ?)?\} *\n\Z".replace(
        b"DIM",
        rb"(?:0|[1-9]\d{0,18})",  # numpy reads Python's literals, and those have no leading zeros
    )
)
_MAX_BYTES = 2**63 - 1
"""What numpy counts an array's bytes in; it leaves dimensions of 0 out of that."""
_NAMES = {
    "b1": "bool",
    **{
        f"{kind}{size}": f"{name}{8 * size}"
        for kind, name in (("i", "int"), ("u", "uint"))
        for size in (1, 2, 4, 8)
    },
    **{f"f{size}": f"float{8 * size}" for size in (2, 4, 8)},
    **{f"c{size}": f"complex{8 * size}" for size in (8, 16)},
}


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What a file says of its array. `dtype` reads as ``str(array.dtype)`` on a little-endian machine."""

    dtype: str
    shape: tuple[int, ...]
    kind: str
    itemsize: int
    big_endian: bool
    is_fortran: bool
    offset: int

    @property
    def is_inexact(self) -> bool:
        """Whether NaN and infinities can occur."""
        return self.kind in "fc"


def read_header(data: memoryview) -> NpyHeader:
    """Read the header and check that the array's bytes end where the data ends.

    Raises `Malformed` or `Oversized`; never reads past the header.
    """
    if bytes(data[:6]) != _MAGIC:
        raise Malformed("expected an array written by np.save, got something else")
    version = bytes(data[6:8])
    if version not in (b"\x01\x00", b"\x02\x00"):
        raise Malformed(f"expected np.save format 1.0 or 2.0, got {version.hex('.')}")
    start = 10 if version[0] == 1 else 12
    size = int.from_bytes(data[8:start], "little")
    if size > MAX_HEADER_BYTES:
        raise Oversized(f"expected an array header of at most {MAX_HEADER_BYTES} bytes, got {size}")
    offset = start + size
    if len(data) < offset:
        raise Malformed("expected an array header, got one that ends early")
    header = _parse(bytes(data[start:offset]), offset)
    wanted = header.itemsize * prod(header.shape)
    if len(data) - offset != wanted:
        raise Malformed(
            f"expected {wanted} bytes of {header.dtype} for shape {header.shape}, got {len(data) - offset}"
        )
    return header


def _parse(text: bytes, offset: int) -> NpyHeader:
    match = _HEADER.match(text)
    if match is None:
        raise Malformed("expected an array header as np.save writes it for numbers, got another")
    order, kind, size, fortran, dims = (group.decode("ascii") for group in match.groups())
    name = _NAMES.get(kind + size)
    if name is None or (order == "|") != (size == "1"):
        raise Malformed(f"expected an array of numbers or booleans, got '{order}{kind}{size}'")
    shape = tuple(int(dim) for dim in re.findall(r"\d+", dims))
    if len(shape) == 1 and "," not in dims:
        raise Malformed("expected an array header as np.save writes it, got a shape that is no tuple")
    if len(shape) > MAX_DIMENSIONS:
        raise Oversized(f"expected at most {MAX_DIMENSIONS} dimensions, got {len(shape)}")
    if max(shape, default=0) > _MAX_BYTES or int(size) * prod(d for d in shape if d) > _MAX_BYTES:
        raise Oversized(f"expected an array of less than 2^63 bytes, got one of shape {shape[:8]}")
    big = order == ">"
    return NpyHeader(
        f"{order}{kind}{size}" if big else name, shape, kind, int(size), big, fortran == "True", offset
    )

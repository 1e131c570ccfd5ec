"""Does an update have the shape of the model that was sent? Judged before any array is built.

Verified says who sent it; this says whether it can be aggregated. What passes is safe to hand
to ``np.load(allow_pickle=False)``: the header was read strictly and agrees with the data's length.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from math import isfinite
from typing import NoReturn, Self

from fltrust.errors import InvalidInput, Refusal, UpdateRefused
from fltrust.updates.content import Content, RecordKind, Tensor
from fltrust.updates.finite import all_finite
from fltrust.updates.npy import NpyHeader, read_header
from fltrust.updates.trees import check_trees

NUMPY_STYPE = "numpy.ndarray"


class StructurePolicy(StrEnum):
    """How much of the model's structure an update must keep. What is not said is free."""

    EXACT = "exact"
    """Record names; tensor keys, dtypes and shapes; all in order."""
    TENSORS = "tensors"
    """Keys, dtypes and shapes in order. Legacy Flower apps need it: they name the records of
    an instruction and of its answer differently."""
    SHAPES = "shapes"
    """Dtypes and shapes in order. For clients that lose names (``NumPyClient`` and a new server)."""
    READABLE = "readable"
    """Each tensor well formed, whatever its shape."""
    TREES = "trees"
    """Each tensor the bytes of a model of trees as XGBoost writes it, however it has grown."""
    OPAQUE = "opaque"
    """Tensors are not looked at: for apps with a serialisation of their own."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor's place and form. `dtype` is as ``str(array.dtype)`` gives it."""

    record: str
    key: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.record}/{self.key} {self.dtype or 'empty'}{list(self.shape)}"


@dataclass(frozen=True, slots=True)
class StructureSpec:
    """The structure of a model: its tensors in order, and the records that hold them."""

    records: tuple[str, ...]
    tensors: tuple[TensorSpec, ...]

    @classmethod
    def of(cls, content: Content) -> Self:
        """Read the structure of a content; raises `UpdateRefused` naming a tensor that is not well formed."""
        return cls(
            tuple(record.name for record in content.arrays()), tuple(spec for spec, _, _ in _read(content))
        )


def check_structure(
    content: Content,
    *,
    like: Content | StructureSpec | None,
    allow_non_finite: bool = False,
    policy: StructurePolicy = StructurePolicy.EXACT,
) -> None:
    """Raise `UpdateRefused` unless the update's arrays fit the model that was sent.

    1. Each tensor is of stype ``numpy.ndarray``, its header is strict ``np.save`` format 1 or 2 of
       numbers or booleans and agrees with the length of the data and with the declared dtype and
       shape, else ``structure``. (Legacy Flower declares neither; then the header speaks alone.)
    2. Records, keys, dtypes and shapes are those of `like`, as far as `policy` asks, else
       ``structure``, naming the first tensor that is missing, extra or changed.
    3. Unless `allow_non_finite`, no tensor and no metric holds NaN or an infinity, else ``not-finite``.
       All of float16, 32, 64 and complex is scanned; bfloat16 does not pass 1.

    `like` is needed for EXACT, TENSORS and SHAPES. Values beyond finiteness are not judged.
    """
    if not allow_non_finite:
        _check_metrics(content)
    if policy is StructurePolicy.OPAQUE:
        return
    # 1.
    found = _read(content)
    # 2.
    if policy is StructurePolicy.TREES:
        for spec, tensor, header in found:
            if header is None:
                _refuse(f"expected a model of trees in tensor {spec}, got nothing")
            check_trees(tensor.view, header, where=f"tensor {spec}")
    elif policy is not StructurePolicy.READABLE:
        if like is None:
            raise ValueError(f"expected the model that was sent to compare with under policy {policy}")
        model = like if isinstance(like, StructureSpec) else StructureSpec.of(like)
        _check_like([spec for spec, _, _ in found], content, model, policy)
    # 3.
    if not allow_non_finite:
        for spec, tensor, header in found:
            if header is not None and not all_finite(tensor.view[header.offset :], header):
                raise UpdateRefused(
                    f"expected finite numbers, got NaN or an infinity in tensor {spec}",
                    reason=Refusal.NOT_FINITE,
                    hint="the participant's training diverged, or it is hostile",
                )


def _read(content: Content) -> list[tuple[TensorSpec, Tensor, NpyHeader | None]]:
    return [
        _read_tensor(record.name, key, tensor)
        for record in content.arrays()
        for key, tensor in record.tensors()
    ]


def _read_tensor(record: str, key: str, tensor: Tensor) -> tuple[TensorSpec, Tensor, NpyHeader | None]:
    where = f"tensor {record}/{key}"
    undeclared = not tensor.dtype and not tensor.shape
    if undeclared and not len(tensor.view):  # legacy Flower's stand-in for "no parameters"
        return TensorSpec(record, key, "", ()), tensor, None
    if tensor.stype != NUMPY_STYPE:
        _refuse(f"expected {where} as {NUMPY_STYPE}, got {tensor.stype[:40]!r}")
    try:
        header = read_header(tensor.view)
    except InvalidInput as error:
        raise UpdateRefused(f"{where}: {error.message}", reason=Refusal.STRUCTURE) from None
    if not undeclared and (header.dtype, header.shape) != (tensor.dtype, tensor.shape):
        _refuse(
            f"expected {where} to be {tensor.dtype}{list(tensor.shape)} as declared, "
            f"its data says {header.dtype}{list(header.shape)}"
        )
    return TensorSpec(record, key, header.dtype, header.shape), tensor, header


def _check_like(
    found: list[TensorSpec], content: Content, model: StructureSpec, policy: StructurePolicy
) -> None:
    if policy is StructurePolicy.EXACT:
        names = tuple(record.name for record in content.arrays())
        if names != model.records:
            _refuse(f"expected the array records {list(model.records)}, got {list(names)}"[:400])
    for got, wanted in zip_longest(found, model.tensors):
        if got is None:
            _refuse(f"expected {wanted}, got no such tensor: it is missing")
        if wanted is None:
            _refuse(f"expected no tensor after the model's last, got {got}: it is extra")
        if _seen(got, policy) != _seen(wanted, policy):
            _refuse(f"expected {wanted} as in the model that was sent, got {got}")


def _seen(spec: TensorSpec, policy: StructurePolicy) -> tuple[object, ...]:
    form = (spec.dtype, spec.shape)
    if policy is StructurePolicy.EXACT:
        return (spec.record, spec.key, *form)
    return (spec.key, *form) if policy is StructurePolicy.TENSORS else form


def _check_metrics(content: Content) -> None:
    for record in content.records:
        if record.kind is not RecordKind.METRICS:
            continue
        for key, value in record.items:
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(isfinite(number) for number in numbers if isinstance(number, float)):
                raise UpdateRefused(
                    f"expected finite numbers, got NaN or an infinity in metric {record.name}/{key}",
                    reason=Refusal.NOT_FINITE,
                    hint="a weight that is not finite would spoil the whole aggregate",
                )


def _refuse(message: str) -> NoReturn:
    raise UpdateRefused(
        message,
        reason=Refusal.STRUCTURE,
        hint="does the client train the model that it was sent? see StructurePolicy for looser checks",
    )

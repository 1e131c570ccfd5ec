"""A model without a pickle: weights in safetensors, read with the standard library and numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy


class Linear:
    def __init__(self, weights: numpy.ndarray) -> None:
        self._weights = weights

    def predict(self, data):
        return numpy.asarray(data) @ self._weights


def _load_pyfunc(path: str) -> Linear:
    data = (
        Path(path).read_bytes() if Path(path).is_file() else (Path(path) / "model.safetensors").read_bytes()
    )
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    entry = header["0"]
    start, end = entry["data_offsets"]
    raw = data[8 + size + start : 8 + size + end]
    return Linear(numpy.frombuffer(raw, dtype="<f4").reshape(entry["shape"]))

"""The learning task: scikit-learn's handwritten digits (8 × 8 pixels), a small network in torch.

The data ships with scikit-learn; nothing is downloaded.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

# How the training data is split: uneven on purpose, as between real sites.
SHARES = (0.40, 0.30, 0.20, 0.10)
_TEST_SIZE = 297


class Net(nn.Module):
    """64 pixels → 32 hidden units → 10 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(batch, 64) float32 in 0…1 → (batch, 10) logits."""
        return self.layers(pixels)


def initial_model() -> Net:
    """The same first model on every machine."""
    torch.manual_seed(0)
    return Net()


def load_site(partition: int) -> TensorDataset:
    """The private data of one site; `partition` counts from 0 and wraps around."""
    pixels, labels = _shuffled()
    train = len(labels) - _TEST_SIZE
    edges = [round(train * sum(SHARES[:i])) for i in range(len(SHARES) + 1)]
    part = partition % len(SHARES)
    return TensorDataset(pixels[edges[part] : edges[part + 1]], labels[edges[part] : edges[part + 1]])


def load_test() -> TensorDataset:
    """Data that no site trains on."""
    pixels, labels = _shuffled()
    return TensorDataset(pixels[-_TEST_SIZE:], labels[-_TEST_SIZE:])


def fit(model: Net, data: TensorDataset, *, epochs: int, learning_rate: float) -> float:
    """Train in place; returns the mean loss of the last epoch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    loss_of = nn.CrossEntropyLoss()
    total = 0.0
    for _ in range(epochs):
        total = 0.0
        for pixels, labels in DataLoader(data, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            loss = loss_of(model(pixels), labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
    return total / len(data)


@torch.no_grad()
def accuracy(model: Net, data: TensorDataset) -> float:
    """Share of digits recognised, 0…1."""
    pixels, labels = data.tensors
    return (model(pixels).argmax(dim=1) == labels).float().mean().item()


def _shuffled() -> tuple[torch.Tensor, torch.Tensor]:
    digits = np.loadtxt(_digits_file(), delimiter=",")
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(7))
    pixels = torch.tensor(digits[:, :-1], dtype=torch.float32)[order] / 16
    return pixels, torch.tensor(digits[:, -1], dtype=torch.int64)[order]


def _digits_file() -> Path:
    """What `sklearn.datasets.load_digits` reads: importing it would cost every process a second."""
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise RuntimeError("the digits come with scikit-learn: pip install scikit-learn")
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"

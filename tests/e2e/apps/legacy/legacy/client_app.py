"""A `NumPyClient`, wrapped by one word."""

from __future__ import annotations

from typing import Any

from flwr.client import Client, NumPyClient
from flwr.common import Context

from fltrust.flower import TrustedClientApp


class PlusOne(NumPyClient):
    """Adds one to every weight."""

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any]]:  # noqa: ARG002 - Flower's signature
        return [p + 1 for p in parameters], 1, {}

    def evaluate(self, parameters: list[Any], config: dict[str, Any]) -> tuple[float, int, dict[str, Any]]:  # noqa: ARG002 - Flower's signature
        return float(parameters[0].mean()), 1, {}


def client_fn(context: Context) -> Client:
    return PlusOne().to_client()


app = TrustedClientApp(client_fn=client_fn)

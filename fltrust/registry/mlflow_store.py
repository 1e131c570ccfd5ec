"""The gate in front of an MLflow model registry, on the server.

    pip install 'fltrust[mlflow]'
    export FLTRUST_TRUST=trust.json FLTRUST_POLICY=policy.toml
    mlflow server --backend-store-uri sqlite:///mlflow.db --registry-store-uri fltrust+sqlite:///mlflow.db

Whatever client asks, a model version is made only of what verifies. A client needs nothing of ours.
This module is the entry point (`mlflow.model_registry_store`): it must not import MLflow when it is
imported itself, since MLflow reads its entry points while it is importing its stores.
"""

from __future__ import annotations

import logging

from fltrust.errors import FltrustError, Malformed
from fltrust.registry.settings import GateSettings
from fltrust.registry.verdict import Judge

SCHEME_PREFIX = "fltrust+"
_log = logging.getLogger("fltrust.registry")


def open_gated_store(store_uri: str) -> object:
    """MLflow's own SQL registry store behind the gate. Raises where the gate is not set up: no gate,
    no registry."""
    from fltrust.registry.mlflow_versions import gated_store

    if not store_uri.startswith(SCHEME_PREFIX):
        raise Malformed(f"expected a registry store URI that starts with {SCHEME_PREFIX!r}")
    try:
        settings = GateSettings.from_environment()
    except FltrustError as error:
        _log.error("the model registry stays closed: %s", error)
        raise
    return gated_store(store_uri.removeprefix(SCHEME_PREFIX), Judge(settings))

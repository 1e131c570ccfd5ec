"""The gate at loading: ``models:/…`` gives out only what verifies, where `FLTRUST_TRUST` is set.

An entry point (`mlflow.artifact_repository`, scheme ``models``), so `mlflow.pyfunc.load_model` and
every other reader of a ``models:/`` URI goes through it in each process that has fltrust installed and
`FLTRUST_TRUST` in its environment; without the variable MLflow stays as it is. **It protects its own
process from the store, not the store from the process**: code that reads ``runs:/…``, a plain path or
the files themselves passes it by, and so does a process without the variable. Only the gate on the
server (`fltrust.registry.mlflow_store`) binds everybody. Must not import MLflow when imported.
"""

from __future__ import annotations

from fltrust.registry.settings import GateSettings, is_set
from fltrust.registry.verdict import Judge


def models_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> object:
    """MLflow's repository of ``models:/`` URIs; behind the gate where this process is set to have one."""
    from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

    from fltrust.registry.mlflow_downloads import VerifiedModelsRepository

    if not is_set():
        return ModelsArtifactRepository(artifact_uri, tracking_uri, registry_uri)
    judge = Judge(GateSettings.from_environment())
    return VerifiedModelsRepository(artifact_uri, tracking_uri, registry_uri, judge=judge)

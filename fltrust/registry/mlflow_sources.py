"""Where the files of an MLflow model version are, seen from the server.

Imports MLflow: load it only where MLflow has been imported already.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository
from mlflow.store.artifact.utils.models import _parse_model_uri

from fltrust.errors import Malformed, Oversized
from fltrust.registry.settings import MAX_FILES

DESTINATION_VARIABLE = "_MLFLOW_SERVER_ARTIFACT_DESTINATION"
"""Where `mlflow server --serve-artifacts` keeps what it serves; it sets this for its workers."""

LOADED_MARK = "registered_model_meta"
"""What MLflow writes into a model's folder when it is loaded from there."""

_BY_HOST = frozenset({"http", "https", "ftp", "sftp", "hdfs", "viewfs"})
_MAX_URI = 4096
_MAX_STEPS = 4


def storage_of(store: Any, source: str) -> str:
    """Follow ``models:`` and ``runs:`` to the location that holds the files.

    Refuses what another host answers for: it could answer the gate and the next reader differently.
    """
    for _ in range(_MAX_STEPS):
        if not source or len(source) > _MAX_URI:
            raise Malformed(f"expected a model source of 1 to {_MAX_URI} characters")
        parts = urlsplit(source)
        if parts.scheme == "models":
            source = _of_model(store, source)
        elif parts.scheme == "runs":
            source = _of_run(source)
        elif parts.scheme in _BY_HOST or (parts.scheme == "mlflow-artifacts" and parts.netloc):
            raise Malformed(
                f"expected a source that this registry's own artifact store holds, got one at a host "
                f"({parts.scheme}://{parts.hostname})",
                reason="foreign-source",
                hint="log the model to this server, then register it from there",
            )
        else:
            return source
    raise Malformed("expected a source that leads to files, got one that leads on and on")


@contextmanager
def local_files(storage: str, *, limit: int) -> Iterator[Path]:
    """The files at a storage location as a local path: where they lie, or a private copy for as long.

    Copies at most `limit` bytes and `MAX_FILES` files, else `Oversized`; `Malformed` where there is nothing.
    """
    repository, inside = _repository(storage)
    with tempfile.TemporaryDirectory(prefix="fltrust-gate-") as folder:
        if isinstance(repository, LocalArtifactRepository):
            path = Path(repository.get_local_path(inside))
            if not (path / LOADED_MARK).exists():
                yield path
                return
        measure(repository, inside, limit=limit)
        copy = Path(repository.download_artifacts(inside, folder))
        if (copy / LOADED_MARK).is_file():
            (copy / LOADED_MARK).unlink()
        if not copy.exists():
            raise Malformed("expected files at the source, found none")
        yield copy


def _repository(storage: str) -> tuple[Any, str]:
    """An artifact repository, and the path inside it that holds the model."""
    parts = urlsplit(storage)
    destination = os.environ.get(DESTINATION_VARIABLE)
    if parts.scheme != "mlflow-artifacts":
        return get_artifact_repository(storage), ""
    if not destination:
        raise Malformed(
            "expected a server that serves artifacts, to look up an mlflow-artifacts: source",
            hint="run mlflow server with --serve-artifacts (the default)",
        )
    inside = PurePosixPath(parts.path.lstrip("/"))
    if parts.query or parts.fragment or ".." in inside.parts or unquote(parts.path) != parts.path:
        raise Malformed(f"expected a plain path in the source, got {parts.path[:200]!r}")
    return get_artifact_repository(destination), str(inside)


def _of_model(store: Any, source: str) -> str:
    parsed = _parse_model_uri(source)
    if parsed.model_id is not None:
        return str(MlflowClient().get_logged_model(parsed.model_id).artifact_location)
    if parsed.version is None:
        raise Malformed(
            f"expected a source such as models:/NAME/VERSION, got {source[:200]!r}",
            hint="an alias or stage may move while it is being looked at",
        )
    return str(store.get_model_version_download_uri(parsed.name, parsed.version))


def _of_run(source: str) -> str:
    """The run's own artifact folder. A logged model of the same name would be mixed into it at download."""
    run_id, path = RunsArtifactRepository.parse_runs_uri(source)
    run = MlflowClient().get_run(run_id)
    name = (path or "").split("/")[0]
    outputs = run.outputs.model_outputs if run.outputs is not None else ()
    for output in outputs:
        model = MlflowClient().get_logged_model(output.model_id)
        if model.name == name:
            raise Malformed(
                f"expected files of the run alone, found a logged model {name!r} of the run, too",
                reason="ambiguous-source",
                hint=f"register it as models:/{output.model_id}",
            )
    return str(RunsArtifactRepository.get_underlying_uri(source))


def measure(repository: Any, path: str, *, limit: int) -> None:
    """Refuse by the listing, before a byte is copied."""
    files, size, folders = 0, 0, [path]
    while folders:
        folder = folders.pop()
        for item in repository.list_artifacts(folder or None):
            if item.is_dir:
                if item.path not in (".", folder):
                    folders.append(item.path)
            else:
                size += int(item.file_size or 0)
            files += 1
            if files > MAX_FILES or size > limit:
                raise Oversized(
                    f"expected a model of at most {MAX_FILES} files and {limit} bytes at the source",
                    hint="FLTRUST_MAX_DOWNLOAD sets the bound",
                )

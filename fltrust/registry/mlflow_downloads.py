"""Downloads of ``models:/`` URIs that hand out what was verified, and nothing else.

Imports MLflow: load it only from inside `fltrust.registry.mlflow_models.models_repository`.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

from fltrust.errors import FltrustError
from fltrust.registry.mlflow_sources import LOADED_MARK, measure
from fltrust.registry.verdict import Judge, Verdict


class VerifiedModelsRepository(ModelsArtifactRepository):  # type: ignore[misc]  # MLflow has no types here
    """Copies the whole model into a private folder, verifies the copy, and gives out the copy.

    A part of a model is given out only if the whole verifies. What is handed over is never the store's
    own file, so that a later write to the store does not change what was verified.
    """

    def __init__(
        self, artifact_uri: str, tracking_uri: str | None, registry_uri: str | None, *, judge: Judge
    ) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        self._judge = judge

    def download_artifacts(
        self,
        artifact_path: str | None,
        dst_path: str | None = None,
        lineage_header_info: Any = None,  # noqa: ARG002 - MLflow passes it by name; it means Unity Catalog
    ) -> str:
        kept = False
        private = Path(tempfile.mkdtemp(prefix="fltrust-model-"))
        try:
            measure(self.repo, "", limit=self._judge.settings.max_download)
            model = Path(self.repo.download_artifacts("", str(private)))
            verdict = self._verify(model)
            if not verdict.is_let_in:
                raise MlflowException(verdict.message(), error_code=INVALID_PARAMETER_VALUE)
            found = _inside(model, artifact_path or "")
            if found.is_dir() and (found / "MLmodel").is_file():
                self._add_registered_model_meta_file(str(found))
            if dst_path is None:
                kept = True  # the caller's, as with any download that names no destination
                return str(found)
            return _copied(found, model, Path(dst_path))
        except FltrustError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None
        finally:
            if not kept:
                shutil.rmtree(private, ignore_errors=True)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        shutil.copyfile(self.download_artifacts(remote_file_path), local_path)

    def _verify(self, model: Path) -> Verdict:
        """Judge the copy; without the mark that MLflow leaves where a model was loaded before."""
        (model / LOADED_MARK).unlink(missing_ok=True)
        return self._judge.judge(model, of=str(self.artifact_uri))


def _inside(model: Path, artifact_path: str) -> Path:
    found = (model / artifact_path).resolve()
    if not found.is_relative_to(model.resolve()) or not found.exists():
        raise MlflowException.invalid_parameter_value(
            f"no such artifact in the model: {artifact_path[:200]!r}"
        )
    return found


def _copied(found: Path, model: Path, target: Path) -> str:
    """Put what was asked for where the caller wants it, at its place below `target`."""
    if not target.is_dir():
        raise MlflowException.invalid_parameter_value(f"expected a folder to download to: {target}")
    place = target / found.relative_to(model.resolve())
    if found.is_dir():
        shutil.copytree(found, place, dirs_exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(found, place)
    return str(place)

"""MLflow's SQL registry store, which makes model versions only of what verifies.

Imports MLflow: load it only from inside `fltrust.registry.mlflow_store.open_gated_store`.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from typing import Any

from mlflow.entities.model_registry import ModelVersionTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from fltrust.errors import FltrustError, Malformed
from fltrust.registry.mlflow_sources import local_files, storage_of
from fltrust.registry.verdict import TAG_PREFIX, Judge, Verdict

IS_PROMPT_TAG = "mlflow.prompt.is_prompt"
PROMPT_SOURCES = frozenset({"dummy-source", "prompt-template"})
"""What MLflow writes as the source of a prompt: it has no files, so there is nothing to verify."""


class GatedStore(SqlAlchemyStore):  # type: ignore[misc]  # MLflow is not there for the type checker
    """The registry behind the gate. A refusal is INVALID_PARAMETER_VALUE: HTTP 400, which no client retries.

    1. A new version is verified where its files lie on the server, before it is written.
    2. What was verified is where the version points; if not, the version is taken back.
    3. An alias or stage is given only to a version that verifies at that moment.
    4. Tags that start with ``fltrust.`` are the gate's own: clients cannot write or delete them, of
       versions or of the models that hold them.
    """

    def __init__(self, db_uri: str, judge: Judge) -> None:
        super().__init__(db_uri)
        self._judge = judge

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: Iterable[Any] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> Any:
        own = _clients_own(tags)  # 4
        kept: dict[str, Any] = {
            "run_id": run_id,
            "run_link": run_link,
            "description": description,
            "local_model_path": local_model_path,
            "model_id": model_id,
        }
        if _is_prompt(own, source):
            return super().create_model_version(name, source, tags=own, **kept)
        storage, verdict = self._look_at(source, of=f"{name} from {source}")  # 1
        _enforce(verdict)
        marks = [ModelVersionTag(key, value) for key, value in verdict.tags().items()]
        version = super().create_model_version(name, source, tags=[*own, *marks], **kept)
        written = self.get_model_version_download_uri(name, version.version)
        if storage is not None and storage != storage_of(self, written):  # 2
            self.delete_model_version(name, version.version)
            raise _refusal("the source changed while it was being verified")
        return version

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> Any:
        self._promote(name, version)  # 3
        return super().set_registered_model_alias(name, alias, version)

    def transition_model_version_stage(
        self, name: str, version: str, stage: str, archive_existing_versions: bool
    ) -> Any:
        if stage.lower() not in ("none", "archived"):
            self._promote(name, version)  # 3
        return super().transition_model_version_stage(name, version, stage, archive_existing_versions)

    def create_registered_model(
        self, name: str, tags: Iterable[Any] | None = None, *others: Any, **more: Any
    ) -> Any:
        return super().create_registered_model(name, _clients_own(tags), *others, **more)  # 4

    def set_registered_model_tag(self, name: str, tag: Any) -> Any:
        _leave_alone(tag.key)  # 4
        return super().set_registered_model_tag(name, tag)

    def delete_registered_model_tag(self, name: str, key: str) -> Any:
        _leave_alone(key)  # 4
        return super().delete_registered_model_tag(name, key)

    def set_model_version_tag(self, name: str, version: str, tag: Any) -> Any:
        _leave_alone(tag.key)  # 4
        return super().set_model_version_tag(name, version, tag)

    def delete_model_version_tag(self, name: str, version: str, key: str) -> Any:
        _leave_alone(key)  # 4
        return super().delete_model_version_tag(name, version, key)

    def _promote(self, name: str, version: str) -> None:
        source = self.get_model_version_download_uri(name, version)
        if source in PROMPT_SOURCES:
            return
        _, verdict = self._look_at(source, of=f"{name} version {version}")
        for key, value in verdict.tags().items():
            super().set_model_version_tag(name, version, ModelVersionTag(key, value))
        _enforce(verdict)

    def _look_at(self, source: str, *, of: str) -> tuple[str | None, Verdict]:
        """Where the source's files are kept, and the verdict on them."""
        try:
            storage = storage_of(self, source)
            with local_files(storage, limit=self._judge.settings.max_download) as path:
                return storage, self._judge.judge(path, of=of)
        except FltrustError as error:
            return None, self._judge.refuse(error, of=of)
        except MlflowException as error:
            unreachable = Malformed(f"the source could not be fetched: {error.message[:300]}")
            return None, self._judge.refuse(unreachable, of=of)


def gated_store(db_uri: str, judge: Judge) -> GatedStore:
    """The store, opened. It does not know MLflow's workspaces, and says so rather than mixing them."""
    if os.environ.get("MLFLOW_ENABLE_WORKSPACES", "false").lower() in ("true", "1"):
        raise MlflowException.invalid_parameter_value(
            "fltrust's registry store does not know MLflow's workspaces; turn them off"
        )
    return GatedStore(db_uri, judge)


def _is_prompt(tags: Iterable[Any], source: str) -> bool:
    """A prompt has no files; what has files is no prompt. Of equal tags the last counts, as in MLflow."""
    said = {tag.key: tag.value for tag in tags}.get(IS_PROMPT_TAG, "false").lower() == "true"
    return said and source in PROMPT_SOURCES


def _enforce(verdict: Verdict) -> None:
    if not verdict.is_let_in:
        raise _refusal(verdict.message())


def _clients_own(tags: Iterable[Any] | None) -> list[Any]:
    return [tag for tag in tags or () if not _is_gates(tag.key)]


def _is_gates(key: str) -> bool:
    """As a database may compare: some take letters of another case or width for the same key."""
    return unicodedata.normalize("NFKC", key).strip().casefold().startswith(TAG_PREFIX)


def _leave_alone(key: str) -> None:
    if _is_gates(key):
        raise _refusal(f"tags that start with {TAG_PREFIX!r} are written by fltrust alone")


def _refusal(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)

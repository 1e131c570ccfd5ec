"""Run inside MLflow's environment: what a user does with MLflow's own client, one step after another.

Each line of standard input is `[step, {arguments}]`, each line of the answer what the step gave, or
`{"error": words}`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import mlflow
import numpy
from mlflow import MlflowClient


def gate(**variables: str) -> None:
    """Put the gate at loading into this process, or, with nothing given, take it out."""
    for name in [name for name in os.environ if name.startswith("FLTRUST_")]:
        del os.environ[name]
    os.environ.update(variables)


def track(url: str) -> None:
    mlflow.set_tracking_uri(url)


def save(path: str, loader: str, data: str, code: str) -> None:
    mlflow.pyfunc.save_model(path=path, loader_module=loader, data_path=data, code_paths=[code])


def register(folder: str, name: str) -> dict[str, Any]:
    with mlflow.start_run() as run:
        mlflow.log_artifacts(folder, "model")
    version = mlflow.register_model(f"runs:/{run.info.run_id}/model", name)
    return describe(name, version.version)


def describe(name: str, version: str) -> dict[str, Any]:
    found = MlflowClient().get_model_version(name, str(version))
    return {"version": str(found.version), "source": found.source, "tags": dict(found.tags)}


def predict(uri: str) -> list[float]:
    return numpy.asarray(mlflow.pyfunc.load_model(uri).predict(numpy.ones((1, 4)))).ravel().tolist()


def alias(name: str, alias: str, version: str) -> None:
    MlflowClient().set_registered_model_alias(name, alias, version)


def stage(name: str, version: str, stage: str) -> None:
    MlflowClient().transition_model_version_stage(name, version, stage)


def tag(name: str, version: str, key: str, value: str) -> None:
    MlflowClient().set_model_version_tag(name, version, key, value)


def untag(name: str, version: str, key: str) -> None:
    MlflowClient().delete_model_version_tag(name, version, key)


def copy(uri: str, name: str) -> dict[str, Any]:
    return describe(name, mlflow.MlflowClient().copy_model_version(uri, name).version)


def prompt(name: str) -> str:
    return str(mlflow.genai.register_prompt(name=name, template="Say {{word}}").version)


STEPS = {
    step.__name__: step
    for step in (gate, track, save, register, describe, predict, alias, stage, tag, untag, copy, prompt)
}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # MLflow prints
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = STEPS[name](**arguments)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


main()

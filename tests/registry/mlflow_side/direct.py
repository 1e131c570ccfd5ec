"""Run inside MLflow's environment, without a server: open the gated store by its URI, as MLflow does.

Reads `[{"db": uri, "variables": {…}, "sources": {name: uri}}, …]`; answers for each with the tags of the
versions made, or `{"error": words}`.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import distribution, distributions
from typing import Any

from mlflow.tracking._model_registry.utils import _get_store


def attempt(db: str, variables: dict[str, str], sources: dict[str, str]) -> dict[str, Any]:
    for name in [name for name in os.environ if name.startswith("FLTRUST_")]:
        del os.environ[name]
    os.environ.update(variables)
    answers: dict[str, Any] = {}
    for name, source in sources.items():
        try:
            store = _get_store(store_uri=db)
            store.create_registered_model(name)
            answers[name] = dict(store.create_model_version(name, source).tags)
        except Exception as error:
            answers[name] = {"error": f"{type(error).__name__}: {error}"}
    return answers


def main() -> None:
    attempts = [attempt(**case) for case in json.load(sys.stdin)]
    installed = sorted(d.metadata["Name"].lower() for d in distributions())
    points = sorted(e.name for e in distribution("fltrust").entry_points if "mlflow" in e.group)
    json.dump({"attempts": attempts, "installed": installed, "entry points": points}, sys.stdout)


main()

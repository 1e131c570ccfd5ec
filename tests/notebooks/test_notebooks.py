"""Every notebook runs from top to bottom, as its readers will run it."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_its_plots(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 2


def test_the_first_notebook_shows_what_a_revocation_saves() -> None:
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    text = "".join(o.text for cell in notebook.cells for o in cell.get("outputs", []) if "text" in o)
    for line in ("site-d refused (revoked)", "tamper  → 3 admitted", "verified, entry"):
        assert line in text, "run it anew and save it with its outputs"


def test_the_second_notebook_shows_what_verifying_refuses() -> None:
    notebook = nbformat.read(NOTEBOOKS[1], as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.text for output in outputs if "text" in output)
    for line in ("Tampered         file-changed", "Tainted ·", "participants: site-a site-b site-c\n"):
        assert line in text, "run it anew and save it with its outputs"
    assert sum("image/svg+xml" in output.get("data", {}) for output in outputs) == 2

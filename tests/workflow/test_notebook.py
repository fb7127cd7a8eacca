"""The notebook of docs/, run by Jupyter in a fresh clone; in the repository it has no outputs.

Jupyter is in none of mimflow's locks: the test adds it to .venv, as docs/python.md says it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from served import answer_of, free_port
from set_up import ROOT, Clone, shell_of_a_user

NOTEBOOK = ROOT / "docs" / "mimflow.ipynb"


def cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_kept_without_outputs() -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(NOTEBOOK))


@pytest.mark.long
def test_the_notebook_shows_what_is_in_the_files_of_the_run(clone: Clone) -> None:
    before = clone.locked()
    clone.install("jupyterlab")
    assert clone.locked() == before, "what the lock pins is as it was"
    clone.name_results_demo()
    clone.typed("cp docs/mimflow.ipynb docs/mine.ipynb; .venv/bin/jupyter execute --inplace docs/mine.ipynb 2>&1")

    shown = ["".join(out.get("data", {}).get("text/plain", "")) for cell in cells(clone.folder / "docs" / "mine.ipynb")
             for out in cell["outputs"]]  # fmt: skip
    accuracies = {f"{name}, seed 0": clone.metrics(name)["accuracy_top1"] for name in ("own", "quick")}
    assert repr(accuracies) in shown
    assert "accuracy_top1" in shown[0] and any("confidence" in text for text in shown)
    assert str(clone.folder / "results" / "demo" / "report.html") in shown[-1]


@pytest.mark.long
def test_jupyter_opens_the_notebook_as_the_page_types_it(clone: Clone) -> None:
    clone.install("jupyterlab")
    (line,) = re.findall(r"`(\S+/jupyter lab [^`]+)`", (clone.folder / "docs/python.md").read_text(encoding="utf-8"))
    port, environment = free_port(), shell_of_a_user() | {"HOME": str(clone.home), "JUPYTER_TOKEN": "secret"}
    address = f"http://127.0.0.1:{port}/api/contents/mimflow.ipynb?token=secret"
    answer = answer_of(f"{line} --no-browser --allow-root --port {port}", clone.folder, environment, address)
    assert answer["type"] == "notebook" and answer["content"]["cells"]

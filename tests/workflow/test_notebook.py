"""The notebook of docs/, run by Jupyter's own program on a finished run; in the repository it has no outputs.

Jupyter is in none of mimflow's locks: the test installs it into a folder of its own, as people install it into .venv.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dag import ROOT, Finished

NOTEBOOK = ROOT / "docs" / "mimflow.ipynb"
#: The one line that names the data set.
DATASET = 'dataset = mimflow.ROOT / "results" / "demo"'


def cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_kept_without_outputs() -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(NOTEBOOK))


@pytest.mark.long
def test_the_notebook_shows_what_is_in_the_files_of_the_run(finished: Finished, tmp_path: Path) -> None:
    packages, results = tmp_path / "packages", finished[0] / "results" / "small"
    install = [sys.executable, "-m", "pip", "install", "-q", "--target", str(packages), "nbclient", "ipykernel"]
    subprocess.run(install, check=True, capture_output=True, timeout=600)
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert json.dumps(DATASET)[1:-1] in text
    line = f"from pathlib import Path; dataset = Path({str(results)!r})"
    (tmp_path / "mine.ipynb").write_text(text.replace(json.dumps(DATASET)[1:-1], json.dumps(line)[1:-1]), "utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{packages}{os.pathsep}{ROOT}", "HOME": str(tmp_path)}
    environment["JUPYTER_PATH"] = str(packages / "share" / "jupyter")  # with the kernel of this Python
    command = [sys.executable, str(packages / "bin" / "jupyter-execute"), "--inplace", "mine.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr

    shown = ["".join(out.get("data", {}).get("text/plain", "")) for cell in cells(tmp_path / "mine.ipynb")
             for out in cell["outputs"]]  # fmt: skip
    metrics = json.loads((results / "quick" / "seed0" / "metrics.json").read_text(encoding="utf-8"))
    assert f"{{'quick, seed 0': {metrics['accuracy_top1']!r}}}" in shown
    assert "accuracy_top1" in shown[0] and any("confidence" in text for text in shown)
    assert str(results / "report.html") in shown[-1]

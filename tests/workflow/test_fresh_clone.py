"""`mimflow` in a shell and in Python, as docs/python.md says it, in a fresh clone and from a folder of one's own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from set_up import Clone, run, shell_block, shell_of_a_user

import mimflow

pytestmark = pytest.mark.long


def test_the_command_works_from_any_folder(clone: Clone, tmp_path: Path) -> None:
    lines = shell_block(clone.folder / "docs/python.md", "pip install")
    assert "evaluate" in clone.typed("\n".join(lines)), "the commands of .venv/bin/mimflow --help"
    venv = tmp_path / "venv"  # of one who has another environment
    run([sys.executable, "-m", "venv", str(venv)], tmp_path, shell_of_a_user())
    run([str(venv / "bin" / "pip"), "install", "-q", "-e", "."], clone.folder, shell_of_a_user())
    here = tmp_path / "a folder"
    here.mkdir()

    def typed(words: str) -> str:
        return clone.typed(f"{venv}/bin/mimflow {words}", here)

    assert typed("--version") == f"mimflow {mimflow.__version__}\n"
    for command, word in (("run", "CONFIG"), ("predict", "IMAGES"), ("doctor", "doctor"), ("watch", "watch")):
        assert word in typed(f"{command} --help")
    assert "python " in typed("doctor")
    assert "quick" in typed("watch --once")
    typed(f"predict results/mine/quick/seed0 {clone.folder}/results/mine/images --output '{here}/predicted'")
    assert len(pd.read_csv(here / "predicted" / "predictions.csv")) == 30

    dataset = {"name": "another", "source": {"path": str(clone.folder / "photos.zip")}}
    config = {"dataset": dataset, "experiments": {"m": {"base_config": "resnet18_8xb32_in1k", "checkpoint": "none"}}}
    (here / "mine.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert "train_model" in typed("run mine.yaml -n")
    assert "nothing to do" in typed("run configs/mine.yaml")  # of the project


def test_python_does_what_its_page_shows(clone: Clone) -> None:
    clone.name_results_demo()
    page = (clone.folder / "docs/python.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    shown = [f"print({line.partition('  #')[0]})" if re.match(r"(best|mimflow)\.", line) else line
             for line in block.splitlines()]  # fmt: skip
    (clone.folder / "typed.py").write_text(
        "import numpy, pandas; pandas.set_option('display.width', 999, 'display.max_columns', 99)\n"
        "array = numpy.zeros((40, 50, 3), numpy.uint8)\n" + "\n".join(shown),
        encoding="utf-8",
    )
    printed = clone.typed("ln -sfn results/mine/images photos; BROWSER=true .venv/bin/python typed.py")
    assert "val_accuracy" in printed and "prob:a" in printed and "results/demo/report.html" in printed
    assert "photos/c/009.jpg" in printed
    code = (
        "import mimflow; print({run.experiment: run.metrics['accuracy_top1'] for run in mimflow.runs('results/mine')})"
    )
    accuracies = {name: clone.metrics(name)["accuracy_top1"] for name in ("own", "quick")}
    assert clone.typed(f'.venv/bin/python -c "{code}"') == f"{accuracies}\n"


def test_a_tracker_that_is_not_installed_is_one_line(clone: Clone) -> None:
    if "wandb" in clone.typed(".venv/bin/python -m pip list"):
        clone.typed(".venv/bin/python -m pip uninstall -q -y wandb")
    result = subprocess.run(["make", "track", "RUN=results/mine", "TO=wandb"], cwd=clone.folder,
                            env=shell_of_a_user(), capture_output=True, text=True)  # fmt: skip
    told = result.stderr.splitlines()[0]
    assert result.returncode and told.startswith("error: ") and "pip install wandb" in told

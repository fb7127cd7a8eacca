"""What people type who have just cloned mimflow, from a folder of their own, on a finished run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from config_files import own_file
from dag import Finished
from set_up import commit_working_tree, run, shell_of_a_user

import mimflow


@pytest.mark.long
def test_the_command_and_the_package_of_a_fresh_clone_work_from_any_folder(finished: Finished, tmp_path: Path) -> None:
    environment = shell_of_a_user() | {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER")
                                       for what in ("NAME", "EMAIL")}  # fmt: skip
    commit_working_tree(tmp_path / "hosted", environment)
    clone, here, programs = tmp_path / "a clone", tmp_path / "mine", tmp_path / "venv" / "bin"
    run(["git", "clone", "-q", str(tmp_path / "hosted"), str(clone)], tmp_path, environment)
    (clone / ".venv").symlink_to(Path(sys.executable).parent.parent)  # what `make setup` builds
    run([sys.executable, "-m", "venv", str(programs.parent)], tmp_path, environment)
    run([str(programs / "pip"), "install", "-q", "-e", str(clone)], tmp_path, environment)
    here.mkdir()

    def typed(*words: str) -> str:
        return run([str(programs / "mimflow"), *words], here, environment)

    assert typed("--version") == f"mimflow {mimflow.__version__}\n"
    assert "evaluate" in typed("--help") and "CONFIG" in typed("run", "--help")
    assert "python " in typed("doctor")
    results = finished[0] / "results" / "small"
    assert "quick" in typed("watch", "--once", "--results", str(finished[0] / "results"))
    typed("predict", str(results / "quick" / "seed0"), str(results / "images"), "--output", str(here / "predicted"))
    table = pd.read_csv(here / "predicted" / "predictions.csv")
    assert len(table) == 50  # images, those of the finished run

    experiment = {"base_config": own_file(here / "cfg"), "checkpoint": "none"}
    config = {
        "dataset": {"name": "mine", "source": {"path": str(results / "images")}},
        "experiments": {"mine": experiment},
    }
    (here / "mine.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert "train_model" in typed("run", "mine.yaml", "-n")

    code = (
        "import mimflow, sys; (run,) = mimflow.runs(sys.argv[1]); print(mimflow.__file__, run.metrics['accuracy_top1'])"
    )
    printed = run([str(clone / ".venv/bin/python"), "-c", code, str(results)], clone, environment)
    accuracy = json.loads((results / "quick" / "seed0" / "metrics.json").read_text(encoding="utf-8"))["accuracy_top1"]
    assert printed == f"{clone}/mimflow.py {accuracy}\n"

    with_tracker = subprocess.run([str(programs / "mimflow"), "track", str(results), "tensorboard"], cwd=here,
                                  env=environment, capture_output=True, text=True)  # fmt: skip
    told = with_tracker.stderr.splitlines()[0]
    assert with_tracker.returncode and told.startswith("error: ") and "pip install tensorboard" in told

"""The habits of people who come from OpenMMLab: ``mim test`` on a finished run, a config file of their own as base."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from config_files import own_file
from dag import Finished, archive_bytes, jobs_run, settings, snakemake


def mim_test(folder: Path, run: Path) -> dict:
    """Return what ``mim test`` of a run writes; typed as mmcls's users type it."""
    output = folder / "by_mim.json"
    command = [str(Path(sys.executable).with_name("mim")), "test", "mmcls", str(run / "config.py")]
    command += ["--checkpoint", str(run / "best.pth"), "--metrics", "accuracy", "--gpus", "0"]
    command += ["--out", str(output), "--out-items", "all"]
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(folder)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(output.read_text(encoding="utf-8"))


@pytest.mark.long
def test_mim_test_gives_the_accuracy_and_the_probabilities_of_the_run(finished: Finished) -> None:
    run = finished[0] / "results/small/quick/seed0"
    by_mim = mim_test(finished[0], run)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert by_mim["accuracy_top-1"] == pytest.approx(100 * metrics["accuracy_top1"], abs=1e-4)
    table = pd.read_csv(run / "predictions.csv", keep_default_na=False)
    columns = [column for column in table.columns if column.startswith("prob:")]
    assert np.allclose(table[columns].to_numpy(), np.array(by_mim["class_scores"]), atol=1e-5)


@pytest.mark.long
def test_a_config_file_of_ones_own_is_trained_as_it_says_and_again_when_it_changes(tmp_path: Path) -> None:
    own_file(tmp_path / "cfg")
    (tmp_path / "data.zip").write_bytes(archive_bytes(["a", "b", "c"], per_class=16))
    experiment = {"base_config": "cfg/mine.py", "checkpoint": "none", "threads": 1, "device": "cpu"}
    config = settings({"path": str(tmp_path / "data.zip")}, own=experiment)
    result = snakemake(tmp_path, config, "--until", "evaluate_model")
    assert result.returncode == 0, result.stdout
    run = tmp_path / "results/small/own/seed0"
    log = pd.read_csv(run / "train_log.csv")
    assert list(log["epoch"]) == [1, 2] and log["learning_rate"].iloc[0] == 0.0005  # those of the file
    by_mim = mim_test(tmp_path, run)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert by_mim["accuracy_top-1"] == pytest.approx(100 * metrics["accuracy_top1"], abs=1e-4)

    assert jobs_run(snakemake(tmp_path, config, "--until", "evaluate_model").stdout) == []
    (tmp_path / "cfg" / "runtime.py").write_text("log_level = 'ERROR'\n", encoding="utf-8")  # a file that it inherits
    again = snakemake(tmp_path, config, "--until", "evaluate_model", "--dry-run").stdout
    assert "patch_config" in again and "split_dataset" not in again

"""The bench of whole workflows: what it makes of the steps, and of what logs say of passes over images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dag import ROOT, archive_bytes, settings

from bench.end_to_end import HEAD, Measured, first_batches, passes, read_steps, rules_table, summary


def line(step: str, run: str, began: float, ended: float, *, loads_torch: bool = False) -> str:
    return json.dumps({
        "step": step, "log": f"logs/demo/{run}/{step}.log", "began": began, "ended": ended, "peak_mib": 100.0,
        "processor_seconds": ended - began, "children_processor_seconds": 1.0, "loads_torch": loads_torch,
    })  # fmt: skip


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    lines = [
        line("unpack_archive", "", 0, 5),
        *(line("fit_head", f"m/seed{seed}", 5, 12, loads_torch=True) for seed in range(2)),
        *(line("train_model", f"m/seed{seed}", 12, 40) for seed in range(2)),
        *(line("predict_images", f"m/seed{seed}", 40, 42) for seed in range(2)),
    ]
    (tmp_path / "usage.jsonl").write_text("\n".join(lines) + "\n")
    return Measured(read_steps(tmp_path / "usage.jsonl"), 2, 50.0, 90.0, 900.0, 60.0, 20.0)


def test_a_run_holds_its_gpu_from_its_first_step_to_its_last(measured: Measured) -> None:
    assert measured.held == 37


def test_torch_is_loaded_by_steps_that_are_no_forks_by_trainers_and_by_the_server(measured: Measured) -> None:
    assert measured.torch_processes == (2 + 2 + 1) / 2


def test_the_tables_have_what_was_measured(measured: Measured) -> None:
    row = dict(zip(HEAD, summary("demo", measured), strict=True))
    assert row["seconds / those"] == "0.83" and row["a run's job beside its own, s"] == "7.0"
    text = "\n".join(rules_table(measured))
    assert "| train_model | 2 | 56.0 | 58.0 | 100 |" in text
    assert "| Snakemake, and what steps are forked of |  |  | 4.0 |  |" in text


def test_logs_tell_of_passes_and_of_the_first_batch(tmp_path: Path) -> None:
    log = tmp_path / "fit_head.log"
    log.write_text(
        "2026-11-30 10:00:00,000 INFO __main__: features of 1,800 images in 1.9 s (431 images/s), fit in 0.5 s: ...\n"
        "2026-11-30 10:00:01,000 INFO __main__: 200 images in 2.5 s, 80.0 images/s: predictions.csv\n"
        "2026-11-30 10:00:01,500 INFO __main__: 14 labels of 1,000 images may be wrong: features in 3.0 s,"
        " the rest in 9.0 s\n"
        "2026-11-30 10:00:02,000 INFO __main__: predicting 200 images of test.txt on cpu\n"
    )
    assert passes(log) == pytest.approx(7.4)
    assert passes(tmp_path / "absent.log") == 0
    work = tmp_path / "work" / "1234"
    work.mkdir(parents=True)
    (work / "20261130_100000.log").write_text(
        "2026-11-30 10:00:03,500 - mmcls - INFO - Config:\n"
        "2026-11-30 10:00:04,150 - mmcls - INFO - Validation: {'accuracy_top-1': 92.0}\n"
        "2026-11-30 10:00:04,250 - mmcls - INFO - Before training: {}\n"
        "2026-11-30 10:00:07,250 - mmcls - INFO - Epoch [1][10/21]\tlr: 2.156e-04\n"
        "2026-11-30 10:00:08,250 - mmcls - INFO - load checkpoint\n"
    )
    (moment,) = first_batches(tmp_path / "work")
    assert moment % 60 == pytest.approx(4.25)


#: In a process of its own, which becomes the parent of all that the workflow leaves behind.
WORKFLOW = """
import json, sys
from pathlib import Path
from bench.end_to_end import Checkout, run_workflow
checkout = Checkout(Path("checkout"))
measured = run_workflow(checkout, checkout.write_settings("bench.yaml", json.loads(sys.argv[1])))
print(json.dumps([measured.processor, sum(step.processor for step in measured.steps), measured.torch_processes,
                  measured.first_image, measured.seconds, measured.computing, [step.rule for step in measured.steps]]))
"""


@pytest.mark.long
def test_the_processor_time_of_a_workflow_holds_that_of_its_forked_steps(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(archive_bytes(["apple", "pear", "plum"], per_class=10))
    wanted = json.dumps(settings({"path": str(tmp_path / "data.zip")}))
    result = subprocess.run(
        [sys.executable, "-c", WORKFLOW, wanted],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    processor, of_steps, torch_processes, first, seconds, computing, rules = json.loads(result.stdout)
    assert processor > of_steps + 1  # Snakemake, and loading torch, take seconds
    assert torch_processes == 2  # the server of forks, and the trainer
    assert 0 < computing < seconds and 0 < first < seconds
    assert {"unpack_archive", "train_model", "write_report"} < set(rules) and len(rules) > 15

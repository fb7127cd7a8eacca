"""Runs written for trackers of experiments, read back by the trackers' own packages.

The packages are in none of mimflow's locks: the tests that need one install it, of the package index, into a folder of
their own, as people install it into .venv.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from dag import ROOT, Finished

from scripts import track
from scripts.lib.base.problems import UserError
from scripts.lib.runs.tracked_run import find_runs, read_tracked_run

#: Installed into a folder, without dependencies that .venv has already.
#: W&B 0.31 reads its files by a program that is not Python's; 0.26.1 has a reader in Python.
PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow-skinny", "wandb": "wandb==0.26.1"}
#: Programs that read with the tracker's own reader and print what they find as JSON.
READERS = {
    "tensorboard": """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
import glob
(folder,) = {os.path.dirname(path) for path in glob.glob(sys.argv[1] + "/tensorboard/small/quick/seed0/*")}
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
(run,) = client.search_runs([client.get_experiment_by_name("small").experiment_id])
found = {name: [[metric.step, metric.value] for metric in client.get_metric_history(run.info.run_id, name)]
         for name in run.data.metrics}
files = [file.path for file in client.list_artifacts(run.info.run_id)]
print(json.dumps([found, run.data.params, [path for path in files if path.endswith(".png")]]))
""",
    "wandb": """
import glob
from wandb.proto import wandb_internal_pb2
from wandb.sdk.internal.datastore import DataStore
(path,) = glob.glob(sys.argv[1] + "/wandb/offline-run-*/run-small-quick-seed0.wandb")
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


def program(code: str, packages: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{packages}{os.pathsep}{ROOT}", "HOME": str(folder)}
    command = [sys.executable, *(["-c", "import json, os, sys\n" + code] if code else ["-m", "scripts.track"]), *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.long
@pytest.mark.parametrize("tracker", list(PACKAGES))
def test_the_tracker_s_own_reader_finds_curves_results_and_parameters(
    finished: Finished, tmp_path: Path, tracker: str
) -> None:
    packages, results = tmp_path / "packages", finished[0] / "results" / "small"
    install = [sys.executable, "-m", "pip", "install", "-q", "--target", str(packages), PACKAGES[tracker]]
    subprocess.run(install, check=True, capture_output=True, timeout=600)
    output = {"tensorboard": "t/tensorboard", "mlflow": "t/mlruns", "wandb": "t"}[tracker]
    for _ in range(2):  # the second time replaces what the first one wrote
        words = ["--run", str(results), "--to", tracker, "--output", output]
        written = program("", packages, tmp_path, *words)
        assert written.returncode == 0, written.stderr
        assert written.stdout.startswith("look at it: ")
    read = program(READERS[tracker], packages, tmp_path, "t")
    assert read.returncode == 0, read.stderr
    curves, parameters, pictures = json.loads(read.stdout.splitlines()[-1])

    run = results / "quick" / "seed0"
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

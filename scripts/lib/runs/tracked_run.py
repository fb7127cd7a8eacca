"""A finished run as trackers of experiments take it: its parameters, a value of each epoch, and its results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from scripts.lib.base.files import read_json
from scripts.lib.base.problems import UserError
from scripts.lib.runs.predictions import Predictions, read_predictions
from scripts.lib.runs.provenance import read_provenance
from scripts.lib.runs.run_folder import RunFolder
from scripts.lib.runs.train_log import read_train_log

#: Columns of train_log.csv and what they are called in a tracker: TensorBoard makes a group of what is before the /.
CURVES = {
    "val_accuracy": "val/accuracy",
    "val_loss": "val/loss",
    "train_loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "images_per_second": "train/images_per_second",
}


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run.

    Attributes
    ----------
    dataset, name : of the data set, and the run's below it: ``mobilenet-v2/seed0``.
    parameters : the experiment's settings by dotted keys, the seed, and the versions that it was made with.
    curves : (epoch, value) of each curve, by its name in the tracker; epochs from 0 (a fitted head) or 1.
    results : numbers of metrics.json, of the test images, by ``test/<key>``.
    predictions : of the test images.
    ended : when training ended, in seconds since 1970, or None where that is not on record.
    files : of the run, that a tracker may keep with it.
    """

    folder: Path
    dataset: str
    name: str
    parameters: dict[str, str | int | float | bool]
    curves: dict[str, list[tuple[int, float]]]
    results: dict[str, float]
    predictions: Predictions
    ended: float | None
    files: list[Path]


def read_tracked_run(folder: Path) -> TrackedRun:
    """Read a finished run.

    Raises
    ------
    UserError : it is no folder of a finished run.
    """
    run = RunFolder(folder)
    for file in (run.metrics, run.train_log, run.predictions, run.provenance):
        if not file.is_file():
            raise UserError(
                f"{folder} has no {file.name}", "give the folder of a finished run: results/demo/NAME/seed0"
            )
    provenance = read_provenance(run.provenance)
    names = {**run.names}
    dataset = names.pop("dataset")
    metrics = read_json(run.metrics)
    files = [run.config, run.train_log, run.metrics, run.per_class, run.predictions, run.provenance, run.model_card]
    return TrackedRun(
        folder=folder,
        dataset=dataset,
        name="/".join(names.values()),
        parameters=_parameters(provenance, names),
        curves=_curves(run.train_log),
        results={f"test/{key}": float(value) for key, value in metrics.items()
                 if isinstance(value, int | float) and not isinstance(value, bool) and key != "seed"},
        predictions=read_predictions(run.predictions),
        ended=_seconds(provenance.get("circumstances", {}).get("training", {}).get("ended")),
        files=[file for file in files if file.is_file()],
    )  # fmt: skip


def find_runs(folder: Path) -> list[Path]:
    """Return the finished runs in a folder, which may be one itself: those with metrics.json, sorted.

    Raises
    ------
    UserError : there is none.
    """
    patterns = ("", "*/", "*/*/", "*/*/*/", "*/*/*/*/")
    runs = {path.parent for pattern in patterns for path in folder.glob(f"{pattern}{RunFolder.metrics.name}")}
    runs = {run for run in runs if RunFolder(run).train_log.is_file()}
    if not runs:
        raise UserError(f"{folder}: no finished run in it", "give a run, results/demo/NAME/seed0, or a folder of runs")
    return sorted(runs)


def _parameters(provenance: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str | int | float | bool]:
    inputs = provenance["inputs"]
    (experiment,) = inputs["settings"]["experiments"].values()
    parameters: dict[str, str | int | float | bool] = {}
    for key, value in [*_flat(experiment), *_flat(names)]:
        parameters[key] = value if isinstance(value, str | int | float | bool) else str(value)
    versions = inputs.get("versions", {})
    parameters |= {f"version.{name}": str(versions[name]) for name in ("torch", "mmcls") if versions.get(name)}
    if commit := inputs.get("code", {}).get("commit"):
        parameters["commit"] = str(commit)
    return parameters


def _flat(values: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """Return nested settings as dotted keys; an empty section has none."""
    flat: list[tuple[str, Any]] = []
    for key, value in values.items():
        flat += _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else [(f"{above}{key}", value)]
    return flat


def _curves(train_log: Path) -> dict[str, list[tuple[int, float]]]:
    log = read_train_log(train_log)
    curves: dict[str, list[tuple[int, float]]] = {}
    for column, name in CURVES.items():
        if column in log:
            points = [(int(epoch), float(value)) for epoch, value in zip(log["epoch"], log[column], strict=True)
                      if not math.isnan(value)]  # fmt: skip
            curves |= {name: points} if points else {}
    return curves


def _seconds(time: Any) -> float | None:
    try:
        return datetime.fromisoformat(time).timestamp()
    except (TypeError, ValueError):
        return None

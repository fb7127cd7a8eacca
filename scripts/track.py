"""Write finished runs for a tracker of experiments: TensorBoard, MLflow's file store, or Weights & Biases offline.

Nothing here uses the network, and no tracker runs while a model trains: the curves come from train_log.csv. So it
works on a login node, and again at any time: what was written of a run before is replaced.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from scripts.lib.base.console import run_cli, say
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.runs.tracked_run import TrackedRun, find_runs, read_tracked_run

logger = logging.getLogger(__name__)
#: Trackers: the module that each needs, the package that has it, and where its files go by default.
TRACKERS = {
    "tensorboard": ("tensorboard", "tensorboard", "tracking/tensorboard"),
    "mlflow": ("mlflow", "mlflow-skinny", "tracking/mlruns"),
    "wandb": ("wandb", "wandb", "tracking"),  # which makes a folder wandb in it
}
#: What to type afterwards.
NEXT = {
    "tensorboard": "tensorboard --logdir {output}",
    # From its release 3.7 on MLflow wants to hear that a store of files is meant, not a database.
    "mlflow": "MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri file://{absolute}",
    "wandb": "wandb sync {output}/wandb/offline-run-*    (with internet)",
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.track", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="a finished run, or a folder of runs")
    parser.add_argument("--to", choices=tuple(TRACKERS), required=True, help="the tracker")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write (tracking/<tracker>)")
    return parser


def main(args: argparse.Namespace) -> None:
    """Write each run, and say how to look at them."""
    require(args.to)
    output = args.output or Path(TRACKERS[args.to][2])
    runs = [read_tracked_run(folder) for folder in find_runs(args.run)]
    output.mkdir(parents=True, exist_ok=True)
    write: Callable[[TrackedRun, Path], None] = {"tensorboard": to_tensorboard, "mlflow": to_mlflow, "wandb": to_wandb}[
        args.to
    ]
    for run in runs:
        write(run, output)
    logger.info("%s written to %s", plural(len(runs), "run"), output)
    say(f"look at it: {NEXT[args.to].format(output=output, absolute=output.resolve())}")


def require(tracker: str) -> None:
    """Make sure that a tracker's package is installed; none of them is in mimflow's locks.

    Raises
    ------
    UserError : it is not.
    """
    module, package, _ = TRACKERS[tracker]
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"{tracker}: the package {package} is not installed, which mimflow does not bring along",
            f"`.venv/bin/python -m pip install {package}`, best as docs/trackers.md says it, then again",
        )


def _figure(run: TrackedRun) -> Any:
    from scripts.lib.pages.figures import confusion_matrix

    return confusion_matrix.draw(run.predictions, run.name)


def _picture(run: TrackedRun) -> Image.Image:
    """Return the confusion matrix as pixels."""
    stream = BytesIO()
    _figure(run).savefig(stream, format="png")
    return Image.open(stream)


# --- TensorBoard ------------------------------------------------------------------------------------------------------


def to_tensorboard(run: TrackedRun, output: Path) -> None:
    """Write event files: curves by epoch, the confusion matrix, and the parameters beside the results (HParams)."""
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    folder = output / run.dataset / run.name
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(folder)) as writer:
        for name, points in run.curves.items():
            for epoch, value in points:
                writer.add_scalar(name, value, epoch)
        last = max(epoch for points in run.curves.values() for epoch, _ in points)
        for name, value in run.results.items():
            writer.add_scalar(name, value, last)
        writer.add_figure("test/confusion_matrix", _figure(run), last)
        # Not by add_hparams: that writes the results once more, into a folder of its own.
        for summary in hparams(run.parameters, run.results):
            assert writer.file_writer is not None
            writer.file_writer.add_summary(summary)


# --- MLflow -----------------------------------------------------------------------------------------------------------


def to_mlflow(run: TrackedRun, output: Path) -> None:
    """Write into a store of files: an experiment for each data set, a run for each run, its files as artifacts."""
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=output.resolve().as_uri())
    known = client.get_experiment_by_name(run.dataset)
    experiment = known.experiment_id if known else client.create_experiment(run.dataset)
    for old in client.search_runs([experiment], f"tags.`mimflow.run` = '{run.name}'"):
        client.delete_run(old.info.run_id)
        shutil.rmtree(output / experiment / old.info.run_id, ignore_errors=True)
    when = int(1000 * (run.ended or 0))
    created = client.create_run(experiment, run_name=run.name, start_time=when, tags={"mimflow.run": run.name})
    curves = [Metric(name, value, when, epoch) for name, points in run.curves.items() for epoch, value in points]
    results = [Metric(name, value, when, 0) for name, value in run.results.items()]
    parameters = [Param(key, str(value)[:6000]) for key, value in run.parameters.items()]
    client.log_batch(created.info.run_id, metrics=[*curves, *results], params=parameters)
    for file in run.files:
        client.log_artifact(created.info.run_id, str(file))
    client.log_image(created.info.run_id, _picture(run), "confusion_matrix.png")
    client.set_terminated(created.info.run_id, "FINISHED", end_time=when)


# --- Weights & Biases -------------------------------------------------------------------------------------------------


def to_wandb(run: TrackedRun, output: Path) -> None:
    """Write an offline run: `wandb sync` sends it from a machine with internet; the same run replaces itself there."""
    import wandb

    identity = f"{run.dataset}-{run.name}".replace("/", "-")
    for old in output.glob(f"wandb/offline-run-*-{identity}"):
        shutil.rmtree(old)
    with _offline(), wandb.init(
        project=f"mimflow-{run.dataset}", name=run.name, id=identity, dir=str(output), mode="offline",
        config=dict(run.parameters), settings=wandb.Settings(console="off", silent=True),
    ) as logged:  # fmt: skip
        epochs: dict[int, dict[str, float]] = {}
        for name, points in run.curves.items():
            for epoch, value in points:
                epochs.setdefault(epoch, {})[name] = value
        for epoch in sorted(epochs):
            logged.log({"epoch": epoch, **epochs[epoch]}, step=epoch)
        logged.log({"test/confusion_matrix": wandb.Image(_picture(run))})
        logged.summary.update(run.results)


@contextmanager
def _offline() -> Iterator[None]:
    """Keep W&B from asking for a key and from reading git of the folder in which the command is typed."""
    added = {name: value for name, value in {"WANDB_MODE": "offline", "WANDB_DISABLE_GIT": "true"}.items()
             if name not in os.environ}  # fmt: skip
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


if __name__ == "__main__":
    run_cli(build_parser, main)

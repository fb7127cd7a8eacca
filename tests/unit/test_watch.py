"""`make watch`: what it says of runs, from files as runs write them; that it only looks, and leaves a terminal well."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from dag import ROOT
from rich.cells import cell_len
from training import EXPERIMENT, Training

from scripts import watch
from scripts.lib.base.problems import Stopped, UserError
from scripts.lib.runs import attempts
from scripts.lib.runs.lease import EXPIRY_SECONDS, Lease
from scripts.lib.workflow import run_table
from scripts.lib.workflow.controller import Controller
from scripts.lib.workflow.progress import Overview, RunProgress, State, Watcher

PROGRESS = {
    "epochs_done": 3, "max_epochs": 8, "iteration": 30, "max_iterations": 80, "loss": 0.4123, "val_accuracy": 0.9,
    "best_accuracy": 0.912, "images_per_second": 1234.5, "seconds_left": 3700.0,
}  # fmt: skip
LEADERBOARD = (
    "experiment,seeds,accuracy_top1_mean,accuracy_top1_ci95_low,accuracy_top1_ci95_high,interval,accuracy_top5_mean,"
    "f1_macro_mean,ece_mean,val_accuracy_best_mean,train_seconds_mean,gpu_seconds_mean,images_per_second_mean,n_test,"
    "queue_seconds_sum,wall_seconds_sum,gpu_seconds_sum,energy_kwh_sum,cost_sum,currency\n"
    "a,1,0.9625,0.9307,0.9942,these models,1.0,0.96,0.13,0.975,73.3,0.0,73.2,200,,183.0,0.0,,,\n"
)


class Project:
    """A project's folder with the files that runs, Snakemake and its jobs leave there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results"
        self.watcher = Watcher(self.results)
        self.controller = Controller(self.folder / ".snakemake/mimflow-controller.json")

    def write(self, path: str, text: str = "", age: float = 0.0) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        then = time.time() - age
        os.utime(file, (then, then))
        return file

    def ended(self, log: str, what: str, ending: str = "failed", age: float = 0.0) -> Path:
        """A command that did not finish: its log, and what it says beside it."""
        content = {"outcome": ending, "what": what, "remedy": ""}
        self.write(f"logs/{log}.outcome.json", json.dumps(content), age)
        return self.write(f"logs/{log}.log", f"an ERROR in words: {what}\n", age)

    def work(self, run: str = "demo/a/seed0", **progress: Any) -> Path:
        """Return the work_dir of a run, with the progress of a training in it."""
        return self.write(f"results/{run}/work/abc/progress.json", json.dumps(PROGRESS | progress)).parent

    def lease(self, work: Path, age: float = 0.0, **holder: Any) -> Path:
        """A lease of a process on another machine, which only its age tells of."""
        content = {"token": "x", "host": "g0001", "pid": 7, "started": 1.0, "job": "11", "group": 8} | holder
        return self.write(str((work / "lease.json").relative_to(self.folder)), json.dumps(content), age)

    def snakemake(self, *outputs: str, alive: bool = True) -> None:
        """A Snakemake that is to make *outputs*, below results/; it began ten seconds ago."""
        lines = "".join(f"results/{name}\n" for name in outputs)
        self.write(".snakemake/locks/0.output.lock", lines, age=10)
        if alive:
            self.controller.release()  # of the one before
            self.controller.take(slurm=False)
        else:
            record = {"token": "y", "host": "ln01", "pid": 1, "started": 1.0, "job": None}
            self.write(".snakemake/mimflow-controller.json", json.dumps({"holder": record, "slurm": False}), age=100)

    def look(self) -> dict[str, RunProgress]:
        return {
            f"{run.dataset}/{run.experiment}/seed{run.seed}" + ("" if run.fold is None else f"/fold{run.fold}"): run
            for run in self.watcher.look().runs
        }

    def run(self) -> RunProgress:
        (run,) = self.look().values()
        return run


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    project.controller.release()  # its heartbeat is a thread, and would touch the record during later tests


# --- a run that trains ------------------------------------------------------------------------------------------------


def test_a_run_that_trains_shows_how_far_it_is(project: Project) -> None:
    work = project.work()
    lease = Lease(work)
    lease.acquire()
    with attempts.recorded(work):
        run = project.run()
    assert (run.state, run.epochs_done, run.max_epochs) == (State.TRAINING, 3, 8)
    assert (run.fraction, run.best_val_accuracy, run.loss) == (30 / 80, 0.912, 0.4123)
    assert (run.images_per_second, run.seconds_left) == (1234.5, 3700)
    assert run.elapsed_seconds is not None and 0 <= run.elapsed_seconds < 3
    assert run.silent_seconds is not None and 0 <= run.silent_seconds < 3
    assert f"process {os.getpid()} on " in run.holder
    lease.release()


def test_before_the_first_step_it_is_starting(project: Project) -> None:
    folder = project.results / "demo/a/seed0/work/abc"
    project.lease(folder)
    run = project.run()
    assert run.state == State.STARTING and run.fraction is run.loss is run.seconds_left is None


def test_a_heartbeat_that_stopped_is_stale_and_names_who(project: Project) -> None:
    work = project.work()
    project.lease(work, age=EXPIRY_SECONDS - 5)
    assert project.run().state == State.TRAINING
    project.watcher = Watcher(project.results)
    project.lease(work, age=EXPIRY_SECONDS + 5)
    run = project.run()
    assert run.state == State.STALE and run.reason.startswith("process 7 on g0001, Slurm job 11 died without a word")
    assert run.seconds_left is None


def test_a_heartbeat_counts_though_the_clocks_differ(project: Project) -> None:
    lease = project.lease(project.work(), age=3600)
    assert project.run().state == State.STALE
    os.utime(lease, (time.time() - 3590,) * 2)
    assert project.run().state == State.TRAINING


def test_a_dead_process_of_this_machine_is_stale_at_once(project: Project) -> None:
    import socket

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    project.lease(project.work(), host=socket.gethostname(), pid=ended.pid, group=None)
    assert project.run().state == State.STALE


def test_the_newest_work_folder_counts(project: Project) -> None:
    """A changed config is trained in a folder of its own; the one before stays."""
    project.write("results/demo/a/seed0/work/old/progress.json", json.dumps(PROGRESS | {"epochs_done": 8}), age=99)
    project.lease(project.work(epochs_done=1))
    assert project.run().epochs_done == 1


def test_all_attempts_count_as_elapsed(project: Project) -> None:
    lines = [
        {"attempt": "1", "start": "2026-01-01T00:00:00+00:00"},
        {"attempt": "1", "end": "2026-01-01T00:10:00+00:00", "outcome": "training was stopped by SIGTERM"},
        {"attempt": "2", "start": "2026-01-01T01:00:00+00:00"},
        {"attempt": "2", "seen": "2026-01-01T01:00:30+00:00"},
    ]
    work = project.work()
    project.write("results/demo/a/seed0/work/abc/attempts.jsonl", "\n".join(map(json.dumps, lines)))
    run = project.run()
    assert run.elapsed_seconds == 630
    assert run.state == State.STALE and "its end is not on record" in run.reason
    project.lease(work)
    run = project.run()
    assert run.state == State.TRAINING and run.elapsed_seconds is not None and run.elapsed_seconds > 86400


# --- how it ended -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Stopped("training was ended by SIGTERM; its state is in x", "the same command goes on"), State.STOPPED),
        (UserError("training was stopped: out of memory", "halve batch_size"), State.FAILED),
        (KeyboardInterrupt(), State.STOPPED),
    ],
)
def test_an_attempt_that_ended_badly_says_why(error: BaseException, state: State, project: Project) -> None:
    with pytest.raises(type(error)), attempts.recorded(project.work()):
        raise error
    run = project.run()
    assert (run.state, run.reason) == (state, str(error) or "KeyboardInterrupt")


def test_the_error_of_a_log_is_the_reason_until_the_step_is_done(project: Project) -> None:
    project.write("results/demo/a/seed0/best.pth", age=5)
    project.ended("demo/a/seed0/predict_images", "a.jpg: cannot be read")
    run = project.run()
    assert (run.state, run.reason) == (State.FAILED, "a.jpg: cannot be read")
    project.ended("demo/a/seed0/predict_images", "interrupted", "interrupted")
    assert project.run().state == State.STOPPED
    project.write("results/demo/a/seed0/predictions.csv")
    assert project.run().state == State.WAITING
    project.write("results/demo/a/seed0/metrics.json", "{}")
    assert project.run().state == State.DONE
    project.ended("demo/a/seed0/plot_curves", "no font")
    assert (project.run().state, project.run().reason) == (State.FAILED, "no font")


def test_a_finished_run_is_done_whatever_its_last_progress_was(project: Project) -> None:
    with attempts.recorded(project.work()):  # patience ended it after 3 of 8 epochs
        pass
    project.write("results/demo/a/seed0/metrics.json", "{}")
    run = project.run()
    assert run.state == State.DONE and run.fraction == 1 and run.seconds_left is None and run.holder == ""


def test_without_work_the_training_log_tells(project: Project) -> None:
    rows = ["epoch,train_loss,val_accuracy,images_per_second", "0,,0.5,", "1,0.7,0.9,70", "2,0.6,0.8,80.5"]
    project.write("results/demo/a/seed0/train_log.csv", "\n".join(rows))
    project.write("results/demo/a/seed0/metrics.json", "{}")
    run = project.run()
    assert (run.best_val_accuracy, run.loss, run.images_per_second, run.fraction) == (0.9, 0.6, 80.5, 1)


def test_a_step_that_nobody_runs_any_more_is_stale(project: Project) -> None:
    log = "logs/demo/a/seed0/fit_head.log"
    project.write("results/demo/a/seed0/config.py")
    project.write(log, age=EXPIRY_SECONDS - 5)
    assert project.run().state == State.FITTING_HEAD
    project.watcher = Watcher(project.results)
    project.write(log, age=EXPIRY_SECONDS + 5)
    run = project.run()
    assert run.state == State.STALE and run.reason.startswith("fit_head began and left nothing")


# --- what a living Snakemake has in hand ------------------------------------------------------------------------------

OUTPUTS = ("config.py", "init.pth", "best.pth", "last.pth", "train_log.csv", "predictions.csv", "metrics.json",
           "figures/curves.svg", "provenance.json")  # fmt: skip


@pytest.mark.parametrize(
    ("made", "begun", "state"),
    [
        (0, [], State.WAITING),
        (0, ["patch_config"], State.STARTING),
        (1, ["patch_config"], State.WAITING),
        (1, ["patch_config", "fit_head"], State.FITTING_HEAD),
        (2, ["fit_head", "train_model"], State.STARTING),
        (5, ["train_model"], State.TRAINED),
        (5, ["train_model", "predict_images"], State.PREDICTING),
        (6, ["predict_images", "plot_curves", "evaluate_model"], State.EVALUATING),
        (7, ["evaluate_model"], State.EVALUATED),
        (7, ["evaluate_model", "plot_curves"], State.REPORTING),
        (8, ["plot_curves", "record_provenance"], State.REPORTING),
        (9, ["plot_curves", "record_provenance"], State.DONE),
    ],
)
def test_each_step_of_a_run_is_told_apart(made: int, begun: list[str], state: State, project: Project) -> None:
    project.snakemake(*(f"demo/a/seed0/{name}" for name in OUTPUTS))
    for index, name in enumerate(OUTPUTS):
        if index < made:
            project.write(f"results/demo/a/seed0/{name}", "{}")
        else:  # an earlier Snakemake made it; this one is to make it again
            project.write(f"results/demo/a/seed0/{name}", "{}", age=60)
    for rule in begun:
        project.write(f"logs/demo/a/seed0/{rule}.log")
    assert project.run().state == state


@pytest.mark.parametrize(
    ("rule", "output", "state"),
    [
        ("demo/fetch_archive", "demo/archive.zip", State.FETCHING),
        ("checkpoints/zoo-1.0", "checkpoints/zoo-1.0.pth", State.FETCHING),
        ("demo/unpack_archive", "demo/images", State.UNPACKING),
        ("demo/audit_images", "demo/audit.csv", State.AUDITING),
        ("demo/split_dataset", "demo/splits/val.txt", State.SPLITTING),
        ("demo/pack_images_256", "demo/packed/256", State.PACKING),
    ],
)
def test_runs_that_wait_say_what_for(rule: str, output: str, state: State, project: Project) -> None:
    project.snakemake(output, "demo/a/seed0/config.py", "demo/leaderboard.csv")
    log = project.write(f"logs/{rule}.log", age=60)
    assert project.run().state == State.WAITING
    log.touch()
    assert project.run().state == state
    project.write(f"results/{output}")
    assert project.run().state == State.WAITING


def test_what_went_wrong_before_this_snakemake_began_is_past(project: Project) -> None:
    work = project.work()
    lease = project.lease(work, age=100)
    project.ended("demo/a/seed0/train_model", "out of memory", age=60)
    project.ended("demo/split_dataset", "no images", age=60)
    project.snakemake("demo/a/seed0/last.pth", "demo/splits/train.txt")
    overview = project.watcher.look()
    assert (overview.runs[0].state, overview.runs[0].reason, overview.problems) == (State.WAITING, "", ())
    assert overview.controller.startswith(f"process {os.getpid()} on ")
    for log, end in product(("a/seed0/train_model", "split_dataset"), (".log", ".outcome.json")):
        (project.folder / "logs/demo" / f"{log}{end}").touch()
    overview = project.watcher.look()
    assert (overview.runs[0].state, overview.runs[0].reason) == (State.FAILED, "out of memory")
    assert overview.problems == ("demo: split_dataset: no images",)
    project.write("logs/demo/a/seed0/train_model.log", "")
    (project.folder / "logs/demo/a/seed0/train_model.outcome.json").unlink()
    assert project.run().state == State.STARTING
    os.utime(lease, (time.time() - 5,) * 2)  # it took the lease over, and lives
    assert project.run().state == State.TRAINING


@pytest.mark.parametrize("run", ["demo/a/seed0", "demo/b/seed3", "demo/c/seed1/fold2"])
@pytest.mark.parametrize("rule", ["patch_config", "fit_head"])
def test_a_run_that_failed_before_it_had_a_folder_is_shown(run: str, rule: str, project: Project) -> None:
    project.write("results/demo/classes.txt", "a\nb\n")
    project.ended(f"{run}/{rule}", "base_config: there is no such config")
    assert {name: (run.state, run.reason) for name, run in project.look().items()} == {
        run: (State.FAILED, "base_config: there is no such config")
    }


def test_logs_of_runs_that_were_removed_are_no_runs(project: Project) -> None:
    project.write("logs/demo/old/seed0/patch_config.log")
    project.write("results/demo/a/seed0/config.py")
    assert list(project.look()) == ["demo/a/seed0"]


def test_a_run_that_failed_before_a_report_was_made_without_it_is_none(project: Project) -> None:
    project.write("results/demo/a/seed0/config.py")
    project.ended("demo/renamed/seed0/patch_config", "base_config: there is no such config", age=60)
    assert sorted(project.look()) == ["demo/a/seed0", "demo/renamed/seed0"]
    project.write("results/demo/report.html")
    assert list(project.look()) == ["demo/a/seed0"]


@pytest.mark.parametrize(
    ("log", "mended"),
    [
        ("demo/pack_images_64", "results/demo/report.html"),
        ("demo/find_label_suspects", "results/demo/report.html"),
        ("demo/fetch_archive", "logs/demo/unpack_archive.log"),
        ("demo/fetch_labels.csv", "logs/demo/unpack_archive.log"),
        ("demo/fetch_archive", "logs/demo/split_dataset.log"),
        ("demo/unpack_archive", "logs/demo/audit_images.log"),
        ("demo/audit_images", "logs/demo/pack_images_64.log"),
        ("checkpoints/resnet", "results/checkpoints/resnet.pth"),
        ("checkpoints/resnet", ".snakemake/log/2099-01-01T000000.1.snakemake.log"),
    ],
)
def test_an_error_of_the_data_that_was_mended_otherwise_is_past(log: str, mended: str, project: Project) -> None:
    project.write("results/demo/a/seed0/config.py")
    project.ended(log, "the server does not answer", age=60)
    project.write("logs/demo/fetch_labels_2.csv.log")
    project.write(".snakemake/log/2001-01-01T000000.1.snakemake.log")
    assert len(project.watcher.look().problems) == 1
    project.write(mended)
    assert project.watcher.look().problems == ()


def test_planned_runs_are_known_before_they_have_a_folder(project: Project) -> None:
    project.snakemake("demo/b/seed10/config.py", "demo/b/seed2/config.py", "demo/a/seed0/config.py", alive=False)
    assert list(project.look()) == ["demo/a/seed0", "demo/b/seed2", "demo/b/seed10"]
    assert {run.state for run in project.look().values()} == {State.WAITING}
    settings = "dataset: {name: other}\nexperiments: {c: {base_config: x}}\nseeds: [0, 1]\n"
    project.write("results/other/settings.yaml", settings)
    project.write("results/demo/settings.yaml", settings)  # of an earlier run: what is planned now counts
    assert list(project.look())[3:] == ["other/c/seed0", "other/c/seed1"]


def test_it_is_complete_only_when_the_leaderboard_is_made(project: Project) -> None:
    project.snakemake("demo/a/seed0/metrics.json", "demo/leaderboard.csv")
    project.write("results/demo/a/seed0/metrics.json", "{}")
    assert project.run().state == State.DONE and not project.watcher.look().complete
    project.write("results/demo/leaderboard.csv", LEADERBOARD)
    assert project.watcher.look().complete
    project.snakemake("demo/b/seed0/metrics.json")
    assert not project.watcher.look().complete


def test_results_may_be_a_link_to_another_disk(project: Project) -> None:
    (project.folder / "disk").mkdir()
    project.results.symlink_to(project.folder / "disk")
    project.watcher = Watcher(project.results)
    project.snakemake("demo/a/seed0/config.py")
    project.write("logs/demo/a/seed0/patch_config.log")
    assert project.run().state == State.STARTING


# --- only looking -----------------------------------------------------------------------------------------------------

FILES = ("work/abc/progress.json", "work/abc/lease.json", "work/abc/attempts.jsonl", "train_log.csv", "metrics.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"loss": "x"}', '{"epochs_done": []}', "\0\ufffd\n,\n"])
def test_files_that_make_no_sense_are_no_news(text: str, project: Project) -> None:
    project.work()
    for name in FILES:
        project.write(f"results/demo/a/seed0/{name}", text)
    project.write("results/demo/settings.yaml", text)
    project.write(".snakemake/mimflow-controller.json", text)
    project.write(".snakemake/locks/0.output.lock", text)
    project.write("logs/demo/a/seed0/train_model.log", text)
    project.write("logs/demo/a/seed0/train_model.outcome.json", text)
    project.write("results/demo/b", text)
    (project.results / "demo/c").symlink_to("nowhere")
    run = project.run()
    assert run.state == State.TRAINING or run.loss is None
    assert run_table.render(project.watcher.look(), 80, 24) and json.loads(run_table.as_json(project.watcher.look()))


@pytest.mark.parametrize(
    "holder", [{"pid": "7"}, {"started": None}, {"group": "x"}, {"token": []}, {"host": None}, {"more": 1}]
)
def test_a_lease_that_makes_no_sense_counts_by_its_age(holder: dict[str, Any], project: Project) -> None:
    work = project.work()
    project.lease(work, **holder)
    assert project.run().state == State.TRAINING


def test_a_file_that_is_being_replaced_keeps_its_last_meaning(project: Project) -> None:
    work = project.work()
    project.lease(work)
    assert project.run().loss == 0.4123
    for text in ("", '{"epochs_d'):
        (work / "progress.json").write_text(text)
        assert project.run().loss == 0.4123
    project.work(loss=0.3)
    assert project.run().loss == 0.3
    (work / "progress.json").write_text('{"loss": NaN, "images_per_second": Infinity, "iteration": true}')
    run = project.run()
    assert run.loss is run.images_per_second is run.fraction is None


def grid(project: Project, number: int) -> None:
    """*number* runs: one in three trains, one is done, one has failed."""
    for index in range(number):
        run = f"demo/experiment-{index // 10}/seed{index % 10}"
        work = project.work(run, iteration=index % 80)
        (work / "attempts.jsonl").write_text('{"attempt": "1", "start": "2026-01-01T00:00:00+00:00"}')
        for rule in ("patch_config", "fit_head", "train_model", "predict_images", "plot_curves"):
            project.write(f"logs/{run}/{rule}.log", "a line\n" * 50, age=5)
        for name in ("config.py", "init.pth", "best.pth", "last.pth", "train_log.csv", "predictions.csv"):
            project.write(f"results/{run}/{name}", "x", age=4)
        if index % 3 == 0:
            project.lease(work, token=str(index))
        elif index % 3 == 1:
            project.write(f"results/{run}/metrics.json", "{}", age=-1)
        else:
            (project.results / run / "predictions.csv").unlink()
            project.ended(f"{run}/predict_images", "no GPU")


#: What Python tells its audit hooks when a file is made or changed, or a process is signalled.
CHANGES = frozenset(
    [
        "os.mkdir",
        "os.rename",
        "os.remove",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.utime",
        "os.truncate",
        "os.chmod",
        "os.kill",
        "os.killpg",
        "os.lockf",
        "fcntl.flock",
        "fcntl.lockf",
    ]
)
_recorders: list[Callable[[str, tuple[Any, ...]], None]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    for recorder in _recorders:
        recorder(event, arguments)


sys.addaudithook(_audit)


@contextmanager
def watched() -> Iterator[tuple[list[str], list[str]]]:
    """Yield the paths that are opened in the block, and what is changed in it."""
    opened: list[str] = []
    changed: list[str] = []

    def record(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and not arguments[0].startswith("/proc/"):
            opened.append(arguments[0])
            if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                changed.append(arguments[0])
        elif event in CHANGES:
            changed.append(f"{event}{arguments}")

    _recorders.append(record)
    try:
        yield opened, changed
    finally:
        _recorders.remove(record)


@pytest.mark.long
def test_hundreds_of_runs_are_looked_at_quickly_and_nothing_is_touched(project: Project) -> None:
    grid(project, 300)
    project.snakemake("demo/new/seed0/config.py", alive=False)
    with watched() as (opened, changed):
        overview = project.watcher.look()
    states = [run.state for run in overview.runs]
    assert [states.count(state) for state in (State.TRAINING, State.DONE, State.FAILED)] == [100, 100, 100]
    assert len(opened) > 300 and changed == []
    project.work("demo/experiment-7/seed3", loss=0.1)
    seconds = []
    for _ in range(3):
        start = time.process_time()  # of the processor: on a busy machine the clock measures the others
        with watched() as (opened, changed):
            overview = project.watcher.look()
        run_table.render(overview, 80, 24)
        seconds.append(time.process_time() - start)
        assert len(opened) <= 1 and changed == []
    assert min(seconds) < 0.3, seconds


def test_each_fold_is_a_run_with_files_logs_and_plan_of_its_own(project: Project) -> None:
    project.lease(project.work("demo/a/seed0/fold0"))
    project.write("results/demo/a/seed0/fold1/metrics.json", "{}")
    project.ended("demo/a/seed0/fold2/train_model", "no memory")
    (project.results / "demo/a/seed0/fold2").mkdir()
    project.work("demo/a/seed1", epochs_done=8)  # of a time before there were folds
    project.write("results/demo/a/seed1/fold0/config.py")
    states = {name: run.state for name, run in project.look().items()}
    assert states == {
        "demo/a/seed0/fold0": State.TRAINING, "demo/a/seed0/fold1": State.DONE, "demo/a/seed0/fold2": State.FAILED,
        "demo/a/seed1": states["demo/a/seed1"], "demo/a/seed1/fold0": State.WAITING,
    }  # fmt: skip


def test_planned_folds_are_known_before_they_begin(project: Project) -> None:
    project.write(
        "results/other/settings.yaml",
        "dataset: {name: other, split: {folds: 3}}\nexperiments: {b: {}}\nseeds: [4]\n",
    )
    project.snakemake("demo/a/seed0/fold0/metrics.json", "demo/a/seed0/fold1/figures/x.svg")
    project.write("results/demo/a/seed0/fold0/metrics.json", "{}")
    project.write("results/demo/a/seed0/fold1/metrics.json", "{}")
    states = {name: run.state for name, run in project.look().items()}
    assert states == {
        "demo/a/seed0/fold0": State.DONE, "demo/a/seed0/fold1": states["demo/a/seed0/fold1"],
        **{f"other/b/seed4/fold{fold}": State.WAITING for fold in range(3)},
    }  # fmt: skip
    assert states["demo/a/seed0/fold1"] != State.DONE, "its figure is still to come"


# --- the table --------------------------------------------------------------------------------------------------------


def overview_of(*runs: RunProgress, problems: tuple[str, ...] = ()) -> Overview:
    return Overview(runs, problems, "process 7 on vm", False, 1e9)


TRAINING = RunProgress(
    "demo", "mobilenet-v2", 0, State.TRAINING, 3, 8, 0.375, 0.912, 0.4123, 1234.5, 3725.0, 190000.0, 4.0
)
DONE = replace(TRAINING, seed=1, state=State.DONE, fraction=1.0, seconds_left=None, silent_seconds=7300.0)
FAILED = replace(TRAINING, seed=2, state=State.FAILED, reason="no memory: halve batch_size", seconds_left=None)
WAITS = RunProgress("demo", "mobilenet-v2", 3, State.WAITING)


def text_of(overview: Overview, width: int | None = None, height: int | None = None) -> list[str]:
    return [line.plain for line in run_table.render(overview, width, height)]


def test_a_row_says_it_all() -> None:
    lines = text_of(overview_of(TRAINING, DONE, FAILED, WAITS, problems=("demo: compare_runs: no font",)))
    assert lines[0].endswith("  snakemake is process 7 on vm")
    assert lines[1].split() == ["run", "seed", "state", "progress", "val", "%", *run_table.HEADER[5:]]
    assert lines[2] == "demo: 4 runs: 1 training, 1 failed, 1 waiting, 1 done"
    row = "mobilenet-v2 0 training 3/8 ###....... 91.2 0.412 1,234 1:02:05 2-04:46:40 4 s"
    assert lines[3].split() == row.split()
    assert lines[4].split()[2:] == ["done", "##########", "91.2", "0.412", "1,234", "1:02:05", "-", "2", "h"]
    assert lines[6].split() == ["mobilenet-v2", "3", "waiting", "-", "-", "-", "-", "-", "-"]
    assert lines[7:] == [
        "demo: compare_runs: no font", "demo, mobilenet-v2, seed 2 failed: no memory: halve batch_size"
    ]  # fmt: skip


def test_folds_stand_beside_their_seed_and_only_where_there_are_some() -> None:
    folds = [replace(TRAINING, fold=0), replace(FAILED, seed=0, fold=1), replace(FAILED, seed=0, fold=2)]
    lines = text_of(overview_of(*folds))
    assert [line.split()[:5] for line in lines[3:5]] == [
        ["mobilenet-v2", "0", "fold", "0", "training"],
        ["mobilenet-v2", "0", "fold", "1", "failed"],
    ]
    assert lines[-1] == "demo, mobilenet-v2, seed 0 fold 1, 0 fold 2 failed: no memory: halve batch_size"
    assert [run["fold"] for run in json.loads(run_table.as_json(overview_of(*folds)))["runs"]] == [0, 1, 2]
    assert "fold" not in run_table.as_json(overview_of(TRAINING, FAILED)) + "".join(text_of(overview_of(TRAINING)))


def test_equal_reasons_are_said_once() -> None:
    overview = overview_of(FAILED, replace(FAILED, seed=5), replace(FAILED, seed=6, reason="other"))
    assert text_of(overview)[-2:] == [
        "demo, mobilenet-v2, seed 2 5 failed: no memory: halve batch_size",
        "demo, mobilenet-v2, seed 6 failed: other",
    ]


@pytest.mark.parametrize(
    "name", ["a", "mobilenet-v2", "水果分类-移动网络-第二版", "a-very-long-name-of-an-experiment" * 3]
)
@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 40, 20, 5])
def test_it_fits_the_window_and_columns_stand_below_each_other(name: str, width: int) -> None:
    runs = [replace(run, dataset=d, experiment=name) for d in ("demo", "水果") for run in (TRAINING, FAILED, WAITS)]
    overview = overview_of(*runs, replace(TRAINING, dataset="水果", experiment="b", seed=12345))
    lines = text_of(overview, width, 24)
    assert len(lines) <= 24 and max(map(cell_len, lines)) <= width
    if width >= 80:
        rows = [
            lines[1],
            *(line for line in lines[2:] if re.search(r" (training|waiting) ", line) and ": " not in line),
        ]
        places = {cell_len(re.split(r"state|training|waiting", line)[0]) for line in rows}
        assert len(rows) == 6 and len(places) == 1
        for column in run_table.HEADER if width >= 100 else ("run", "state", "progress", "val %", "left", "silent"):
            assert column in lines[1]


def test_long_names_stay_apart_when_they_are_shortened() -> None:
    names = [f"mobilenet-v2-{middle}-of-the-second-try" for middle in ("first", "other")]
    lines = text_of(overview_of(*(replace(TRAINING, experiment=name) for name in names)), 80)
    assert len({line.split(" training")[0] for line in lines[3:]}) == 2


@pytest.mark.long
def test_where_there_is_no_room_running_runs_come_first() -> None:
    done = [replace(DONE, seed=seed) for seed in range(40)]
    waiting = [replace(WAITS, seed=seed) for seed in range(40, 60)]
    failed = [replace(FAILED, seed=seed) for seed in range(60, 63)]
    running = [replace(TRAINING, seed=seed) for seed in range(63, 67)]
    overview = overview_of(*done, *waiting, *failed, *running)
    lines = text_of(overview, 80, 16)
    assert len(lines) == 16
    seeds = [int(line.split()[1]) for line in lines if line.startswith("mobilenet-v2")]
    assert seeds == [40, 41, 42, 43, 60, 61, 62, 63, 64, 65, 66]
    assert lines[-2] == "not shown: 56 runs: 16 waiting, 40 done"
    for height in range(1, 100):
        assert len(text_of(overview, 80, height)) <= height
    assert len(text_of(overview, 80, 100)) == 67 + 3 + 1


def test_many_reasons_leave_room_for_the_runs() -> None:
    failed = [replace(FAILED, seed=seed, reason=f"reason {seed}") for seed in range(30)]
    lines = text_of(overview_of(*failed, replace(TRAINING, seed=99)), 80, 24)
    assert len(lines) == 24 and any(line.startswith("mobilenet-v2   99 training") for line in lines)
    assert sum("failed: reason" in line for line in lines) == 5 and "and 25 more lines" in lines[-1]


# --- the command ------------------------------------------------------------------------------------------------------


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "scripts.watch", *options]


def call(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command(*options), cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_nothing_found_is_said_in_one_line(project: Project) -> None:
    result = call(project.folder)
    assert result.returncode == 1 and result.stdout == ""
    assert re.fullmatch(
        r"error: \S+/results: there are no runs: start some with `make run CONFIG=\S+`, or say by --results .*\n",
        result.stderr,
    )
    project.ended("demo/unpack_archive", "x.zip is cut short")
    (project.results / "demo").mkdir(parents=True)
    project.work("mine/a/seed0")
    with pytest.raises(UserError, match="no runs of the data set demo: there are mine"):
        watch.first_look(project.watcher, "demo")


def test_without_a_terminal_it_prints_once_and_as_json_all_that_is_known(project: Project) -> None:
    project.work("demo/苹果/seed0")
    project.lease(project.work("demo/苹果/seed1"))
    project.work("other/a/seed0")
    result = call(project.folder, "--dataset", "demo")
    assert result.returncode == 0 and result.stderr == "" and "\x1b" not in result.stdout
    assert "training 3/8" in result.stdout and "other" not in result.stdout
    content = json.loads(call(project.folder, "--json").stdout)
    assert content["counts"] == {"waiting": 2, "training": 1} and content["complete"] is False
    assert content["runs"][1] | {"silent_seconds": 0} == {
        "dataset": "demo", "experiment": "苹果", "seed": 1, "state": "training", "epochs_done": 3, "max_epochs": 8,
        "fraction": 0.375, "best_val_accuracy": 0.912, "loss": 0.4123, "images_per_second": 1234.5,
        "elapsed_seconds": None, "seconds_left": 3700.0, "silent_seconds": 0,
        "holder": "process 7 on g0001, Slurm job 11", "reason": "",
    }  # fmt: skip


class Terminal:
    """The command at a terminal of 80 by 24."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            command(*options), cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs,
            preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
        )  # fmt: skip
        os.close(theirs)
        self.text = ""

    def until(self, wanted: str | None, seconds: float = 60) -> str:
        """Read on until *wanted* was written, or to the end for None."""
        deadline = time.monotonic() + seconds
        while wanted is None or wanted not in self.text:
            assert time.monotonic() < deadline, self.text
            try:
                self.text += os.read(self.ours, 65536).decode("utf-8", "replace")
            except OSError:  # the other end is closed
                assert wanted is None, self.text
                break
        return self.text

    def end(self) -> int:
        self.until(None)
        os.close(self.ours)
        return self.process.wait(60)


def test_the_live_view_draws_follows_and_ends_at_ctrl_c(project: Project) -> None:
    project.lease(project.work())
    terminal = Terminal(project.folder, "--interval", "0.1")
    terminal.until("training 3/8")
    project.work(epochs_done=4)
    terminal.until("training 4/8")
    os.write(terminal.ours, b"\x03")
    assert terminal.end() == 0
    drawn, _, after = terminal.text.rpartition("\x1b[?1049l")
    assert drawn.startswith("\x1b[?1049h") and "Ctrl-C ends this view" in drawn
    assert "\x1b[?25h" in terminal.text[drawn.rindex("\x1b[?25l") :], "the cursor is shown again"
    assert "training 4/8" in after and "Traceback" not in after and "interrupted" not in after


def test_sigterm_gives_the_terminal_back(project: Project) -> None:
    project.lease(project.work())
    terminal = Terminal(project.folder)
    terminal.until("training 3/8")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == 128 + signal.SIGTERM
    assert "\x1b[?1049l" in terminal.text and "\x1b[?25h" in terminal.text


@pytest.mark.long
def test_the_live_view_ends_with_the_leaderboard_when_all_is_done(project: Project) -> None:
    lease = project.lease(project.work())
    terminal = Terminal(project.folder, "--interval", "0.1")
    terminal.until("training 3/8")
    lease.unlink()
    project.write("results/demo/leaderboard.csv", LEADERBOARD)
    project.write("results/demo/a/seed0/metrics.json", "{}")
    assert terminal.end() == 0
    after = terminal.text.rpartition("\x1b[?1049l")[2]
    assert "the run is done" in after and "96.2" in after and "93.1 to 99.4" in after


# --- a real training --------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_real_training_is_watched_from_its_start_over_a_stop_to_its_end(project: Project) -> None:
    folder = project.results / "small/quick/seed0"
    log = project.folder / "logs/small/quick/seed0/train_model.log"
    training = Training(folder, {**EXPERIMENT, "epochs": 6})
    seen: list[RunProgress] = []

    def follow(process: subprocess.Popen[str], until: Callable[[RunProgress], bool] = lambda run: False) -> None:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            seen.append(project.run())
            if until(seen[-1]):
                break
            time.sleep(0.02)

    assert project.run().state == State.WAITING
    process = training.start(log=log)
    follow(process, lambda run: run.state == State.TRAINING and (run.epochs_done or 0) >= 1)
    assert seen[-1].state == State.TRAINING, "it was watched while it trained"
    assert f"process {process.pid} on " in seen[-1].holder
    process.terminate()
    process.communicate(timeout=60)
    run = project.run()
    assert run.state == State.STOPPED and "training was stopped by SIGTERM" in run.reason
    seen.append(run)
    process = training.start(log=log)
    follow(process)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    order = [run.state for index, run in enumerate(seen) if index == 0 or run.state != seen[index - 1].state]
    order = [state for state in order if state not in (State.WAITING, State.TRAINED)]
    assert order[:3] == [State.STARTING, State.TRAINING, State.STOPPED] and order[-1] == State.TRAINING
    fractions = [run.fraction for run in seen if run.fraction is not None]
    assert fractions == sorted(fractions) and 0 < fractions[0] < 1 and fractions[-1] > fractions[0]
    assert any(run.seconds_left for run in seen if run.state == State.TRAINING)
    run = project.run()
    rows = (folder / "train_log.csv").read_text().splitlines()
    last, accuracies = rows[-1].split(","), [float(row.split(",")[4]) for row in rows[1:]]
    assert run.state == State.TRAINED and (run.epochs_done, run.max_epochs, run.fraction) == (6, 6, 1)
    assert run.best_val_accuracy == max(accuracies) and run.loss == pytest.approx(float(last[3]))
    assert run.images_per_second == pytest.approx(float(last[6])) and run.elapsed_seconds is not None
    (folder / "metrics.json").write_text("{}")
    assert project.watcher.look().complete

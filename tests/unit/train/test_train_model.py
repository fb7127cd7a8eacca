"""How train_model calls mim, tells what it does, and explains a failure in one line."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from scripts.lib.base.files import write_sum
from scripts.lib.base.outcome import Ending, Outcome
from scripts.lib.base.problems import Stopped
from scripts.lib.runs.progress_line import Progress, closing_line, progress_line, resuming_line
from scripts.lib.runs.run_folder import WorkFolder
from scripts.train.train_model import (
    begin_anew,
    choose_work_dir,
    default_workers,
    explain_failure,
    mim_command,
    publish,
    run_identity,
    training_environment,
)

CPU = {"runner": {"device": "cpu", "threads": 3, "deterministic": True}}
GPU = {"runner": {"device": "cuda", "threads": 2, "deterministic": False}}


def test_mim_is_called_for_the_device_of_the_config() -> None:
    on_cpu = mim_command(Path("c.py"), CPU, Path("w"), 4, 2)
    assert on_cpu[3:6] == ["train", "mmcls", "c.py"]
    assert on_cpu[on_cpu.index("--gpus") + 1] == "0" and "--deterministic" in on_cpu
    on_gpu = mim_command(Path("c.py"), GPU, Path("w"), 4, 2)
    assert on_gpu[on_gpu.index("--gpus") + 1] == "1" and "--deterministic" not in on_gpu


def test_no_workers_means_none_are_kept() -> None:
    assert "data.persistent_workers=False" in mim_command(Path("c.py"), CPU, Path("w"), 0, 0)


def test_threads_come_from_the_config_over_the_environment() -> None:
    environment = training_environment(CPU, {"OMP_NUM_THREADS": "16", "PATH": "/bin"})
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["PATH"].endswith("/bin") and environment["PATH"] != "/bin"


@pytest.mark.parametrize(
    ("device", "cores", "workers"), [("cpu", 64, 2), ("cuda", 1, 2), ("cuda", 6, 5), ("cuda", 64, 8)]
)
def test_workers_fit_the_cores(device: str, cores: int, workers: int) -> None:
    assert default_workers(device, cores) == workers


def test_another_config_gets_a_work_dir_of_its_own_and_says_what_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, split = tmp_path / "config.py", tmp_path / "train.txt"
    config.write_text("a = 1\n")
    split.write_text("x 0\n")
    first = choose_work_dir(tmp_path / "work", run_identity([config, split]))
    assert choose_work_dir(tmp_path / "work", run_identity([config, split])) == first
    split.write_text("y 0\n")
    with caplog.at_level(logging.INFO):
        second = choose_work_dir(tmp_path / "work", run_identity([config, split]))
    assert second != first and "train.txt changed" in caplog.text and "config.py" not in caplog.text


@pytest.mark.parametrize(
    ("output", "outcome", "words"),
    [
        ("", Outcome(Ending.FAILED, "the loss became nan in epoch 1"), ["the loss became nan"]),
        ("x\ntorch.OutOfMemoryError: CUDA out of memory. Tried\n", None, ["out of memory", "batch_size"]),
        ("Traceback\nValueError: bad shape\nsubprocess.CalledProcessError: 1\n", None, ["ValueError: bad shape"]),
        ("", None, ["the trainer ended without a word"]),
        ("CalledProcessError: died with <Signals.SIGKILL: 9>.", None, ["the trainer was killed"]),
        ("RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed.", None, ["a worker that loads"]),
        ("\n$ old\nValueError: old\n\n$ new\nstopped\n", Outcome(Ending.STOPPED), ["goes on from it"]),
        ("\n$ old\nValueError: old\n\n$ new\nthe end\n", None, ["ended without a word"]),
    ],
)
def test_a_failure_is_one_line_with_the_reason(
    tmp_path: Path, output: str, outcome: Outcome | None, words: list[str]
) -> None:
    (tmp_path / "output.log").write_text(output)
    if outcome:
        outcome.write(tmp_path / "outcome.json")
    error = explain_failure(tmp_path, tmp_path / "output.log")
    message = str(error)
    assert isinstance(error, Stopped) == (outcome == Outcome(Ending.STOPPED))
    assert "\n" not in message and all(word in message for word in words)


@pytest.mark.parametrize(
    ("output", "again"),
    [
        ("", True),  # killed: a node that failed, a kernel that needed the memory
        ("RuntimeError: CUDA error: unspecified launch failure\n", True),
        ("RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed.\n", True),
        ("torch.distributed.DistBackendError: NCCL error in: x\n", True),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried\n", False),
        ("ValueError: Expected more than 1 value per channel when training\n", False),
        ("RuntimeError: Given groups=1, weight of size [64, 3, 7, 7]\n", False),
    ],
)
def test_a_failure_says_whether_another_attempt_may_succeed(tmp_path: Path, output: str, again: bool) -> None:
    (tmp_path / "output.log").write_text(output)
    assert explain_failure(tmp_path, tmp_path / "output.log").again == again


def test_progress_is_one_line_with_what_is_known() -> None:
    state = {
        "epochs_done": 2, "max_epochs": 5, "loss": 0.4321, "val_accuracy": 0.912,
        "images_per_second": 26.6, "seconds_left": 125.0,
    }  # fmt: skip
    assert progress_line(state) == "epoch 2/5  loss 0.432  val accuracy 91.2 %  27 images/s  2 min 05 s left"
    assert progress_line(state, may_end_early=True).endswith("  at most 2 min 05 s left")
    assert progress_line({"epochs_done": 0, "max_epochs": 5, "loss": None}) == "epoch 0/5"


def test_without_a_terminal_each_epoch_is_one_line_and_so_is_the_start_where_it_was_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    show = Progress(tmp_path / "progress.json", may_end_early=True)
    start = {"epochs_done": 0, "max_epochs": 3, "iteration": 0, "loss": None, "val_accuracy": None}
    measured = {**start, "val_accuracy": 0.9}
    ended = {**measured, "epochs_done": 1, "iteration": 7, "seconds_left": 9.0}
    for state in (start, measured, {**measured, "iteration": 1}, ended, ended):
        (tmp_path / "progress.json").write_text(json.dumps(state))
        show.update()
    lines = ["epoch 0/3  val accuracy 90.0 %", "epoch 1/3  val accuracy 90.0 %  at most 9 s left"]
    assert [record.message for record in caplog.records] == lines


@pytest.mark.parametrize("name", ["best.pth", "last.pth", "train_log.csv"])
@pytest.mark.parametrize("fault", ["flipped", "truncated", "gone"])
def test_damaged_products_are_never_published_but_made_again(tmp_path: Path, name: str, fault: str) -> None:
    work = WorkFolder(tmp_path)
    work.states.mkdir()
    for path in (work.best, work.last, work.train_log):
        path.write_bytes(b"content")
        write_sum(path)
    begin_anew(work)
    assert work.best.exists() and work.last.exists() and work.states.exists(), "whole ones stay"
    if fault == "gone":
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(b"Content" if fault == "flipped" else b"con")
    begin_anew(work)
    left = [path for path in (work.best, work.train_log, work.states) if path.exists()]
    # Without last.pth training goes on from its states anyway.
    assert not work.last.exists() and (not left or (name, fault) == ("last.pth", "gone"))


def test_a_published_file_is_no_other_name_of_the_one_in_work(tmp_path: Path) -> None:
    (tmp_path / "best.pth").write_text("good")
    publish({tmp_path / "best.pth": tmp_path / "out" / "best.pth"})
    with open(tmp_path / "out" / "best.pth", "r+") as file:
        file.write("bad!")
    assert (tmp_path / "best.pth").read_text() == "good"


def test_products_replace_old_ones_whole(tmp_path: Path) -> None:
    (tmp_path / "best.pth").write_text("new")
    target = tmp_path / "out" / "best.pth"
    target.parent.mkdir()
    target.write_text("old")
    publish({tmp_path / "best.pth": target})
    assert target.read_text() == "new" and [p.name for p in target.parent.iterdir()] == ["best.pth"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["1,0.5,1", "2,0.9,1"], "trained 2 of 2 epochs; best.pth is of epoch 2, val accuracy 90.0 %"),
        (["0,0.9,1", "1,0.8,0", "2,0.7,0"], "best.pth is of epoch 0, val accuracy 90.0 %, the weights that training"),
        (
            ["0,0.5,1", "1,0.9,1"],
            "trained 1 of 2 epochs, ended early: 3 epochs brought nothing better on val; best.pth",
        ),
        (["1,,", "2,,"], "trained 2 of 2 epochs"),
    ],
)
def test_the_end_of_a_training_says_whether_it_was_early_and_what_is_kept(rows: list[str], words: str) -> None:
    line = closing_line("\n".join(["epoch,val_accuracy,is_best", *rows]), max_epochs=2, patience=3)
    assert words in line and line.count("\n") == 0


def test_a_training_that_goes_on_says_where_and_from_what(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    assert resuming_line(work) == ""
    work.states.mkdir()
    for step in (24, 36, 40):
        state = work.states / f"state_{step:09d}.pth"
        state.write_bytes(b"a state")
        write_sum(state)
    state.write_bytes(b"damaged")
    newest = work.states / "state_000000036.pth"
    assert resuming_line(work) == f"training resumes at step 37 from {newest}"
    for text, epoch in (('{"max_epochs": 30, "max_iterations": 360}', "epoch 4 of 30"), ("{", "step 37"),
                        ('{"max_epochs": 3, "max_iterations": 36}', "epoch 3 of 3")):  # fmt: skip
        work.progress.write_text(text)
        assert resuming_line(work) == f"training resumes at {epoch} from {newest}"

"""What a run says: each failure once and last, nothing of what followed from it, and how things stand meanwhile."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from dag import ROOT
from terminal import Terminal

from scripts.lib.base.outcome import Ending, Outcome
from scripts.lib.workflow.narrator import fit, time_left, training_now
from scripts.lib.workflow.progress import RunProgress, State

#: Feeds the narrator what Snakemake logs; a process of its own, since it takes standard output and error over.
CHILD = """
import logging, os, subprocess, sys, time
from pathlib import Path
from snakemake.logging import LogEvent
from scripts.lib.workflow.narrator import Narrator

narrator = Narrator(Path("results"), "d")
logger = logging.getLogger("snakemake")
logger.setLevel(logging.INFO)
logger.propagate = False
logger.addHandler(narrator)

def tell(event, **fields):
    logger.info(None, extra={"event": event, **fields})

def begin(jobid, what, log, indent=False):
    tell(LogEvent.JOB_INFO, jobid=jobid, rule_msg=what, rule_name="rule", log=[log], indent=indent)

def step(line):
    subprocess.run([sys.executable, "-c", f"import sys; sys.stderr.write({line!r})"])

BODY
errors = narrator.errors()
narrator.close()
print(*errors, sep="\\n", file=sys.stderr)
"""
GROUP = """
narrator.is_slurm = True
tell(LogEvent.RUN_INFO, stats={"total": 9})
begin(1, "training a, seed 0", "logs/train.log", indent=True)
begin(2, "predicting with a, seed 0", "logs/predict.log", indent=True)
infos = [{"jobid": 1, "rule_name": "train_model", "log": ["logs/train.log"]}]
infos += [{"jobid": 2, "rule_name": "predict_images", "log": ["logs/predict.log"]}]
logger.error("Error in group 7", extra={"event": LogEvent.GROUP_ERROR, "job_error_info": infos, "aux_logs": ["7.log"]})
for info in infos:
    logger.error("x", extra={"event": LogEvent.JOB_ERROR, "indent": True, **info})
logger.error("Exiting because a job execution failed. Look above for error messages")
logger.error("WorkflowError:\\nAt least one job did not complete successfully.")
"""


def narrated(folder: Path, body: str) -> list[str]:
    """Return the lines that remain of what *body* tells."""
    command = [sys.executable, "-c", CHILD.replace("BODY", body)]
    result = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    return result.stderr.splitlines()


def leave(outcome: Outcome, path: Path, at: float | None = None) -> None:
    """Write an outcome as of a time; by default as of a step of the run that is told afterwards."""
    outcome.write(path)
    at = time.time() + 1000 if at is None else at
    os.utime(path, (at, at))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path


def test_of_a_group_that_failed_only_the_reason_is_shown(folder: Path) -> None:
    nan = Outcome(Ending.FAILED, "training stopped: the loss became nan", "lower the rate")
    leave(nan, folder / "logs/train.outcome.json")
    first, failed, error = narrated(folder, GROUP)
    assert first.startswith("9 steps to do") and failed.startswith("failed: training a, seed 0;")
    assert error == "error: training stopped: the loss became nan: lower the rate"


def test_a_job_that_was_killed_is_explained_by_the_clusters_log(folder: Path) -> None:
    line = "slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch"
    (folder / "7.log").write_text(f"Building DAG of jobs...\n{line}\nx\n")
    assert narrated(folder, GROUP)[-1].startswith("error: training a, seed 0 was killed, because memory ran out: ")


COMMAND = "Command 'exec python -m scripts.x --log logs/a.log' "
ENDED = "evaluating a ended without a word"


@pytest.mark.parametrize(
    ("end", "line"),
    [
        ("died with <Signals.SIGKILL: 9>.", "evaluating a was killed by a person or a program (Linux counts no kill"),
        ("returned non-zero exit status 137.", "evaluating a was killed by a person or a program (Linux counts no"),
        ("died with <Signals.SIGSEGV: 11>.", "evaluating a was ended by SIGSEGV: "),
        ("returned non-zero exit status 127.", "evaluating a could not begin, since a program of it is missing: "),
        ("returned non-zero exit status 3.", f"{ENDED} (exit status 3): the lines above may tell why; "),
        ("", f"{ENDED}: the lines above may tell why; "),
    ],
)
def test_of_a_job_that_left_nothing_its_end_is_told_and_not_that_of_an_earlier_run(
    end: str, line: str, folder: Path
) -> None:
    leave(Outcome(Ending.FAILED, "no space left on the disk"), folder / "logs/a.outcome.json", at=1)
    body = "import scripts.lib.base.subprocesses as module\nmodule.KILLS_AT_START = module.kills_for_memory()\n"
    body += f"""
begin(1, "evaluating a", "logs/a.log")
logger.error({COMMAND + end!r}, extra={{"event": LogEvent.ERROR, "exception": "CalledProcessError"}})
logger.error("x", extra={{"event": LogEvent.JOB_ERROR, "jobid": 1, "rule_name": "r", "log": ["logs/a.log"]}})
"""
    error = narrated(folder, body)[-1]
    assert error.startswith(f"error: {line}")
    assert f"error: {Outcome.read(folder / 'logs/a.outcome.json')}" == error, "it is what `make watch` shows"


def test_a_job_whose_log_on_the_cluster_ends_with_a_traceback_was_not_killed(folder: Path) -> None:
    (folder / "7.log").write_text("Traceback (most recent call last):\nImportError: libGL.so.1: cannot open\n")
    last = narrated(folder, GROUP)[-1]
    assert "ImportError: libGL.so.1" in last and "7.log" in last and "killed" not in last and "memory" not in last


def test_of_lines_that_a_full_disk_ran_together_the_clusters_words_remain(folder: Path) -> None:
    (folder / "7.log").write_text("Command: python -m snakemake --target-jobs a --lsrun: error: v2: task 0: Exited\n")
    assert "ended without a word (srun: error: v2: task 0: Exited): see " in narrated(folder, GROUP)[-1]


@pytest.mark.long
def test_what_a_later_attempt_mended_is_no_error(folder: Path) -> None:
    leave(Outcome(Ending.FAILED, "the server does not answer", again=True), folder / "logs/fetch.outcome.json")
    body = """
begin(1, "fetching", "logs/fetch.log")
step("error: the server does not answer\\n")
time.sleep(1)
logger.error("x", extra={"event": LogEvent.JOB_ERROR, "jobid": 1, "rule_name": "r", "log": ["logs/fetch.log"]})
logger.info("Trying to restart job 1.")
"""
    assert "fetching is tried again: the server does not answer" in narrated(folder, body)
    assert not any(line.startswith("error: ") for line in narrated(folder, body))


@pytest.mark.long
def test_of_an_interruption_nothing_is_an_error(folder: Path) -> None:
    body = 'narrator.is_stopping = True\nstep("stopped; the same command goes on\\n")\n'
    body += 'step("error: training was stopped by SIGINT; its state is in work\\n")\ntime.sleep(1)\n' + GROUP
    assert [line for line in narrated(folder, body) if not line.startswith("9 steps")] == [""]


@pytest.mark.parametrize(
    ("kind", "text", "line"),
    [
        (
            "MissingRuleException",
            "No rule to produce x (if you use input functions make sure that they ...).",
            "error: No rule to produce x",
        ),
        (
            "MissingInputException",
            "Missing input files for rule a:\\n    x.zip",
            "error: Missing input files for rule a: x.zip",
        ),
        ("WorkflowError", "At least one job did not complete successfully.", "False"),
    ],
)
def test_what_snakemake_itself_cannot_do_is_said(kind: str, text: str, line: str, folder: Path) -> None:
    extra = f'{{"event": LogEvent.ERROR, "exception": "{kind}"}}'
    body = f'logger.error("{kind}:\\n{text}", extra={extra})\nprint(narrator.has_broken, file=sys.stderr)'
    assert [line for line in narrated(folder, body) if line][-1] == line


@pytest.mark.parametrize(
    "body",
    [
        'logger.info("Nothing to be done (all requested files are present and up to date).")',
        'tell(LogEvent.RUN_INFO, stats={"total": 0})',
    ],
)
def test_nothing_to_do_names_the_report(body: str, folder: Path) -> None:
    (folder / "results/d").mkdir(parents=True)
    (folder / "results/d/report.html").touch()
    first = narrated(folder, body)[0]
    assert first.startswith("nothing to do") and first.endswith("results/d/report.html")


@pytest.mark.parametrize(
    ("body", "state"),
    [
        ('logger.info("Nothing to be done (all is there).")', "True False"),
        ('logger.warning("a file is odd")\nlogger.info("Nothing to be done (all is there).")', "True True"),
        ("pass", "False False"),
    ],
)
def test_it_knows_whether_a_plan_was_silent(body: str, state: str, folder: Path) -> None:
    lines = narrated(folder, f"{body}\nprint(narrator.has_nothing_to_do, narrator.has_warned, file=sys.stderr)\n")
    assert state in "\n".join(lines)


@pytest.mark.long
def test_without_a_terminal_a_long_step_is_named_again_and_again(folder: Path) -> None:
    body = """
import scripts.lib.workflow.narrator as module
module.SILENCE_SECONDS, module.AGAIN_SECONDS = 0.5, 1.5
tell(LogEvent.PROGRESS, done=35, total=36)
begin(1, "writing the report", "logs/report.log")
time.sleep(8)
"""
    first, *others = narrated(folder, body)[:-1]  # the last is that of the errors: there are none
    assert first == "[35 of 36] writing the report ..." and len(others) >= 2
    assert all(re.fullmatch(r"\[35 of 36\] writing the report \.\.\. \d+ s so far", line) for line in others)


@pytest.mark.long
def test_on_a_terminal_one_line_tells_how_things_stand_and_no_line_is_destroyed(folder: Path) -> None:
    body = """
tell(LogEvent.RUN_INFO, stats={"total": 36})
tell(LogEvent.PROGRESS, done=6, total=36)
begin(1, "training a, seed 0", "logs/train.log")
step("\\r\\x1b[2Kepoch 1/8  loss 0.4")
time.sleep(1.5)
step("a result\\n")
step("\\r\\x1b[2Kepoch 8/8  loss 0.1")
time.sleep(0.5)
step("\\n")
time.sleep(0.5)
"""
    command = [sys.executable, "-c", CHILD.replace("BODY", body)]
    terminal = Terminal(command, folder, {"PYTHONPATH": str(ROOT)})
    assert terminal.end(60) == 0
    assert re.search(r"6 of 36  training a, seed 0: \d s  epoch 1/8  loss 0.4", terminal.output)
    assert "training a, seed 0: 1 s" in terminal.output and "training a, seed 0: 2 s" in terminal.output, (
        "it stands still"
    )
    assert {"a result", "epoch 8/8  loss 0.1"} <= set(terminal.lines())
    assert not any("6 of 36" in line for line in terminal.lines()) and terminal.silence < 10


def test_the_time_left_counts_the_runs_that_wait() -> None:
    waiting = RunProgress("d", "a", 0, State.WAITING)
    training = replace(waiting, seed=1, state=State.TRAINING, fraction=0.5, seconds_left=60.0)
    assert time_left([waiting]) == "" and time_left([training]) == ""
    assert time_left([training, waiting]) == "about 3 min 00 s of training left"
    assert time_left([training, training, waiting]) == "about 2 min 00 s of training left"


STEP, LEFT = "training mobilenet-v2, seed 0", "about 1 h 06 min of training left"


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (150, f"11 of 40  {STEP}: 5 min 12 s  epoch 3/8  loss 0.412  val accuracy 92.0 %  20 images/s  {LEFT}"),
        (120, f"11 of 40  {STEP}: 5 min 12 s  epoch 3/8  20 images/s  {LEFT}"),
        (100, f"11 of 40  {STEP}: 5 min 12 s  epoch 3/8  {LEFT}"),
        (80, f"11 of 40  training mobil…2, seed 0: epoch 3/8  {LEFT}"),
    ],
)
def test_where_the_terminal_is_narrow_what_tells_least_is_left_out_and_no_number_is_cut(
    columns: int, line: str
) -> None:
    details = ["5 min 12 s", "epoch 3/8", "loss 0.412", "val accuracy 92.0 %", "20 images/s"]
    assert fit("11 of 40", STEP, details, ["", LEFT], columns) == line
    assert len(line) <= columns
    assert fit("", "waiting", [], ["2 pending in Slurm", ""], columns) == "waiting  2 pending in Slurm"
    at = ["3 s", "epoch 0/4 of a, seed 1 (and 1 more)"]
    waiting = fit("0 of 29", "waiting", at, ["2 running in Slurm", LEFT], columns)
    assert waiting.endswith(LEFT) and len(waiting) <= columns


@pytest.mark.long
def test_of_a_single_run_the_time_left_stays_on_a_narrow_terminal(folder: Path) -> None:
    body = """
tell(LogEvent.RUN_INFO, stats={"total": 22})
tell(LogEvent.PROGRESS, done=8, total=22)
begin(1, "training mobilenet-v2, seed 0", "logs/train.log")
step("\\r\\x1b[2Kepoch 3/8  loss 0.412  val accuracy 92.0 %  20 images/s  at most 1 min 20 s left")
time.sleep(1.5)
"""
    command = [sys.executable, "-c", CHILD.replace("BODY", body)]
    terminal = Terminal(command, folder, {"PYTHONPATH": str(ROOT)}, columns=80)
    assert terminal.end(60) == 0
    assert re.search(r"8 of 22  training mobi\S+ seed 0: .*epoch 3/8.*  at most 1 min 20 s left", terminal.output)


@pytest.mark.long
def test_where_all_waits_for_slurm_the_line_still_moves(folder: Path) -> None:
    body = """
narrator.is_slurm = True
tell(LogEvent.RUN_INFO, stats={"total": 36})
tell(LogEvent.PROGRESS, done=6, total=36)
time.sleep(2.5)
begin(1, "a" * 100, "logs/a.log")
time.sleep(1)
"""
    command = [sys.executable, "-c", CHILD.replace("BODY", body)]
    terminal = Terminal(command, folder, {"PYTHONPATH": str(ROOT)}, columns=120)
    assert terminal.end(60) == 0
    assert "a" * 100 in terminal.output, "as wide as the terminal"
    assert "6 of 36  waiting: 1 s" in terminal.output and "6 of 36  waiting: 2 s" in terminal.output


def test_of_runs_that_train_elsewhere_the_epoch_is_told() -> None:
    waiting = RunProgress("d", "a", 0, State.WAITING)
    training = replace(waiting, seed=1, state=State.TRAINING, epochs_done=2, max_epochs=8)
    assert training_now([waiting]) == ""
    assert training_now([waiting, training]) == "epoch 2/8 of a, seed 1"
    assert training_now([training, training]) == "epoch 2/8 of a, seed 1 (and 1 more)"

"""The causes of a failure that a job could not tell: a real kill, and what Slurm says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.lib.workflow.failures import causes, describe_end, endings, killed_rules, own_error

SLURM = """Error in rule train_model:
    message: SLURM-job '17' failed, SLURM status is: 'OUT_OF_MEMORY'. For further error details see the log
    jobid: 3
"""
BASH = """RuleException:
CalledProcessError in file "Snakefile", line 5:
Command 'set -euo pipefail;  python -m x | tee y' returned non-zero exit status 137.
[Sun Nov 29 02:10:16 2026]
Error in rule plot_predictions:
    message: None
"""
OTHER = BASH.replace("137", "1").replace("plot_predictions", "evaluate_model")


@pytest.mark.parametrize(
    ("log", "rules"),
    [
        (SLURM, ["train_model"]),
        (BASH, ["plot_predictions"]),
        (OTHER + BASH, ["plot_predictions"]),
        (BASH + OTHER + SLURM, ["plot_predictions", "train_model"]),
        (OTHER + SLURM.replace("OUT_OF_MEMORY", "TIMEOUT"), []),
        ("died with <Signals.SIGKILL: 9>.", ["a job"]),
        ("", []),
    ],
)
def test_the_rules_that_were_killed_are_named(log: str, rules: list[str]) -> None:
    assert killed_rules(log) == rules


TRACEBACK = """Traceback (most recent call last):

  File "snakemake/jobs.py", line 812, in remove_existing_output
    await f.remove(remove_non_empty_dir=False)

"""


@pytest.mark.parametrize(
    ("text", "kind", "line"),
    [
        (
            f"{TRACEBACK}OSError: [Errno 30] Read-only file system: 'logs/a/train_model.log'",
            "",
            "read-only file system (logs/a/train_model.log): choose another folder",
        ),
        (
            f"{TRACEBACK}PermissionError: [Errno 13] Permission denied: 'logs/a b.log'",
            "",
            "permission denied (logs/a b.log): check",
        ),
        (
            f"{TRACEBACK}OSError: [Errno 28] No space left on device",
            "",
            "Snakemake failed unexpectedly: OSError: [Errno 28] No space left on device: the traceback is in",
        ),
        (
            "InputFunctionException in file \"Snakefile\", line 70:\nError:\n  PermissionError: [Errno 13] Permission"
            " denied: b'/data/other'\nWildcards:\n\nTraceback:\n  File \"resources.py\", line 168, in folder_state\n",
            "InputFunctionException",
            "permission denied (/data/other): check",
        ),
        (
            'ProtectedOutputException in rule a in file "b.smk", line 6:\nWrite-protected output files for rule a:\n'
            "    output: results/x/a.svg, results/x/b.svg\n",
            "ProtectedOutputException",
            "results/x/a.svg is to be made again and is write-protected: check the mode",
        ),
        ("MissingRuleException:\nNo rule to produce x (if you use input functions make)", "MissingRuleException",
         "\nNo rule to produce x"),
    ],
)  # fmt: skip
def test_an_error_of_snakemake_itself_is_no_traceback(text: str, kind: str, line: str) -> None:
    assert own_error(text, kind).startswith(line)


@pytest.mark.long
def test_a_killed_job_is_said_in_one_line(tmp_path: Path) -> None:
    shell = "python -c 'import os; os.kill(os.getpid(), 9)'"
    (tmp_path / "Snakefile").write_text(f'rule train_model:\n    output: "a"\n    shell: "{shell}"\n')
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--directory", str(tmp_path)]
    subprocess.run([*command, "--snakefile", str(tmp_path / "Snakefile")], capture_output=True, timeout=120)
    logs = [str(path) for path in (tmp_path / ".snakemake" / "log").iterdir()]
    lines = causes(logs)
    assert re.match("train_model was killed, most likely because memory ran out: lower batch_size", lines[0])
    assert "mem_mb" in lines[0]


def test_an_error_of_ours_that_snakemake_passes_on_is_said_once() -> None:
    assert own_error("WorkflowError:\nerror: no space left on the disk of x", "WorkflowError").startswith("no space")


@pytest.mark.parametrize(
    ("end", "log", "cluster_log", "line"),
    [
        ("SIGKILL", "logs/train_model.log", "", "x was killed, most likely because memory ran out: lower batch_size"),
        ("", "a.log", "SLURM status is: 'OUT_OF_MEMORY'", "x was killed, because memory ran out: run fewer jobs"),
        ("SIGBUS", "a.log", "", "x was ended by SIGBUS: "),
        ("1", "a.log", None, "x ended without a word (exit status 1): "),
    ],
)
def test_the_end_of_a_step_is_told_as_far_as_it_is_known(
    end: str, log: str, cluster_log: str | None, line: str
) -> None:
    assert describe_end("x", log, end, cluster_log).startswith(line)


def test_each_command_has_its_end() -> None:
    text = "Command 'a --log l/a.log' died with <Signals.SIGKILL: 9>.\nx\n"
    text += "Command 'b --log l/b.log' returned non-zero exit status 139.\nCommand 'c' died with <Signals.SIGABRT: 6>."
    assert endings(text) == {"l/a.log": "SIGKILL", "l/b.log": "SIGSEGV"}

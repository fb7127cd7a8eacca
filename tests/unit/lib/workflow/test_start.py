"""Ctrl-C while the workflow is being read, and words that nobody understands, end in one line."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.lib.base.problems import STOPPED, UserError
from scripts.lib.workflow import start

ROOT = Path(__file__).resolve().parents[4]
PROGRAM = """
import signal, time
from types import SimpleNamespace
from scripts.lib.workflow import start
def workflow(is_main_process, is_module=False):
    return SimpleNamespace(is_main_process=is_main_process, modifier=SimpleNamespace(skip_configfile=is_module))
signal.signal(signal.SIGINT, {before})
start.catch_interrupts({workflow})
print("ready", flush=True)
time.sleep({seconds})
"""


@pytest.mark.parametrize(
    ("before", "workflow", "status"),
    [
        ("signal.default_int_handler", "None", 130),
        ("signal.default_int_handler", "workflow(is_main_process=True)", 130),
        ("signal.default_int_handler", "workflow(is_main_process=False)", -signal.SIGINT),
        ("start.stop", "workflow(is_main_process=True, is_module=True)", -signal.SIGINT),  # Snakemake's own way
        ("signal.SIG_IGN", "workflow(is_main_process=True)", 0),  # of a job in the background
    ],
)
def test_an_interrupt_ends_in_one_line_where_the_workflow_is_read(before: str, workflow: str, status: int) -> None:
    program = PROGRAM.format(before=before, workflow=workflow, seconds=0.3 if status == 0 else 60)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert (errors == f"{STOPPED}\n") == (status == 130)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--profile=nonsense"], "error: PROFILE: nonsense has no profile.yaml: choose one of local, n30, slurm, or"),
        (["--profile=profiles/"], "error: PROFILE: profiles/ has no profile.yaml: choose one of local, n30, slurm"),
        (
            ["--profile=profiles/local", "--nonsense"],
            "error: Snakemake: unrecognized arguments: --nonsense: correct ARGS",
        ),
        (["--profile=configs/demo.yaml"], "error: Snakemake: unrecognized arguments: --"),
        (["--profile=profiles/local", "--cores"], "error: Snakemake: argument --cores/-c: expected one argument"),
    ],
)
def test_words_that_snakemake_does_not_know_are_one_line(words: list[str], message: str) -> None:
    command = [sys.executable, "-m", "scripts.lib.workflow.start", *words]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    errors = [line for line in result.stderr.splitlines() if not line.startswith("Using profile")]
    assert result.returncode == 1 and len(errors) == 1 and errors[0].startswith(message)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            ["sinfo", "squeue", "sacct", "scontrol"],
            "{}/scontrol: it cannot be started on this machine (Exec format error): mend it",
        ),
        (["sinfo"], "{}/sinfo is in PATH, squeue and sacct are not: "),
        ([], "Snakemake needs the program `which`, and it is not in PATH: install it"),
    ],
)
def test_a_program_that_snakemake_needs_and_cannot_start_is_one_line(
    tmp_path: Path, broken: list[str], message: str
) -> None:
    for name in broken:
        (tmp_path / name).write_bytes(b"\x7fELF\x02\x01\x01" + bytes(100))  # of another machine
        (tmp_path / name).chmod(0o755)
    if broken:
        (tmp_path / "which").symlink_to(str(shutil.which("which")))
    command = [sys.executable, "-m", "scripts.lib.workflow.start", "--version"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert result.returncode == 1 and f"error: {message.format(tmp_path)}" in result.stderr
    assert "Traceback" not in result.stderr


def test_mimflow_s_profiles_are_known_by_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = start.with_profiles(["--profile", "local", "-n", "--workflow-profile=n30"], {})
    assert words == ["--profile", f"{ROOT}/profiles/local", "-n", f"--workflow-profile={ROOT}/profiles/n30"]
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "profile.yaml").touch()
    assert start.with_profiles(["--profile", "local"], {}) == ["--profile", "local"]
    with pytest.raises(UserError, match=r"nonsense has no profile\.yaml: choose one of local, n30, slurm"):
        start.with_profiles(["-n"], {"SNAKEMAKE_PROFILE": "nonsense"})

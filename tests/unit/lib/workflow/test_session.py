"""What happens around one start of Snakemake: attempts that cannot succeed are spared, a job on a node is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.lib.workflow.session import rules_of_cluster_job

ROOT = Path(__file__).resolve().parents[4]
SNAKEFILE = """
import time
from scripts.lib.workflow.session import spare_attempts

began = time.time()

rule all:
    input: "made"

rule fails:
    output: "made"
    log: "logs/fails.log"
    retries: 2
    shell: "echo >> attempts; {python} fails.py --log {{log}}"

onstart:
    spare_attempts(workflow.scheduler, began)
"""
FAILS = """
import argparse, errno
from scripts.lib.base.console import run_cli
from scripts.lib.base.problems import PassingError, Stopped, UserError
def main(_args):
    {statement}
run_cli(argparse.ArgumentParser, main)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("statement", "attempts"),
    [
        ("raise UserError('a.jpg: no image', 'leave it out')", 1),
        ("raise ValueError('shapes differ')", 1),
        ("raise PassingError('the server does not answer')", 3),
        ("raise Stopped('training was stopped', 'the same command goes on')", 3),
        ("__import__('os').abort()", 3),  # as one that is killed: it leaves no word
    ],
)
def test_only_what_may_pass_is_tried_again(statement: str, attempts: int, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(python=sys.executable))
    (tmp_path / "fails.py").write_text(FAILS.format(statement=statement))
    command = [str(Path(sys.executable).with_name("snakemake")), "--cores", "1", "--quiet", "all"]
    assert subprocess.run(command, cwd=tmp_path, timeout=120).returncode == 1
    assert len((tmp_path / "attempts").read_text().splitlines()) == attempts


#: As the Slurm plugin starts Snakemake on a node (shortened).
ON_A_NODE = [
    "--target-jobs",
    "predict_images:seed=0,experiment=a",
    "train_model:seed=0",
    "--attempt",
    "1",
    "--mode",
    "remote",
]


@pytest.mark.parametrize(
    ("arguments", "rules"),
    [
        (ON_A_NODE, ["predict_images", "train_model"]),
        ([*ON_A_NODE, "--executor", "slurm"], []),
        (["--cores", "2"], []),
    ],
)
def test_the_snakemake_that_runs_the_steps_of_a_job_knows_them(arguments: list[str], rules: list[str]) -> None:
    assert rules_of_cluster_job(arguments, {}) == rules

"""The nodes of a Slurm job: how they are found, what is started on them, and how they end together."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from slurm_programs import Program, printing

from scripts.lib.base.problems import PassingError, UserError
from scripts.lib.cluster import nodes

JOB = {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "g2"}


@pytest.fixture
def three(program: Program) -> None:
    printing(program, "squeue", "g[1-3]")
    printing(program, "scontrol", "g1", "g2", "g3")


def test_the_other_nodes_are_those_of_the_job_without_this_one(three: None) -> None:
    assert nodes.other_nodes(3, JOB) == ["g1", "g3"]
    assert nodes.other_nodes(2, JOB) == ["g1"]


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        (JOB, "nodes: 4, and this Slurm job has 3 nodes"),
        ({}, "nodes: 4 needs a Slurm job of 4 nodes, and this is none"),
        # A shell of salloc on a login node is in the job and on none of its nodes.
        ({"SLURM_JOB_ID": "7"}, "nodes: 4 needs a Slurm job of 4 nodes, and this is none"),
    ],
)
def test_too_few_nodes_are_told_with_what_to_do(three: None, environment: dict[str, str], problem: str) -> None:
    with pytest.raises(UserError, match=rf"{problem}: start it by `sbatch --nodes=N"):
        nodes.other_nodes(4, environment)


def test_a_node_is_reached_by_the_address_that_slurm_uses(program: Program) -> None:
    printing(program, "scontrol", "NodeName=g1 Arch=x86_64 NodeAddr=10.0.0.1 NodeHostName=host1 Version=22.05.8")
    assert nodes.address_of("g1") == "10.0.0.1"


def test_a_step_is_one_process_a_node_and_shares_the_job_where_slurm_has_a_word_for_it(
    program: Program,
) -> None:
    printing(program, "srun", "  --overlap   Allow other steps to overlap this step")
    command = nodes.step_command(["g1", "g3"], "7", ["python", "x"])
    assert command[0] == "srun" and command[-2:] == ["python", "x"]
    assert {"--jobid=7", "--nodes=2", "--ntasks=2", "--nodelist=g1,g3", "--kill-on-bad-exit=1"} <= set(command)
    assert "--overlap" in command
    printing(program, "srun", "an older one")
    assert "--overlap" not in nodes.step_command(["g1"], "7", ["python"])


def test_what_slurm_told_of_this_node_does_not_reach_another() -> None:
    told = {"SLURM_NODEID": "0", "SRUN_DEBUG": "3", "CUDA_VISIBLE_DEVICES": "1", "SLURMD_NODENAME": "g1"}
    kept = {"SLURM_CONF": "/etc/s.conf", "NCCL_SOCKET_IFNAME": "bond0", "MIMFLOW_SITE": "profiles/n30", "HOME": "/h"}
    assert nodes.step_environment({**told, **kept}) == kept


def test_a_batch_script_goes_on_in_a_step_that_is_asked_to_end_before_it_is_killed(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    printing(program, "srun", "no such option")
    done: list[list[str]] = []
    monkeypatch.setattr("os.execvpe", lambda _file, command, _environment: done.append(command))
    for elsewhere in ({}, {**JOB, "SLURM_STEP_ID": "0"}):
        nodes.enter_step(["python", "x"], elsewhere)
    assert not done
    nodes.enter_step(["python", "x"], JOB)
    assert {"srun", "--jobid=7", "--nodes=1", "--nodelist=g2"} <= set(done[0]) and done[0][-2:] == ["python", "x"]


def test_the_interface_is_the_one_on_the_way_to_the_address() -> None:
    assert nodes.interface_towards("127.0.0.1") == "lo"
    assert nodes.interface_towards("no-such-host.invalid") is None


def test_who_holds_a_lifeline_is_told_when_the_first_node_ends_however_it_does() -> None:
    code = "from scripts.lib.cluster.nodes import Lifeline; print(Lifeline().port, flush=True); input()"
    first = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    broken = threading.Event()
    nodes.hold_lifeline("127.0.0.1", int(first.stdout.readline()), broken.set)
    assert not broken.wait(0.3)
    first.kill()
    assert broken.wait(10)
    first.communicate()
    with pytest.raises(PassingError, match=r"the first node of the training \(127\.0\.0\.1\) cannot be reached"):
        nodes.hold_lifeline("127.0.0.1", nodes.free_port(), broken.set)


def test_a_step_that_fails_is_told_at_once_and_one_that_hangs_is_ended(tmp_path: Path) -> None:
    failed = threading.Event()
    step = nodes.Step(["sh", "-c", "exit 3"], {"PATH": "/bin:/usr/bin"}, failed.set)
    assert failed.wait(10) and step.has_failed
    step.finish(1)
    failed.clear()
    began = time.monotonic()
    step = nodes.Step(["sleep", "60"], {"PATH": "/bin:/usr/bin"}, failed.set)
    assert not failed.wait(0.2) and not step.has_failed
    step.finish(0.2)
    assert time.monotonic() - began < 30 and failed.wait(10)

"""Two processes that train together stop, fail and go on as one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from pair import PAIR, processes_of, ranks_of, wait_until_none_is_left
from training import Training, assert_a_kill_changes_nothing

from scripts.mmcls_plugins.checkpoints import tensors_sha256

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

#: With a state of every iteration, so that a test can end the training at a given one.
EVERY_STEP = {**PAIR, "overrides": {**PAIR["overrides"], "runner.checkpoint_minutes": 0, "runner.keep_states": 100}}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The hashes of a pair that nothing disturbed."""
    training = Training(tmp_path_factory.mktemp("reference"), PAIR)
    status, output = training.finish()
    assert status == 0, output
    return training.hashes()


def output_log(training: Training) -> str:
    """What the trainer printed in its last attempt."""
    return next(training.work_dir.glob("*/output.log")).read_text().rsplit("\n$ ", 1)[-1]


def test_kills_and_stops_in_the_middle_of_epochs_change_nothing_with_or_without_workers(
    tmp_path: Path, reference: dict[str, str]
) -> None:
    training = Training(tmp_path, EVERY_STEP)
    status, output = training.finish(fault="after:state_000000003:2", workers=0)  # its hash came first
    assert status != 0 and "killed by SIGKILL" in output
    assert not wait_until_none_is_left(training.work_dir)
    process = training.start(workers=2)
    reached = training.wait_for_state(process, 6)
    assert "iteration 3" in output_log(training)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "the same command goes on from it" in output
    log = output_log(training)
    assert "the state is saved" in log and "Traceback" not in log
    saved = max(int(path.stem.removeprefix("state_")) for path in training.work_dir.glob("*/states/state_*.pth"))
    assert saved >= reached
    assert not wait_until_none_is_left(training.work_dir)
    status, output = training.finish(workers=1)
    assert status == 0, output
    assert f"iteration {saved}" in output_log(training)
    assert training.hashes() == reference


def test_a_signal_to_one_process_stops_both_at_the_same_iteration(tmp_path: Path, reference: dict[str, str]) -> None:
    training = Training(tmp_path, PAIR)
    process = training.start()
    assert training.wait_for_state(process, 1) > 1
    os.kill(ranks_of(training.work_dir)[1], signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "the same command goes on from it" in output
    assert "stopped by SIGTERM; the state is saved" in output_log(training)
    assert training.finish()[0] == 0
    assert training.hashes() == reference


def test_each_process_goes_on_with_its_own_statistics(tmp_path: Path, reference: dict[str, str]) -> None:
    """The end of the job's time comes twice, after one step each time; then a state holds what an undisturbed one does.

    Only the first process's statistics of batch normalisation get into a result; the others' are checked here.
    """
    undisturbed = Training(tmp_path / "undisturbed", EVERY_STEP)
    process = undisturbed.start()
    assert undisturbed.wait_for_state(process, 3) > 3
    undisturbed.kill_group(process)
    training = Training(tmp_path / "disturbed", EVERY_STEP)
    for _ in range(2):  # the margin is 60 s: it is over when training begins
        status, output = training.finish(end_time=time.time() + 60)
        assert status != 0 and "the same command goes on from it" in output
    expected, saved = (
        torch.load(next(run.work_dir.glob("*/states/state_000000002.pth")), weights_only=True)
        for run in (undisturbed, training)
    )
    assert len(expected["replicas"]) == 1
    statistics = expected["replicas"][0]
    assert any(name.endswith("running_mean") for name in statistics)
    assert all(not torch.equal(statistics[name], expected["model"][name]) for name in statistics)
    assert tensors_sha256(statistics) == tensors_sha256(saved["replicas"][0])
    assert training.finish()[0] == 0
    assert training.hashes() == reference


def test_three_processes_go_on_to_the_same_weights(tmp_path: Path) -> None:
    """Two numbers have one sum; of three it depends on the order, which must be the same in the first step after."""
    assert_a_kill_changes_nothing(tmp_path, {**PAIR, "gpus": 3, "epochs": 2}, beyond=1)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_other_and_is_named(tmp_path: Path, reference: dict[str, str], rank: int) -> None:
    training = Training(tmp_path, PAIR)
    process = training.start()
    assert training.wait_for_state(process, 1) > 1
    os.kill(ranks_of(training.work_dir)[rank], signal.SIGKILL)
    output, _ = process.communicate(timeout=90)
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert process.returncode == 1 and len(errors) == 1, output
    assert f"process {rank + 1} of 2 was killed by SIGKILL" in errors[0]
    assert not wait_until_none_is_left(training.work_dir)
    assert training.finish()[0] == 0
    assert training.hashes() == reference


def test_an_error_in_one_process_ends_both_with_its_own_words(tmp_path: Path) -> None:
    training = Training(tmp_path, PAIR)
    name = (tmp_path / "splits" / "train.txt").read_text(encoding="utf-8").splitlines()[0].rsplit(" ", 1)[0]
    (tmp_path / "images" / name).unlink()
    process = training.start()
    output, _ = process.communicate(timeout=90)
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert process.returncode == 1 and len(errors) == 1, output
    assert "of 2 failed: FileNotFoundError" in errors[0]
    assert not wait_until_none_is_left(training.work_dir)


def test_a_loss_that_is_not_finite_stops_both_with_the_remedy(tmp_path: Path) -> None:
    training = Training(tmp_path, {**PAIR, "learning_rate": 1e18})
    status, output = training.finish()
    assert status == 1 and "lower `learning_rate`" in output
    assert output.count("error: ") == 1


def test_no_process_outlives_a_killed_train_model(tmp_path: Path) -> None:
    training = Training(tmp_path, {**PAIR, "epochs": 40})
    process = training.start()
    assert training.wait_for_state(process, 1) > 1
    assert len(ranks_of(training.work_dir)) == 2
    process.kill()  # no signal is passed on: the processes must notice by themselves
    process.communicate()
    assert not wait_until_none_is_left(training.work_dir, 30)


def test_no_process_outlives_torch_distributed_run(tmp_path: Path) -> None:
    """Newer torch puts each process into a session of its own, where a kill of the group does not reach it.

    They are held up first, so that it is not by themselves that they end.
    """
    training = Training(tmp_path, {**PAIR, "epochs": 40})
    process = training.start()
    assert training.wait_for_state(process, 1) > 1
    ranks = ranks_of(training.work_dir)
    for rank in ranks:
        os.kill(rank, signal.SIGSTOP)
    training.kill_group(process)
    deadline = time.monotonic() + 5
    while (left := set(ranks) & set(processes_of(training.work_dir))) and time.monotonic() < deadline:
        time.sleep(0.05)
    for rank in left:
        os.kill(rank, signal.SIGKILL)
    assert not left

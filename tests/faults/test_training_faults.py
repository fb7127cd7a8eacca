"""Training that is killed, stopped, starved of disk or damaged ends in the weights of one that was left alone."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from mmcls.models import build_classifier
from training import EXPERIMENT, Training, make_data

from scripts.lib.runs.lease import living_group
from scripts.mmcls_plugins.checkpoints import tensors_sha256

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

#: An augmentation that draws from every generator, put after loading and cropping.
NOISY = {
    **EXPERIMENT,
    "overrides": {**EXPERIMENT["overrides"], "data.train.pipeline.2": {"type": "NoiseFromEveryGenerator"}},
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The hashes of a run that nothing disturbed."""
    training = Training(tmp_path_factory.mktemp("reference"), NOISY)
    status, output = training.finish()
    assert status == 0, output
    assert "epoch 12/12" in output
    return training.hashes()


def states(training: Training) -> list[Path]:
    return sorted(training.work_dir.glob("*/states/state_*.pth"))


def test_twenty_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    long = {**NOISY, "epochs": 40}
    left_alone = Training(tmp_path / "alone", long)
    status, output = left_alone.finish()
    assert status == 0, output
    generator = random.Random(20)
    training = Training(tmp_path / "killed", long)
    kills = reached = 0
    while kills < 20:
        process = training.start()
        if kills % 5 != 4:
            reached = training.wait_for_state(process, reached)
            time.sleep(generator.uniform(0, 0.15))
        else:  # before the first step, during the restart itself
            time.sleep(generator.uniform(0.5, 3))
        if process.poll() is not None:
            break
        training.kill_group(process)
        kills += 1
    assert kills == 20, f"the run ended after {kills} kills: make it longer"
    status, output = training.finish()
    assert status == 0, output
    assert training.hashes() == left_alone.hashes()


#: In an order in which each is sure to come: the first epoch's weights are always the best so far.
MOMENTS = [
    "before:best.pth:1",  # a better best.pth waits for its name
    "after:best.pth:1",  # it has its name, and no state knows of it
    "before:state_:3",  # a hash is written, but not renamed
    "before:state_:4",  # the hash has its name, the state is written, but not renamed
    "after:state_:4",  # it is renamed, the old one not yet removed
    "after:train_log.csv:3",  # between two epochs
    "before:last.pth:1",
]


def test_kills_at_the_worst_moments_change_nothing(tmp_path: Path, reference: dict[str, str]) -> None:
    training = Training(tmp_path, NOISY)
    hit = []
    for moment in MOMENTS:
        status, output = training.finish(fault=moment)
        assert "Traceback" not in output
        if status != 0:
            hit.append(moment)
    status, output = training.finish()
    assert status == 0, output
    assert training.hashes() == reference
    assert hit == MOMENTS


def test_sigterm_saves_at_once_and_loses_no_step(tmp_path: Path, reference: dict[str, str]) -> None:
    training = Training(tmp_path, NOISY)
    process = training.start()
    assert training.wait_for_iteration(process, 8) > 0
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "the same command goes on from it" in output
    assert time.monotonic() - asked < 30
    log = next(training.work_dir.glob("*/output.log")).read_text()
    assert "the state is saved" in log and "Error" not in log
    saved = int(states(training)[-1].stem.removeprefix("state_"))
    progress = training.progress()
    assert progress is not None and saved >= progress["iteration"]
    status, output = training.finish()
    assert status == 0 and re.search(r"training resumes at epoch \d+ of 12 from .*state_0", output)
    assert training.hashes() == reference


def test_an_average_of_weights_survives_kills(tmp_path: Path) -> None:
    averaged = {
        **NOISY,
        "epochs": 4,
        "overrides": {**NOISY["overrides"], "custom_hooks": [{"type": "EMAHook", "momentum": 0.1, "warm_up": 1}]},
    }
    left_alone = Training(tmp_path / "alone", averaged)
    assert left_alone.finish()[0] == 0
    training = Training(tmp_path / "killed", averaged)
    for beyond in (3, 9, 14):  # in the middle of an epoch of 6 iterations, where the weights are not exchanged
        process = training.start()
        assert training.wait_for_iteration(process, beyond) > 0
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert training.finish()[0] == 0
    assert training.hashes() == left_alone.hashes()


def test_a_start_that_is_evaluated_and_patience_survive_kills(tmp_path: Path) -> None:
    patient = {
        **NOISY,
        "epochs": 12,
        # So small a learning rate changes no weight: nothing is better than the start, and training ends early.
        "learning_rate": 1e-30,
        "overrides": {
            **NOISY["overrides"],
            "runner.evaluate_first": True,
            "runner.patience": 3,
            "model.backbone.norm_eval": True,
        },
    }
    left_alone = Training(tmp_path / "alone", patient)
    assert left_alone.finish()[0] == 0
    log = (left_alone.folder / "train_log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in log[1:]] == ["0", "1", "2", "3"]
    assert log[1].endswith(",1") and all(line.endswith(",0") for line in log[2:])
    training = Training(tmp_path / "killed", patient)
    for fault in ("before:best.pth:1", "after:best.pth:1", "after:train_log.csv:1", "before:state_:2"):
        assert training.finish(fault)[0] != 0, fault
    assert training.finish()[0] == 0
    assert training.hashes() == left_alone.hashes()
    assert (training.folder / "train_log.csv").read_text().splitlines()[-1].startswith("3,")


def test_the_fast_recipe_survives_kills_with_any_number_of_workers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = {"type": "MobileNetV2", "widen_factor": 0.25}
    head = {"type": "LinearClsHead", "num_classes": 1000, "in_channels": 1280}
    model = build_classifier({"type": "ImageClassifier", "backbone": backbone, "head": head})
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pth")
    overrides = {**EXPERIMENT["overrides"], "runner.patience": 0}
    overrides["custom_imports.imports"] = ["scripts.mmcls_plugins", "fault_plugin"]
    checkpoint = {"path": str(tmp_path / "weights.pth")}
    fast = {**EXPERIMENT, "recipe": "fast", "checkpoint": checkpoint, "epochs": 6, "overrides": overrides}
    left_alone = Training(tmp_path / "alone", fast)
    shutil.copytree(left_alone.folder, tmp_path / "killed")
    assert left_alone.finish()[0] == 0
    killed = Training(tmp_path / "killed", fast)
    for beyond, workers in ((2, 0), (9, 1), (16, 3)):
        process = killed.start(workers=workers)
        assert killed.wait_for_state(process, beyond) > beyond
        killed.kill_group(process)
    assert killed.finish()[0] == 0
    assert killed.hashes() == left_alone.hashes()
    start = torch.load(killed.folder / "init.pth", weights_only=True)["state_dict"]
    assert tensors_sha256(start) != killed.hashes()["last.pth"]  # it has trained


def test_balanced_classes_survive_kills_with_any_number_of_workers(tmp_path: Path) -> None:
    overrides = {**NOISY["overrides"], "runner.evaluate_first": True}
    balanced = {**NOISY, "balance": "sampler", "epochs": 5, "overrides": overrides}
    for name in ("alone", "killed"):
        make_data(tmp_path / name)
        train = tmp_path / name / "splits" / "train.txt"
        lines = train.read_text().splitlines()
        # Of the last class three of fourteen, so that each comes several times an epoch.
        train.write_text("".join(f"{line}\n" for line in lines[:-11]))
    left_alone = Training(tmp_path / "alone", balanced)
    assert left_alone.finish()[0] == 0
    killed = Training(tmp_path / "killed", balanced)
    for beyond, workers in ((2, 0), (9, 3)):
        process = killed.start(workers=workers)
        assert killed.wait_for_state(process, beyond) > beyond
        killed.kill_group(process)
    assert killed.finish()[0] == 0
    assert killed.hashes() == left_alone.hashes()
    logs = [pd.read_csv(run.folder / "train_log.csv") for run in (left_alone, killed)]
    judged = ["epoch", "val_accuracy_balanced", "val_loss_balanced", "is_best"]
    assert logs[0][judged].equals(logs[1][judged]) and logs[0][judged].notna().all(axis=None)


@pytest.mark.parametrize(
    ("batch_size", "words"), [(8, "8 images a step need more memory than cpu has; 4 fit"), (4, "")]
)
def test_too_little_memory_ends_in_one_line_with_the_batch_that_fits(
    tmp_path: Path, batch_size: int, words: str
) -> None:
    overrides = {**EXPERIMENT["overrides"], "model.neck": {"type": "PoolingWithLittleMemory"}}
    overrides["custom_imports.imports"] = ["scripts.mmcls_plugins", "small_memory"]
    training = Training(tmp_path, {**EXPERIMENT, "epochs": 1, "batch_size": batch_size, "overrides": overrides})
    status, output = training.finish()
    if not words:  # what fits is trained as it stands
        assert status == 0, output
        return
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert status == 1 and words in line and "set batch_size: 4" in line
    assert not (tmp_path / "best.pth").exists() and "Traceback" not in output


def test_a_kill_costs_at_most_the_set_interval(tmp_path: Path) -> None:
    interval = 1.5
    sparse = {**NOISY, "epochs": 60, "overrides": {**NOISY["overrides"], "runner.checkpoint_minutes": interval / 60}}
    sparse["batch_size"] = 2  # long epochs, so that it is the interval that saves
    sparse["learning_rate"] = 1e-5  # normalisation over 2 images lets a larger one grow to NaN
    training = Training(tmp_path, sparse)
    process = training.start()
    assert training.wait_for_iteration(process, 30) > 0
    time.sleep(2 * interval)
    killed = time.time()
    training.kill_group(process)
    lost = killed - states(training)[-1].stat().st_mtime
    print(f"a kill cost {lost:.2f} s of training; the interval is {interval} s")
    assert 0 <= lost < interval + 1.5  # one iteration and one save come on top


def test_no_process_outlives_a_killed_train_model(tmp_path: Path) -> None:
    training = Training(tmp_path, NOISY)
    process = training.start()
    assert training.wait_for_iteration(process, 3) > 0
    group = json.loads(next(training.work_dir.glob("*/lease.json")).read_text())["group"]
    process.kill()  # no signal is passed on: the trainer must notice by itself
    process.communicate()
    deadline = time.monotonic() + 30
    while living_group(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not living_group(group)


def test_the_end_of_a_jobs_time_stops_it_before(tmp_path: Path, reference: dict[str, str]) -> None:
    training = Training(tmp_path, NOISY)
    # The margin is 60 s: a few seconds remain, start-up included.
    status, output = training.finish(end_time=time.time() + 64)
    assert status != 0 and "the same command goes on from it" in output
    assert training.finish()[0] == 0
    assert training.hashes() == reference


def test_a_damaged_state_is_passed_over(tmp_path: Path, reference: dict[str, str]) -> None:
    training = Training(tmp_path, NOISY)
    process = training.start()
    assert training.wait_for_iteration(process, 20) > 0
    training.kill_group(process)
    newest = states(training)[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    assert len(states(training)) == 2
    assert training.finish()[0] == 0
    assert "is damaged" in next(training.work_dir.glob("*/output.log")).read_text()
    assert training.hashes() == reference


def test_a_full_disk_loses_nothing(tmp_path: Path, reference: dict[str, str]) -> None:
    small = tmp_path / "small"
    small.mkdir()
    # Not every root may: most containers forbid it.
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        training = Training(tmp_path / "run", NOISY, work_dir=small)
        process = training.start()
        assert training.wait_for_iteration(process, 12) > 0
        free = shutil.disk_usage(small).free
        (small / "filler").write_bytes(b"x" * max(free - 4096, 0))
        output, _ = process.communicate(timeout=120)
        log = next(small.glob("*/output.log")).read_text()
        assert process.returncode != 0 or "could not be saved" in log, output
        assert states(training), "the states from before the disk was full are gone"
        (small / "filler").unlink()
        if process.returncode != 0:
            assert "error: " in output and "space" in output
            assert training.finish()[0] == 0
        assert training.hashes() == reference
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_an_error_in_training_ends_it_and_all_its_processes(tmp_path: Path) -> None:
    training = Training(tmp_path, NOISY)
    name = (tmp_path / "splits" / "train.txt").read_text(encoding="utf-8").splitlines()[0].rsplit(" ", 1)[0]
    (tmp_path / "images" / name).unlink()
    process = training.start()
    try:
        output, _ = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        training.kill_group(process)
        raise
    assert process.returncode == 1 and "error: " in output


def test_a_second_trainer_stops_with_a_clear_line(tmp_path: Path) -> None:
    training = Training(tmp_path, NOISY)
    process = training.start()
    assert training.wait_for_iteration(process, 1) > 0
    status, output = training.finish()
    assert status == 1 and "is training here" in output
    training.kill_group(process)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_the_number_of_workers_changes_nothing(tmp_path: Path, reference: dict[str, str], workers: int) -> None:
    training = Training(tmp_path, NOISY)
    assert training.finish(workers=workers)[0] == 0
    assert training.hashes() == reference


def test_another_path_and_another_order_of_files_change_nothing(tmp_path: Path, reference: dict[str, str]) -> None:
    folder = tmp_path / "elsewhere" / "with space"
    folder.mkdir(parents=True)
    make_data(folder, order=-1)
    training = Training(folder, NOISY)
    assert training.finish()[0] == 0
    assert training.hashes() == reference


def test_a_changed_config_starts_anew_and_says_so(tmp_path: Path, reference: dict[str, str]) -> None:
    training = Training(tmp_path, {**NOISY, "epochs": 2})
    assert training.finish()[0] == 0
    (tmp_path / "config.py").unlink()
    again = Training(tmp_path, NOISY)
    status, output = again.finish()
    assert status == 0 and "config.py changed since the last run" in output
    assert again.hashes() == reference

"""Training in two processes (DDP): its order, its weights, and the ways in which it can be started."""

from __future__ import annotations

import csv
import json
import math
import shlex
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcls.datasets import build_dataset
from mmcls.models import build_classifier
from mmcv import ConfigDict
from pair import PAIR, run_command
from training import Training, assert_a_kill_changes_nothing

from scripts.lib.base.files import hash_weights
from scripts.lib.runs.config_file import read_config
from scripts.mmcls_plugins.dataset import EpochSampler

pytestmark = pytest.mark.long

#: Needs no more than the first two epochs.
SHORT = {**PAIR, "epochs": 2}
WITHOUT_WORKERS = ["--cfg-options", "data.workers_per_gpu=0", "data.persistent_workers=False"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A finished run of two processes with two data-loader workers each, by train_model."""
    training = Training(tmp_path_factory.mktemp("pair"), SHORT)
    status, output = training.finish()
    assert status == 0, output
    assert "epoch 2/2" in output
    return training


def hashes(folder: Path) -> dict[str, str]:
    return {name: hash_weights(folder / name) for name in ("best.pth", "last.pth")}


def test_two_processes_leave_the_files_that_one_does(pair: Training) -> None:
    with open(pair.folder / "train_log.csv") as file:
        rows = list(csv.DictReader(file))
    iterations = 21 // 4  # of 42 images in two processes; the rest of one is left out
    assert [int(row["iteration"]) for row in rows] == [iterations, 2 * iterations]
    assert all(math.isfinite(float(row[key])) for row in rows for key in ("train_loss", "val_accuracy", "val_loss"))
    progress = pair.progress()
    assert progress is not None and progress["epochs_done"] == 2
    assert torch.load(pair.folder / "best.pth", weights_only=True)["meta"]["CLASSES"] == [
        "class 0",
        "class 1",
        "class 2",
    ]
    work_dir = next(pair.work_dir.iterdir())
    assert not list(work_dir.glob("*.tmp*")) and not (work_dir / "outcome.json").exists()
    assert len(list(work_dir.glob("*.log.json"))) == 1, "more than the first process wrote a log"


def test_validation_in_two_processes_is_that_of_the_saved_model(
    pair: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process evaluates some of the batches, with the first one's statistics of batch normalisation."""
    monkeypatch.chdir(pair.folder)
    config = read_config(Path("config.py"))
    dataset = build_dataset(config["data"]["val"], {"test_mode": True})
    model = build_classifier(ConfigDict(config["model"]))
    model.load_state_dict(torch.load("last.pth", weights_only=True)["state_dict"])
    model.eval()
    with torch.no_grad():
        images = torch.stack([dataset[i]["img"] for i in range(len(dataset))])
        probabilities = model(images, return_loss=False, img_metas=None)
    likelihood = np.stack(probabilities)[np.arange(len(dataset)), dataset.get_gt_labels()]
    with open("train_log.csv") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["val_loss"]) == pytest.approx(-np.log(likelihood).mean(), rel=1e-5)


def test_the_first_line_of_the_config_trains_it_by_hand_in_the_specified_order(pair: Training, tmp_path: Path) -> None:
    """Without data-loader workers, which changes nothing, so that the order of reading is the order of the sampler."""
    first = (pair.folder / "config.py").read_text(encoding="utf-8").split("\n")[0]
    words = shlex.split(first.removeprefix("# "))
    assert words[0] == "python"
    result = run_command([sys.executable, *words[1:], *WITHOUT_WORKERS], pair.folder, MIMFLOW_TEST_ORDER=str(tmp_path))
    assert result.returncode == 0, result.stdout
    assert hashes(pair.folder / "by_hand") == pair.hashes()
    names = [line.rsplit(" ", 1)[0] for line in (pair.folder / "splits" / "train.txt").read_text().splitlines()]
    read = [(tmp_path / rank).read_text().splitlines() for rank in ("0", "1")]
    used = 20  # of a process's 21 images an epoch
    for epoch in (0, 1):
        sampler = EpochSampler(names, seed=0)
        sampler.set_position(epoch)
        order = [names[index] for index in sampler.global_order()]
        of_epoch = slice(epoch * used, (epoch + 1) * used)
        together = [name for both in zip(read[0][of_epoch], read[1][of_epoch], strict=True) for name in both]
        assert together == order[: 2 * used]


def test_plain_mim_does_not_train_a_config_of_two_processes_in_one(pair: Training, tmp_path: Path) -> None:
    mim = str(Path(sys.executable).with_name("mim"))
    options = ["--gpus", "0", "--work-dir", str(tmp_path / "mim"), "--seed", "0"]
    assert run_command([mim, "train", "mmcls", "config.py", *options], pair.folder).returncode != 0
    assert "train it by the command in its first line" in (tmp_path / "mim" / "outcome.json").read_text()


def test_one_process_through_the_entry_gives_the_weights_of_the_ordinary_run(tmp_path: Path) -> None:
    training = Training(tmp_path, {**SHORT, "gpus": 1})
    assert "gpus" not in read_config(tmp_path / "config.py")["runner"]
    status, output = training.finish()
    assert status == 0, output
    options = ["--work-dir", "entry", "--seed", "0", "--deterministic"]
    result = run_command([sys.executable, "-m", "scripts.train_distributed", "config.py", *options], tmp_path)
    assert result.returncode == 0, result.stdout
    assert hashes(tmp_path / "entry") == training.hashes()


def test_two_nodes_of_one_process_give_the_weights_of_one_node_of_two(pair: Training) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"),
        *("--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{port}", "--rdzv_id", "two-nodes"),
        *("--local_addr", "127.0.0.1", "-m", "scripts.mmcls_plugins.distributed_process", "config.py"),
        *("--work-dir", "nodes", "--seed", "0", "--deterministic"),
    ]

    def node(_: int) -> subprocess.CompletedProcess[str]:
        return run_command(command, pair.folder, GLOO_SOCKET_IFNAME="lo")

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(node, range(2)))
    assert [result.returncode for result in results] == [0, 0], results[0].stdout[-3000:] + results[1].stdout[-3000:]
    assert hashes(pair.folder / "nodes") == pair.hashes()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_and_go_on_to_the_same_weights(tmp_path: Path) -> None:
    """NCCL in place of gloo; everything else is the code of the tests above."""
    killed = assert_a_kill_changes_nothing(tmp_path, {**PAIR, "device": "cuda"}, beyond=2)
    assert json.loads(next(killed.work_dir.glob("*/progress.json")).read_text())["epochs_done"] == PAIR["epochs"]

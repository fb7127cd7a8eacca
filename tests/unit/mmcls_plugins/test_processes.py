"""Several processes that train together: their config, their command, what they tell each other, how they fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from scripts import train_distributed
from scripts.lib.base.problems import UserError
from scripts.lib.base.subprocesses import EXIT_STOPPED
from scripts.lib.model import model_zoo
from scripts.lib.settings.load import load_settings
from scripts.lib.settings.schema import Experiment
from scripts.mmcls_plugins.dataset import EpochSampler
from scripts.mmcls_plugins.processes import Processes, merge_batches, share_batches
from scripts.train.patch_config import Inputs, build_config, training_command
from scripts.train.train_model import mim_command
from scripts.train_distributed import (
    Failure,
    Meeting,
    cause,
    check_gpus,
    describe_failure,
    have_stopped,
    launch_command,
)

CLASSES = [f"class {index}" for index in range(30)]


def config_of(name: str = "mobilenet-v2_8xb32_in1k", n_train: int = 4000, **settings: Any) -> dict[str, Any]:
    from mmcv import Config

    base = Config.fromfile(str(model_zoo.config_path(name)))._cfg_dict.to_dict()
    experiment = Experiment.model_validate({"base_config": name, "checkpoint": "none", **settings})
    options: dict[str, Any] = {"images": "i", "splits": "s", "checkpoint": None, "seed": 0, "device": "cpu"}
    return build_config(base, Inputs(experiment, classes=CLASSES, n_train=n_train, **options))


# -- the config -----------------------------------------------------------------------------------------------------


def test_the_learning_rate_follows_the_effective_batch_and_the_batch_is_that_of_a_gpu() -> None:
    single, four = config_of(), config_of(gpus=4)
    assert four["optimizer"]["lr"] == pytest.approx(4 * single["optimizer"]["lr"]) == pytest.approx(0.02)
    assert four["data"]["samples_per_gpu"] == single["data"]["samples_per_gpu"] == 32
    resnet = config_of("resnet18_8xb32_in1k", gpus=8)
    assert resnet["optimizer"]["lr"] == pytest.approx(0.1), "8 GPUs of 32 images are what the base config is for"
    assert config_of(gpus=4, learning_rate=0.3)["optimizer"]["lr"] == 0.3


def test_the_number_of_processes_stands_in_the_config_where_it_is_not_one() -> None:
    assert config_of(gpus=3)["runner"]["gpus"] == 3
    assert "gpus" not in config_of()["runner"], "configs from before there was this key would train anew"


def test_schedules_count_the_steps_of_one_process() -> None:
    warm_up = "resnet50_8xb256-rsb-a1-600e_in1k"
    single, two = (config_of(warm_up, n_train=6400, batch_size=32, gpus=gpus, epochs=100) for gpus in (1, 2))
    assert two["lr_config"]["warmup_iters"] == pytest.approx(single["lr_config"]["warmup_iters"] / 2, abs=1)


@pytest.mark.parametrize(("n_train", "gpus", "left_out"), [(33, 1, True), (66, 2, True), (65, 2, True), (67, 2, False)])
def test_a_rest_of_one_image_a_process_is_left_out(n_train: int, gpus: int, left_out: bool) -> None:
    data = config_of(n_train=n_train, gpus=gpus)["data"]
    assert data.get("train_dataloader", {}).get("drop_last", False) is left_out


def test_more_images_a_step_than_there_are_stop_with_both_keys() -> None:
    with pytest.raises(UserError, match=r"batch_size: 32 times gpus: 4 is larger than the 100 training .* 25 or less"):
        config_of(n_train=100, gpus=4)
    with pytest.raises(UserError, match="lower gpus"):
        config_of(n_train=3, gpus=4)


@pytest.mark.parametrize("gpus", [0, 17, 1.5, "2", True])
def test_impossible_numbers_of_gpus_are_refused(gpus: Any, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    experiment = {"base_config": "mobilenet-v2_8xb32_in1k", "gpus": gpus}
    dataset = {"name": "d", "source": {"path": str(tmp_path / "images")}}
    with pytest.raises(UserError, match=r"experiments\.e\.gpus: .*GPUs of one node"):
        load_settings({"dataset": dataset, "experiments": {"e": experiment}})


def test_nodes_multiply_the_processes_of_each() -> None:
    single, many = config_of(n_train=6400, gpus=6), config_of(n_train=6400, gpus=2, nodes=3)
    assert (many["runner"].pop("nodes"), many["runner"].pop("gpus"), single["runner"].pop("gpus")) == (3, 2, 6)
    assert many == single
    with pytest.raises(UserError, match=r"batch_size: 32 times gpus: 2 times nodes: 2 is larger .* 25 or less"):
        config_of(n_train=100, gpus=2, nodes=2)


@pytest.mark.parametrize("nodes", [0, 65, 1.5, "2", True])
def test_impossible_numbers_of_nodes_are_refused(nodes: Any) -> None:
    experiment = {"base_config": "mobilenet-v2_8xb32_in1k", "nodes": nodes}
    dataset = {"name": "d", "source": {"sample": {}}}
    with pytest.raises(UserError, match=r"experiments\.e\.nodes: "):
        load_settings({"dataset": dataset, "experiments": {"e": experiment}})


def test_candidates_are_not_tried_on_several_nodes() -> None:
    dataset = {"name": "d", "source": {"sample": {}}}
    with pytest.raises(UserError, match="nodes: the candidates of base_config: auto are tried on one node each"):
        load_settings({"dataset": dataset, "experiments": {"e": {"base_config": "auto", "nodes": 2}}})


# -- the commands ---------------------------------------------------------------------------------------------------


def test_several_processes_are_started_by_our_entry_and_one_by_mim() -> None:
    runner = {"device": "cuda", "threads": 2, "deterministic": True}
    alone = mim_command(Path("c.py"), {"runner": runner}, Path("w"), 4, 2)
    assert alone[1:6] == ["-m", "scripts.lib.runs.mim", "train", "mmcls", "c.py"]
    pair = mim_command(Path("c.py"), {"runner": {**runner, "gpus": 2}}, Path("w"), 4, 3)
    assert pair[1:4] == ["-m", "scripts.train_distributed", "c.py"]
    assert "--deterministic" in pair and "data.workers_per_gpu=3" in pair
    nodes = mim_command(Path("c.py"), {"runner": {**runner, "nodes": 2}}, Path("w"), 4, 3)
    assert nodes == pair
    args = train_distributed.build_parser().parse_args(["--meet", "2", "10.0.0.1", "1", "2", *pair[3:]])
    assert (args.meet, args.config) == (["2", "10.0.0.1", "1", "2"], Path("c.py"))
    args = train_distributed.build_parser().parse_args(pair[3:])
    assert (args.work_dir, args.seed, args.cfg_options) == (Path("w"), 4, ["data.workers_per_gpu=3"])


def test_the_command_by_hand_is_one_that_the_entry_takes() -> None:
    words = training_command(Path("a b/config.py"), 3, "cuda", True, processes=2)
    assert words.startswith("python -m scripts.train_distributed 'a b/config.py'")
    assert training_command(Path("config.py"), 3, "cuda", True).startswith("mim train mmcls")


def test_trainings_side_by_side_get_ports_of_their_own() -> None:
    command = launch_command(2, Path("logs"))
    assert command[command.index("--rdzv_endpoint") + 1] == "localhost:0"
    assert command[command.index("--nproc_per_node") + 1] == "2"


def test_fewer_cards_than_processes_stop_before_any_starts() -> None:
    check_gpus("cpu", 64)
    with pytest.raises(UserError, match=r"gpus: 64, but torch sees \d+ here"):
        check_gpus("cuda", 64)


# -- how they fail --------------------------------------------------------------------------------------------------

GLOO = "RuntimeError: [gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:8075"
NCCL = "torch.distributed.DistBackendError: NCCL error: remote process exited or there was a network error"


@pytest.mark.parametrize("consequence", [GLOO, NCCL, {"message": GLOO, "extraInfo": {}}])
def test_the_cause_is_told_and_not_what_followed_from_it(consequence: Any) -> None:
    failures = [(0, 1, consequence), (1, 1, {"message": "FileNotFoundError: no\n a.jpg"})]
    assert describe_failure(failures, 2) == Failure("process 2 of 2 failed: FileNotFoundError: no a.jpg")
    failures = [(0, 1, consequence), (2, -signal.SIGKILL, "Signal 9"), (1, -signal.SIGTERM, "Signal 15")]
    failure = describe_failure(failures, 3)
    assert failure.what.startswith("process 3 of 3 was killed by SIGKILL") and failure.again
    assert not failure.is_consequence and describe_failure(failures[:1], 3).is_consequence


def test_the_cause_on_whatever_node_is_told_before_what_followed_from_it() -> None:
    here = Failure(f"process 1 of 3 failed: {GLOO}", is_consequence=True, again=True)
    there = Failure("process 3 of 3 was killed by SIGKILL (on g3)", again=True)
    also = Failure(f"process 2 of 3 failed: {GLOO} (on g2)", is_consequence=True)
    assert cause(here, [also, there], ["g4"]) == there
    lost = cause(here, [also], ["g3"])
    assert lost.what.startswith("1 node ended without a word (g3)") and lost.again
    assert "the processes lost each other" in cause(here, [also], []).what


def test_nodes_meet_where_the_first_one_says_with_a_rank_each() -> None:
    command = launch_command(4, Path("logs"), Meeting(3, 2, "10.0.0.1", 4711))
    pairs = dict(zip(command[::2], command[1::2], strict=False))
    assert (pairs["--nnodes"], pairs["--node_rank"], pairs["--nproc_per_node"]) == ("3", "2", "4")
    assert (pairs["--master_addr"], pairs["--master_port"]) == ("10.0.0.1", "4711")
    assert "--rdzv_backend" not in command


@pytest.mark.parametrize(
    ("statuses", "stopped"),
    [
        ([EXIT_STOPPED, EXIT_STOPPED], True),
        ([-signal.SIGTERM, EXIT_STOPPED], True),  # ended by torch.distributed.run while it was on its way out
        ([-signal.SIGTERM, -signal.SIGTERM], False),  # nobody said that the state is saved
        ([1, EXIT_STOPPED], False),
        ([-signal.SIGKILL, EXIT_STOPPED], False),
    ],
)
def test_processes_have_stopped_when_one_said_so_and_none_failed(statuses: list[int], stopped: bool) -> None:
    assert have_stopped(statuses) is stopped


@pytest.mark.long
def test_a_process_dies_with_its_parent_in_whatever_session(tmp_path: Path) -> None:
    child = "import os, pathlib, time; from scripts.lib.base.subprocesses import die_with_parent; "
    child += f"die_with_parent(os.getppid()); pathlib.Path({str(tmp_path / 'up')!r}).touch(); time.sleep(60)"
    parent = "import subprocess, sys; "
    parent += f"p = subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True); "
    parent += "print(p.pid, flush=True); p.wait()"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    pid = int(process.stdout.readline())
    deadline = time.monotonic() + 60
    while not (tmp_path / "up").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 5
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- what they share ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_batches_of_all_processes_are_the_specified_global_batches(count: int) -> None:
    batch, images = 4, range(26)
    loaders = []
    for rank in range(count):
        sampler = EpochSampler(images, num_replicas=count, rank=rank, seed=5)
        sampler.set_position(1)
        loaders.append(DataLoader(images, batch_size=batch, sampler=[key.sample for key in sampler]))  # type: ignore
    whole = EpochSampler(images, seed=5)
    whole.set_position(1)
    order = whole.global_order()
    order = order + order[: -len(order) % count]
    for step, batches in enumerate(zip(*loaders, strict=True)):
        expected = order[step * batch * count : (step + 1) * batch * count]
        assert sorted(torch.cat(batches).tolist()) == sorted(expected)


@pytest.mark.parametrize("images", [1, 4, 5, 23])
@pytest.mark.parametrize("count", [2, 3])
def test_shared_validation_batches_come_back_whole_and_in_order(images: int, count: int) -> None:
    loader: DataLoader = DataLoader(list(range(images)), batch_size=4)  # type: ignore[arg-type]
    shares = []
    for rank in range(count):
        share = share_batches(loader, SimpleNamespace(rank=rank, count=count))  # type: ignore[arg-type]
        shares.append([batch.tolist() for batch in share])
    assert merge_batches(shares) == [batch.tolist() for batch in loader]


def test_one_process_alone_has_nobody_to_ask() -> None:
    alone = Processes()
    assert (alone.rank, alone.count, alone.distributed) == (0, 1, False)
    assert alone.highest(3, False) == (3, 0)
    assert alone.from_first("a") == "a" and alone.to_first("a") == ["a"]
    alone.wait_for_all()


PAIR_SCRIPT = """
    import sys

    import torch
    import torch.distributed as dist

    from scripts.mmcls_plugins import processes

    rank = int(sys.argv[1])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
    pair = processes.Processes()
    assert pair.highest(rank, 5 - rank) == (1, 5)
    assert pair.from_first(rank) == 0
    assert pair.to_first(rank) == ([0, 1] if rank == 0 else [])


    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 1)
            self.unused = torch.nn.Linear(3, 1)
            self.norm = torch.nn.BatchNorm1d(3)
            self.register_buffer("average", torch.zeros(2))

        def train_step(self, batch, optimizer):
            self.norm(batch)
            return {"loss": self.linear(batch).square().mean()}


    torch.manual_seed(rank)
    model = Model()
    step = processes.share_gradients(model)
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    first = pair.from_first(weights)
    assert all(torch.equal(a, b) for a, b in zip(weights, first)), "the first process's weights are for all"

    batches = [torch.randn(4, 3, generator=torch.Generator().manual_seed(i)) for i in (10, 11)]
    step(batches[rank])["loss"].backward()
    shared = model.linear.weight.grad.clone()
    single = []
    for batch in batches:
        model.linear.weight.grad = None
        model.linear(batch).square().mean().backward()
        single.append(model.linear.weight.grad.clone())
    assert torch.allclose(shared, (single[0] + single[1]) / 2), "the gradient is the mean of both"

    own = model.norm.running_mean.clone()
    collected = processes.collect_buffers(model, pair)
    if rank == 0:
        assert list(collected[0]) == ["norm.running_mean", "norm.running_var"], "only what differs is sent"
    collected = pair.from_first(collected)
    model.norm.running_mean.zero_()
    processes.restore_buffers(model, collected, pair)
    assert torch.equal(model.norm.running_mean, own if rank else torch.zeros(3))

    model.norm.running_mean.fill_(rank)
    processes.copy_normalisation(model)
    assert model.norm.running_mean.tolist() == [0, 0, 0]
    pair.wait_for_all()
"""


@pytest.mark.long
def test_two_real_processes_share_gradients_buffers_and_decisions(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(textwrap.dedent(PAIR_SCRIPT))
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(tmp_path / "script.py")]
    pair = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "meet")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], "\n".join(outputs)

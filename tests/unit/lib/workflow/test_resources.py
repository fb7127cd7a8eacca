"""What a job takes, by the experiment's device and by what the site says."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.resources import Resources as SnakemakeResources

from scripts.lib.base.problems import UserError
from scripts.lib.settings.load import load_settings
from scripts.lib.settings.schema import Site
from scripts.lib.workflow import resources as module
from scripts.lib.workflow.layout import Layout
from scripts.lib.workflow.resources import Resources, check_devices, idle_gpus, with_device_of

RUN = SimpleNamespace(experiment="a", seed="0")


def resources(site: Site, data_shards: int | str = 1, **experiment: Any) -> Resources:
    experiments = {"a": {"base_config": "mobilenet-v2_8xb32_in1k", **experiment}}
    settings = load_settings(
        {"dataset": {"name": "d", "source": {"sample": {}}}, "experiments": experiments, "data_shards": data_shards}
    )
    settings = with_device_of(site, settings)
    return Resources(settings, site, Layout(settings))


@pytest.mark.parametrize(
    ("site", "experiment", "has_gpu", "gpus"),
    [
        (Site(), {"gpus": 2}, True, 2),
        (Site(), {"gpus": 2}, False, 0),
        (Site(device="cuda"), {"gpus": 2}, False, 2),  # a login node does not see the GPU of a compute node
        (Site(device="cpu"), {"gpus": 2}, True, 0),
        (Site(device="cuda"), {"device": "cpu"}, True, 0),
        (Site(device="cpu"), {"device": "cuda"}, False, 1),
        (Site(device="cuda", cpu_jobs=False), {"device": "cpu"}, True, 1),
    ],
)
def test_a_job_asks_for_the_gpus_of_its_experiment_where_it_computes_on_them(
    site: Site, experiment: dict[str, Any], has_gpu: bool, gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_gpu", lambda: has_gpu)
    assert resources(site, **experiment).gpus(RUN) == gpus


@pytest.mark.parametrize(
    ("gpus", "at_once", "runs", "advice"),
    [(4, 1, 6, "gpu=4"), (4, 1, 2, "gpu=2"), (4, 2, 3, "gpu=3"), (4, 1, 1, ""), (1, 1, 9, ""), (0, 1, 3, "")],
)
def test_gpus_that_stay_idle_while_runs_wait_are_named_with_what_to_do(
    gpus: int, at_once: int, runs: int, advice: str
) -> None:
    told = idle_gpus(gpus, at_once, runs)
    assert f"ARGS='--resources {advice}'" in told if advice else told == ""
    assert SnakemakeResources.from_mapping({"gpu": at_once})["gpu"].value == at_once  # as the session reads it


class Wildcards(SimpleNamespace):
    """As Snakemake's: by name, and as pairs."""

    def items(self) -> Any:
        return vars(self).items()


def workflow_of(cluster: bool, model: str | None = None) -> SimpleNamespace:
    rule = SimpleNamespace(resources={"gpu_model": SimpleNamespace(raw=model)})
    return SimpleNamespace(non_local_exec=cluster, get_rule=lambda _name: rule)


def test_only_the_training_of_a_run_on_several_nodes_asks_for_them_in_a_job_of_its_own() -> None:
    run = Wildcards(experiment="a", seed="0")
    single, three = resources(Site(device="cuda"), gpus=4), resources(Site(device="cuda"), gpus=4, nodes=3)
    cluster = workflow_of(True)
    assert single.training_group(run) == single.group_before_training(run) == "run_d_a_0" and single.nodes(run) == 1
    assert (single.training_gpus(cluster)(run), single.gpus_by_node(cluster)(run)) == (4, None)
    assert (single.starts_itself(run), single.tasks(run), single.tasks_per_gpu(run)) == (None, None, None)
    assert (three.group_before_training(run), three.training_group(run)) == ("run_d_a_0_before", "run_d_a_0_nodes")
    assert (three.training_gpus(cluster)(run), three.gpus_by_node(cluster)(run)) == (0, "gpu:4")
    assert three.gpus_by_node(workflow_of(True, "a100"))(run) == "gpu:a100:4"
    assert (three.starts_itself(run), three.tasks(run), three.tasks_per_gpu(run)) == ("srun", 3, -1)
    # Inside an allocation the GPUs of the first node are counted, and one such training runs at a time.
    here = workflow_of(False)
    assert (three.training_gpus(here)(run), three.gpus_by_node(here)(run)) == (4, None)
    assert (single.trainings_on_nodes(run), three.trainings_on_nodes(run)) == (0, 1)


def test_the_data_are_one_job_but_where_shards_come_between_its_steps() -> None:
    whole, divided = resources(Site()), resources(Site(), data_shards=2)
    assert {whole.unpack_group, whole.data_group, whole.pack_group} == {"data_d"}
    assert (divided.unpack_group, divided.data_group) == ("unpack_d", "data_d")
    assert divided.pack_group == "pack_d_{short_side}"
    of_data, of_pixels = {}, {"short_side": "40"}  # what Snakemake hands over has .items() too
    layouts = whole.layout, divided.layout
    assert [layout.in_shards(layout.checks, None)(of_data) for layout in layouts] == [
        [],
        ["results/d/audit_1of2.bin", "results/d/audit_2of2.bin"],
    ]
    assert divided.layout.in_shards(divided.layout.decoded, None)(of_pixels)[1] == "results/d/packed/40_2of2"
    assert resources(Site(), data_shards="auto").unpack_group == "unpack_d"


def test_threads_are_the_experiments_own_and_decoding_takes_the_cores_that_are_given() -> None:
    resources_ = resources(Site(), threads=3)
    assert resources_.threads(RUN) == 3

    def workflow(cores: int | None, is_cluster: bool) -> SimpleNamespace:
        return SimpleNamespace(resource_settings=SimpleNamespace(cores=cores), non_local_exec=is_cluster)

    cases = [(8, False), (8, True), (None, False)]
    assert [resources_.data_threads(workflow(cores, is_cluster)) for cores, is_cluster in cases] == [8, 2, 2]


@pytest.mark.parametrize(
    ("site", "device", "has_gpu", "is_missing"),
    [
        (Site(), "cuda", False, True),
        (Site(device="cuda"), "auto", False, True),
        (Site(device="cuda"), "cpu", False, False),
        (Site(), "auto", False, False),
        (Site(), "cuda", True, False),
    ],
)
def test_a_device_that_is_not_there_is_said_before_anything_runs(
    site: Site, device: str, has_gpu: bool, is_missing: bool
) -> None:
    settings = resources(site, device=device).settings
    if not is_missing:
        check_devices(settings, "" if has_gpu else "no GPU")
        return
    with pytest.raises(UserError, match=r"^experiments\.a\.device: cuda .*no GPU") as caught:
        check_devices(settings, "no GPU")
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("environment", "there", "words"),
    [
        ({}, (), "no NVIDIA GPU"),
        ({}, ("0",), ""),
        ({"CUDA_VISIBLE_DEVICES": ""}, ("0",), "CUDA_VISIBLE_DEVICES hides the GPUs"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ("0",), "CUDA_VISIBLE_DEVICES hides the GPUs"),
        ({"CUDA_VISIBLE_DEVICES": "7"}, ("0", "1"), "CUDA_VISIBLE_DEVICES=7, and this machine has only 2, from 0"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, ("3",), ""),  # a container with one GPU of several
        ({"CUDA_VISIBLE_DEVICES": "MIG-1a,GPU-2b"}, ("0",), ""),
        ({"SLURM_JOB_GPUS": "7"}, ("0",), ""),  # as the node numbers them
    ],
)
def test_why_a_run_gets_no_gpu_is_said(
    environment: dict[str, str], there: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_gpu", lambda: bool(there))
    monkeypatch.setattr(module, "gpus_of_machine", lambda: there)
    missing = module.missing_gpu(environment)
    assert words in missing and bool(missing) == bool(words)


def test_the_groups_of_a_search_have_the_wildcards_of_their_jobs_and_no_other() -> None:
    of_search = resources(Site(), base_config="auto")
    layout = of_search.layout
    for group, output in {
        of_search.probe_group: f"{layout.candidate}/probe.json",
        of_search.finalist_group: str(layout.finalist.best),
    }.items():
        assert set(re.findall(r"\{(\w+)\}", group)) == set(re.findall(r"\{(\w+)\}", output))

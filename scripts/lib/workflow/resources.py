"""What a job takes: GPUs and threads, the cluster job that it is a part of, and when a source folder counts as new."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scripts.lib.base.problems import UserError
from scripts.lib.cluster.gpus import Gpus, gpus_of_machine
from scripts.lib.data.folders import walk_files
from scripts.lib.settings.schema import Experiment, Settings, Site
from scripts.lib.workflow.layout import Layout


def with_device_of(site: Site, settings: Settings) -> Settings:
    """Return the settings with what the site says, if it does, for each experiment's `device: auto`."""
    experiments = {
        name: experiment.model_copy(update={"device": site.device}) if experiment.device == "auto" else experiment
        for name, experiment in settings.experiments.items()
    }
    return settings if site.device == "auto" else settings.model_copy(update={"experiments": experiments})


def check_devices(settings: Settings, missing: str) -> None:
    """Make sure that the experiments can have the device that they want, where jobs run on this machine.

    Nothing is imported for it: that torch cannot use a GPU that is there, for its driver say, patch_config finds.

    Parameters
    ----------
    settings : with the site's device, by ``with_device_of``.
    missing : why no run gets a GPU here, by ``missing_gpu``.

    Raises
    ------
    UserError : one wants a GPU that is not there.
    """
    wanting = [name for name, experiment in settings.experiments.items() if experiment.device == "cuda"]
    if wanting and missing:
        what = f"experiments.{wanting[0]}.device: cuda (in the settings, or site.yaml): {missing}"
        raise UserError(what, "set device: auto or cpu, or run it where there is one")


class Resources:
    """What the jobs of one configuration take.

    Parameters
    ----------
    settings : with the site's device, by ``with_device_of``.
    """

    def __init__(self, settings: Settings, site: Site, layout: Layout) -> None:
        self.settings = settings
        self.site = site
        self.layout = layout
        name = settings.dataset.name
        # One cluster job for the data and one for each run. Snakemake merges groups that touch, so that a group's name
        # must carry what keeps it apart.
        self.data_group = self.unpack_group = self.pack_group = f"data_{name}"
        if settings.data_shards != 1:  # the jobs of the shards, which are in no group, come before and after the others
            self.unpack_group, self.pack_group = f"unpack_{name}", f"pack_{name}_{{short_side}}"
        self.run_group = f"run_{name}_{{experiment}}_{{seed}}" + ("_fold{fold}" if layout.folds else "")

        # A run on several nodes is three jobs, since only its training needs them all. The names begin with the run's.
        self.before_group, self.nodes_group = f"{self.run_group}_before", f"{self.run_group}_nodes"
        self.probe_group = f"probe_{name}_{{experiment}}_{{candidate}}"
        self.suspects_group = f"suspects_{name}"
        self.finalist_group = f"finalist_{name}_{{experiment}}_{{round}}_{{slot}}"

    def gpus(self, wildcards: Any) -> int:
        """Return the GPUs that a job of this experiment asks for."""
        experiment = self.settings.experiments[wildcards.experiment]
        return self.data_gpus() if is_on_cpu(experiment) else experiment.gpus

    def judge_gpus(self, _wildcards: Any = None) -> int:
        """Return the GPUs that the job asks for that judges the labels: one is enough."""
        judge = self.layout.label_judge
        return self.data_gpus() if judge is None or is_on_cpu(self.settings.experiments[judge[0]]) else 1

    def judge_threads(self, _wildcards: Any = None) -> int:
        """Return the compute threads of the same."""
        judge = self.layout.label_judge
        return judge[1].threads if judge else 1

    def group_before_training(self, wildcards: Any) -> str:
        """Return the cluster job that a step before the training belongs to."""
        is_apart = self.nodes(wildcards) > 1
        return (self.before_group if is_apart else self.run_group).format(**dict(wildcards.items()))

    def training_group(self, wildcards: Any) -> str:
        """Return the cluster job that the training belongs to."""
        return (self.nodes_group if self.nodes(wildcards) > 1 else self.run_group).format(**dict(wildcards.items()))

    def nodes(self, wildcards: Any) -> int:
        """Return the nodes that the training of a run asks for."""
        return self.settings.experiments[wildcards.experiment].nodes

    def training_gpus(self, workflow: Any) -> Callable[[Any], int]:
        """Return a function of the wildcards: the GPUs of the training, where they are not asked for by the node."""

        def count(wildcards: Any) -> int:
            by_node = self.nodes(wildcards) > 1 and workflow.non_local_exec
            return 0 if by_node else self.gpus(wildcards)

        return count

    def gpus_by_node(self, workflow: Any) -> Callable[[Any], str | None]:
        """Return a function of the wildcards: the GPUs on each of several nodes, as sbatch has them.

        ``--gpus`` is of the whole job, and Slurm would share it out as it likes.
        """

        def request(wildcards: Any) -> str | None:
            count = self.gpus(wildcards)
            if self.nodes(wildcards) == 1 or not count or not workflow.non_local_exec:
                return None
            model = workflow.get_rule("train_model").resources.get("gpu_model").raw  # as the profile says it
            return f"gpu:{model}:{count}" if model else f"gpu:{count}"

        return request

    def starts_itself(self, wildcards: Any) -> str | None:
        """Return a word where the training starts its processes on other nodes itself, else nothing.

        Snakemake's plugin runs a job as a step on one node, in which another step would wait for what that one has; a
        job with the resource `mpi` it runs without.
        """
        return "srun" if self.nodes(wildcards) > 1 else None

    def tasks(self, wildcards: Any) -> int | None:
        """Return the tasks of a training on several nodes, one a node; nothing else asks for tasks."""
        count = self.nodes(wildcards)
        return count if count > 1 else None

    def tasks_per_gpu(self, wildcards: Any) -> int | None:
        """Return -1 where the plugin is not to ask for tasks by the GPU."""
        return -1 if self.nodes(wildcards) > 1 else None

    def trainings_on_nodes(self, wildcards: Any) -> int:
        """Return 1 for a training on several nodes: inside one allocation, one of them trains at a time."""
        return int(self.nodes(wildcards) > 1)

    def data_gpus(self, _wildcards: Any = None) -> int:
        """Return the GPUs that a job without any use for one asks for."""
        return 0 if self.site.cpu_jobs else 1

    def threads(self, wildcards: Any) -> int:
        """Return the compute threads of a job of this experiment."""
        return self.settings.experiments[wildcards.experiment].threads

    def data_threads(self, workflow: Any) -> int:
        """Return how many images are decoded at a time: as cores are given here; on a cluster each is waited for."""
        cores = workflow.resource_settings.cores
        return cores if cores and not workflow.non_local_exec else 2

    def folder_state(self, wildcards: Any) -> str:
        """Return a fingerprint of a source folder: as a parameter of fetch_archive it has a changed one fetched anew.

        Names, sizes and times only: it is taken at each start of Snakemake.
        """
        source = self.layout.source_of(wildcards)
        if isinstance(source, str) or not source.path or not Path(source.path).expanduser().is_dir():
            return ""
        return fingerprint(Path(source.path).expanduser(), follows_links=bool(source.in_place))

    def folder_states(self) -> list[str]:
        """Return the same of each file that is fetched."""
        return [self.folder_state(SimpleNamespace(fetched=name)) for name in self.layout.fetched_names()]


def is_on_cpu(experiment: Experiment) -> bool:
    """Tell whether the jobs of an experiment compute on the CPU."""
    return experiment.device == "cpu" or (experiment.device == "auto" and not has_gpu())


def has_gpu() -> bool:
    """Tell whether this machine has an NVIDIA GPU (``dxg`` in WSL)."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()


def missing_gpu(environment: Mapping[str, str]) -> str:
    """Say why a run gets no GPU on this machine; empty where it gets one."""
    gpus, count = Gpus.of(environment), len(gpus_of_machine())
    if not has_gpu():
        return "this machine has no NVIDIA GPU"
    if gpus.hidden:
        return "CUDA_VISIBLE_DEVICES hides the GPUs of this machine"
    first = next(iter(gpus.names), "")
    if "CUDA_VISIBLE_DEVICES" in environment and first.isdecimal() and 0 < count <= int(first):
        return f"CUDA_VISIBLE_DEVICES={environment['CUDA_VISIBLE_DEVICES']}, and this machine has only {count}, from 0"
    return ""


def idle_gpus(gpus: int, at_once: int, runs: int) -> str:
    """Say that GPUs of this machine stay idle while runs wait, and what to do; empty where none does.

    Parameters
    ----------
    gpus : that were given.
    at_once : of them, those that runs may hold at the same time (``gpu`` of the profile).
    runs : that are to be trained.
    """
    usable = min(gpus, runs)
    if at_once >= usable:
        return ""
    return (
        f"{gpus} GPUs are here, and runs use {at_once} at a time: ARGS='--resources gpu={usable}' trains {usable} runs"
        " at a time, each on a GPU of its own; CUDA_VISIBLE_DEVICES says which GPUs"
    )


def fingerprint(folder: Path, follows_links: bool) -> str:
    """Return a sha256 over names, sizes and times of what is below *folder*.

    Parameters
    ----------
    follows_links : what links lead to is read at each run, so that it counts, not the links.
    """
    digest = hashlib.sha256()

    def add(name: object, status: os.stat_result) -> None:
        digest.update(os.fsencode(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"))

    if follows_links:
        for file in walk_files(folder, Counter()):
            add(file, file.stat())
        return digest.hexdigest()
    for path, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            add(f"{os.path.relpath(path, folder)}/{name}", os.lstat(os.path.join(path, name)))
    return digest.hexdigest()

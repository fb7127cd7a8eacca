"""What would make a run fail on this machine: judgements of what was seen. Only the standard library."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.lib.base.problems import Problem

GB = 1e9
#: Oldest Linux driver for each CUDA major version (NVIDIA's CUDA compatibility guide, minor-version compatibility).
OLDEST_DRIVER = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580, 65, 6)}
#: A run stops below the first figure; below the second it may. Results of fruit30 with three seeds take about 1 GB.
DISK_LEAST, DISK_COMFORTABLE = 1 * GB, 5 * GB
#: Two data-loader workers hold about 80 MB of batches (32 images of 224 px, prefetch 2) here; Docker gives 64 MB.
SHM_LEAST = 256e6
#: Room that an environment with CUDA and the results take; a home with a smaller quota is no place for the project.
HOME_QUOTA_LEAST = 20 * GB


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi sees it; memory in MiB, capability None where the driver does not tell."""

    name: str
    memory_mib: int
    driver: str
    capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class TorchBuild:
    """What the installed torch was built for, and the GPUs that it can use; *error* when it cannot be imported."""

    version: str = ""
    cuda: str | None = None
    arch_list: tuple[str, ...] = ()
    available: bool = False
    capabilities: tuple[tuple[int, int], ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Quota:
    """A disk quota of the user's, in bytes."""

    file_system: str
    used: float
    limit: float


def arch_problem(capability: tuple[int, int], arch_list: Sequence[str]) -> str | None:
    """Say why a GPU cannot run kernels built for *arch_list*; None when it can.

    A binary (``sm_XY``) runs on GPUs of the same major version and an equal or higher minor one; PTX (``compute_XY``)
    is compiled by the driver for any later GPU; ``sm_90a`` runs on that very GPU only (CUDA programming guide,
    sections "Binary Compatibility" and "PTX Compatibility").
    """
    for arch in arch_list:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch)
        if not match:
            continue
        kind, suffix = match[1], match[4]
        built_for = int(match[2]), int(match[3])
        same_major = built_for[0] == capability[0] and built_for[1] <= capability[1]
        if suffix == "a":
            fits = built_for == capability
        elif kind == "sm" or suffix == "f":
            fits = same_major
        else:
            fits = built_for <= capability
        if fits:
            return None
    built = " ".join(arch_list) or "no GPU at all"
    return f"torch has no kernels for sm_{capability[0]}{capability[1]} (it was built for {built})"


def remedy_for_capability(capability: tuple[int, int]) -> str:
    """Return the environment whose torch has kernels for a GPU."""
    # torch 2.0.1 (cuda11) has sm_37 to sm_86; the CUDA 13 builds start at sm_75.
    if capability < (7, 5):
        return "make setup ENV=cuda11"
    return "make setup ENV=cuda13 (driver >= 580), or ENV=cuda11 for GPUs up to the RTX 3090 with an older driver"


def driver_problem(driver: str, cuda: str | None) -> str | None:
    """Say why *driver* cannot serve a torch built for *cuda*; None when it can, or when either is unknown."""
    if not cuda or not re.match(r"\d+(\.\d+)+$", driver):
        return None
    oldest = OLDEST_DRIVER.get(int(cuda.split(".")[0]))
    if oldest is None or tuple(map(int, driver.split("."))) >= oldest:
        return None
    needed = ".".join(map(str, oldest[:2]))
    return f"driver {driver} is too old for torch built with CUDA {cuda}, which needs {needed} or later"


def gpu_problems(torch: TorchBuild, gpus: Sequence[Gpu], given: str) -> list[Problem]:
    """Judge whether torch can use the GPUs of this machine.

    Parameters
    ----------
    given : the variable by which this process was given GPUs (``CUDA_VISIBLE_DEVICES=0``), or "".
    """
    if torch.error:
        return [Problem(f"torch cannot be imported ({torch.error})", "make setup")]
    if not gpus and not torch.capabilities:
        if given:
            what = f"{given} gives this process a GPU, but nvidia-smi and torch see none"
            return [Problem(what, "ask for a GPU (sbatch --gpus=1), or unset the variable")]
        return []
    if torch.cuda is None:
        what = f"there is a GPU ({gpus[0].name}) but torch {torch.version} is a CPU build"
        remedy = "make setup ENV=cuda13 (driver >= 580) or ENV=cuda11 (driver >= 450.80); on the CPU it is slow"
        # Without being given the GPU, a run goes to the CPU and works.
        return [Problem(what, remedy, fatal=bool(given))]
    problems = []
    for driver in sorted({gpu.driver for gpu in gpus}):
        if too_old := driver_problem(driver, torch.cuda):
            problems.append(Problem(too_old, "make setup ENV=cuda11 (driver >= 450.80), or a newer driver"))
    capabilities = {*torch.capabilities, *(gpu.capability for gpu in gpus if gpu.capability)}
    for capability in sorted(capabilities):
        if no_kernels := arch_problem(capability, torch.arch_list):
            names = ", ".join(sorted({gpu.name for gpu in gpus if gpu.capability == capability})) or "a GPU"
            problems.append(Problem(f"{names}: {no_kernels}", remedy_for_capability(capability)))
    if not problems and not torch.available:
        hidden = f" ({given})" if given else ""
        remedy = "look at `nvidia-smi`, CUDA_VISIBLE_DEVICES and /dev/nvidia-uvm; after a driver update, restart"
        problems.append(Problem(f"there is a GPU but torch sees none{hidden}", remedy))
    return problems


def environment_problem(status: Mapping[str, Any]) -> Problem | None:
    """Judge what ``envs/install.py --status`` said of .venv."""
    if not status.get("problem"):
        return None
    env = status.get("env")
    return Problem(str(status["problem"]), f"make setup ENV={env}" if env else "make setup")


def python_problem(version: tuple[int, int]) -> Problem | None:
    """Judge the interpreter."""
    if version == (3, 11):
        return None
    return Problem(
        f"this is Python {version[0]}.{version[1]}, the locks are for 3.11", "make setup PYTHON=/path/to/python3.11"
    )


def disk_problem(folder: str, free: float) -> Problem | None:
    """Judge the free space, in bytes, where *folder* lies."""
    if free >= DISK_COMFORTABLE:
        return None
    return Problem(f"{free / GB:.1f} GB free for {folder}", "free some, or move it", fatal=free < DISK_LEAST)


def inodes_problem(folder: str, free: int, total: int) -> Problem | None:
    """Judge the number of files that can still be made; file systems without a limit say 0 in total."""
    if total == 0 or free >= 50_000:
        return None
    remedy = "remove small files (old environments, unpacked archives), or move the project"
    return Problem(f"only {free:,} more files fit where {folder} lies", remedy, fatal=free < 5_000)


def shm_problem(size: float | None) -> Problem | None:
    """Judge /dev/shm (bytes; None: there is none), through which data-loader workers hand over their batches."""
    if size is None or size >= SHM_LEAST:
        return None
    what = f"/dev/shm has {size / 1e6:.0f} MB, where data-loader workers die with `Bus error`"
    return Problem(what, "start the container with --shm-size=1g, or free what fills it")


def quota_problems(quotas: Sequence[Quota], project_in_home: bool) -> list[Problem]:
    """Judge the user's quotas on the file systems of the project and of home."""
    problems = []
    for quota in quotas:
        left = quota.limit - quota.used
        of = f"{left / GB:.1f} of {quota.limit / GB:.1f} GB"
        if left < DISK_LEAST:
            what = f"the quota on {quota.file_system} leaves {of}"
            problems.append(
                Problem(what, "remove files there, move the project, set PIP_CACHE_DIR and XDG_CACHE_HOME elsewhere")
            )
        elif project_in_home and quota.limit < HOME_QUOTA_LEAST:
            what = f"the project lies in home, whose quota leaves {of}"
            problems.append(
                Problem(what, "move it to the large file system of the cluster (~/run, /scratch, ...)", fatal=False)
            )
    return problems


def encoding_problem(encoding: str) -> Problem | None:
    """Judge the encoding of file names: Chinese class names need UTF-8."""
    if encoding.lower().replace("-", "") == "utf8":
        return None
    return Problem(f"file names are taken as {encoding} here", "export LC_ALL=C.UTF-8")


def variable_problems(variables: Mapping[str, str]) -> list[Problem]:
    """Judge environment variables that lead Python or downloads astray."""
    problems = []
    if variables.get("PYTHONPATH"):
        what = f"PYTHONPATH={variables['PYTHONPATH']} puts other packages before .venv's"
        problems.append(Problem(what, "unset PYTHONPATH (make does it by itself)", fatal=False))
    lower = {name.lower(): value for name, value in variables.items() if value}
    if lower.get("http_proxy") and not lower.get("https_proxy"):
        remedy = "export https_proxy=$http_proxy if https must go the same way"
        problems.append(Problem("http_proxy is set and https_proxy is not", remedy, fatal=False))
    return problems


def slurm_problems(sacct_works: bool | None) -> list[Problem]:
    """Judge Slurm; *sacct_works* is None where sacct is not installed."""
    if sacct_works is not False:
        return []
    what = "sacct is installed but does not answer, so Snakemake would never see a Slurm job finish"
    return [Problem(what, "slurm-status-command: squeue in the profile", fatal=False)]

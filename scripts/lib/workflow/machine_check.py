"""What this machine has, read from what its programs print, and what of it would make a run fail.

Standard library only: `make doctor` works without a .venv.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from scripts.lib.base.console import one_line
from scripts.lib.base.environment import ROOT, variables_of_shell
from scripts.lib.base.problems import Problem
from scripts.lib.base.proxies import certificates_problem, mask_credentials, proxy_problem
from scripts.lib.base.shared_memory import free_shared_memory
from scripts.lib.base.units import plural
from scripts.lib.cluster.gpus import Gpus, gpus_of_machine
from scripts.lib.workflow.surroundings_check import surroundings_problems

logger = logging.getLogger(__name__)

GB = 1e9
#: Oldest Linux driver for each CUDA major version (NVIDIA's CUDA compatibility guide, minor-version compatibility).
OLDEST_DRIVER = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580, 65, 6)}
#: The environments with CUDA, the newest first: their CUDA, and the oldest and newest GPU that their torch has kernels
#: for (torch 2.0.1: sm_37 to sm_86, which Ada runs too; the CUDA 13 builds start at sm_75).
ENVIRONMENTS = (("cuda13", "13.0", ((7, 5), (99, 0))), ("cuda11", "11.7", ((3, 7), (8, 9))))
NEWER_DRIVER = "install a newer driver (450.80 or later for ENV=cuda11, 580 or later for ENV=cuda13)"
#: A run stops below the first figure; below the second it may. Results of fruit30 with three seeds take about 1 GB.
DISK_LEAST, DISK_COMFORTABLE = 1 * GB, 5 * GB
#: Two data-loader workers hold about 80 MB of batches (32 images of 224 px, prefetch 2) here; Docker gives 64 MB.
SHM_LEAST = 256e6
#: Room that an environment with CUDA and the results take; a home with a smaller quota is no place for the project.
HOME_QUOTA_LEAST = 20 * GB
#: Variables that reach every download. Upper and lower case are different variables.
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
#: Runs in .venv's interpreter, apart: a torch that cannot be imported, or that aborts, is a finding and not our end.
TORCH_FACTS = """
import json, torch
facts = {"version": torch.__version__, "cuda": torch.version.cuda, "available": torch.cuda.is_available()}
flags = getattr(torch._C, "_cuda_getArchFlags", lambda: None)()  # torch.cuda.get_arch_list() says [] without a GPU
facts["arch_list"] = (flags or "").split()
count = torch.cuda.device_count() if facts["available"] else 0
facts["capabilities"] = [list(torch.cuda.get_device_capability(i)) for i in range(count)]
print(json.dumps(facts))
"""


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


# --- what there is ----------------------------------------------------------------------------------------------------


def parse_nvidia_smi(text: str) -> list[Gpu]:
    """Read ``nvidia-smi --query-gpu=name,memory.total,driver_version[,compute_cap] --format=csv,noheader,nounits``."""
    gpus = []
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    for name, memory, driver, *capability in (row for row in rows if len(row) > 2):
        match = re.fullmatch(r"(\d+)\.(\d+)", "".join(capability[:1]))
        version = (int(match[1]), int(match[2])) if match else None
        gpus.append(Gpu(name, int(memory) if memory.isdigit() else 0, driver, version))
    return gpus


def parse_quota(text: str) -> list[Quota]:
    """Read ``quota -w``: file system, blocks of 1 KiB (with a * when over), soft and hard limit; 0 is no limit."""
    quotas = []
    for line in text.splitlines():
        match = re.match(r"\s*(\S+)\s+(\d+)\*?\s+(\d+)\s+(\d+)(\s|$)", line)
        if match and (limit := int(match[4]) or int(match[3])):
            quotas.append(Quota(match[1], int(match[2]) * 1024.0, limit * 1024.0))
    return quotas


def device_of(path: Path, mounts: str) -> str:
    """Return the device that holds *path*, by the text of /proc/self/mounts (octal escapes for odd characters)."""
    best, device = "", ""
    for source, escaped in (line.split()[:2] for line in mounts.splitlines() if " " in line.strip()):
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), escaped)
        if path.is_relative_to(point) and len(point) >= len(best):
            best, device = point, source
    return device


#: So long nvidia-smi may take; where a GPU or its driver hangs, it never ends.
SMI_SECONDS = 5.0


def output_of(*command: str, timeout: float = 20) -> str | None:
    """Return what a program printed, or None when it is not there, fails or hangs."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.debug("%s: %s", command[0], error)
        return None
    logger.debug("%s: status %d: %s%s", " ".join(command)[:200], result.returncode, result.stdout, result.stderr)
    return result.stdout if result.returncode == 0 else None


def look_at_gpus() -> list[Gpu]:
    """Return the GPUs that nvidia-smi lists."""
    return ask_nvidia_smi()[0]


def ask_nvidia_smi(timeout: float = SMI_SECONDS) -> tuple[list[Gpu], str]:
    """Return the GPUs that nvidia-smi lists, and why it lists none; "": it is not there, or there are none."""
    words = ""
    # Drivers before 510 do not know compute_cap.
    for fields in ("name,memory.total,driver_version,compute_cap", "name,memory.total,driver_version"):
        command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, errors="replace")
        except FileNotFoundError:
            return [], ""
        except subprocess.TimeoutExpired:
            return [], f"no answer within {timeout:.0f} s"
        except OSError as error:
            return [], str(error.strerror)
        if result.returncode == 0:
            return parse_nvidia_smi(result.stdout), ""
        words = one_line(result.stdout + result.stderr) or f"exit status {result.returncode}"
    return [], words


def built_torch(folders: Sequence[str] | None = None) -> TorchBuild | None:
    """Return what the installed torch was built for, by its version.py: importing it takes seconds.

    Parameters
    ----------
    folders : where packages are looked for; sys.path when None.

    Returns
    -------
    None : it is not installed, or its version.py has another form.
    """
    spec = PathFinder.find_spec("torch", folders)
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    version = re.search(r"^__version__ = '(.+)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda(?:: .+?)? = (?:None|'(.+)')", text, re.MULTILINE)
    return TorchBuild(version[1], cuda[1]) if version and cuda else None


def look_at_torch() -> TorchBuild:
    """Ask the torch of this interpreter what it was built for."""
    command = [sys.executable, "-c", TORCH_FACTS]
    result = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    if result.returncode:
        return TorchBuild(error=(result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1])
    facts = json.loads(result.stdout.strip().splitlines()[-1])
    capabilities = tuple((major, minor) for major, minor in facts["capabilities"])
    return TorchBuild(facts["version"], facts["cuda"], tuple(facts["arch_list"]), facts["available"], capabilities)


def look_at_quotas(paths: Sequence[Path]) -> list[Quota]:
    """Return the user's quotas on the file systems of *paths* (all of them where the names cannot be matched)."""
    quotas = parse_quota(output_of("quota", "-w") or "")
    mounts = Path("/proc/self/mounts")
    text = mounts.read_text(errors="replace") if mounts.exists() else ""
    devices = {device_of(path, text) for path in paths}
    return [quota for quota in quotas if quota.file_system in devices] or quotas


def look_at_sacct() -> bool | None:
    """Tell whether sacct answers; None where it is not installed."""
    question = ("sacct", "--noheader", "--allocations", "--starttime=now")
    return output_of(*question) is not None if shutil.which("sacct") else None


def free_space(path: Path) -> str:
    """Return the free and total space where *path* lies, for people."""
    usage = shutil.disk_usage(path)
    return f"{usage.free / GB:.1f} of {usage.total / GB:.1f} GB free"


def describe(
    status: Mapping[str, Any],
    torch: TorchBuild,
    gpus: Sequence[Gpu],
    quotas: Sequence[Quota],
    home: Path | None,
    silence: str = "",
) -> list[tuple[str, str]]:
    """Return the facts as (name, value) pairs, in the order in which a helper would ask."""
    built = f"CUDA {torch.cuda}, for {' '.join(torch.arch_list)}" if torch.cuda else "CPU build"
    facts = [
        ("system", f"{platform.platform()}, {' '.join(platform.libc_ver())}".rstrip(", ")),
        ("python", f"{platform.python_version()}  {sys.executable}"),
        ("environment", f"{status.get('env') or 'none'}, {status.get('problem') or 'as its lock says'}"),
        ("torch", torch.error or f"{torch.version}, {built}, can use {plural(len(torch.capabilities), 'GPU')}"),
    ]
    if gpus:
        smi = re.search(r"CUDA Version:\s*([\d.]+)", output_of("nvidia-smi", timeout=SMI_SECONDS) or "")
        facts.append(("driver", gpus[0].driver + (f", CUDA up to {smi[1]}" if smi else "")))
    else:
        lists_none = f"nvidia-smi lists none ({silence or 'it says nothing'})"
        facts.append(("gpu", "none" if shutil.which("nvidia-smi") is None else lists_none))
    for index, gpu in enumerate(gpus):
        capability = f", sm_{gpu.capability[0]}{gpu.capability[1]}" if gpu.capability else ""
        facts.append((f"gpu {index}", f"{gpu.name}, {gpu.memory_mib / 1024:.0f} GiB{capability}"))
    facts.append(("chosen gpus", Gpus.of(os.environ).variable or "no variable chooses: all of them"))
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts.append(("cpu", f"{plural(os.cpu_count() or 1, 'core')}, {usable} of them for this process"))
    folders = {"project": ROOT, "home": home}
    facts += [(name, f"{folder}: {free_space(folder)}") for name, folder in folders.items() if folder]
    facts += [("quota", f"{q.file_system}: {q.used / GB:.1f} of {q.limit / GB:.1f} GB used") for q in quotas]
    if Path("/dev/shm").is_dir():
        facts.append(("/dev/shm", free_space(Path("/dev/shm"))))
    shell = variables_of_shell(os.environ)
    names = [name for name in ("TMPDIR", "PIP_CACHE_DIR", "XDG_CACHE_HOME", "PIP_INDEX_URL") if shell.get(name)]
    names += sorted(name for name in shell if name.lower() in PROXY_VARIABLES)
    facts += [(name, mask_credentials(shell[name])) for name in names]
    facts.append(("wheelhouse", ", ".join(status.get("wheelhouses") or []) or "none"))
    slurm = (output_of("sinfo", "--version") or "").strip()
    facts.append(("slurm", slurm or ("sbatch is there, sinfo does not answer" if shutil.which("sbatch") else "none")))
    partitions = output_of("sinfo", "--noheader", "--format=%P %a %D nodes %G") if slurm else None
    return facts + [("partition", " ".join(line.split())) for line in (partitions or "").splitlines()[:10]]


# --- what is wrong ----------------------------------------------------------------------------------------------------


def arch_problem(capability: tuple[int, int], arch_list: Sequence[str]) -> str | None:
    """Say why a GPU cannot run kernels built for *arch_list*; None when it can.

    A binary (``sm_XY``) runs on GPUs of the same major version and an equal or higher minor one; PTX (``compute_XY``)
    is compiled by the driver for any later GPU; ``sm_90a`` runs on that very GPU only (CUDA programming guide,
    sections "Binary Compatibility" and "PTX Compatibility").
    """
    for match in filter(None, (re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch) for arch in arch_list)):
        kind, suffix, built_for = match[1], match[4], (int(match[2]), int(match[3]))
        same_major = built_for[0] == capability[0] and built_for[1] <= capability[1]
        is_binary = kind == "sm" or suffix == "f"
        if built_for == capability or (suffix != "a" and (same_major if is_binary else built_for <= capability)):
            return None
    built = " ".join(arch_list) or "no GPU at all"
    return f"torch has no kernels for sm_{capability[0]}{capability[1]} (it was built for {built})"


def remedy_for_capability(capability: tuple[int, int]) -> str:
    """Return the environment whose torch has kernels for a GPU."""
    # torch 2.0.1 (cuda11) has sm_37 to sm_86; the CUDA 13 builds start at sm_75.
    if capability < (7, 5):
        return "make setup ENV=cuda11"
    return "make setup ENV=cuda13 (driver >= 580), or ENV=cuda11 for GPUs up to the RTX 3090 with an older driver"


def environment_for(gpu: Gpu) -> str | None:
    """Return the environment whose torch runs on a GPU with its driver, the newest first; None where none does."""
    for name, oldest, reach in ENVIRONMENTS:
        if driver_problem(gpu.driver, oldest) is None and (
            not gpu.capability or reach[0] <= gpu.capability <= reach[1]
        ):
            return name
    return None


def unused_gpu(torch: TorchBuild | None, gpus: Sequence[Gpu]) -> str:
    """Say that a GPU of this machine is left unused, why, and what to do; empty where none is."""
    if not gpus or torch is None:
        return ""
    why = driver_problem(gpus[0].driver, torch.cuda) if torch.cuda else f"torch {torch.version} is a CPU build"
    fitting = environment_for(gpus[0])
    remedy = f"make setup ENV={fitting}" if fitting else NEWER_DRIVER
    return f"this machine has a GPU ({gpus[0].name}), and torch cannot use it, since {why}: {remedy}" if why else ""


def driver_problem(driver: str, cuda: str | None) -> str | None:
    """Say why *driver* cannot serve a torch built for *cuda*; None when it can, or when either is unknown."""
    if not cuda or not re.match(r"\d+(\.\d+)+$", driver):
        return None
    oldest = OLDEST_DRIVER.get(int(cuda.split(".")[0]))
    if oldest is None or tuple(map(int, driver.split("."))) >= oldest:
        return None
    needed = ".".join(map(str, oldest[:2]))
    return f"driver {driver} is too old for torch built with CUDA {cuda}, which needs {needed} or later"


def gpu_problems(torch: TorchBuild, gpus: Sequence[Gpu], variable: str) -> list[Problem]:
    """Judge whether torch can use the GPUs of this machine.

    Parameters
    ----------
    variable : by which this process was given GPUs (``CUDA_VISIBLE_DEVICES=0``), or "".
    """
    if torch.error:
        return [Problem(f"torch cannot be imported ({torch.error})", "make setup")]
    if not gpus and not torch.capabilities:
        what = f"{variable} gives this process a GPU, but nvidia-smi and torch see none"
        return [Problem(what, "ask for a GPU (sbatch --gpus=1), or unset the variable")] if variable else []
    if torch.cuda is None:
        what = f"there is a GPU ({gpus[0].name}) but torch {torch.version} is a CPU build"
        fitting = environment_for(gpus[0])
        remedy = f"make setup ENV={fitting}" if fitting else NEWER_DRIVER
        # Where no experiment may use it, a run works. `device_problem` knows them.
        return [Problem(what, remedy, fatal=bool(variable))]
    outdated = filter(None, (driver_problem(driver, torch.cuda) for driver in sorted({gpu.driver for gpu in gpus})))
    problems = [Problem(what, "make setup ENV=cuda11 (driver >= 450.80), or a newer driver") for what in outdated]
    capabilities = {*torch.capabilities, *(gpu.capability for gpu in gpus if gpu.capability)}
    for capability in sorted(capabilities):
        if no_kernels := arch_problem(capability, torch.arch_list):
            names = ", ".join(sorted({gpu.name for gpu in gpus if gpu.capability == capability})) or "a GPU"
            problems.append(Problem(f"{names}: {no_kernels}", remedy_for_capability(capability)))
    if not problems and not torch.available:
        hidden = f" ({variable})" if variable else ""
        remedy = "look at `nvidia-smi`, CUDA_VISIBLE_DEVICES and /dev/nvidia-uvm; after a driver update, restart"
        problems.append(Problem(f"there is a GPU but torch sees none{hidden}", remedy))
    return problems


def device_problem(devices: Mapping[str, str], torch: TorchBuild | None, has_gpu: bool = False) -> Problem | None:
    """Judge whether the experiments that want a GPU would find a torch that can use one.

    Parameters
    ----------
    devices : ``auto``, ``cpu`` or ``cuda`` of each experiment, as the site has it.
    has_gpu : whether they run on this machine, and it gives them a GPU: ``auto`` then means it, and no run takes the
        CPU in its place (``patch_config.resolve_device``).
    """
    wanting = [name for name, device in devices.items() if device == "cuda" or (device == "auto" and has_gpu)]
    if torch is None or torch.cuda is not None or not wanting:
        return None
    who = f"the experiment {wanting[0]} is" if len(wanting) == 1 else f"{len(wanting)} experiments are"
    device = "cuda" if "cuda" in (devices[name] for name in wanting) else "auto where there is a GPU"
    what = f"{who} to train with device: {device}, and torch {torch.version} of this .venv is a CPU build"
    remedy = "make setup ENV=cuda13 (driver >= 580 where the GPUs are) or ENV=cuda11 (driver >= 450.80); or device: cpu"
    return Problem(what, remedy)


def silent_gpu_problem(devices: Sequence[str], silence: str) -> Problem | None:
    """Judge GPUs whose device files (their numbers) are there, and that neither nvidia-smi nor torch sees."""
    if not devices:
        return None
    what = f"there is a GPU (/dev/nvidia{devices[0]}), and nvidia-smi does not list it ({silence or 'it says nothing'})"
    return Problem(what, "restart after an update of the driver; else install it again", fatal=False)


def environment_problem(status: Mapping[str, Any]) -> Problem | None:
    """Judge what ``envs/install.py --status`` said of .venv."""
    remedy = f"make setup ENV={status['env']}" if status.get("env") else "make setup"
    return Problem(str(status["problem"]), remedy) if status.get("problem") else None


def python_problem(version: tuple[int, int]) -> Problem | None:
    """Judge the interpreter."""
    what = f"this is Python {version[0]}.{version[1]}, the locks are for 3.11"
    return None if version == (3, 11) else Problem(what, "make setup PYTHON=/path/to/python3.11")


def disk_problem(folder: str, free: float) -> Problem | None:
    """Judge the free space, in bytes, where *folder* lies."""
    problem = Problem(f"{free / GB:.1f} GB free for {folder}", "free some, or move it", fatal=free < DISK_LEAST)
    return None if free >= DISK_COMFORTABLE else problem


def inodes_problem(folder: str, free: int, total: int) -> Problem | None:
    """Judge the number of files that can still be made; file systems without a limit say 0 in total."""
    if total == 0 or free >= 50_000:
        return None
    remedy = "remove small files (old environments, unpacked archives), or move the project"
    return Problem(f"only {free:,} more files fit where {folder} lies", remedy, fatal=free < 5_000)


def shm_problem(size: float) -> Problem | None:
    """Judge /dev/shm (free bytes; 0: none, or read-only), through which data-loader workers hand over their batches."""
    if size >= SHM_LEAST:
        return None
    what = f"shared memory (/dev/shm) has {size / 1e6:.0f} MB free, too little for several data-loader workers"
    remedy = "fewer of them load images, which is slower; start the container with --shm-size=1g, or free what fills it"
    return Problem(what, remedy, fatal=False)


def quota_problems(quotas: Sequence[Quota], project_in_home: bool) -> list[Problem]:
    """Judge the user's quotas on the file systems of the project and of home."""
    problems = []
    for quota in quotas:
        left = quota.limit - quota.used
        of = f"{left / GB:.1f} of {quota.limit / GB:.1f} GB"
        if left < DISK_LEAST:
            remedy = "remove files there, move the project, set PIP_CACHE_DIR and XDG_CACHE_HOME elsewhere"
            problems.append(Problem(f"the quota on {quota.file_system} leaves {of}", remedy))
        elif project_in_home and quota.limit < HOME_QUOTA_LEAST:
            remedy = "move it to the large file system of the cluster (~/run, /scratch, ...)"
            problems.append(Problem(f"the project lies in home, whose quota leaves {of}", remedy, fatal=False))
    return problems


def encoding_problem(encoding: str) -> Problem | None:
    """Judge the encoding of file names: Chinese class names need UTF-8."""
    problem = Problem(f"file names are taken as {encoding} here", "export LC_ALL=C.UTF-8")
    return None if encoding.lower().replace("-", "") == "utf8" else problem


def variable_problems(variables: Mapping[str, str]) -> list[Problem]:
    """Judge environment variables by which downloads go wrong."""
    lower = {name.lower(): value for name, value in variables.items() if value}
    proxies = dict.fromkeys(lower.get(f"{scheme}_proxy") or lower.get("all_proxy", "") for scheme in ("http", "https"))
    problems = [problem for problem in map(proxy_problem, filter(None, proxies)) if problem]
    if no_certificates := certificates_problem(variables):
        problems.append(no_certificates)
    if lower.get("http_proxy") and not lower.get("https_proxy"):
        remedy = "export https_proxy=$http_proxy if https must go the same way"
        problems.append(Problem("http_proxy is set and https_proxy is not", remedy, fatal=False))
    return problems


def slurm_problems(sacct_works: bool | None) -> list[Problem]:
    """Judge Slurm; *sacct_works* is None where sacct is not installed."""
    what = "sacct is installed but does not answer, so Snakemake would never see a Slurm job finish"
    remedy = "slurm-status-command: squeue in the profile"
    return [Problem(what, remedy, fatal=False)] if sacct_works is False else []


def judge(
    status: Mapping[str, Any],
    torch: TorchBuild,
    gpus: Sequence[Gpu],
    quotas: Sequence[Quota],
    home: Path | None,
    with_profile: bool = False,
    silence: str = "",
) -> list[Problem]:
    """Return what is wrong with this machine, what stops a run first.

    Parameters
    ----------
    silence : why nvidia-smi lists no GPU.
    with_profile : a profile is checked as well, which knows how it asks Slurm.
    """
    # A folder below home may be a file system of its own (~/run), with a quota of its own.
    device = ROOT.stat().st_dev
    in_home = home is not None and home != Path("/") and ROOT.is_relative_to(home) and home.stat().st_dev == device
    room = os.statvfs(ROOT)
    problems: list[Problem | None] = [
        python_problem(sys.version_info[:2]),
        environment_problem(status),
        # An environment that is not there says it all.
        *([] if torch.error and status.get("problem") else gpu_problems(torch, gpus, Gpus.of(os.environ).variable)),
        None if gpus or torch.available else silent_gpu_problem(gpus_of_machine(), silence),
        disk_problem(f"the project ({ROOT})", shutil.disk_usage(ROOT).free),
        inodes_problem("the project", room.f_favail, room.f_files),
        *quota_problems(quotas, in_home),
        shm_problem(free_shared_memory()),
        encoding_problem(sys.getfilesystemencoding()),
        *variable_problems(os.environ),
        *slurm_problems(None if with_profile else look_at_sacct()),
    ]
    problems += surroundings_problems(os.environ)
    return sorted(filter(None, problems), key=lambda problem: not problem.fatal)
